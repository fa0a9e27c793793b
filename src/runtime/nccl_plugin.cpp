// The NCCL backend of c10d. A plugin like graph_plugin.cpp, and for the same reason: ProcessGroupNCCL lies in libtorch's
// CUDA half. The collectives themselves go through c10d's base class, in dist.cpp.
#define USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "guarded.h"

extern "C" {

const char* hrm_nccl_error() noexcept {
  return hrm::last_error.c_str();
}

// `store` is an intrusive_ptr<Store>*; the result an intrusive_ptr<Backend>*, closed by hrm_backend_close.
int hrm_nccl_new(void* store, int32_t rank, int32_t world, int64_t timeout_ms, int32_t device, void** out) noexcept {
  return hrm::guarded([&] {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = std::chrono::milliseconds(timeout_ms);
    auto group = c10::make_intrusive<c10d::ProcessGroupNCCL>(
        *static_cast<c10::intrusive_ptr<c10d::Store>*>(store), rank, world, options);
    group->setBoundDeviceId(c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(device)));
    *out = new c10::intrusive_ptr<c10d::Backend>(std::move(group));
  });
}
}
