//! Segments for the analyses: from a state of the caller's choice, and beyond `halt_max_steps` without a restart.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::{Carry, DeviceBatch, Model, Segment};

impl Model {
    /// A carry whose rows are in the middle of their work at `z_h`, `z_l`: the next segment goes on from there.
    ///
    /// # Shapes
    /// `z_h`, `z_l`: `[B, T, h]`, any floating-point dtype; they are rounded to the forward dtype.
    pub fn carry_at(&self, z_h: &Tensor, z_l: &Tensor, batch: DeviceBatch) -> Carry {
        let rows = batch.rows();
        let kind = self.config().kind();
        Carry {
            z_h: z_h.to_kind(kind),
            z_l: z_l.to_kind(kind),
            steps: Tensor::zeros([rows], (Kind::Int, self.device())),
            halted: Tensor::zeros([rows], (Kind::Bool, self.device())),
            batch,
        }
    }

    /// Runs a carry for any number of segments; no row halts on the way, so none starts anew. `each` sees every
    /// segment, counted from 1.
    ///
    /// From [`Model::initial_carry`] the first `halt_max_steps` segments are those of an evaluation. `capture` keeps
    /// z_H after every H cycle.
    ///
    /// # Errors
    /// Those of `each`, which end the run.
    pub fn unroll(
        &self,
        mut carry: Carry,
        batch: &DeviceBatch,
        segments: usize,
        capture: bool,
        mut each: impl FnMut(usize, &Segment) -> Result<()>,
    ) -> Result<Carry> {
        for number in 1..=segments {
            let mut segment = self.segment(&carry, batch, capture);
            segment.carry.halted = segment.carry.halted.zeros_like();
            each(number, &segment)?;
            carry = segment.carry;
        }
        Ok(carry)
    }
}
