//! The loss head: token loss, halting losses and the metrics of one segment (upstream's `ACTLossHead`).
//!
//! `loss = lm_loss + 0.5 (q_halt_loss + q_continue_loss)`, sums over rows; a row's token losses are averaged over its
//! labelled cells.

use tch::{Kind, Tensor, no_grad};

use super::Segment;
use crate::{config::LossType, dataset::IGNORE_LABEL, ops};

/// Names of [`Metrics::values`], in order.
pub const METRICS: [&str; 8] =
    ["count", "accuracy", "exact_accuracy", "q_halt_accuracy", "steps", "lm_loss", "q_halt_loss", "q_continue_loss"];

/// A segment's loss and metrics, all sums over the batch's rows.
#[derive(Debug)]
pub struct Metrics {
    /// Scalar f64, with gradient when the segment has one.
    pub loss: Tensor,
    /// The [`METRICS`], `[8]` f64, detached, on the model's device. q_continue_loss is 0 in evaluation.
    pub values: Tensor,
}

/// Loss and metrics of a segment on its own labels. `target_q_continue` (`[B]`) only in training.
///
/// Every row with a labelled cell counts as valid, halted or not; the halting loss is over all rows, padding included.
pub fn loss_head(loss_type: LossType, segment: &Segment, target_q_continue: Option<&Tensor>) -> Metrics {
    let labels = &segment.carry.batch.labels; // [B, S]
    let mask = labels.not_equal(i64::from(IGNORE_LABEL));
    let cells = mask.sum_dim_intlist(&[-1i64][..], false, Kind::Int64); // [B]
    let divisor = cells.clamp_min(1);
    let token_loss = match loss_type {
        LossType::Stablemax => ops::stablemax_cross_entropy(&segment.logits, labels),
        LossType::Softmax => ops::softmax_cross_entropy(&segment.logits, labels),
    }; // [B, S]
    let lm_loss = (token_loss / divisor.unsqueeze(-1)).sum(Kind::Double);

    let (correct, valid, exact) = no_grad(|| {
        let hits = segment.predictions().eq_tensor(labels).logical_and(&mask);
        let correct = hits.sum_dim_intlist(&[-1i64][..], false, Kind::Int64); // [B]
        (correct.shallow_clone(), cells.gt(0), correct.eq_tensor(&cells))
    });
    let q_halt_loss = ops::bce_with_logits_sum(&segment.q_halt, &exact.to_kind(Kind::Float));
    let q_continue_loss = target_q_continue.map(|target| ops::bce_with_logits_sum(&segment.q_continue, target));
    let halting = match &q_continue_loss {
        Some(q_continue_loss) => &q_halt_loss + q_continue_loss,
        None => q_halt_loss.shallow_clone(),
    };
    let loss = &lm_loss + halting * 0.5;

    let values = no_grad(|| {
        let sum = |t: &Tensor| (t * &valid).sum(Kind::Double);
        let zero = Tensor::zeros([], (Kind::Double, labels.device()));
        Tensor::stack(
            &[
                valid.sum(Kind::Double),
                sum(&(correct.to_kind(Kind::Float) / &divisor)),
                sum(&exact),
                sum(&segment.q_halt.ge(0.0).eq_tensor(&exact)),
                sum(&segment.carry.steps),
                lm_loss.detach(),
                q_halt_loss.detach().to_kind(Kind::Double),
                q_continue_loss.as_ref().map_or(zero, |t| t.detach().to_kind(Kind::Double)),
            ],
            0,
        )
    });
    Metrics { loss, values }
}
