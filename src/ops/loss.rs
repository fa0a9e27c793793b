//! The loss head's arithmetic: token losses, halting losses, and their gradients.
//!
//! Stablemax cross-entropy, all in f64 (upstream's `stablemax_cross_entropy`): `s(x) = x + 1` for `x >= 0`, else
//! `1 / (1 - x + 1e-30)`; `loss = -log(s_label / sum s)`; `dloss/dx_j = s'(x_j) (1 / sum s - [j = label] / s_j)`, where
//! `s'` is 1 for `x >= 0` (at 0 too), else `s^2`.

use tch::{Kind, Tensor};

use crate::{batch::IGNORE_LABEL, config::LossType};

/// Loss of every token and its gradient.
#[derive(Debug)]
pub struct TokenLoss {
    /// `[B, S]`; f64 (stablemax) or f32 (softmax); 0 where the label is ignored.
    pub loss: Tensor,
    /// Gradient of each token's own loss. `[B, S, V]`, `loss`'s dtype; 0 where ignored.
    pub d_logits: Tensor,
}

/// # Shapes
/// `logits`: `[B, S, V]`, any float; `labels`: `[B, S]` integers, [`IGNORE_LABEL`] where there is none.
pub fn token_loss(loss_type: LossType, logits: &Tensor, labels: &Tensor) -> TokenLoss {
    let valid = labels.not_equal(i64::from(IGNORE_LABEL)).unsqueeze(-1); // [B, S, 1]
    let label = labels.to_kind(Kind::Int64).unsqueeze(-1) * &valid;
    let (log_p, d_logits) = match loss_type {
        LossType::Stablemax => stablemax(logits, &label),
        LossType::Softmax => softmax(logits, &label),
    };
    let loss = -(log_p.gather(-1, &label, false) * &valid).squeeze_dim(-1);
    TokenLoss { loss, d_logits: d_logits * valid }
}

fn stablemax(logits: &Tensor, label: &Tensor) -> (Tensor, Tensor) {
    let x = logits.to_kind(Kind::Double);
    let positive = x.ge(0.0);
    let below = (-&x + 1.0 + 1e-30).reciprocal();
    let s = (&x + 1.0).where_self(&positive, &below); // [B, S, V]
    let sum = s.sum_dim_intlist(&[-1i64][..], true, Kind::Double); // [B, S, 1]
    let slope = s.square().masked_fill(&positive, 1.0);
    let at_label = -s.gather(-1, label, false).reciprocal();
    let ds = sum.reciprocal().expand_as(&s).contiguous().scatter_add(-1, label, &at_label);
    (s.log() - sum.log(), ds * slope)
}

fn softmax(logits: &Tensor, label: &Tensor) -> (Tensor, Tensor) {
    let log_p = logits.to_kind(Kind::Float).log_softmax(-1, Kind::Float);
    let minus_one = Tensor::full(label.size(), -1.0, (Kind::Float, label.device()));
    let d = log_p.exp().scatter_add(-1, label, &minus_one);
    (log_p, d)
}

/// Binary cross-entropy of `logits` with `targets`, both `[B]` f32: the sum over rows, and `sigmoid(logits) - targets`.
pub fn bce_with_logits(logits: &Tensor, targets: &Tensor) -> (Tensor, Tensor) {
    let loss = logits.binary_cross_entropy_with_logits::<Tensor>(targets, None, None, tch::Reduction::Sum);
    (loss, logits.sigmoid() - targets)
}
