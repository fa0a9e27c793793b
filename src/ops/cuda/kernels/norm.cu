// Residual sum and RMS norm, a warp a row: y = r s, s = bf16(x + branch), r = 1 / sqrt(mean(s^2) + eps).

#define VECS (HIDDEN / 8)
#define PER_LANE ((VECS + WARP - 1) / WARP)

extern "C" __global__ void __launch_bounds__(256) rms_forward(const uint4* __restrict__ x, const uint4* __restrict__ branch,
                                                              uint4* __restrict__ y, float* __restrict__ r, int rows,
                                                              float eps) {
  const int row = blockIdx.x * 8 + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (row >= rows) return;
  const u64 at = (u64)row * VECS;
  uint4 a[PER_LANE], b[PER_LANE];
  float s[PER_LANE * 8];
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < PER_LANE; i++) {
    const int v = lane + i * WARP;
    if (VECS % WARP == 0 || v < VECS) {
      a[i] = x[at + v];
      b[i] = branch[at + v];
    } else {
      a[i] = b[i] = make_uint4(0, 0, 0, 0);
    }
  }
#pragma unroll
  for (int i = 0; i < PER_LANE; i++) {
#pragma unroll
    for (int k = 0; k < 4; k++) {
      const u32 p = word(a[i], k), q = word(b[i], k);
      const u32 t = pack(lo(p) + lo(q), hi(p) + hi(q));
      s[i * 8 + 2 * k] = lo(t);
      s[i * 8 + 2 * k + 1] = hi(t);
      sum += lo(t) * lo(t) + hi(t) * hi(t);
    }
  }
  const float scale = rsqrtf(warp_sum(sum) * (1.f / HIDDEN) + eps);
#pragma unroll
  for (int i = 0; i < PER_LANE; i++) {
    const int v = lane + i * WARP;
    const float* t = s + i * 8;
    if (VECS % WARP == 0 || v < VECS)
      y[at + v] = make_uint4(pack(t[0] * scale, t[1] * scale), pack(t[2] * scale, t[3] * scale),
                             pack(t[4] * scale, t[5] * scale), pack(t[6] * scale, t[7] * scale));
  }
  if (lane == 0) r[row] = scale;
}

// ds = r (dy - y mean(dy y))
extern "C" __global__ void __launch_bounds__(256) rms_backward(const uint4* __restrict__ dy, const uint4* __restrict__ y,
                                                               const float* __restrict__ r, uint4* __restrict__ ds,
                                                               int rows) {
  const int row = blockIdx.x * 8 + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (row >= rows) return;
  const u64 at = (u64)row * VECS;
  const float scale = r[row];
  uint4 a[PER_LANE], b[PER_LANE];
  float dot = 0.f;
#pragma unroll
  for (int i = 0; i < PER_LANE; i++) {
    const int v = lane + i * WARP;
    if (VECS % WARP == 0 || v < VECS) {
      a[i] = dy[at + v];
      b[i] = y[at + v];
    } else {
      a[i] = b[i] = make_uint4(0, 0, 0, 0);
    }
  }
#pragma unroll
  for (int i = 0; i < PER_LANE; i++)
#pragma unroll
    for (int k = 0; k < 4; k++) {
      const u32 p = word(a[i], k), q = word(b[i], k);
      dot += lo(p) * lo(q) + hi(p) * hi(q);
    }
  const float mean = warp_sum(dot) * (1.f / HIDDEN);
#pragma unroll
  for (int i = 0; i < PER_LANE; i++) {
    const int v = lane + i * WARP;
    u32 o[4];
#pragma unroll
    for (int k = 0; k < 4; k++) {
      const u32 p = word(a[i], k), q = word(b[i], k);
      o[k] = pack((lo(p) - lo(q) * mean) * scale, (hi(p) - hi(q) * mean) * scale);
    }
    if (VECS % WARP == 0 || v < VECS) ds[at + v] = make_uint4(o[0], o[1], o[2], o[3]);
  }
}

// x = bf16(z + bf16(a + b)): a module's state plus what is injected.
extern "C" __global__ void __launch_bounds__(256) inject(const uint4* __restrict__ z, const uint4* __restrict__ a,
                                                         const uint4* __restrict__ b, uint4* __restrict__ x, u64 vecs) {
  const u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
  if (i >= vecs) return;
  const uint4 p = z[i], q = a[i], s = b[i];
  u32 o[4];
#pragma unroll
  for (int k = 0; k < 4; k++) {
    const u32 t = pack(lo(word(q, k)) + lo(word(s, k)), hi(word(q, k)) + hi(word(s, k)));
    o[k] = pack(lo(word(p, k)) + lo(t), hi(word(p, k)) + hi(t));
  }
  x[i] = make_uint4(o[0], o[1], o[2], o[3]);
}
