//! One training step (upstream's `train_batch`): one segment, its backward pass, both optimisers.
//!
//! The carry persists over batches, so a row works on the same puzzle for several steps. Gradients are of
//! `loss / global_batch_size`. The puzzle embedding's sign-SGD goes first, then Adam-atan2.

use anyhow::Result;
use tch::{Device, Tensor, no_grad};

use super::{
    Peers,
    pass::{Accumulated, PassPlan, PuzzleGrad, accumulate, pass, with_norm},
    step_graph::StepGraph,
};
use crate::{
    config::TrainConfig,
    model::{Carry, DeviceBatch, Exploration, Model},
    optim::{AdamAtan2, AdamConfig, AdamScalars, CosineSchedule, sparse_sign_sgd},
    runtime::{self, Recorded},
};

/// Everything that the next step depends on.
#[derive(Debug)]
pub struct Trainer {
    /// The model.
    pub model: Model,
    /// State of the dense optimiser.
    pub adam: AdamAtan2,
    /// What the rows keep between steps.
    pub carry: Carry,
    /// Steps done.
    pub step: i64,
    /// Moving average of the parameters, flat as they are; none where `ema_decay` is 0.
    pub ema: Option<Tensor>,
    /// The processes that work on the other rows of the batch.
    pub peers: Peers,
    schedule: CosineSchedule,
    pub(super) config: TrainConfig,
    pub(super) recorded: Recorded<StepGraph>,
}

/// What a step leaves for the log; sums over the batch, still on the device.
#[derive(Debug)]
pub struct StepReport {
    /// A value for each of [`crate::metrics::Metric::ALL`], `[8]` f64; with `log_grad_norm` the gradient's norm behind them, `[9]`.
    pub metrics: Tensor,
    /// The dense optimiser's learning rate.
    pub lr: f64,
}

/// Eager steps before one is recorded: libraries choose their algorithms in the first.
const EAGER_STEPS: i64 = 2;

impl Trainer {
    /// A trainer for `local_rows` rows a step out of `config.global_batch_size`.
    pub fn new(mut model: Model, config: &TrainConfig, total_steps: i64, local_rows: i64) -> Self {
        model.params_mut().prepare_training();
        let adam = AdamConfig { beta1: config.beta1, beta2: config.beta2, weight_decay: config.weight_decay };
        let recorded = if model.ops().recordable() { Recorded::NotYet } else { Recorded::Impossible };
        Self {
            adam: AdamAtan2::new(model.params().master(), adam),
            carry: model.initial_carry(local_rows),
            schedule: CosineSchedule {
                warmup_steps: config.lr_warmup_steps,
                total_steps,
                min_ratio: config.lr_min_ratio,
            },
            step: 0,
            ema: (config.ema_decay > 0.0).then(|| model.params().master().copy()),
            model,
            peers: Peers::alone(),
            config: config.clone(),
            recorded,
        }
    }

    /// Launches every step one by one, for comparisons.
    pub fn forbid_graph(&mut self) {
        self.recorded = Recorded::Impossible;
    }

    /// Forward and backward pass on one batch: adds to the gradients.
    pub fn accumulate(&mut self, batch: &DeviceBatch, draws: &Exploration) -> Accumulated {
        let scale = 1.0 / self.config.global_batch_size as f64;
        accumulate(&mut self.model, &self.carry, batch, draws, scale)
    }

    /// Both optimisers on the gathered gradients, then clears them. Returns the dense learning rate.
    pub fn apply(&mut self, puzzle: Option<&PuzzleGrad>) -> f64 {
        let (scalars, lr) = self.begin_step();
        let on_device = scalars.upload(self.model.device());
        update(&mut self.model, &mut self.adam, puzzle, &on_device, Some(scalars.adam));
        self.follow();
        lr
    }

    fn follow(&mut self) {
        follow(self.ema.as_ref(), self.model.params().master(), self.config.ema_decay);
    }

    /// Runs `body` with the moving average in the weights' place; without one, with the weights as they are.
    pub fn with_ema<T>(&mut self, body: impl FnOnce(&Model) -> T) -> T {
        let Some(ema) = &self.ema else { return body(&self.model) };
        let weights = self.model.params().master().copy();
        self.model.params_mut().set_master(ema);
        let done = body(&self.model);
        self.model.params_mut().set_master(&weights);
        done
    }

    /// The whole step; on a GPU with fused kernels, from the third one on, as a CUDA graph.
    ///
    /// # Errors
    /// A peer that is gone.
    pub fn train_step(&mut self, batch: &DeviceBatch, draws: &Exploration) -> Result<StepReport> {
        if self.step >= EAGER_STEPS && !matches!(self.recorded, Recorded::Impossible) {
            let (scalars, lr) = self.begin_step();
            return Ok(StepReport { metrics: self.graph_step(batch, draws, scalars)?, lr });
        }
        let plan = self.pass_plan();
        let done = pass(&mut self.model, &self.carry, batch, draws, plan);
        self.carry = done.carry;
        let metrics = self.exchange(done.metrics)?;
        let puzzle = self.peers.gather(&done.puzzle)?;
        let lr = self.apply(puzzle.as_ref());
        Ok(StepReport { metrics, lr })
    }

    /// With peers the gradient's norm is not known before the exchange.
    pub(super) fn pass_plan(&self) -> PassPlan {
        let mut plan = PassPlan::new(&self.config);
        plan.norm &= self.peers.are_none();
        plan
    }

    /// Sums the dense gradients over the ranks, and gives the metrics their norm.
    pub(super) fn exchange(&self, metrics: Tensor) -> Result<Tensor> {
        if self.peers.are_none() {
            return Ok(metrics);
        }
        if let Some((_, grad, _)) = self.model.params().flat() {
            self.peers.sum_gradients(grad)?;
        }
        Ok(if self.config.log_grad_norm { with_norm(metrics, &self.model) } else { metrics })
    }

    /// Counts the step and computes what changes from step to step.
    fn begin_step(&mut self) -> (StepScalars, f64) {
        self.step += 1;
        let lr = self.schedule.lr(self.config.lr, self.step);
        let puzzle_lr = self.schedule.lr(self.config.puzzle_emb_lr, self.step);
        let puzzle_keep = 1.0 - puzzle_lr * self.config.puzzle_emb_weight_decay;
        (StepScalars { adam: self.adam.begin_step(lr), puzzle_keep, puzzle_lr }, lr)
    }
}

/// The step's scalars on the host.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepScalars {
    adam: AdamScalars,
    /// `1 - lr wd` of the puzzle embedding.
    puzzle_keep: f64,
    puzzle_lr: f64,
}

impl StepScalars {
    /// `[5]` f32: keep, root, rate; puzzle keep, puzzle lr.
    pub(super) fn upload(&self, device: Device) -> Tensor {
        let all = [self.adam.keep, self.adam.root, self.adam.rate, self.puzzle_keep, self.puzzle_lr];
        runtime::upload(&Tensor::from_slice(&all.map(|v| v as f32)), device)
    }
}

/// The moving average after a step: `ema <- decay ema + (1 - decay) weights`.
pub(super) fn follow(ema: Option<&Tensor>, weights: &Tensor, decay: f64) {
    if let Some(ema) = ema {
        let _ = no_grad(|| ema.shallow_clone().lerp_(weights, 1.0 - decay));
    }
}

/// Both optimisers, the puzzle embedding's first: device work alone. `plain` are the scalars for the plain form of
/// Adam-atan2; where there are none, only the fused form may be taken.
pub(super) fn update(
    model: &mut Model,
    adam: &mut AdamAtan2,
    puzzle: Option<&PuzzleGrad>,
    scalars: &Tensor,
    plain: Option<AdamScalars>,
) {
    if let (Some(puzzle), Some(table)) = (puzzle, model.puzzle_emb_mut()) {
        sparse_sign_sgd(table, &puzzle.identifiers, &puzzle.grad, &scalars.narrow(0, 3, 2));
    }
    let fused = model
        .params()
        .flat()
        .is_some_and(|(master, grad, copy)| adam.update_fused(model.ops(), master, grad, copy, scalars));
    let params = model.params_mut();
    if !fused {
        let plain = plain.unwrap_or_else(|| panic!("a recorded step needs the fused optimiser"));
        if let Some(grad) = params.grad() {
            adam.update(params.master(), grad, plain);
        }
        params.refresh();
    }
    params.clear_grad();
}
