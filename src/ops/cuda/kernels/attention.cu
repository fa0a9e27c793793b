// Self-attention of short sequences on the packed projection [B, TOTAL, 3 HEADS HEAD_DIM], rope inside. One block a
// (puzzle, head); a puzzle's whole score matrix lives in registers. Forward, a warp has 32 positions, so that every
// fragment of k and v that it reads from shared memory serves two tiles; backward, where registers are scarce, 16.
//
// mma.m16n8k16: lane l owns rows l/4 and l/4 + 8, columns 2 (l % 4) + {0, 1} of an accumulator tile.

#define TILES ((TOTAL + 15) / 16)   // 16-position tiles
#define KEYS ((TOTAL + 7) / 8)      // 8-key tiles of the scores
#define ROWS (TILES * 16)
#define FORWARD_WARPS ((TILES + 1) / 2)
#define FORWARD_ROWS (FORWARD_WARPS * 32)
#define STRIDE (HEAD_DIM + 8)          // elements; an odd multiple of 16 bytes for HEAD_DIM % 16 == 0: no bank conflicts
#define CHUNKS (HEAD_DIM / 8)          // 16-byte pieces of a head's row
#define THREADS (TILES * WARP)
#define ITEMS(rows) ((rows) * (CHUNKS / 2))

__device__ __forceinline__ u32 shared(const void* p) { return (u32)__cvta_generic_to_shared(p); }

__device__ __forceinline__ void ldmatrix4(u32* r, u32 at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at));
}
__device__ __forceinline__ void ldmatrix4t(u32* r, u32 at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at));
}
__device__ __forceinline__ void mma(float* c, const u32* a, u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ float ex2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Eight pairs (x_i, x_{i+HEAD_DIM/2}) turned by their angles; direction -1 turns back.
__device__ __forceinline__ void turn(uint4& a, uint4& b, const float* c, const float* s, float direction) {
  u32 x[4], y[4];
#pragma unroll
  for (int k = 0; k < 4; k++) {
    const float p0 = lo(word(a, k)), p1 = hi(word(a, k)), q0 = lo(word(b, k)), q1 = hi(word(b, k));
    const float c0 = c[2 * k], c1 = c[2 * k + 1], s0 = direction * s[2 * k], s1 = direction * s[2 * k + 1];
    x[k] = pack(p0 * c0 - q0 * s0, p1 * c1 - q1 * s1);
    y[k] = pack(q0 * c0 + p0 * s0, q1 * c1 + p1 * s1);
  }
  a = make_uint4(x[0], x[1], x[2], x[3]);
  b = make_uint4(y[0], y[1], y[2], y[3]);
}

// The head's q, k (rotated) and v into shared memory, rows past TOTAL zeroed. AHEAD is how many of a thread's pieces are
// loaded before the first is used.
template <int AREA, int COUNT, int AHEAD>
__device__ __forceinline__ void load_qkv(const u16* __restrict__ qkv, const float* __restrict__ cos_table,
                                         const float* __restrict__ sin_table, u16* q, u16* k, u16* v) {
  const int head = blockIdx.x % HEADS;
  const u64 puzzle = blockIdx.x / HEADS;
  const u16* base = qkv + puzzle * TOTAL * (3 * HEADS * HEAD_DIM) + head * HEAD_DIM;
#pragma unroll 1
  for (int first = threadIdx.x; first < ITEMS(AREA); first += AHEAD * COUNT) {
    uint4 x[AHEAD][6];
#pragma unroll
    for (int l = 0; l < AHEAD; l++) {
      const int item = first + l * COUNT, t = item / (CHUNKS / 2), j = item % (CHUNKS / 2);
      const u16* row = base + (u64)t * (3 * HEADS * HEAD_DIM) + j * 8;
#pragma unroll
      for (int m = 0; m < 6; m++)
        x[l][m] = t < TOTAL ? *(const uint4*)(row + (m / 2) * HEADS * HEAD_DIM + (m % 2) * (HEAD_DIM / 2))
                            : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int l = 0; l < AHEAD; l++) {
      const int item = first + l * COUNT, t = item / (CHUNKS / 2), j = item % (CHUNKS / 2);
      const int near = t * STRIDE + j * 8, far = near + HEAD_DIM / 2;
      if (t >= AREA) continue;
#ifdef ROPE
      if (t < TOTAL) {
        float c[8], s[8];
#pragma unroll
        for (int e = 0; e < 8; e += 4) {
          *(float4*)(c + e) = *(const float4*)(cos_table + t * HEAD_DIM + j * 8 + e);
          *(float4*)(s + e) = *(const float4*)(sin_table + t * HEAD_DIM + j * 8 + e);
        }
        turn(x[l][0], x[l][1], c, s, 1.f);
        turn(x[l][2], x[l][3], c, s, 1.f);
      }
#endif
      *(uint4*)(q + near) = x[l][0];
      *(uint4*)(q + far) = x[l][1];
      *(uint4*)(k + near) = x[l][2];
      *(uint4*)(k + far) = x[l][3];
      *(uint4*)(v + near) = x[l][4];
      *(uint4*)(v + far) = x[l][5];
    }
  }
}

// c[own tile][key tile] = A B^T: A and B row-major in shared memory, HEAD_DIM wide. Warp w owns tiles w OWN, ...
template <int OWN>
__device__ __forceinline__ void product_abt(float (*c)[KEYS][4], const u16* a, const u16* b, int warp, int lane) {
  const u32 a_at = shared(a + (warp * OWN * 16 + lane % 16) * STRIDE + (lane / 16) * 8);
  // Two key tiles at once: lanes 0-7 rows of the first at k 0, 8-15 at k 8, 16-31 the second tile.
  const u32 b_at = shared(b + ((lane / 16) * 8 + lane % 8) * STRIDE + ((lane / 8) % 2) * 8);
#pragma unroll
  for (int m = 0; m < OWN; m++)
#pragma unroll
    for (int n = 0; n < KEYS; n++) c[m][n][0] = c[m][n][1] = c[m][n][2] = c[m][n][3] = 0.f;
#pragma unroll
  for (int kk = 0; kk < HEAD_DIM / 16; kk++) {
    u32 fa[OWN][4];
#pragma unroll
    for (int m = 0; m < OWN; m++) ldmatrix4(fa[m], a_at + (m * 16 * STRIDE + kk * 16) * 2);
#pragma unroll
    for (int n = 0; n < KEYS; n += 2) {
      u32 fb[4];
      ldmatrix4(fb, b_at + (n * 8 * STRIDE + kk * 16) * 2);
#pragma unroll
      for (int m = 0; m < OWN; m++) {
        mma(c[m][n], fa[m], fb[0], fb[1]);
        if (n + 1 < KEYS) mma(c[m][n + 1], fa[m], fb[2], fb[3]);
      }
    }
  }
}

// c[own tile] += P B with P's 16 x 16 TILES fragments in registers, B row-major [position][HEAD_DIM].
template <int OWN>
__device__ __forceinline__ void product_pb(float (*c)[CHUNKS][4], const u32 (*p)[TILES][4], const u16* b, int lane) {
  const u32 b_at = shared(b + (lane % 16) * STRIDE + (lane / 16) * 8);
#pragma unroll
  for (int kk = 0; kk < TILES; kk++)
#pragma unroll
    for (int n = 0; n < CHUNKS; n += 2) {
      u32 fb[4];
      ldmatrix4t(fb, b_at + (kk * 16 * STRIDE + n * 8) * 2);
#pragma unroll
      for (int m = 0; m < OWN; m++) {
        mma(c[m][n], p[m][kk], fb[0], fb[1]);
        mma(c[m][n + 1], p[m][kk], fb[2], fb[3]);
      }
    }
}

// Accumulator tiles as bf16 A fragments for a product over the same columns.
__device__ __forceinline__ void to_fragments(u32 (*p)[4], const float (*c)[4]) {
#pragma unroll
  for (int kk = 0; kk < TILES; kk++) {
    p[kk][0] = pack(c[2 * kk][0], c[2 * kk][1]);
    p[kk][1] = pack(c[2 * kk][2], c[2 * kk][3]);
    const bool more = 2 * kk + 1 < KEYS;
    p[kk][2] = more ? pack(c[more ? 2 * kk + 1 : 0][0], c[more ? 2 * kk + 1 : 0][1]) : 0;
    p[kk][3] = more ? pack(c[more ? 2 * kk + 1 : 0][2], c[more ? 2 * kk + 1 : 0][3]) : 0;
  }
}

// A tile's 16 rows of a [rows][STRIDE] staging area from accumulators, then to global rows `stride` elements apart.
__device__ __forceinline__ void store_rows(const float (*c)[4], u16* staging, u16* __restrict__ out, u64 stride, int tile,
                                           int lane) {
#pragma unroll
  for (int n = 0; n < CHUNKS; n++) {
    u16* at = staging + (tile * 16 + lane / 4) * STRIDE + n * 8 + 2 * (lane % 4);
    *(u32*)at = pack(c[n][0], c[n][1]);
    *(u32*)(at + 8 * STRIDE) = pack(c[n][2], c[n][3]);
  }
  __syncwarp();
#pragma unroll
  for (int item = lane; item < 16 * CHUNKS; item += WARP) {
    const int t = tile * 16 + item / CHUNKS, j = item % CHUNKS;
    if (t < TOTAL) *(uint4*)(out + t * stride + j * 8) = *(const uint4*)(staging + t * STRIDE + j * 8);
  }
}

// Accumulators of q's or k's gradient turned back.
__device__ __forceinline__ void turn_back(float (*c)[4], const float* __restrict__ cos_table,
                                          const float* __restrict__ sin_table, int warp, int lane) {
#ifdef ROPE
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int t = min(warp * 16 + lane / 4 + 8 * r, TOTAL - 1);
#pragma unroll
    for (int n = 0; n < CHUNKS / 2; n++) {
      const float2 cs = *(const float2*)(cos_table + t * HEAD_DIM + n * 8 + 2 * (lane % 4));
      const float2 sn = *(const float2*)(sin_table + t * HEAD_DIM + n * 8 + 2 * (lane % 4));
#pragma unroll
      for (int e = 0; e < 2; e++) {
        const float co = e ? cs.y : cs.x, si = e ? sn.y : sn.x;
        const float a = rounded(c[n][2 * r + e]), b = rounded(c[n + CHUNKS / 2][2 * r + e]);
        c[n][2 * r + e] = a * co + b * si;
        c[n + CHUNKS / 2][2 * r + e] = b * co - a * si;
      }
    }
  }
#endif
}

// out: [B, TOTAL, HEADS HEAD_DIM]; lse: [B, HEADS, TOTAL], the row's log2 of the sum of exponentials, or null.
extern "C" __global__ void __launch_bounds__(FORWARD_WARPS * WARP)
    attention_forward(const u16* __restrict__ qkv, const float* __restrict__ cos_table,
                      const float* __restrict__ sin_table, u16* __restrict__ out, float* __restrict__ lse, float scale_log2) {
  extern __shared__ uint4 memory[];
  u16* q = (u16*)memory;
  u16* k = q + FORWARD_ROWS * STRIDE;
  u16* v = k + FORWARD_ROWS * STRIDE;
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  load_qkv<FORWARD_ROWS, FORWARD_WARPS * WARP, 1>(qkv, cos_table, sin_table, q, k, v);
  __syncthreads();

  float s[2][KEYS][4];
  product_abt<2>(s, q, k, warp, lane);
  float top[2][2], sum[2][2];
  u32 p[2][TILES][4];
#pragma unroll
  for (int m = 0; m < 2; m++) {
    top[m][0] = top[m][1] = -1e30f;
    sum[m][0] = sum[m][1] = 0.f;
#pragma unroll
    for (int n = 0; n < KEYS; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const int key = n * 8 + 2 * (lane % 4) + e % 2;
        s[m][n][e] = (n < KEYS - 1 || key < TOTAL) ? s[m][n][e] * scale_log2 : -1e30f;
        top[m][e / 2] = fmaxf(top[m][e / 2], s[m][n][e]);
      }
#pragma unroll
    for (int r = 0; r < 2; r++) {
      top[m][r] = fmaxf(top[m][r], __shfl_xor_sync(FULL, top[m][r], 1));
      top[m][r] = fmaxf(top[m][r], __shfl_xor_sync(FULL, top[m][r], 2));
    }
#pragma unroll
    for (int n = 0; n < KEYS; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        s[m][n][e] = ex2(s[m][n][e] - top[m][e / 2]);
        sum[m][e / 2] += s[m][n][e];
      }
#pragma unroll
    for (int r = 0; r < 2; r++) {
      sum[m][r] += __shfl_xor_sync(FULL, sum[m][r], 1);
      sum[m][r] += __shfl_xor_sync(FULL, sum[m][r], 2);
    }
    to_fragments(p[m], s[m]);
  }
  float o[2][CHUNKS][4];
#pragma unroll
  for (int m = 0; m < 2; m++)
#pragma unroll
    for (int n = 0; n < CHUNKS; n++) o[m][n][0] = o[m][n][1] = o[m][n][2] = o[m][n][3] = 0.f;
  product_pb<2>(o, p, v, lane);

  const int head = blockIdx.x % HEADS;
  const u64 puzzle = blockIdx.x / HEADS;
  // Only this warp reads its own rows of q: they are free now.
  __syncwarp();
#pragma unroll
  for (int m = 0; m < 2; m++) {
    const float inverse[2] = {__fdividef(1.f, sum[m][0]), __fdividef(1.f, sum[m][1])};
#pragma unroll
    for (int n = 0; n < CHUNKS; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) o[m][n][e] *= inverse[e / 2];
    store_rows(o[m], q, out + puzzle * TOTAL * (HEADS * HEAD_DIM) + head * HEAD_DIM, HEADS * HEAD_DIM, warp * 2 + m, lane);
    if (lse != 0 && lane % 4 == 0) {
#pragma unroll
      for (int r = 0; r < 2; r++) {
        const int t = (warp * 2 + m) * 16 + lane / 4 + 8 * r;
        if (t < TOTAL) lse[(u64)blockIdx.x * TOTAL + t] = top[m][r] + log2f(sum[m][r]);
      }
    }
  }
}

// d_qkv: [B, TOTAL, 3 HEADS HEAD_DIM] from d_out and out [B, TOTAL, HEADS HEAD_DIM], the projection and lse of the forward pass.
extern "C" __global__ void __launch_bounds__(THREADS)
    attention_backward(const u16* __restrict__ qkv, const float* __restrict__ cos_table,
                       const float* __restrict__ sin_table, const u16* __restrict__ out, const float* __restrict__ lse,
                       const u16* __restrict__ d_out, u16* __restrict__ d_qkv, float scale_log2, float scale) {
  extern __shared__ uint4 memory[];
  u16* q = (u16*)memory;
  u16* k = q + ROWS * STRIDE;
  u16* v = k + ROWS * STRIDE;
  u16* g = v + ROWS * STRIDE;   // d_out
  u16* x = g + ROWS * STRIDE;   // P, then dS: [ROWS][KEYS * 8 + pad]
  const int XS = KEYS * 8 + (KEYS % 2 ? 0 : 8);
  float* delta = (float*)(x + ROWS * XS + 8);
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const int head = blockIdx.x % HEADS;
  const u64 puzzle = blockIdx.x / HEADS;
  load_qkv<ROWS, THREADS, 2>(qkv, cos_table, sin_table, q, k, v);
  const u64 row0 = puzzle * TOTAL * (HEADS * HEAD_DIM) + head * HEAD_DIM;
  constexpr int PIECES = ROWS * CHUNKS / THREADS;
  uint4 a[PIECES], b[PIECES];
#pragma unroll
  for (int l = 0; l < PIECES; l++) {
    const int item = threadIdx.x + l * THREADS, t = item / CHUNKS, j = item % CHUNKS;
    const u64 at = row0 + (u64)t * (HEADS * HEAD_DIM) + j * 8;
    a[l] = t < TOTAL ? *(const uint4*)(d_out + at) : make_uint4(0, 0, 0, 0);
    b[l] = t < TOTAL ? *(const uint4*)(out + at) : make_uint4(0, 0, 0, 0);
  }
#pragma unroll
  for (int l = 0; l < PIECES; l++) {
    const int item = threadIdx.x + l * THREADS, t = item / CHUNKS, j = item % CHUNKS;
    float dot = 0.f;
#pragma unroll
    for (int e = 0; e < 4; e++)
      dot += lo(word(a[l], e)) * lo(word(b[l], e)) + hi(word(a[l], e)) * hi(word(b[l], e));
#pragma unroll
    for (int w = 1; w < CHUNKS; w <<= 1) dot += __shfl_xor_sync(FULL, dot, w);
    *(uint4*)(g + t * STRIDE + j * 8) = a[l];
    if (j == 0) delta[t] = dot;
  }
  __syncthreads();

  float s1[1][KEYS][4], dp1[1][KEYS][4];
  product_abt<1>(s1, q, k, warp, lane);
  product_abt<1>(dp1, g, v, warp, lane);
  float(*s)[4] = s1[0], (*dp)[4] = dp1[0];
  float base[2], del[2];
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int t = warp * 16 + lane / 4 + 8 * r;
    base[r] = t < TOTAL ? lse[(u64)blockIdx.x * TOTAL + t] : 1e30f;
    del[r] = delta[t];
  }
#pragma unroll
  for (int n = 0; n < KEYS; n++)
#pragma unroll
    for (int e = 0; e < 4; e++) {
      const int key = n * 8 + 2 * (lane % 4) + e % 2;
      const float prob = (n < KEYS - 1 || key < TOTAL) ? ex2(s[n][e] * scale_log2 - base[e / 2]) : 0.f;
      s[n][e] = prob;
      dp[n][e] = prob * (dp[n][e] - del[e / 2]) * scale;
    }
  // P to shared memory: the other warps' keys need its columns.
  u16* own = x + (warp * 16 + lane / 4) * XS + 2 * (lane % 4);
#pragma unroll
  for (int n = 0; n < KEYS; n++) {
    *(u32*)(own + n * 8) = pack(s[n][0], s[n][1]);
    *(u32*)(own + n * 8 + 8 * XS) = pack(s[n][2], s[n][3]);
  }
  u32 ds[1][TILES][4];
  to_fragments(ds[0], dp);
  __syncthreads();

  // dV[own keys] = P^TOTAL dO, dK[own keys] = dS^TOTAL Q: A fragments are transposed reads of x.
  const u32 x_at = shared(x + ((lane / 16) * 8 + lane % 8) * XS + warp * 16 + ((lane / 8) % 2) * 8);
  float c[1][CHUNKS][4];
  u32 f[1][TILES][4];
#pragma unroll
  for (int kk = 0; kk < TILES; kk++) ldmatrix4t(f[0][kk], x_at + kk * 16 * XS * 2);
#pragma unroll
  for (int n = 0; n < CHUNKS; n++) c[0][n][0] = c[0][n][1] = c[0][n][2] = c[0][n][3] = 0.f;
  product_pb<1>(c, f, g, lane);
  __syncthreads();   // everybody has read P and v
  u16* d_base = d_qkv + puzzle * TOTAL * (3 * HEADS * HEAD_DIM) + head * HEAD_DIM;
  store_rows(c[0], v, d_base + 2 * HEADS * HEAD_DIM, 3 * HEADS * HEAD_DIM, warp, lane);
#pragma unroll
  for (int n = 0; n < KEYS; n++) {
    *(u32*)(own + n * 8) = ds[0][n / 2][n % 2 * 2];
    *(u32*)(own + n * 8 + 8 * XS) = ds[0][n / 2][n % 2 * 2 + 1];
  }
  __syncthreads();
#pragma unroll
  for (int kk = 0; kk < TILES; kk++) ldmatrix4t(f[0][kk], x_at + kk * 16 * XS * 2);
  float d[1][CHUNKS][4];
#pragma unroll
  for (int n = 0; n < CHUNKS; n++) {
    c[0][n][0] = c[0][n][1] = c[0][n][2] = c[0][n][3] = 0.f;
    d[0][n][0] = d[0][n][1] = d[0][n][2] = d[0][n][3] = 0.f;
  }
  product_pb<1>(c, f, q, lane);    // dK
  product_pb<1>(d, ds, k, lane);   // dQ
  __syncthreads();   // everybody has read q and k
  turn_back(c[0], cos_table, sin_table, warp, lane);
  turn_back(d[0], cos_table, sin_table, warp, lane);
  store_rows(d[0], q, d_base, 3 * HEADS * HEAD_DIM, warp, lane);
  store_rows(c[0], k, d_base + HEADS * HEAD_DIM, 3 * HEADS * HEAD_DIM, warp, lane);
}
