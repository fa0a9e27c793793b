//! The description of one model: the architecture (`arch.*`) joined with what the dataset decides.
//!
//! Everything else about a model follows from it: parameters with their names and first values, the form of the
//! operations, counts of floating-point operations, what a checkpoint must hold. A new kind of model is a field here and a
//! line in [`ModelConfig::check`].

use anyhow::Result;

use super::{ArchConfig, LossType, PosEncodings, check::Faults};
use crate::{dims::Dims, dtype::Dtype};

/// Sizes and switches of a Hierarchical Reasoning Model with Adaptive Computation Time.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Sizes of the dataset's puzzles.
    pub dims: Dims,
    /// H cycles in a segment.
    pub h_cycles: i64,
    /// L updates in an H cycle.
    pub l_cycles: i64,
    /// Layers of the H module.
    pub h_layers: i64,
    /// Layers of the L module.
    pub l_layers: i64,
    /// h
    pub hidden_size: i64,
    /// n
    pub num_heads: i64,
    /// Width of the MLP over `hidden_size`.
    pub expansion: f64,
    /// How positions enter the model.
    pub pos_encodings: PosEncodings,
    /// Width of a puzzle embedding row; 0 means no puzzle embedding.
    pub puzzle_emb_ndim: i64,
    /// Epsilon of the RMS norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary angles.
    pub rope_theta: f64,
    /// Segments after which every row halts.
    pub halt_max_steps: i64,
    /// Probability that a training row must run a random number of segments.
    pub halt_exploration_prob: f64,
    /// No target Q: q_continue is 0 everywhere, so that a row halts when q_halt > 0 (TRM).
    pub no_act_continue: bool,
    /// Dtype of states, activations and casted weights; parameters are kept in f32.
    pub forward_dtype: Dtype,
    /// The token loss.
    pub loss_type: LossType,
}

impl ModelConfig {
    /// Joins an architecture with a dataset's sizes.
    ///
    /// # Errors
    /// As [`ModelConfig::check`].
    pub fn new(arch: &ArchConfig, dims: Dims) -> Result<Self> {
        let config = Self::joined(arch, dims);
        config.check()?;
        Ok(config)
    }

    pub(super) fn joined(arch: &ArchConfig, dims: Dims) -> Self {
        Self {
            dims,
            h_cycles: arch.H_cycles,
            l_cycles: arch.L_cycles,
            h_layers: arch.H_layers,
            l_layers: arch.L_layers,
            hidden_size: arch.hidden_size,
            num_heads: arch.num_heads,
            expansion: arch.expansion,
            pos_encodings: arch.pos_encodings,
            puzzle_emb_ndim: arch.puzzle_emb_ndim,
            rms_norm_eps: arch.norm_eps(),
            rope_theta: arch.theta(),
            halt_max_steps: arch.halt_max_steps,
            halt_exploration_prob: arch.halt_exploration_prob,
            no_act_continue: arch.no_act_continue,
            forward_dtype: arch.dtype(),
            loss_type: arch.loss.loss_type,
        }
    }

    /// The 27M model that the HRM paper trains on Sudoku-Extreme.
    pub fn sudoku() -> Self {
        Self::joined(&ArchConfig::default(), Dims::sudoku())
    }

    /// Checks sizes and switches, and that they fit together.
    ///
    /// # Errors
    /// One line for each fault, with the key, its value and what is allowed.
    pub fn check(&self) -> Result<()> {
        let mut faults = Faults::default();
        faults.of_model(self);
        faults.of_dims(&self.dims);
        faults.into_result()
    }

    /// d = h / n.
    pub fn head_dim(&self) -> i64 {
        self.hidden_size / self.num_heads
    }

    /// I, the width of the gated MLP: the smallest multiple of 256 that holds `round(expansion * h * 2/3)`, rounded
    /// half to even.
    pub fn intermediate_size(&self) -> i64 {
        let wanted = (self.expansion * self.hidden_size as f64 * 2.0 / 3.0).round_ties_even() as i64;
        (wanted + 255) / 256 * 256
    }

    /// P, the positions that the puzzle embedding takes in front of the tokens.
    pub fn puzzle_emb_len(&self) -> i64 {
        (self.puzzle_emb_ndim + self.hidden_size - 1) / self.hidden_size
    }

    /// T = S + P.
    pub fn total_seq(&self) -> i64 {
        self.dims.seq_len + self.puzzle_emb_len()
    }

    /// Whether gradients go through L update `l_cycle` of H cycle `h_cycle`, both from 1: through the last one of a
    /// segment.
    pub fn l_has_gradient(&self, h_cycle: i64, l_cycle: i64) -> bool {
        self.h_has_gradient(h_cycle) && l_cycle == self.l_cycles
    }

    /// Whether gradients go through the H update of H cycle `h_cycle`, from 1: through the last one of a segment.
    pub fn h_has_gradient(&self, h_cycle: i64) -> bool {
        h_cycle == self.h_cycles
    }

    /// Layers that a row goes through in one segment.
    pub fn layers_per_segment(&self) -> i64 {
        self.h_cycles * (self.l_cycles * self.l_layers + self.h_layers)
    }

    /// Layers of a segment that gradients go through: one L and one H update.
    pub fn layers_with_gradient(&self) -> i64 {
        self.l_layers + self.h_layers
    }

    /// Multiply-adds times two of one row's forward pass through one segment, matrix products alone.
    pub fn flops_per_segment(&self) -> f64 {
        let (t, h, i) = (self.total_seq() as f64, self.hidden_size as f64, self.intermediate_size() as f64);
        let layer = 2.0 * t * (3.0 * h * h + h * h + 3.0 * h * i) + 4.0 * t * t * h;
        layer * self.layers_per_segment() as f64 + 2.0 * t * h * self.dims.vocab_size as f64
    }

    /// Of all segments of a row.
    pub fn flops_per_row(&self) -> f64 {
        self.flops_per_segment() * self.halt_max_steps as f64
    }

    /// Whether training runs a second pass for the target of q_continue.
    pub fn has_target_q(&self) -> bool {
        self.halt_max_steps > 1 && !self.no_act_continue
    }

    /// Of a training step, per row: the segment's forward pass, the target-Q forward pass, and the backward pass
    /// (twice a forward) of the updates that carry gradients.
    pub fn flops_per_train_row(&self) -> f64 {
        let with_grad = self.layers_with_gradient() as f64 / self.layers_per_segment() as f64;
        let targets = if self.has_target_q() { 1.0 } else { 0.0 };
        self.flops_per_segment() * (1.0 + targets + 2.0 * with_grad)
    }
}
