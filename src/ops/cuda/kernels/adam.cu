// Adam-atan2 over flat buffers, four elements a thread; writes the bf16 copy of the weights too. See optim/adam_atan2.rs.
// scalars: [4] f32 on the device: 1 - lr wd, sqrt(1 - b2^t), lr / (1 - b1^t), unused; so that a graph can replay it.

extern "C" __global__ void __launch_bounds__(256)
    adam_atan2(float4* __restrict__ p, float4* __restrict__ m, float4* __restrict__ v, const uint2* __restrict__ g,
               uint2* __restrict__ copy, const float* __restrict__ scalars, float w1, float w2, u64 quads) {
  const u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
  if (i >= quads) return;
  const float keep = scalars[0], root = scalars[1], rate = scalars[2];
  float4 pv = p[i], mv = m[i], vv = v[i];
  const uint2 gv = g[i];
  float* pp = (float*)&pv;
  float* mm = (float*)&mv;
  float* vs = (float*)&vv;
  const float gs[4] = {lo(gv.x), hi(gv.x), lo(gv.y), hi(gv.y)};
#pragma unroll
  for (int k = 0; k < 4; k++) {
    mm[k] = fmaf(w1, gs[k], fmaf(-w1, mm[k], mm[k]));
    vs[k] = fmaf(w2, gs[k] * gs[k], fmaf(-w2, vs[k], vs[k]));
    pp[k] = pp[k] * keep - rate * atan2f(mm[k], sqrtf(vs[k]) / root);
  }
  p[i] = pv;
  m[i] = mv;
  v[i] = vv;
  copy[i] = make_uint2(pack(pp[0], pp[1]), pack(pp[2], pp[3]));
}
