//! `y = s / sqrt(mean(s^2) + eps)` with `s = x + branch`: the post-norm of both sub-layers. RMS norm without a weight.

use tch::{Kind, Tensor};

/// Adds a branch to the residual stream and normalises.
///
/// The sum is rounded to the stream's dtype, the norm is computed in f32 and cast back.
///
/// # Shapes
/// `x`, `branch` and the result: `[..., h]`, one dtype.
pub fn residual_rms_norm(x: &Tensor, branch: &Tensor, eps: f64) -> Tensor {
    let kind = x.kind();
    let s = (x + branch).to_kind(Kind::Float);
    let mean_square = s.square().mean_dim(&[-1i64][..], true, Kind::Float); // [..., 1]
    (s * (mean_square + eps).rsqrt()).to_kind(kind)
}
