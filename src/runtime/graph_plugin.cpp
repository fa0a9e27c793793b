// CUDA graph capture, which tch does not expose. Built as a shared object of its own with open symbols, embedded into the
// executable and opened after libtorch_cuda, so that the executable itself needs no CUDA library.
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "guarded.h"

#include <memory>
#include <string>

namespace {

using hrm::guarded;
using hrm::last_error;

struct Graph {
  explicit Graph(c10::DeviceIndex device)
      : stream(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device)), before(c10::cuda::getCurrentCUDAStream(device)) {}
  at::cuda::CUDAGraph graph;
  c10::cuda::CUDAStream stream, before;
};

} // namespace

extern "C" {

const char* hrm_graph_error() noexcept {
  return last_error.c_str();
}

// A graph with a stream of its own; makes that stream current until hrm_graph_leave.
int hrm_graph_new(int device, void** out) noexcept {
  return guarded([&] { *out = new Graph(static_cast<c10::DeviceIndex>(device)); });
}

// What runs until hrm_graph_leave runs on the graph's stream, after everything launched before.
int hrm_graph_enter(void* self) noexcept {
  return guarded([&] {
    auto* g = static_cast<Graph*>(self);
    g->before = c10::cuda::getCurrentCUDAStream(g->stream.device_index());
    g->before.synchronize();
    c10::cuda::setCurrentCUDAStream(g->stream);
  });
}

int hrm_graph_leave(void* self) noexcept {
  return guarded([&] {
    auto* g = static_cast<Graph*>(self);
    g->stream.synchronize();
    c10::cuda::setCurrentCUDAStream(g->before);
  });
}

int hrm_graph_begin(void* self) noexcept {
  return guarded([&] { static_cast<Graph*>(self)->graph.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal); });
}

int hrm_graph_end(void* self) noexcept {
  return guarded([&] { static_cast<Graph*>(self)->graph.capture_end(); });
}

// On the current stream.
int hrm_graph_replay(void* self) noexcept {
  return guarded([&] { static_cast<Graph*>(self)->graph.replay(); });
}

void hrm_graph_free(void* self) noexcept {
  guarded([&] { delete static_cast<Graph*>(self); });
}
}
