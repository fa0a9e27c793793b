//! `y = r s`, `s = x + branch`, `r = 1 / sqrt(mean(s^2) + eps)`: the post-norm of both sub-layers, RMS without a weight.
//!
//! Backward: `ds = r (dy - y mean(dy y))`, the gradient of both `x` and `branch`.

use tch::{Kind, Tensor};

/// A normalised residual sum and what its backward pass needs.
#[derive(Debug)]
pub struct Normed {
    /// `[..., h]`, the stream's dtype.
    pub y: Tensor,
    /// `[..., 1]`, f32.
    pub r: Tensor,
}

/// Adds a branch to the residual stream and normalises.
///
/// The sum is rounded to the stream's dtype, the norm is computed in f32 and cast back.
///
/// # Shapes
/// `x`, `branch`: `[..., h]`, one dtype.
pub fn residual_rms_norm(x: &Tensor, branch: &Tensor, eps: f64) -> Normed {
    let s = (x + branch).to_kind(Kind::Float);
    let r = (s.square().mean_dim(&[-1i64][..], true, Kind::Float) + eps).rsqrt(); // [..., 1]
    Normed { y: (s * &r).to_kind(x.kind()), r }
}

/// # Shapes
/// `dy` and the result: `[..., h]`, the stream's dtype.
pub fn residual_rms_norm_backward(dy: &Tensor, normed: &Normed) -> Tensor {
    let (g, y) = (dy.to_kind(Kind::Float), normed.y.to_kind(Kind::Float));
    let mean = (&g * &y).mean_dim(&[-1i64][..], true, Kind::Float); // [..., 1]
    ((g - y * mean) * &normed.r).to_kind(dy.kind())
}
