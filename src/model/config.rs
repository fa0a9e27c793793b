//! The sizes and switches of one model: the architecture (`arch.*`) joined with what the dataset decides.

use anyhow::{Result, bail, ensure};
use tch::Kind;

use crate::{
    config::{ArchConfig, Dtype, LossType, PosEncodings},
    dataset::DatasetMeta,
    ops::Sizes,
};

/// What the dataset decides about a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Cells per puzzle, S.
    pub seq_len: i64,
    /// Distinct tokens, V (the pad token included).
    pub vocab_size: i64,
    /// Rows of the puzzle embedding.
    pub num_puzzle_identifiers: i64,
}

impl Dims {
    /// A 9x9 Sudoku: 81 cells; tokens 0 (pad), 1 (blank), 2..=10 (digits); one identifier.
    pub fn sudoku() -> Self {
        Self { seq_len: 81, vocab_size: 11, num_puzzle_identifiers: 1 }
    }
}

impl From<&DatasetMeta> for Dims {
    fn from(meta: &DatasetMeta) -> Self {
        Self { seq_len: meta.seq_len, vocab_size: meta.vocab_size, num_puzzle_identifiers: meta.num_puzzle_identifiers }
    }
}

/// Sizes and switches of a Hierarchical Reasoning Model with Adaptive Computation Time.
#[derive(Clone, Debug, PartialEq)]
pub struct HrmConfig {
    pub dims: Dims,
    /// H cycles in a segment.
    pub h_cycles: i64,
    /// L updates in an H cycle.
    pub l_cycles: i64,
    pub h_layers: i64,
    pub l_layers: i64,
    /// h
    pub hidden_size: i64,
    /// n
    pub num_heads: i64,
    pub expansion: f64,
    pub pos_encodings: PosEncodings,
    /// Width of a puzzle embedding row; 0 means no puzzle embedding.
    pub puzzle_emb_ndim: i64,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    /// Segments after which every row halts.
    pub halt_max_steps: i64,
    pub halt_exploration_prob: f64,
    /// No target Q: q_continue is 0 everywhere, so that a row halts when q_halt > 0 (TRM).
    pub no_act_continue: bool,
    pub forward_dtype: Dtype,
    pub loss_type: LossType,
}

impl HrmConfig {
    /// Joins an architecture with a dataset's sizes.
    pub fn new(arch: &ArchConfig, dims: Dims) -> Result<Self> {
        let config = Self {
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
            rms_norm_eps: arch.rms_norm_eps.unwrap_or(1e-5),
            rope_theta: arch.rope_theta.unwrap_or(10_000.0),
            halt_max_steps: arch.halt_max_steps,
            halt_exploration_prob: arch.halt_exploration_prob,
            no_act_continue: arch.no_act_continue,
            forward_dtype: arch.forward_dtype.unwrap_or_default(),
            loss_type: arch.loss.loss_type,
        };
        config.check()?;
        Ok(config)
    }

    /// The 27M model that the HRM paper trains on Sudoku-Extreme.
    pub fn sudoku() -> Self {
        let arch = ArchConfig::default();
        Self::new(&arch, Dims::sudoku()).expect("the built-in preset is valid")
    }

    /// Refuses sizes that no model can have.
    pub fn check(&self) -> Result<()> {
        let sizes = [
            ("seq_len", self.dims.seq_len),
            ("vocab_size", self.dims.vocab_size),
            ("H_cycles", self.h_cycles),
            ("L_cycles", self.l_cycles),
            ("H_layers", self.h_layers),
            ("L_layers", self.l_layers),
            ("hidden_size", self.hidden_size),
            ("num_heads", self.num_heads),
            ("halt_max_steps", self.halt_max_steps),
        ];
        for (name, value) in sizes {
            ensure!((1..=1 << 24).contains(&value), "{name} = {value}: it must be at least 1 and at most {}", 1 << 24);
        }
        ensure!(
            (0..=1 << 24).contains(&self.puzzle_emb_ndim),
            "puzzle_emb_ndim = {}: it must not be negative",
            self.puzzle_emb_ndim
        );
        ensure!(
            (1..=1 << 31).contains(&self.dims.num_puzzle_identifiers),
            "num_puzzle_identifiers = {}: it must be at least 1",
            self.dims.num_puzzle_identifiers
        );
        if self.hidden_size % self.num_heads != 0 {
            bail!("hidden_size = {} is no multiple of num_heads = {}", self.hidden_size, self.num_heads);
        }
        if self.pos_encodings == PosEncodings::Rope && self.head_dim() % 2 != 0 {
            bail!(
                "rope rotates pairs of features: hidden_size / num_heads = {} must be even (or set pos_encodings=learned)",
                self.head_dim()
            );
        }
        ensure!(
            self.expansion.is_finite() && self.expansion > 0.0 && self.expansion <= 1024.0,
            "expansion = {}: it must be a positive number",
            self.expansion
        );
        Ok(())
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

    /// The torch kind of activations and of the weights' compute copy.
    pub fn kind(&self) -> Kind {
        kind_of(self.forward_dtype)
    }

    /// What kernels are specialised on.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            hidden: self.hidden_size,
            inter: self.intermediate_size(),
            heads: self.num_heads,
            head_dim: self.head_dim(),
            total: self.total_seq(),
            cells: self.dims.seq_len,
            vocab: self.dims.vocab_size,
            rope: self.pos_encodings == PosEncodings::Rope,
            stablemax: self.loss_type == LossType::Stablemax,
        }
    }

    /// Multiply-adds times two of one row's forward pass through one segment, matrix products alone.
    pub fn flops_per_segment(&self) -> f64 {
        let (t, h, i) = (self.total_seq() as f64, self.hidden_size as f64, self.intermediate_size() as f64);
        let layer = 2.0 * t * (3.0 * h * h + h * h + 3.0 * h * i) + 4.0 * t * t * h;
        let layers = self.h_cycles * (self.l_cycles * self.l_layers + self.h_layers);
        layer * layers as f64 + 2.0 * t * h * self.dims.vocab_size as f64
    }

    /// Whether training runs a second pass for the target of q_continue.
    pub fn has_target_q(&self) -> bool {
        self.halt_max_steps > 1 && !self.no_act_continue
    }

    /// Of a training step, per row: the segment's forward pass, the target-Q forward pass, and the backward pass
    /// (twice a forward) of the one L and the one H update that carry gradients.
    pub fn flops_per_train_row(&self) -> f64 {
        let layers = self.h_cycles * (self.l_cycles * self.l_layers + self.h_layers);
        let with_grad = (self.l_layers + self.h_layers) as f64 / layers as f64;
        let targets = if self.has_target_q() { 1.0 } else { 0.0 };
        self.flops_per_segment() * (1.0 + targets + 2.0 * with_grad)
    }
}

/// Torch's name for a dtype.
pub fn kind_of(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::Bf16 => Kind::BFloat16,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::F64 => Kind::Double,
    }
}
