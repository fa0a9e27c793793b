// h = bf16(silu(gate)) up; gate and up are the halves of a row of 2I.

__device__ __forceinline__ float sigmoid(float g) { return __fdividef(1.f, 1.f + __expf(-g)); }

#define HALF_VECS (INTER / 8)

extern "C" __global__ void __launch_bounds__(256) swiglu_forward(const uint4* __restrict__ gate_up, uint4* __restrict__ h,
                                                                 u64 vecs) {
  const u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
  if (i >= vecs) return;
  const u64 row = i / HALF_VECS, at = row * (2 * HALF_VECS) + i % HALF_VECS;
  const uint4 g = gate_up[at], u = gate_up[at + HALF_VECS];
  u32 o[4];
#pragma unroll
  for (int k = 0; k < 4; k++) {
    const float a = lo(word(g, k)), b = hi(word(g, k));
    const u32 s = pack(a * sigmoid(a), b * sigmoid(b));
    o[k] = pack(lo(s) * lo(word(u, k)), hi(s) * hi(word(u, k)));
  }
  h[i] = make_uint4(o[0], o[1], o[2], o[3]);
}

// s = sigmoid(gate): dup = dh gate s, dgate = dh up s (1 + gate (1 - s))
extern "C" __global__ void __launch_bounds__(256) swiglu_backward(const uint4* __restrict__ dh,
                                                                  const uint4* __restrict__ gate_up,
                                                                  uint4* __restrict__ d_gate_up, u64 vecs) {
  const u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
  if (i >= vecs) return;
  const u64 row = i / HALF_VECS, at = row * (2 * HALF_VECS) + i % HALF_VECS;
  const uint4 d = dh[i], g = gate_up[at], u = gate_up[at + HALF_VECS];
  u32 dg[4], du[4];
#pragma unroll
  for (int k = 0; k < 4; k++) {
    float a[2] = {lo(word(g, k)), hi(word(g, k))}, b[2] = {lo(word(u, k)), hi(word(u, k))};
    const float e[2] = {lo(word(d, k)), hi(word(d, k))};
#pragma unroll
    for (int j = 0; j < 2; j++) {
      const float s = sigmoid(a[j]), silu = a[j] * s;
      const float gate = e[j] * b[j] * s * (1.f + a[j] - silu);
      b[j] = e[j] * silu;
      a[j] = gate;
    }
    dg[k] = pack(a[0], a[1]);
    du[k] = pack(b[0], b[1]);
  }
  d_gate_up[at] = make_uint4(dg[0], dg[1], dg[2], dg[3]);
  d_gate_up[at + HALF_VECS] = make_uint4(du[0], du[1], du[2], du[3]);
}
