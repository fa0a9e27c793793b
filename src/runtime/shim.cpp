// C entry points for what tch does not expose. Every exception is caught at the boundary: a function that can fail
// returns 0 for success and leaves its message in hrm_last_error().
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/SDPBackend.h>
#include <ATen/Version.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>
#include <torch/headeronly/version.h>

#include "guarded.h"

#include <cstdint>
#include <string>

namespace {

using hrm::guarded;
using hrm::last_error;

c10::DeviceAllocator* cuda_allocator() {
  TORCH_CHECK(at::globalContext().hasCUDA(), "libtorch's CUDA half is not loaded");
  return c10::getDeviceAllocator(c10::DeviceType::CUDA);
}

// Bits of hrm_sdp_flags.
constexpr uint32_t kFlash = 1, kEfficient = 2, kCudnn = 4, kMath = 8;

uint32_t sdp_flags() {
  const auto& context = at::globalContext();
  return (context.userEnabledFlashSDP() ? kFlash : 0) | (context.userEnabledMemEfficientSDP() ? kEfficient : 0) |
      (context.userEnabledCuDNNSDP() ? kCudnn : 0) | (context.userEnabledMathSDP() ? kMath : 0);
}

void set_sdp_flags(uint32_t flags) {
  auto& context = at::globalContext();
  context.setSDPUseFlash(flags & kFlash);
  context.setSDPUseMemEfficient(flags & kEfficient);
  context.setSDPUseCuDNN(flags & kCudnn);
  context.setSDPUseMath(flags & kMath);
}

struct SdpFlagsGuard {
  uint32_t before = sdp_flags();
  ~SdpFlagsGuard() {
    set_sdp_flags(before);
  }
};

// Torch explains in warnings why it rejects a backend; kept from the terminal.
struct Collect final : c10::WarningHandler {
  std::string text;
  void process(const c10::Warning& warning) override {
    text += warning.msg();
    text += '\n';
  }
};

} // namespace

extern "C" {

struct HrmDeviceMemory {
  uint64_t allocated, allocated_peak, reserved, reserved_peak, free, total;
};

const char* hrm_torch_version() noexcept {
  return TORCH_VERSION;
}

const char* hrm_last_error() noexcept {
  return last_error.c_str();
}

int hrm_cpu_capability(const char** out) noexcept {
  return guarded([&] {
    static const std::string text = at::get_cpu_capability();
    *out = text.c_str();
  });
}

int hrm_cuda_memory(int32_t device, HrmDeviceMemory* out) noexcept {
  return guarded([&] {
    auto* allocator = cuda_allocator();
    const auto index = static_cast<c10::DeviceIndex>(device);
    if (!allocator->initialized()) {
      at::empty({1}, at::TensorOptions().device(at::Device(at::kCUDA, index)));
    }
    const auto stats = allocator->getDeviceStats(index);
    constexpr auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const auto free_and_total = allocator->getMemoryInfo(index);
    out->allocated = stats.allocated_bytes[all].current;
    out->allocated_peak = stats.allocated_bytes[all].peak;
    out->reserved = stats.reserved_bytes[all].current;
    out->reserved_peak = stats.reserved_bytes[all].peak;
    out->free = free_and_total.first;
    out->total = free_and_total.second;
  });
}

int hrm_cuda_reset_peak(int32_t device) noexcept {
  return guarded([&] { cuda_allocator()->resetPeakStats(static_cast<c10::DeviceIndex>(device)); });
}

int hrm_set_deterministic() noexcept {
  return guarded([&] {
    at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
    at::globalContext().setDeterministicCuDNN(true);
    at::globalContext().setBenchmarkCuDNN(false);
    // Filling fresh memory finds uninitialised reads; there are none here, and it costs bandwidth.
    at::globalContext().setDeterministicFillUninitializedMemory(false);
  });
}

int hrm_sdp_flags(uint32_t* out) noexcept {
  return guarded([&] { *out = sdp_flags(); });
}

int hrm_set_sdp_flags(uint32_t flags) noexcept {
  return guarded([&] { set_sdp_flags(flags); });
}

// One forward and backward of attention at the model's shape with a single backend allowed. device -1 is the CPU.
int hrm_try_attention(uint32_t backend, int32_t device, int32_t bf16) noexcept {
  return guarded([&] {
    const SdpFlagsGuard restore;
    Collect reasons;
    const c10::WarningUtils::WarningHandlerGuard quiet(&reasons);
    set_sdp_flags(backend);
    const auto where = device < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device));
    const auto options = at::TensorOptions().device(where).dtype(bf16 ? at::kBFloat16 : at::kFloat);
    auto q = at::zeros({1, 8, 82, 64}, options).set_requires_grad(true);
    auto k = at::zeros({1, 8, 82, 64}, options).set_requires_grad(true);
    auto v = at::zeros({1, 8, 82, 64}, options).set_requires_grad(true);
    // Torch passes in silence to another backend where it may; so its choice is asked for first.
    auto chosen = at::SDPBackend::error;
    try {
      chosen = static_cast<at::SDPBackend>(at::_fused_sdp_choice(q, k, v));
    } catch (const c10::Error&) {
      // On the CPU "no backend" is an exception whose text blames the flags.
    }
    const auto wanted = backend == kFlash ? at::SDPBackend::flash_attention
        : backend == kEfficient           ? at::SDPBackend::efficient_attention
        : backend == kCudnn               ? at::SDPBackend::cudnn_attention
                                          : at::SDPBackend::math;
    TORCH_CHECK(chosen == wanted, reasons.text.empty() ? "not made for this device and dtype" : reasons.text);
    at::scaled_dot_product_attention(q, k, v).sum().backward();
    if (device >= 0) {
      q.grad().cpu();
    }
  });
}


// A copy of a host tensor in pinned memory; the caller owns the new tensor.
int hrm_pin(void* tensor, void** out) noexcept {
  return guarded([&] { *out = new at::Tensor(static_cast<at::Tensor*>(tensor)->pin_memory()); });
}

// Work that names no device, a graph's recording among it, goes to this one from now on, on the calling thread.
int hrm_set_device(int32_t device) noexcept {
  return guarded([&] {
    const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
    guard.setDevice(c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(device)));
  });
}

int hrm_cuda_stream(int32_t device, void** out) noexcept {
  return guarded([&] {
    const auto index = static_cast<c10::DeviceIndex>(device);
    const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
    const c10::Stream stream = guard.getStream(c10::Device(c10::DeviceType::CUDA, index));
    *out = stream.native_handle();
  });
}

} // extern "C"
