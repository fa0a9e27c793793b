// Half precision in host code is c10::Half; the real header wants CCCL.
#pragma once
