//! The forward and backward pass of a step over all rows, as a whole or part after part.

use tch::{Kind, Tensor};

use crate::{
    config::TrainConfig,
    metrics::Metric,
    model::{Carry, DeviceBatch, Exploration, Metrics, Model, Rows, TrainSegment, loss_head, rows},
};

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
rows!(PuzzleGrad { identifiers, grad });

/// Forward and backward pass: device work alone.
pub(super) fn accumulate(
    model: &mut Model,
    carry: &Carry,
    batch: &DeviceBatch,
    draws: &Exploration,
    scale: f64,
) -> Accumulated {
    let result = model.train_segment(carry, batch, draws);
    let loss_type = model.config().loss_type;
    let metrics = loss_head(model.ops(), loss_type, &result.segment, result.target_q_continue.as_ref(), scale);
    let puzzle_grad = model.backward_segment(&result, &metrics.grads);
    let identifiers = result.segment.carry.batch.puzzle_identifiers.shallow_clone();
    Accumulated { result, metrics, puzzle: puzzle_grad.map(|grad| PuzzleGrad { identifiers, grad }) }
}

/// What of the configuration a forward and backward pass depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct PassPlan {
    /// Upstream: 1 / global batch size.
    scale: f64,
    /// Parts that the rows are worked off in.
    parts: i64,
    /// Whether the gradient's norm is wanted.
    pub norm: bool,
}

impl PassPlan {
    pub(super) fn new(config: &TrainConfig) -> Self {
        let scale = 1.0 / config.global_batch_size as f64;
        Self { scale, parts: config.grad_accum, norm: config.log_grad_norm }
    }

    /// How many metrics a pass leaves.
    pub(super) fn metrics(self) -> i64 {
        Metric::COUNT as i64 + i64::from(self.norm)
    }
}

/// What a step keeps of its forward and backward pass, beside the dense gradients.
pub(super) struct Passed {
    pub carry: Carry,
    /// As in [`StepReport`].
    pub metrics: Tensor,
    pub puzzle: Option<PuzzleGrad>,
}

/// Forward and backward pass over all rows, part after part: device work alone.
pub(super) fn pass(
    model: &mut Model,
    carry: &Carry,
    batch: &DeviceBatch,
    draws: &Exploration,
    plan: PassPlan,
) -> Passed {
    let mut passed = if plan.parts == 1 {
        Passed::new(accumulate(model, carry, batch, draws, plan.scale))
    } else {
        let rows = batch.rows() / plan.parts;
        let mut sum = model.params().gradient_sum();
        let parts = (0..plan.parts).map(|part| {
            let at = part * rows;
            let (carry, batch) = (carry.narrow_rows(at, rows), batch.narrow_rows(at, rows));
            let done = accumulate(model, &carry, &batch, &draws.narrow_rows(at, rows), plan.scale);
            model.params_mut().move_grad_to(&mut sum);
            Passed::new(done)
        });
        let parts: Vec<Passed> = parts.collect();
        model.params_mut().take_grad_from(&sum);
        Passed::joined(&parts)
    };
    if plan.norm {
        passed.metrics = with_norm(passed.metrics, model);
    }
    passed
}

/// Metrics with the gradient's norm behind them.
pub(super) fn with_norm(metrics: Tensor, model: &Model) -> Tensor {
    let norm = model.params().grad().map_or_else(|| Tensor::from(0.0), |g| g.norm()).to_kind(Kind::Double);
    Tensor::cat(&[metrics, norm.view([1])], 0)
}

impl Passed {
    fn new(done: Accumulated) -> Self {
        Self { carry: done.result.segment.carry, metrics: done.metrics.values, puzzle: done.puzzle }
    }

    fn joined(parts: &[Self]) -> Self {
        let metrics = Tensor::stack(&parts.iter().map(|p| &p.metrics).collect::<Vec<_>>(), 0);
        Self {
            carry: Rows::joined(&parts.iter().map(|p| &p.carry).collect::<Vec<_>>()),
            metrics: metrics.sum_dim_intlist(&[0i64][..], false, Kind::Double),
            puzzle: Rows::joined(&parts.iter().map(|p| &p.puzzle).collect::<Vec<_>>()),
        }
    }
}
