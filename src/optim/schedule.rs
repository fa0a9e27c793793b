//! Linear warm-up, then a cosine down to `min_ratio`:
//! `base t/warmup` before it ends, then `base (r + (1 - r) (1 + cos(pi p)) / 2)`, `p = (t - warmup)/(total - warmup)`.

/// The learning-rate schedule of both optimisers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CosineSchedule {
    /// Steps of linear warm-up from 0.
    pub warmup_steps: i64,
    /// Steps until the lowest rate.
    pub total_steps: i64,
    /// Lowest rate, as a share of the base rate.
    pub min_ratio: f64,
}

impl CosineSchedule {
    /// The rate at a step (the first training step is 1).
    pub fn lr(&self, base: f64, step: i64) -> f64 {
        if step < self.warmup_steps {
            return base * step as f64 / self.warmup_steps.max(1) as f64;
        }
        let progress = (step - self.warmup_steps) as f64 / (self.total_steps - self.warmup_steps).max(1) as f64;
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
        base * (self.min_ratio + ((1.0 - self.min_ratio) * cosine).max(0.0))
    }
}

/// Training steps of a run: `int(epochs * total_groups * mean_puzzle_examples / global_batch_size)`.
pub fn total_steps(epochs: i64, total_groups: i64, mean_puzzle_examples: f64, global_batch_size: i64) -> i64 {
    (epochs as f64 * total_groups as f64 * mean_puzzle_examples / global_batch_size as f64) as i64
}
