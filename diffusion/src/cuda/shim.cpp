// Functions of libtorch's CUDA half that tch does not offer: recording a pass into a CUDA graph,
// replaying it, and reading a card's memory.
//
// Built into a shared library that the Rust side embeds and loads after libtorch_cuda.so (see
// ../cuda.rs and docs/adr/0018-cuda-graphs.md). The compiler checks every call against libtorch's
// headers, and the loader resolves every name against the present libtorch or refuses the whole
// library. No exception leaves it: each function returns 0, or 1 with a message.

#include <cstdio>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <dlfcn.h>

#include <ATen/Context.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/core/DeviceGuard.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda.h>
#include <cuda_runtime_api.h>

namespace {

using c10::cuda::CUDAStream;

struct Text {
  char* data;
  std::size_t size;
};

template <typename Body>
int guarded(Text message, Body body) noexcept {
  const auto say = [&](const char* what) { std::snprintf(message.data, message.size, "%s", what); };
  try {
    body();
    return 0;
  } catch (const c10::Error& error) {
    say(error.what_without_backtrace());
  } catch (const std::exception& error) {
    say(error.what());
  } catch (...) {
    say("an exception of unknown type");
  }
  return 1;
}

void check(cudaError_t error, const char* doing) {
  TORCH_CHECK(error == cudaSuccess, doing, ": ", cudaGetErrorString(error));
}

c10::Device cuda(c10::DeviceIndex device) {
  return c10::Device(c10::kCUDA, device);
}

// Waits for all work of the device. An error in that work, or one left by an earlier call, is an
// error here.
void settle(c10::DeviceIndex device) {
  const c10::DeviceGuard guard(cuda(device));
  check(cudaDeviceSynchronize(), "waiting for the device");
  check(cudaGetLastError(), "an earlier operation");
}

// A device, and the stream that recordings use: the default stream cannot be recorded.
struct Recorder {
  c10::DeviceIndex device;
  CUDAStream side;
  std::optional<CUDAStream> before;
};

struct Recording {
  c10::DeviceIndex device;
  c10::MempoolId_t pool;
  at::cuda::CUDAGraph graph;
};

// A function of a library that was loaded by hand.
template <typename Function>
Function find(void* library, const char* name) {
  void* found = dlsym(library, name);
  TORCH_CHECK(found != nullptr, "there is no function ", name);
  return reinterpret_cast<Function>(found);
}

// Compiles CUDA C++ to machine code for the device. NVRTC's header may be missing, so its functions
// are declared here.
std::string compiled(void* nvrtc, const char* source, c10::DeviceIndex device) {
  using Program = void*;
  const auto create =
      find<int (*)(Program*, const char*, const char*, int, const char* const*, const char* const*)>(nvrtc, "nvrtcCreateProgram");
  const auto compile = find<int (*)(Program, int, const char* const*)>(nvrtc, "nvrtcCompileProgram");
  const auto log_size = find<int (*)(Program, std::size_t*)>(nvrtc, "nvrtcGetProgramLogSize");
  const auto log = find<int (*)(Program, char*)>(nvrtc, "nvrtcGetProgramLog");
  const auto code_size = find<int (*)(Program, std::size_t*)>(nvrtc, "nvrtcGetCUBINSize");
  const auto code = find<int (*)(Program, char*)>(nvrtc, "nvrtcGetCUBIN");
  const auto destroy = find<int (*)(Program*)>(nvrtc, "nvrtcDestroyProgram");

  int major = 0, minor = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "asking what the device can do");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "asking what the device can do");
  const std::string architecture = "--gpu-architecture=sm_" + std::to_string(major) + std::to_string(minor);
  const char* options[] = {architecture.c_str(), "--std=c++17"};

  Program program = nullptr;
  TORCH_CHECK(create(&program, source, "norm.cu", 0, nullptr, nullptr) == 0, "NVRTC takes no program");
  const int result = compile(program, 2, options);
  std::size_t size = 0;
  std::string text;
  if (result != 0) {
    if (log_size(program, &size) == 0) {
      text.resize(size);
      log(program, text.data());
    }
  } else if (code_size(program, &size) == 0) {
    text.resize(size);
    code(program, text.data());
  }
  destroy(&program);
  TORCH_CHECK(result == 0, "NVRTC (", result, "): ", text);
  TORCH_CHECK(!text.empty(), "NVRTC made nothing for ", architecture);
  return text;
}

// Functions loaded on a device, for the rest of the process.
struct Kernels {
  c10::DeviceIndex device;
  decltype(&cuLaunchKernel) launch;
  std::vector<CUfunction> functions;
};

}  // namespace

extern "C" {

int darkroom_recorder_new(int device, Recorder** out, char* message, std::size_t size) {
  return guarded({message, size}, [&] {
    const auto index = static_cast<c10::DeviceIndex>(device);
    *out = new Recorder{index, c10::cuda::getStreamFromPool(/*isHighPriority=*/false, index), std::nullopt};
  });
}

void darkroom_recorder_drop(Recorder* recorder) {
  delete recorder;
}

// From here until darkroom_leave, this thread's operations go to the recorder's stream.
int darkroom_enter(Recorder* recorder, char* message, std::size_t size) {
  return guarded({message, size}, [&] {
    settle(recorder->device);
    recorder->before = c10::cuda::getCurrentCUDAStream(recorder->device);
    c10::cuda::setCurrentCUDAStream(recorder->side);
  });
}

int darkroom_leave(Recorder* recorder, char* message, std::size_t size) {
  return guarded({message, size}, [&] {
    if (recorder->before) {
      c10::cuda::setCurrentCUDAStream(*recorder->before);
      recorder->before.reset();
    }
    settle(recorder->device);
    // The unrecorded passes on the recorder's stream left blocks that only that stream could use
    // again.
    c10::cuda::CUDACachingAllocator::emptyCache();
  });
}

// Called between darkroom_enter and darkroom_leave. Other threads may continue to use the device:
// only forbidden operations of this thread end the recording.
int darkroom_begin(Recorder* recorder, Recording** out, char* message, std::size_t size) {
  return guarded({message, size}, [&] {
    const c10::DeviceGuard guard(cuda(recorder->device));
    settle(recorder->device);
    auto recording =
        std::unique_ptr<Recording>(new Recording{recorder->device, at::cuda::graph_pool_handle(), {}});
    // Abandoned if anything fails in there: see darkroom_abandon.
    *out = recording.release();
    (*out)->graph.capture_begin((*out)->pool, cudaStreamCaptureModeThreadLocal);
  });
}

int darkroom_end(Recording* recording, char* message, std::size_t size) {
  return guarded({message, size}, [&] {
    const c10::DeviceGuard guard(cuda(recording->device));
    recording->graph.capture_end();
  });
}

// Abandons a recording that failed at any point. Called between darkroom_enter and darkroom_leave.
void darkroom_abandon(Recording* recording) {
  char unread[8];
  const Text nowhere{unread, sizeof unread};
  guarded(nowhere, [&] {
    const c10::DeviceGuard guard(cuda(recording->device));
    // The stream stops recording. A resulting graph is not kept; its memory is given back below.
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    const auto stream = c10::cuda::getCurrentCUDAStream(recording->device).stream();
    if (cudaStreamIsCapturing(stream, &status) == cudaSuccess && status != cudaStreamCaptureStatusNone) {
      cudaGraph_t graph = nullptr;
      if (cudaStreamEndCapture(stream, &graph) == cudaSuccess && graph != nullptr) {
        (void)cudaGraphDestroy(graph);
      }
    }
  });
  // Either may have been done already; then it returns an error.
  guarded(nowhere, [&] {
    c10::cuda::CUDACachingAllocator::endAllocateToPool(recording->device, recording->pool);
  });
  guarded(nowhere, [&] {
    c10::cuda::CUDACachingAllocator::releasePool(recording->device, recording->pool);
  });
  (void)cudaGetLastError();
  // The object itself is not freed: libtorch may still have its address, and a model abandons at
  // most one recording.
}

int darkroom_replay(Recording* recording, char* message, std::size_t size) {
  return guarded({message, size}, [&] { recording->graph.replay(); });
}

// Waits for the device first: the graph may still be running.
void darkroom_recording_drop(Recording* recording) {
  char unread[8];
  guarded({unread, sizeof unread}, [&] { settle(recording->device); });
  guarded({unread, sizeof unread}, [&] { delete recording; });
}

int darkroom_settle(int device, char* message, std::size_t size) {
  return guarded({message, size}, [&] { settle(static_cast<c10::DeviceIndex>(device)); });
}

// Gives memory that libtorch keeps for later back to the card.
int darkroom_give_back(char* message, std::size_t size) {
  return guarded({message, size}, [&] { c10::cuda::CUDACachingAllocator::emptyCache(); });
}

int darkroom_memory(int device, std::size_t* free, std::size_t* total, char* message, std::size_t size) {
  return guarded({message, size}, [&] {
    const c10::DeviceGuard guard(cuda(static_cast<c10::DeviceIndex>(device)));
    check(cudaMemGetInfo(free, total), "asking for the device's memory");
  });
}

// From here on, the process's convolutions compute f32 in f32, not with ten bits of mantissa
// (TF32), and use algorithms that give the same bits each time and that are chosen without trials.
int darkroom_be_exact(char* message, std::size_t size) {
  return guarded({message, size}, [&] {
    auto& context = at::globalContext();
    context.setAllowTF32CuDNN(false);
    context.setDeterministicCuDNN(true);
    context.setBenchmarkCuDNN(false);
  });
}

// Compiles `source` and loads `count` of its functions; `nvrtc` and `driver` are loaded libraries.
int darkroom_kernels_new(int device, void* nvrtc, void* driver, const char* source, const char* const* names,
                         std::size_t count, Kernels** out, char* message, std::size_t size) {
  return guarded({message, size}, [&] {
    const auto index = static_cast<c10::DeviceIndex>(device);
    const c10::DeviceGuard guard(cuda(index));
    // The device's context exists only after something was requested of the device.
    check(cudaFree(nullptr), "opening the device");
    const std::string code = compiled(nvrtc, source, index);
    const auto load = find<decltype(&cuModuleLoadData)>(driver, "cuModuleLoadData");
    const auto get = find<decltype(&cuModuleGetFunction)>(driver, "cuModuleGetFunction");
    auto kernels = std::make_unique<Kernels>();
    kernels->device = index;
    kernels->launch = find<decltype(&cuLaunchKernel)>(driver, "cuLaunchKernel");
    CUmodule module = nullptr;
    const CUresult loaded = load(&module, code.data());
    TORCH_CHECK(loaded == CUDA_SUCCESS, "loading the kernels: ", static_cast<int>(loaded));
    for (std::size_t i = 0; i < count; ++i) {
      CUfunction function = nullptr;
      TORCH_CHECK(get(&function, module, names[i]) == CUDA_SUCCESS, "there is no kernel ", names[i]);
      kernels->functions.push_back(function);
    }
    *out = kernels.release();
  });
}

// Launches a function on the current stream, without waiting for it. `argument` is its one
// argument, which is copied.
int darkroom_launch(Kernels* kernels, std::size_t index, unsigned x, unsigned y, unsigned threads, unsigned shared,
                    void* argument, char* message, std::size_t size) {
  return guarded({message, size}, [&] {
    const c10::DeviceGuard guard(cuda(kernels->device));
    void* arguments[] = {argument};
    const auto stream = c10::cuda::getCurrentCUDAStream(kernels->device).stream();
    const CUresult launched =
        kernels->launch(kernels->functions.at(index), x, y, 1, threads, 1, 1, shared, stream, arguments, nullptr);
    TORCH_CHECK(launched == CUDA_SUCCESS, "launching a kernel: ", static_cast<int>(launched));
  });
}

}  // extern "C"
