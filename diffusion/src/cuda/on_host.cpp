// norm.cu for the CPU, for tests: a block's threads are threads, blocks run one after the other.
#include <barrier>
#include <bit>
#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

namespace {
struct Index {
  unsigned x, y;
};
thread_local Index threadIdx;
Index blockIdx, gridDim;
std::barrier<>* gate;
alignas(16) double shared_memory[8192];

unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
void __syncthreads() { gate->arrive_and_wait(); }
}  // namespace

#define DARKROOM_ON_HOST
#define SHARED double* shared = shared_memory
#define __device__
#define __global__ static
#include "norm.cu"

namespace {
template <typename Argument>
void run(void (*kernel)(Argument), unsigned x, unsigned y, const void* argument) {
  Argument copy;
  std::memcpy(&copy, argument, sizeof copy);
  gridDim = {x, y};
  for (blockIdx.y = 0; blockIdx.y < y; ++blockIdx.y) {
    for (blockIdx.x = 0; blockIdx.x < x; ++blockIdx.x) {
      std::barrier<> here(THREADS);
      gate = &here;
      // Values that another block left must not be used.
      for (double& value : shared_memory) value = NAN;
      std::vector<std::thread> threads;
      for (unsigned i = 0; i < THREADS; ++i) {
        threads.emplace_back([=] {
          threadIdx = {i, 0};
          kernel(copy);
        });
      }
      for (auto& thread : threads) thread.join();
    }
  }
}
}  // namespace

// `name` is a kernel's position in kernels.rs. Returns the argument's size as this file sees it.
extern "C" std::size_t darkroom_run_on_host(int name, unsigned x, unsigned y, const void* argument) {
  switch (name) {
    case 0: run(sum_up_f32, x, y, argument); return sizeof(Norm);
    case 1: run(sum_up_bf16, x, y, argument); return sizeof(Norm);
    case 2: run(combine_f32, x, y, argument); return sizeof(Norm);
    case 3: run(combine_bf16, x, y, argument); return sizeof(Norm);
    case 4: run(apply_f32, x, y, argument); return sizeof(Norm);
    case 5: run(apply_bf16, x, y, argument); return sizeof(Norm);
    case 6: run(sum_f32, x, y, argument); return sizeof(Sum);
    case 7: run(sum_bf16, x, y, argument); return sizeof(Sum);
    default: return 0;
  }
}
