// Shared by every kernel. Compiled by NVRTC without any header; sizes come as -D constants:
//   HIDDEN, INTER (of the MLP), HEADS, HEAD_DIM, TOTAL (positions), CELLS (tokens), VOCAB.

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;
typedef unsigned long long u64;

#define WARP 32
#define FULL 0xffffffffu

__device__ __forceinline__ float lo(u32 v) { return __uint_as_float(v << 16); }
__device__ __forceinline__ float hi(u32 v) { return __uint_as_float(v & 0xffff0000u); }
__device__ __forceinline__ float bf16(u16 v) { return __uint_as_float((u32)v << 16); }

// Two floats rounded to nearest even, the first in the low half.
__device__ __forceinline__ u32 pack(float a, float b) {
  u32 r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(b), "f"(a));
  return r;
}
__device__ __forceinline__ float rounded(float a) { return lo(pack(a, 0.f)); }

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(FULL, v, o);
  return v;
}

__device__ __forceinline__ u32 word(const uint4& v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }
