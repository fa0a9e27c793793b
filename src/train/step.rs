//! One training step (upstream's `train_batch`): one segment, its backward pass, both optimisers.
//!
//! The carry persists over batches, so a row works on the same puzzle for several steps. Gradients are of
//! `loss / global_batch_size`. The puzzle embedding's sign-SGD goes first, then Adam-atan2.

use anyhow::Result;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use crate::{
    config::TrainConfig,
    model::{Carry, DeviceBatch, Exploration, Metrics, Model, TrainSegment, loss_head},
    optim::{AdamAtan2, AdamConfig, CosineSchedule, sparse_sign_sgd},
};

/// Everything that the next step depends on.
#[derive(Debug)]
pub struct Trainer {
    pub model: Model,
    pub adam: AdamAtan2,
    pub carry: Carry,
    /// Steps done.
    pub step: i64,
    schedule: CosineSchedule,
    config: TrainConfig,
}

/// What a step leaves for the log; sums over the batch, still on the device.
#[derive(Debug)]
pub struct StepReport {
    /// [`crate::model::METRICS`], `[8]` f64.
    pub metrics: Tensor,
    /// The dense optimiser's learning rate.
    pub lr: f64,
}

impl Trainer {
    /// A trainer for `local_rows` rows a step out of `config.global_batch_size`.
    pub fn new(mut model: Model, config: &TrainConfig, total_steps: i64, local_rows: i64) -> Self {
        model.params_mut().prepare_training();
        let adam = AdamConfig { beta1: config.beta1, beta2: config.beta2, weight_decay: config.weight_decay };
        Self {
            adam: AdamAtan2::new(model.params().master(), adam),
            carry: model.initial_carry(local_rows),
            schedule: CosineSchedule {
                warmup_steps: config.lr_warmup_steps,
                total_steps,
                min_ratio: config.lr_min_ratio,
            },
            step: 0,
            model,
            config: config.clone(),
        }
    }

    /// Forward and backward pass of the next step: fills the gradients, moves the carry on.
    pub fn accumulate(&mut self, batch: &DeviceBatch, draws: &Exploration) -> (TrainSegment, Metrics) {
        let result = self.model.train_segment(&self.carry, batch, draws);
        let loss_type = self.model.config().loss_type;
        let metrics = loss_head(loss_type, &result.segment, result.target_q_continue.as_ref());
        (&metrics.loss / self.config.global_batch_size as f64).backward();
        (result, metrics)
    }

    /// Both optimisers on the gathered gradients, then clears them.
    pub fn apply(&mut self, identifiers: &Tensor, puzzle_rows: Option<&Tensor>) -> Result<f64> {
        self.step += 1;
        if let (Some(rows), Some(table)) = (puzzle_rows, self.model.puzzle_emb_mut()) {
            let lr = self.schedule.lr(self.config.puzzle_emb_lr, self.step);
            sparse_sign_sgd(table, identifiers, &rows.grad(), lr, self.config.puzzle_emb_weight_decay);
        }
        let lr = self.schedule.lr(self.config.lr, self.step);
        let params = self.model.params_mut();
        if let Some(grad) = params.grad() {
            self.adam.step(params.master(), grad, lr);
        }
        params.refresh();
        params.clear_grad();
        Ok(lr)
    }

    /// The whole step.
    pub fn train_step(&mut self, batch: &DeviceBatch, draws: &Exploration) -> Result<StepReport> {
        let (result, metrics) = self.accumulate(batch, draws);
        self.carry = result.segment.carry;
        let identifiers = self.carry.batch.puzzle_identifiers.shallow_clone();
        let lr = self.apply(&identifiers, result.puzzle_rows.as_ref())?;
        Ok(StepReport { metrics: metrics.values, lr })
    }
}

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
            uniform: Tensor::from_slice(&uniform).to_device(device),
            min_steps: Tensor::from_slice(&min_steps).to_kind(Kind::Int).to_device(device),
        }
    }
}
