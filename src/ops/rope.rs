//! Rotary position embedding, half-split convention:
//!
//! `out_i = x_i cos(p f_i) - x_{i+d/2} sin(p f_i)`, `out_{i+d/2} = x_{i+d/2} cos(p f_i) + x_i sin(p f_i)` with
//! `f_i = theta^(-2i/d)` for `i < d/2` at position `p` (the puzzle embedding's positions count). Backward is the
//! rotation by `-p f_i`.

use tch::{Device, Kind, Tensor};

/// cos and sin of every position, each `[T, d]` in f32 (the d/2 angles twice).
#[derive(Debug)]
pub struct RopeTables {
    /// `[T, d]`, f32.
    pub cos: Tensor,
    /// `[T, d]`, f32.
    pub sin: Tensor,
}

impl RopeTables {
    /// Tables for positions `0..total_seq` and heads of `head_dim` features.
    pub fn new(total_seq: i64, head_dim: i64, theta: f64, device: Device) -> Self {
        let exponent = Tensor::arange_start_step(0, head_dim, 2, (Kind::Float, Device::Cpu)) / head_dim as f64; // [d/2]
        let inv_freq = Tensor::from(theta as f32).pow(&exponent).reciprocal();
        let angles = Tensor::arange(total_seq, (Kind::Float, Device::Cpu)).outer(&inv_freq); // [T, d/2]
        let angles = Tensor::cat(&[&angles, &angles], -1); // [T, d]
        Self { cos: angles.cos().to_device(device), sin: angles.sin().to_device(device) }
    }
}

/// Rotates every head; computed in f32, returned in `x`'s dtype.
///
/// # Shapes
/// `x` and the result: `[B, T, heads, d]`.
pub fn rope(x: &Tensor, tables: &RopeTables) -> Tensor {
    rotate(x, tables, 1.0)
}

/// The gradient of [`rope`]'s input.
pub fn rope_backward(dy: &Tensor, tables: &RopeTables) -> Tensor {
    rotate(dy, tables, -1.0)
}

fn rotate(x: &Tensor, tables: &RopeTables, direction: f64) -> Tensor {
    let half = x.size()[3] / 2;
    let (cos, sin) = (tables.cos.unsqueeze(1), tables.sin.unsqueeze(1) * direction); // [T, 1, d]
    let wide = x.to_kind(Kind::Float);
    let turned = Tensor::cat(&[-wide.narrow(3, half, half), wide.narrow(3, 0, half)], 3);
    (wide * cos + turned * sin).to_kind(x.kind())
}
