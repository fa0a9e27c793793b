//! `h = silu(gate) * up`: the gate of the MLP.
//!
//! Backward, with `s = sigmoid(gate)`: `dup = dh gate s`, `dgate = dh up s (1 + gate (1 - s))`.

use tch::{Kind, Tensor};

/// # Shapes
/// `gate_up`: `[..., 2I]`, gate first; result `[..., I]`.
pub fn swiglu(gate_up: &Tensor) -> Tensor {
    let halves = gate_up.chunk(2, -1);
    halves[0].silu() * &halves[1]
}

/// # Shapes
/// `dh`: `[..., I]`; `gate_up` and the result `[..., 2I]`.
pub fn swiglu_backward(dh: &Tensor, gate_up: &Tensor) -> Tensor {
    let halves = gate_up.to_kind(Kind::Float).chunk(2, -1);
    let (gate, up) = (&halves[0], &halves[1]);
    let g = dh.to_kind(Kind::Float);
    let s = gate.sigmoid();
    let silu = gate * &s;
    let d_gate = &g * up * &s * (gate - &silu + 1.0);
    Tensor::cat(&[d_gate, g * silu], -1).to_kind(gate_up.kind())
}
