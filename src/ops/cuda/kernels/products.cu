// Matrix products of a layer with what follows them. Persistent blocks in clusters of two: a producer warpgroup fills rings of
// tiles in shared memory by TMA, two consumer warpgroups multiply and write results. bf16 in and out, sums in f32 in one
// order. Rows and columns beyond the matrices are read as zeros and not written.
//
// STEPS: parts of 64 of the hidden width.

extern __shared__ __align__(1024) unsigned char memory[];

#define TILE_A (128 * 64 * 2)

// 1 / (1 + exp(-x)) by one special function; off by less than bf16 resolves.
__device__ __forceinline__ float sigmoid(float x) {
  float t;
  asm("tanh.approx.f32 %0, %1;" : "=f"(t) : "f"(0.5f * x));
  return fmaf(0.5f, t, 0.5f);
}
__device__ __forceinline__ float silu(float x) { return x * sigmoid(x); }

// Where the 16-byte part `block` of a row lies in tiles [., 64] of `tile` bytes, swizzled as TMA does.
__device__ __forceinline__ u32 place(int tile, int row, int block) {
  return block / 8 * tile + row * 128 + ((block ^ row) & 7) * 16;
}

enum Result { PLAIN, SWIGLU, SWIGLU_KEPT, SWIGLU_BACKWARD };

#define HELD_STAGES (STEPS > 4 ? 4 : 8)

// d [M, N] = a [M, K] b [N, K]^T, K = HIDDEN: a block holds 128 rows of a, its warpgroups take turns at 128 columns, and the
// blocks of a cluster share b. With SwiGLU b is [2I, K], loaded in turns of eight rows of gate and up, and d [M, I] is
// silu(gate) up; kept, gate and up are written to `both` [M, 2I] too. Backward b is [K, I], not transposed, and d [M, 2I] the
// gradient of `both` where a b is that of silu(gate) up; a column has 64 then.
template <Result R>
__device__ __forceinline__ void held(const TensorMap *a, const TensorMap *b, const TensorMap *d, const TensorMap *both,
                                     int pairs, int columns) {
  constexpr int COLUMNS = R == SWIGLU_BACKWARD ? 64 : 128, TILE_B = COLUMNS * 64 * 2;
  // Plain results share one buffer of 32 KB, in turns; forward there are 16 KB for each warpgroup, backward 32 KB.
  constexpr int OUT = R == SWIGLU_BACKWARD ? 32768 : R == PLAIN ? 0 : 16384;
  const u32 at_a = shared_address(memory), at_b = at_a + STEPS * TILE_A, at_out = at_b + HELD_STAGES * TILE_B;
  const u32 full = at_out + (R == SWIGLU_BACKWARD ? 65536 : 32768), empty = full + 8 * HELD_STAGES;
  const u32 full_a = empty + 8 * HELD_STAGES, empty_a = full_a + 8 * STEPS, full_both = empty_a + 8 * STEPS;
  const int group = threadIdx.x / 128, lane = threadIdx.x % 32;
  const u32 rank = cluster_rank();
  if (threadIdx.x == 0) {
    for (int s = 0; s < HELD_STAGES; s++) {
      barrier_init(full + 8 * s, 1);
      barrier_init(empty + 8 * s, 2);
    }
    for (int k = 0; k < STEPS; k++) {
      barrier_init(full_a + 8 * k, 1);
      barrier_init(empty_a + 8 * k, 2);
    }
    for (int w = 0; w < 2; w++) barrier_init(full_both + 8 * w, 1);
    barrier_init_fence();
  }
  cluster_sync();
  // Each cluster has as many columns as any other, in order: the rest of a pair of row tiles, whole ones, a beginning.
  const int cluster = blockIdx.x / 2, clusters = gridDim.x / 2;
  const int from = (long long)pairs * columns * cluster / clusters, to = (long long)pairs * columns * (cluster + 1) / clusters;
  if (group == 0) {
    registers_down();
    if (threadIdx.x == 0) {
      int slot = 0;
      u32 phase = 0, phase_a = 0;
      for (int at = from; at < to;) {
        const int row = (at / columns * 2 + rank) * 128, begin = at % columns, end = min(columns, begin + to - at);
        at += end - begin;
        for (int c = begin; c < end; c++) {
          for (int k = 0; k < STEPS; k++) {
            if (c == begin) {
              barrier_wait(empty_a + 8 * k, phase_a ^ 1);
              barrier_expect(full_a + 8 * k, TILE_A);
              load_tile(at_a + k * TILE_A, a, full_a + 8 * k, k * 64, row);
            }
            barrier_wait(empty + 8 * slot, phase ^ 1);
            barrier_expect(full + 8 * slot, TILE_B);
            const u32 half = at_b + slot * TILE_B + rank * (TILE_B / 2);
            if (R == PLAIN) load_tile_multicast(half, b, full + 8 * slot, k * 64, c * 128 + rank * 64, 3);
            else if (R == SWIGLU_BACKWARD) load_tile_multicast(half, b, full + 8 * slot, c * 64, k * 64 + rank * 32, 3);
            else load_pairs_multicast(half, b, full + 8 * slot, k * 64, c * 8 + rank * 4, 3);
            if (++slot == HELD_STAGES) slot = 0, phase ^= 1;
          }
        }
        phase_a ^= 1;
      }
    }
  } else {
    registers_up();
    const int w = group - 1, warp = threadIdx.x / 32 % 4;
    const bool first = threadIdx.x % 128 == 0;
    const u32 out = at_out + w * OUT;
    // What this lane addresses in a store of four matrices: a row, and the first or second block of eight columns.
    const int line = warp * 16 + (lane / 8 % 2) * 8 + lane % 8, second = lane / 16;
    u32 phase_a = 0;
    int number = 0;  // of the column, over all row tiles: a warpgroup takes those of its parity
    float acc[2][COLUMNS / 2];
    for (int at = from; at < to;) {
      const int row = (at / columns * 2 + rank) * 128, begin = at % columns, end = min(columns, begin + to - at);
      at += end - begin;
      bool has_a = false;
      for (int c = begin; c < end; c++, number++) {
        if (number % 2 != w) continue;
        const bool last_of_rows = c + 2 >= end, last = number + 1 == to - from;
        int before = 0;
        // In turns, so that nobody waits for a slot two uses ahead.
        if (number > 0) turn_wait(5 + w);
        for (int k = 0; k < STEPS; k++) {
          const int step = number * STEPS + k, slot = step % HELD_STAGES;
          if (!has_a) barrier_wait(full_a + 8 * k, phase_a);
          barrier_wait(full + 8 * slot, step / HELD_STAGES & 1);
          if (k == STEPS - 1 && !last) turn_pass(5 + (w ^ 1));
          const u64 of_a = descriptor(at_a + k * TILE_A), of_b = descriptor(at_b + slot * TILE_B);
          wgmma_fence();
#pragma unroll
          for (int i = 0; i < 4; i++)
#pragma unroll
            for (int m = 0; m < 2; m++) {
              const u64 part_a = of_a + 512 * m + 2 * i;
              if constexpr (R == SWIGLU_BACKWARD) wgmma_transposed(acc[m], part_a, of_b + 128 * i, k + i > 0);
              else wgmma(acc[m], part_a, of_b + 2 * i, k + i > 0);
            }
          wgmma_commit();
          if (R == SWIGLU_BACKWARD && k == 0 && first) {
            // gate and up come to where the last results were stored from.
            store_wait_read();
            barrier_expect(full_both + 8 * w, 32768);
            load_tile(out, both, full_both + 8 * w, c * 64, row);
            load_tile(out + 16384, both, full_both + 8 * w, INTER + c * 64, row);
          }
          if (k > 0) {
            wgmma_wait<1>();
            if (lane < 2 && warp == 0) barrier_arrive(empty + 8 * before, lane);
            if (last_of_rows && first) barrier_arrive(empty_a + 8 * (k - 1));
          }
          before = slot;
        }
        wgmma_wait<0>();
        if (lane < 2 && warp == 0) barrier_arrive(empty + 8 * before, lane);
        if (last_of_rows && first) barrier_arrive(empty_a + 8 * (STEPS - 1));
        has_a = true;

        if constexpr (R == PLAIN) {
          if (number > 0) turn_wait(3 + w);
#pragma unroll
          for (int m = 0; m < 2; m++) {
#pragma unroll
            for (int j = 0; j < 8; j++) {
              const float *x = acc[m] + 8 * j;
              store_matrices(out + place(16384, m * 64 + line, 2 * j + second), pack(x[0], x[1]), pack(x[2], x[3]),
                             pack(x[4], x[5]), pack(x[6], x[7]));
            }
          }
          fence_async();
          group_sync(1 + w);
          if (first) {
            store_tile(d, out, c * 128, row);
            store_tile(d, out + 16384, c * 128 + 64, row);
            store_commit();
            store_wait_read();
          }
          __syncwarp();
          if (!last) turn_pass(3 + (w ^ 1));
        } else if constexpr (R == SWIGLU_BACKWARD) {
          barrier_wait(full_both + 8 * w, number / 2 & 1);
#pragma unroll
          for (int m = 0; m < 2; m++) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
              const u32 at = out + place(16384, m * 64 + line, 2 * j + second);
              u32 gate[4], up[4];
              load_matrices(at, gate[0], gate[1], gate[2], gate[3]);
              load_matrices(at + 16384, up[0], up[1], up[2], up[3]);
#pragma unroll
              for (int i = 0; i < 4; i++) {
                const float *dh = acc[m] + 8 * j + 2 * i;
                float d_gate[2], d_up[2];
#pragma unroll
                for (int e = 0; e < 2; e++) {
                  const float g = e ? hi(gate[i]) : lo(gate[i]), u = e ? hi(up[i]) : lo(up[i]), s = sigmoid(g);
                  d_up[e] = dh[e] * g * s;
                  d_gate[e] = dh[e] * u * s * (1.f + g * (1.f - s));
                }
                gate[i] = pack(d_gate[0], d_gate[1]), up[i] = pack(d_up[0], d_up[1]);
              }
              store_matrices(at, gate[0], gate[1], gate[2], gate[3]);
              store_matrices(at + 16384, up[0], up[1], up[2], up[3]);
            }
          }
          fence_async();
          group_sync(1 + w);
          if (first) {
            store_tile(d, out, c * 64, row);
            store_tile(d, out + 16384, INTER + c * 64, row);
            store_commit();
          }
        } else {
          // Blocks of eight columns: gate, up, gate, up, ... Of each pair of pairs three times two blocks are written: the
          // gates, the ups and the results, each as a tile of 64 columns.
#pragma unroll
          for (int part = R == SWIGLU_KEPT ? 0 : 2; part < 3; part++) {
            if (first) store_wait_read();
            group_sync(1 + w);
#pragma unroll
            for (int m = 0; m < 2; m++) {
#pragma unroll
              for (int j = 0; j < 4; j++) {
                u32 v[4];
#pragma unroll
                for (int i = 0; i < 4; i++) {
                  // Rows l and l + 8 of the first pair of blocks, then of the second.
                  const float *x = acc[m] + 16 * j + 8 * (i / 2) + 2 * (i % 2);
                  const u32 gate = pack(x[0], x[1]), up = pack(x[4], x[5]);
                  v[i] = part == 0   ? gate
                         : part == 1 ? up
                                     : pack(silu(lo(gate)) * lo(up), silu(hi(gate)) * hi(up));
                }
                store_matrices(out + place(16384, m * 64 + line, 2 * j + second), v[0], v[1], v[2], v[3]);
              }
            }
            fence_async();
            group_sync(1 + w);
            if (first) {
              if (part == 2) store_tile(d, out, c * 64, row);
              else store_tile(both, out, part * INTER + c * 64, row);
              store_commit();
            }
          }
        }
      }
      // Without a column of these rows, its part of a is released all the same.
      if (!has_a)
        for (int k = 0; k < STEPS; k++) {
          barrier_wait(full_a + 8 * k, phase_a);
          if (first) barrier_arrive(empty_a + 8 * k);
        }
      phase_a ^= 1;
    }
    if (first) store_wait_all();
  }
  cluster_sync();
}

#if STEPS <= 8
extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1)
linear(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, const __grid_constant__ TensorMap d, int pairs,
       int columns) {
  held<PLAIN>(&a, &b, &d, nullptr, pairs, columns);
}

extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1)
linear_swiglu(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, const __grid_constant__ TensorMap d,
              int pairs, int columns) {
  held<SWIGLU>(&a, &b, &d, nullptr, pairs, columns);
}

extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1)
linear_swiglu_kept(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b,
                   const __grid_constant__ TensorMap d, const __grid_constant__ TensorMap both, int pairs, int columns) {
  held<SWIGLU_KEPT>(&a, &b, &d, &both, pairs, columns);
}

extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1)
linear_swiglu_backward(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b,
                       const __grid_constant__ TensorMap both, const __grid_constant__ TensorMap d, int pairs, int columns) {
  held<SWIGLU_BACKWARD>(&a, &b, &d, &both, pairs, columns);
}
#endif

#if HIDDEN == 128 || HIDDEN == 256 || HIDDEN == 512
#define WIDE (HIDDEN / 2)
#define WIDE_STAGES (WIDE > 128 ? 3 : 5)
#define WIDE_TILE_B (WIDE * 64 * 2)
#define WIDE_OUT (64 * WIDE * 2)

// y [M, HIDDEN] = r s, s = x + a [M, K] b [HIDDEN, K]^T, r [M] = 1 / sqrt(mean(s^2) + eps). A cluster has 128 rows, each of its
// blocks half of the columns; the sums of squares are exchanged. steps: parts of 64 of K.
extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1)
linear_rms(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, const __grid_constant__ TensorMap x,
           const __grid_constant__ TensorMap y, float *r, int rows, int steps, float eps) {
  const u32 at_a = shared_address(memory), at_b = at_a + WIDE_STAGES * TILE_A, at_out = at_b + WIDE_STAGES * WIDE_TILE_B;
  const u32 full = at_out + 2 * WIDE_OUT, empty = full + 8 * WIDE_STAGES, full_x = empty + 8 * WIDE_STAGES;
  // For each warpgroup and parity of its tiles: a barrier, and the other block's sums of 64 rows.
  const u32 heard = full_x + 16, sums = heard + 32;
  const int group = threadIdx.x / 128, lane = threadIdx.x % 32;
  const u32 rank = cluster_rank();
  if (threadIdx.x == 0) {
    for (int s = 0; s < WIDE_STAGES; s++) {
      barrier_init(full + 8 * s, 1);
      barrier_init(empty + 8 * s, 4);
    }
    for (int w = 0; w < 2; w++) barrier_init(full_x + 8 * w, 1);
    for (int i = 0; i < 4; i++) {
      barrier_init(heard + 8 * i, 1);
      barrier_expect(heard + 8 * i, 256);
    }
    barrier_init_fence();
  }
  cluster_sync();
  const int clusters = gridDim.x / 2, tiles = (rows + 127) / 128;
  if (group == 0) {
    registers_down();
    if (threadIdx.x == 0) {
      int slot = 0;
      u32 phase = 0;
      for (int t = blockIdx.x / 2; t < tiles; t += clusters)
        for (int k = 0; k < steps; k++) {
          barrier_wait(empty + 8 * slot, phase ^ 1);
          barrier_expect(full + 8 * slot, TILE_A + WIDE_TILE_B);
          load_tile_multicast(at_a + slot * TILE_A + rank * (TILE_A / 2), &a, full + 8 * slot, k * 64,
                              t * 128 + rank * 64, 3);
          load_tile(at_b + slot * WIDE_TILE_B, &b, full + 8 * slot, k * 64, rank * WIDE);
          if (++slot == WIDE_STAGES) slot = 0, phase ^= 1;
        }
    }
  } else {
    registers_up();
    const int w = group - 1, warp = threadIdx.x / 32 % 4;
    const bool first = threadIdx.x % 128 == 0;
    const u32 out = at_out + w * WIDE_OUT;
    const int line = warp * 16 + (lane / 8 % 2) * 8 + lane % 8, second = lane / 16;
    int slot = 0, number = 0;
    u32 phase = 0;
    float acc[WIDE / 2];
    for (int t = blockIdx.x / 2; t < tiles; t += clusters, number++) {
      int before = 0;
      for (int k = 0; k < steps; k++) {
        barrier_wait(full + 8 * slot, phase);
        const u64 of_a = descriptor(at_a + slot * TILE_A + w * (TILE_A / 2)), of_b = descriptor(at_b + slot * WIDE_TILE_B);
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < 4; i++) wgmma(acc, of_a + 2 * i, of_b + 2 * i, k + i > 0);
        wgmma_commit();
        if (k == 0 && first) {
          // x comes to where the last tile's result was stored from.
          store_wait_read();
          barrier_expect(full_x + 8 * w, WIDE_OUT);
#pragma unroll
          for (int i = 0; i < WIDE / 64; i++)
            load_tile(out + i * 8192, &x, full_x + 8 * w, rank * WIDE + i * 64, t * 128 + w * 64);
        }
        if (k > 0) {
          wgmma_wait<1>();
          if (lane < 2 && warp == 0) barrier_arrive(empty + 8 * before, lane);
        }
        before = slot;
        if (++slot == WIDE_STAGES) slot = 0, phase ^= 1;
      }
      wgmma_wait<0>();
      if (lane < 2 && warp == 0) barrier_arrive(empty + 8 * before, lane);
      barrier_wait(full_x + 8 * w, number & 1);
      // Rows l and l + 8 of the warp.
      float low = 0, high = 0;
#pragma unroll
      for (int j = 0; j < WIDE / 16; j++) {
        u32 v[4];
        load_matrices(out + place(8192, line, 2 * j + second), v[0], v[1], v[2], v[3]);
#pragma unroll
        for (int i = 0; i < 4; i++) {
          float *s = acc + 8 * j + 2 * i;
          s[0] += lo(v[i]), s[1] += hi(v[i]);
          const float square = s[0] * s[0] + s[1] * s[1];
          if (i % 2) high += square;
          else low += square;
        }
      }
#pragma unroll
      for (int o = 1; o < 4; o *= 2) low += __shfl_xor_sync(FULL, low, o), high += __shfl_xor_sync(FULL, high, o);
      const int cell = 2 * w + (number & 1), mine = warp * 16 + lane / 4;
      if (lane % 4 == 0) {
        send(sums + 256 * cell + 4 * mine, heard + 8 * cell, rank ^ 1, low);
        send(sums + 256 * cell + 4 * (mine + 8), heard + 8 * cell, rank ^ 1, high);
      }
      barrier_wait(heard + 8 * cell, number / 2 & 1);
      // It counts the sums of the tile after the next, which the other block sends once it has this block's of the next.
      if (first) barrier_expect(heard + 8 * cell, 256);
      const u32 from = sums + 256 * cell + 4 * mine;
      const float other_low = shared_float(from), other_high = shared_float(from + 32);
      const float scale_low = rsqrtf((low + other_low) * (1.f / HIDDEN) + eps);
      const float scale_high = rsqrtf((high + other_high) * (1.f / HIDDEN) + eps);
      if (rank == 0 && lane % 4 == 0) {
        const int at = t * 128 + w * 64 + mine;
        if (at < rows) r[at] = scale_low;
        if (at + 8 < rows) r[at + 8] = scale_high;
      }
#pragma unroll
      for (int j = 0; j < WIDE / 16; j++) {
        const float *s = acc + 8 * j;
        store_matrices(out + place(8192, line, 2 * j + second), pack(s[0] * scale_low, s[1] * scale_low),
                       pack(s[2] * scale_high, s[3] * scale_high), pack(s[4] * scale_low, s[5] * scale_low),
                       pack(s[6] * scale_high, s[7] * scale_high));
      }
      fence_async();
      group_sync(1 + w);
      if (first) {
#pragma unroll
        for (int i = 0; i < WIDE / 64; i++) store_tile(&y, out + i * 8192, rank * WIDE + i * 64, t * 128 + w * 64);
        store_commit();
      }
    }
    if (first) store_wait_all();
  }
  cluster_sync();
}
#endif
