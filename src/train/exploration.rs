//! Random draws of a training segment.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use crate::{model::Exploration, runtime};

impl Exploration {
    /// The draws of one step for rows `first..first + rows` of the global batch. They depend on seed, step and the
    /// row's place in the global batch alone, so that any number of processes draws the same.
    pub fn draw(seed: u64, step: i64, first: i64, rows: i64, max_steps: i64, device: tch::Device) -> Self {
        let mut uniform = Vec::with_capacity(rows as usize);
        let mut min_steps = Vec::with_capacity(rows as usize);
        for row in first..first + rows {
            let mut rng = ChaCha8Rng::seed_from_u64(seed ^ (step as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            rng.set_stream(row as u64);
            uniform.push(rng.random::<f32>());
            min_steps.push(rng.random_range(2..=max_steps.max(2)) as i32);
        }
        Self {
            uniform: runtime::upload(&Tensor::from_slice(&uniform), device),
            min_steps: runtime::upload(&Tensor::from_slice(&min_steps), device),
        }
    }
}
