//! One training step (upstream's `train_batch`): one segment, its backward pass, both optimisers.
//!
//! The carry persists over batches, so a row works on the same puzzle for several steps. Gradients are of
//! `loss / global_batch_size`. The puzzle embedding's sign-SGD goes first, then Adam-atan2.

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

    /// Forward and backward pass on one batch: adds to the gradients.
    pub fn accumulate(&mut self, batch: &DeviceBatch, draws: &Exploration) -> Accumulated {
        let result = self.model.train_segment(&self.carry, batch, draws);
        let loss_type = self.model.config().loss_type;
        let scale = 1.0 / self.config.global_batch_size as f64;
        let metrics = loss_head(self.model.ops(), loss_type, &result.segment, result.target_q_continue.as_ref(), scale);
        let puzzle_grad = self.model.backward_segment(&result, &metrics.grads);
        let identifiers = result.segment.carry.batch.puzzle_identifiers.shallow_clone();
        Accumulated { result, metrics, puzzle: puzzle_grad.map(|grad| PuzzleGrad { identifiers, grad }) }
    }

    /// Both optimisers on the gathered gradients, then clears them. Returns the dense learning rate.
    pub fn apply(&mut self, puzzle: Option<&PuzzleGrad>) -> f64 {
        self.step += 1;
        if let (Some(puzzle), Some(table)) = (puzzle, self.model.puzzle_emb_mut()) {
            let lr = self.schedule.lr(self.config.puzzle_emb_lr, self.step);
            let decay = self.config.puzzle_emb_weight_decay;
            sparse_sign_sgd(table, &puzzle.identifiers, &puzzle.grad, lr, decay);
        }
        let lr = self.schedule.lr(self.config.lr, self.step);
        let fused = match (self.model.ops().fused(), self.model.params().flat()) {
            (Some(_), Some((master, grad, copy))) => {
                let scalars = self.adam.scalars(lr, master.device());
                self.adam.step_fused(self.model.ops(), master, grad, copy, &scalars)
            }
            _ => false,
        };
        let params = self.model.params_mut();
        if !fused {
            if let Some(grad) = params.grad() {
                self.adam.step(params.master(), grad, lr);
            }
            params.refresh();
        }
        params.clear_grad();
        lr
    }

    /// The whole step.
    pub fn train_step(&mut self, batch: &DeviceBatch, draws: &Exploration) -> StepReport {
        let done = self.accumulate(batch, draws);
        self.carry = done.result.segment.carry;
        let lr = self.apply(done.puzzle.as_ref());
        StepReport { metrics: done.metrics.values, lr }
    }
}

/// What a forward and backward pass leaves beside the dense gradients.
#[derive(Debug)]
pub struct Accumulated {
    pub result: TrainSegment,
    pub metrics: Metrics,
    /// None without puzzle embedding.
    pub puzzle: Option<PuzzleGrad>,
}

/// The gradient of the rows' puzzle embeddings.
#[derive(Debug)]
pub struct PuzzleGrad {
    /// Of the rows that took part. `[B]`, int32.
    pub identifiers: Tensor,
    /// `[B, ndim]`, f32.
    pub grad: Tensor,
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
