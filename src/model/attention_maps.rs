//! Where the layers look within one segment.

use anyhow::{Context, Result};
use tch::{Tensor, no_grad};

use super::{Carry, Model, inner::Tape};

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
    /// Runs one evaluation segment: the attention of each layer of both modules in the module's last update.
    ///
    /// # Errors
    /// A form of attention that keeps nothing.
    pub fn attention_maps(&self, carry: &Carry) -> Result<Vec<AttentionMap>> {
        no_grad(|| {
            let start = self.restart(carry, &carry.batch, &self.start_states());
            let e = self.embed(&start.batch);
            let mut tape = Tape::default();
            let _ = self.inner(&start.z_h, &start.z_l, &e, false, Some(&mut tape));
            let maps = tape.attended().map(|(module, layer, attended)| {
                let plain = attended.probabilities(self.config().num_heads, self.rope_tables());
                let (probabilities, recomputed) = plain.context("attention kept neither q nor k")?;
                Ok(AttentionMap { module, layer, probabilities, recomputed, out: attended.out.shallow_clone() })
            });
            maps.collect()
        })
    }
}
