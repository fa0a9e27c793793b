//! `silu(gate) * up`: the gate of the MLP.

use tch::Tensor;

/// # Shapes
/// `gate_up`: `[..., 2I]`, gate first; result `[..., I]`.
pub fn swiglu(gate_up: &Tensor) -> Tensor {
    let halves = gate_up.chunk(2, -1);
    halves[0].silu() * &halves[1]
}
