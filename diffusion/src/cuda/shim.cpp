// What darkroom-diffusion asks of libtorch's CUDA half and tch does not offer: recording a pass into a CUDA graph,
// replaying it, and what memory a card has.
//
// Built into a shared library of its own that the Rust side carries in itself and loads after libtorch_cuda.so (see
// ../cuda.rs and docs/adr/0018-cuda-graphs.md): the compiler checks every call against libtorch's headers, and the
// loader resolves every name against the libtorch that is there or refuses the whole. No exception leaves it: each
// function returns 0, or 1 with a message.

#include <cstdio>
#include <exception>
#include <memory>
#include <optional>

#include <ATen/cuda/CUDAGraph.h>
#include <c10/core/DeviceGuard.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
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

// Waits for all work of the device. What went wrong in it, and what an earlier call left behind, is an error.
void settle(c10::DeviceIndex device) {
  const c10::DeviceGuard guard(cuda(device));
  check(cudaDeviceSynchronize(), "waiting for the device");
  check(cudaGetLastError(), "an earlier operation");
}

// A device and the stream that recordings are made on: the default stream cannot be recorded.
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

// From here to darkroom_leave this thread's operations go to the recorder's stream.
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
    // The unrecorded passes on the recorder's stream left blocks that only that stream would use again.
    c10::cuda::CUDACachingAllocator::emptyCache();
  });
}

// Between darkroom_enter and darkroom_leave. Other threads may go on using the device: only what this thread must not do
// while recording ends the recording.
int darkroom_begin(Recorder* recorder, Recording** out, char* message, std::size_t size) {
  return guarded({message, size}, [&] {
    const c10::DeviceGuard guard(cuda(recorder->device));
    settle(recorder->device);
    auto recording =
        std::unique_ptr<Recording>(new Recording{recorder->device, at::cuda::graph_pool_handle(), {}});
    // Given up whatever happens in there: see darkroom_abandon.
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

// Gives up a recording that failed, at whatever point. Still between darkroom_enter and darkroom_leave.
void darkroom_abandon(Recording* recording) {
  char unread[8];
  const Text nowhere{unread, sizeof unread};
  guarded(nowhere, [&] {
    const c10::DeviceGuard guard(cuda(recording->device));
    // The stream stops recording. A graph that comes of it is not kept: its memory goes back below.
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    const auto stream = c10::cuda::getCurrentCUDAStream(recording->device).stream();
    if (cudaStreamIsCapturing(stream, &status) == cudaSuccess && status != cudaStreamCaptureStatusNone) {
      cudaGraph_t graph = nullptr;
      if (cudaStreamEndCapture(stream, &graph) == cudaSuccess && graph != nullptr) {
        (void)cudaGraphDestroy(graph);
      }
    }
  });
  // Either may have been done already, and then refuses.
  guarded(nowhere, [&] {
    c10::cuda::CUDACachingAllocator::endAllocateToPool(recording->device, recording->pool);
  });
  guarded(nowhere, [&] {
    c10::cuda::CUDACachingAllocator::releasePool(recording->device, recording->pool);
  });
  (void)cudaGetLastError();
  // The object itself is left where it is: libtorch may still know its address, and a model gives up at most once.
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

}  // extern "C"
