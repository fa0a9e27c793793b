//! Token losses and the halting losses.
//!
//! Stablemax cross-entropy: `s(x) = x + 1` for `x >= 0`, else `1 / (1 - x + 1e-30)`; `loss = -log(s_label / sum s)`,
//! all in f64 (upstream's `stablemax_cross_entropy`).

use tch::{Kind, Tensor};

use crate::dataset::IGNORE_LABEL;

/// Loss of every token, f64, 0 where the label is ignored.
///
/// # Shapes
/// `logits`: `[B, S, V]`; `labels`: `[B, S]` integers; result `[B, S]`.
pub fn stablemax_cross_entropy(logits: &Tensor, labels: &Tensor) -> Tensor {
    let x = logits.to_kind(Kind::Double);
    // Each branch sees only inputs on its own side, so that the unused one cannot send NaN into the gradient.
    let positive = x.ge(0.0);
    let above = x.clamp_min(0.0) + 1.0;
    let below = ((-&x).clamp_min(0.0) + (1.0 + 1e-30)).reciprocal();
    let s = above.where_self(&positive, &below); // [B, S, V]
    let log_p = s.log() - s.sum_dim_intlist(&[-1i64][..], true, Kind::Double).log();
    -pick_label(&log_p, labels)
}

/// Standard cross-entropy of every token, f32, 0 where the label is ignored.
///
/// # Shapes
/// As [`stablemax_cross_entropy`].
pub fn softmax_cross_entropy(logits: &Tensor, labels: &Tensor) -> Tensor {
    -pick_label(&logits.to_kind(Kind::Float).log_softmax(-1, Kind::Float), labels)
}

/// `log_p[label]`, 0 where ignored.
fn pick_label(log_p: &Tensor, labels: &Tensor) -> Tensor {
    let valid = labels.not_equal(i64::from(IGNORE_LABEL)); // [B, S]
    let safe = (labels * &valid).to_kind(Kind::Int64).unsqueeze(-1);
    let picked = log_p.gather(-1, &safe, false).squeeze_dim(-1);
    picked.where_self(&valid, &Tensor::zeros([1], (log_p.kind(), log_p.device())))
}

/// Sum over rows of the binary cross-entropy of `logits` with `targets`, both `[B]` in f32.
pub fn bce_with_logits_sum(logits: &Tensor, targets: &Tensor) -> Tensor {
    logits.binary_cross_entropy_with_logits::<Tensor>(targets, None, None, tch::Reduction::Sum)
}
