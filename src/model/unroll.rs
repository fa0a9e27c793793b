//! Segments for the analyses: from a state of the caller's choice, and beyond `halt_max_steps` without a restart.

use anyhow::{Context, Result};
use tch::{Kind, Tensor, no_grad};

use super::{Carry, DeviceBatch, Model, Segment, inner::Tape};

/// Where one layer looked in the last update of its module within a segment.
#[derive(Debug)]
pub struct AttentionMap {
    /// `H` or `L`.
    pub module: char,
    /// From 0.
    pub layer: usize,
    /// From each position (row) to each position, by head; rows sum to 1. `[B, n, T, T]`, f32.
    pub probabilities: Tensor,
    /// What the probabilities make of the values. `[B, T, h]`, f32.
    pub recomputed: Tensor,
    /// What the forward pass had. `[B, T, h]`, forward dtype.
    pub out: Tensor,
}

impl Model {
    /// A carry whose rows are in the middle of their work at `z_h`, `z_l`: the next segment goes on from there.
    ///
    /// # Shapes
    /// `z_h`, `z_l`: `[B, T, h]`, any floating-point dtype; they are rounded to the forward dtype.
    pub fn carry_at(&self, z_h: &Tensor, z_l: &Tensor, batch: DeviceBatch) -> Carry {
        let rows = batch.rows();
        let kind = self.config().forward_dtype.into();
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

    /// One evaluation segment, and where each layer of both modules looked in the module's last update.
    ///
    /// # Errors
    /// A form of attention that keeps nothing.
    pub fn attention_maps(&self, carry: &Carry, batch: &DeviceBatch) -> Result<(Segment, Vec<AttentionMap>)> {
        no_grad(|| {
            let start = self.restart(carry, batch);
            let e = self.embed(&start.batch);
            let mut tape = Tape::default();
            let inner = self.inner(&start.z_h, &start.z_l, &e, false, Some(&mut tape));
            let maps = tape.attended().map(|(module, layer, attended)| {
                let plain = attended.probabilities(self.config().num_heads, self.rope_tables());
                let (probabilities, recomputed) = plain.context("attention kept neither q nor k")?;
                Ok(AttentionMap { module, layer, probabilities, recomputed, out: attended.out.shallow_clone() })
            });
            let maps = maps.collect::<Result<Vec<_>>>()?;
            let steps = start.steps + 1;
            let halted = steps.zeros_like().to_kind(Kind::Bool);
            Ok((inner.into_segment(steps, halted, start.batch), maps))
        })
    }
}
