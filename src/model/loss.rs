//! The loss head: token loss, halting losses and the metrics of one segment (upstream's `ACTLossHead`).
//!
//! `loss = lm_loss + 0.5 (q_halt_loss + q_continue_loss)`, sums over rows; a row's token losses are averaged over its
//! labelled cells.

use tch::{Kind, Tensor};

use super::Segment;
use crate::{
    batch::IGNORE_LABEL,
    config::LossType,
    ops::{self, HeadInputs, Ops},
};

/// A segment's loss and metrics, all sums over the batch's rows.
#[derive(Debug)]
pub struct Metrics {
    /// Scalar f64.
    pub loss: Tensor,
    /// A value for each of [`crate::metrics::Metric::ALL`], `[8]` f64, on the model's device. q_continue_loss is 0 in evaluation.
    pub values: Tensor,
    /// Gradients of `loss`.
    pub grads: LossGrads,
}

/// Gradients of the loss with respect to a segment's outputs.
#[derive(Debug)]
pub struct LossGrads {
    /// `[B, S, V]`, forward dtype.
    pub d_logits: Tensor,
    /// `[B, 2]`, f32: q_halt, q_continue.
    pub d_q: Tensor,
}

/// Loss, metrics and gradients of a segment on its own labels. `target_q_continue` (`[B]`) only in training; `scale`
/// multiplies the gradients (upstream: 1 / global batch size).
///
/// Every row with a labelled cell counts as valid, halted or not; the halting loss is over all rows, padding included.
pub fn loss_head(
    ops: &Ops,
    loss_type: LossType,
    segment: &Segment,
    target_q_continue: Option<&Tensor>,
    scale: f64,
) -> Metrics {
    let labels = &segment.carry.batch.labels; // [B, S]
    if let Some(fused) = ops.fused().filter(|_| loss_type == LossType::Stablemax) {
        let Segment { carry, logits, q_halt, q_continue, .. } = segment;
        let inputs = HeadInputs { logits, labels, q_halt, q_continue, target_q_continue, steps: &carry.steps };
        if let Some(done) = fused.stablemax_head(&inputs, scale) {
            let grads = LossGrads { d_logits: done.d_logits, d_q: done.d_q };
            return Metrics { loss: done.loss, values: done.values, grads };
        }
    }
    let mask = labels.not_equal(i64::from(IGNORE_LABEL));
    let cells = mask.sum_dim_intlist(&[-1i64][..], false, Kind::Int64); // [B]
    let divisor = cells.clamp_min(1);
    let tokens = ops::token_loss(loss_type, &segment.logits, labels);
    let lm_loss = (tokens.loss / divisor.unsqueeze(-1)).sum(Kind::Double);
    let d_logits = tokens.d_logits * (divisor.to_kind(Kind::Double).reciprocal() * scale).view([-1, 1, 1]);

    let hits = segment.predictions().eq_tensor(labels).logical_and(&mask);
    let correct = hits.sum_dim_intlist(&[-1i64][..], false, Kind::Int64); // [B]
    let (valid, exact) = (cells.gt(0), correct.eq_tensor(&cells));
    let (q_halt_loss, d_halt) = ops::bce_with_logits(&segment.q_halt, &exact.to_kind(Kind::Float));
    let (q_continue_loss, d_continue) = match target_q_continue {
        Some(target) => ops::bce_with_logits(&segment.q_continue, target),
        None => (q_halt_loss.zeros_like(), d_halt.zeros_like()),
    };
    let loss = &lm_loss + (&q_halt_loss + &q_continue_loss) * 0.5;

    let sum = |t: &Tensor| (t * &valid).sum(Kind::Double);
    let values = Tensor::stack(
        &[
            valid.sum(Kind::Double),
            sum(&(correct.to_kind(Kind::Float) / &divisor)),
            sum(&exact),
            sum(&segment.q_halt.ge(0.0).eq_tensor(&exact)),
            sum(&segment.carry.steps),
            lm_loss,
            q_halt_loss.to_kind(Kind::Double),
            q_continue_loss.to_kind(Kind::Double),
        ],
        0,
    );
    let grads = LossGrads {
        d_logits: d_logits.to_kind(segment.logits.kind()),
        d_q: Tensor::stack(&[d_halt, d_continue], 1) * (0.5 * scale),
    };
    Metrics { loss, values, grads }
}
