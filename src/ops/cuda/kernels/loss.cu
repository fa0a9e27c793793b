// The loss head: a block a puzzle, a thread a cell; stablemax in f64. See ops/loss.rs for the formulas.

#define METRICS 8
#define LOSS_THREADS 256

__device__ __forceinline__ double block_sum(double v, double* memory) {
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(FULL, v, o);
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (lane == 0) memory[warp] = v;
  __syncthreads();
  double total = 0.;
  for (int w = 0; w < LOSS_THREADS / WARP; w++) total += memory[w];
  __syncthreads();
  return total;
}

__device__ __forceinline__ double stablemax(double x) { return x >= 0. ? x + 1. : 1. / (1. - x + 1e-30); }
__device__ __forceinline__ float bce(float x, float y) { return fmaxf(x, 0.f) - x * y + log1pf(expf(-fabsf(x))); }
__device__ __forceinline__ float logistic(float x) { return 1.f / (1.f + expf(-x)); }

// logits, d_logits: [B, CELLS, VOCAB] bf16; labels: [B, CELLS]; q: [B, 2] f32; target: [B] f32 or null; steps: [B];
// rows: [B, METRICS] f64; d_q: [B, 2] f32.
extern "C" __global__ void __launch_bounds__(LOSS_THREADS)
    stablemax_head(const u16* __restrict__ logits, const int* __restrict__ labels, const float* __restrict__ q_halt,
                   const float* __restrict__ q_continue, const float* __restrict__ target, const int* __restrict__ steps,
                   u16* __restrict__ d_logits, float* __restrict__ d_q, double* __restrict__ rows, double scale) {
  __shared__ double memory[LOSS_THREADS / WARP];
  const int puzzle = blockIdx.x;
  int cells = 0, correct = 0;
  for (int c = threadIdx.x; c < (CELLS + LOSS_THREADS - 1) / LOSS_THREADS * LOSS_THREADS; c += LOSS_THREADS) {
    const int label = c < CELLS ? labels[(u64)puzzle * CELLS + c] : -100;
    bool hit = false;
    if (label != -100) {
      const u16* row = logits + ((u64)puzzle * CELLS + c) * VOCAB;
      float best = bf16(row[0]);
      int arg = 0;
      for (int j = 1; j < VOCAB; j++) {
        const float x = bf16(row[j]);
        if (x > best) {
          best = x;
          arg = j;
        }
      }
      hit = arg == label;
    }
    cells += __syncthreads_count(label != -100);
    correct += __syncthreads_count(hit);
  }
  const double weight = 1. / (double)max(cells, 1);
  double loss = 0.;
  for (int c = threadIdx.x; c < CELLS; c += LOSS_THREADS) {
    const int label = labels[(u64)puzzle * CELLS + c];
    const u64 at = ((u64)puzzle * CELLS + c) * VOCAB;
    double sum = 0., at_label = 1.;
    for (int j = 0; j < VOCAB; j++) {
      const double s = stablemax((double)bf16(logits[at + j]));
      sum += s;
      if (j == label) at_label = s;
    }
    if (label != -100) loss += (log(sum) - log(at_label)) * weight;
    for (int j = 0; j < VOCAB; j++) {
      const double x = (double)bf16(logits[at + j]), s = stablemax(x);
      const double slope = x >= 0. ? 1. : s * s;
      const double d = (1. / sum - (j == label ? 1. / s : 0.)) * slope * weight * scale;
      d_logits[at + j] = label == -100 ? (u16)0 : (u16)(pack((float)d, 0.f) & 0xffffu);
    }
  }
  loss = block_sum(loss, memory);
  if (threadIdx.x == 0) {
    const bool exact = correct == cells, valid = cells > 0;
    const float halt = q_halt[puzzle], cont = q_continue[puzzle], solved = exact ? 1.f : 0.f;
    double* m = rows + (u64)puzzle * METRICS;
    m[0] = valid;
    m[1] = valid ? (double)((float)correct / (float)max(cells, 1)) : 0.;
    m[2] = valid && exact;
    m[3] = valid && ((halt >= 0.f) == exact);
    m[4] = valid ? (double)steps[puzzle] : 0.;
    m[5] = loss;
    m[6] = (double)bce(halt, solved);
    m[7] = target ? (double)bce(cont, target[puzzle]) : 0.;
    d_q[2 * puzzle] = (float)((logistic(halt) - solved) * 0.5 * scale);
    d_q[2 * puzzle + 1] = target ? (float)((logistic(cont) - target[puzzle]) * 0.5 * scale) : 0.f;
  }
}

// sums[METRICS] over rows in a fixed order; loss = lm + (halt + continue) / 2.
extern "C" __global__ void __launch_bounds__(LOSS_THREADS)
    sum_rows(const double* __restrict__ rows, double* __restrict__ sums, double* __restrict__ loss, int batch) {
  __shared__ double memory[LOSS_THREADS / WARP];
  double total[METRICS];
  for (int m = 0; m < METRICS; m++) {
    double v = 0.;
    for (int b = threadIdx.x; b < batch; b += LOSS_THREADS) v += rows[(u64)b * METRICS + m];
    total[m] = block_sum(v, memory);
    if (threadIdx.x == 0) sums[m] = total[m];
  }
  if (threadIdx.x == 0) *loss = total[5] + 0.5 * (total[6] + total[7]);
}
