// C entry points for what tch does not expose. Every exception is caught at the boundary.
#include <torch/headeronly/version.h>

extern "C" const char* hrm_torch_version() { return TORCH_VERSION; }
