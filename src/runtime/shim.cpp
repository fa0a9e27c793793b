// C entry points for what tch does not expose. Every exception is caught at the boundary.
#include <ATen/core/Tensor.h>
#include <torch/headeronly/version.h>

extern "C" const char* hrm_torch_version() { return TORCH_VERSION; }

// leaf.grad = grad: the backward pass then accumulates into grad's memory.
extern "C" bool hrm_set_grad(void* leaf, void* grad) {
  try {
    static_cast<at::Tensor*>(leaf)->mutable_grad() = *static_cast<at::Tensor*>(grad);
    return true;
  } catch (...) {
    return false;
  }
}
