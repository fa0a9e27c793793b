//! What a checkpoint is, in figures.

use serde::Serialize;

use super::{CheckpointMeta, Loaded};
use crate::config::TrainConfig;

/// What is known of a checkpoint, for `hrm checkpoint inspect`.
#[derive(Debug, Serialize)]
pub struct CheckpointReport<'a> {
    pub path: String,
    pub format: &'static str,
    pub step: Option<u64>,
    /// As upstream counts: without the buffers H_init, L_init and puzzle_emb.weights.
    pub parameters: usize,
    pub bytes: usize,
    pub vocab_size: Option<usize>,
    pub hidden_size: Option<usize>,
    pub num_puzzle_identifiers: Option<usize>,
    pub tensors: Vec<TensorLine<'a>>,
    pub config: &'a TrainConfig,
    pub meta: Option<&'a CheckpointMeta>,
    pub warnings: &'a [String],
}

/// One of its tensors.
#[derive(Debug, Serialize)]
pub struct TensorLine<'a> {
    pub name: &'a str,
    pub dtype: &'static str,
    pub shape: &'a [usize],
    pub bytes: usize,
}

impl<'a> CheckpointReport<'a> {
    /// Of a checkpoint that was loaded.
    pub fn new(loaded: &'a Loaded) -> Self {
        let checkpoint = &loaded.checkpoint;
        let lines = checkpoint.tensors.iter().map(|(name, t)| TensorLine {
            name,
            dtype: t.dtype.name(),
            shape: &t.shape,
            bytes: t.data.len(),
        });
        Self {
            path: checkpoint.path.display().to_string(),
            format: loaded.format.name(),
            step: checkpoint.step,
            parameters: checkpoint.parameter_count(),
            bytes: checkpoint.tensors.iter().map(|(_, t)| t.data.len()).sum(),
            vocab_size: checkpoint.vocab_size(),
            hidden_size: checkpoint.hidden_size(),
            num_puzzle_identifiers: checkpoint.num_puzzle_identifiers(),
            tensors: lines.collect(),
            config: &checkpoint.config,
            meta: loaded.meta.as_ref(),
            warnings: &loaded.warnings,
        }
    }
}
