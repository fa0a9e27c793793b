// Rope on the q and k heads of a packed projection, for sequences that are too long for the attention kernel: a thread
// turns eight pairs (x_i, x_{i + HEAD_DIM / 2}). Rows of `in` and `out` are in_stride and out_stride elements apart.

#define PIECES (HEAD_DIM / 16)

extern "C" __global__ void __launch_bounds__(256)
    rope_heads(const u16* __restrict__ in, const float* __restrict__ cos_table, const float* __restrict__ sin_table,
               u16* __restrict__ out, u64 items, int in_stride, int out_stride, float direction) {
  const u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
  if (i >= items) return;
  const int piece = i % PIECES, head = i / PIECES % (2 * HEADS);
  const u64 row = i / (PIECES * 2 * HEADS);
  const int at = head * HEAD_DIM + piece * 8;
  const float* c = cos_table + row % TOTAL * HEAD_DIM + piece * 8;
  const float* s = sin_table + row % TOTAL * HEAD_DIM + piece * 8;
  const uint4 a = *(const uint4*)(in + row * in_stride + at), b = *(const uint4*)(in + row * in_stride + at + HEAD_DIM / 2);
  u32 x[4], y[4];
#pragma unroll
  for (int k = 0; k < 4; k++) {
    const float p0 = lo(word(a, k)), p1 = hi(word(a, k)), q0 = lo(word(b, k)), q1 = hi(word(b, k));
    const float s0 = direction * s[2 * k], s1 = direction * s[2 * k + 1];
    x[k] = pack(p0 * c[2 * k] - q0 * s0, p1 * c[2 * k + 1] - q1 * s1);
    y[k] = pack(q0 * c[2 * k] + p0 * s0, q1 * c[2 * k + 1] + p1 * s1);
  }
  *(uint4*)(out + row * out_stride + at) = make_uint4(x[0], x[1], x[2], x[3]);
  *(uint4*)(out + row * out_stride + at + HEAD_DIM / 2) = make_uint4(y[0], y[1], y[2], y[3]);
}
