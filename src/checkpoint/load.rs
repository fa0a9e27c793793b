//! Reading a checkpoint, whatever its form.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{Checkpoint, CheckpointMeta, EMA_FILE, Format, Manifest, Resolved, resolve, safetensors_file, torch_file};
use crate::{
    config::{ModelConfig, TrainConfig},
    dims::Dims,
    dtype::Dtype,
    input,
    model::Model,
    runtime::Backend,
};

/// Which weights of a checkpoint that holds both: those of the last step, or their moving average (`ema_decay`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// The average where there is one.
    #[default]
    Auto,
    /// The weights of the step itself.
    Raw,
    /// The average; an error where the checkpoint has none.
    Ema,
}

/// A checkpoint and what was noticed on the way.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// How its weights are stored.
    pub format: Format,
    /// From `meta.json`; upstream's files have none.
    pub meta: Option<CheckpointMeta>,
    /// To be printed: unknown keys of `all_config.yaml`, an unreadable `meta.json`.
    pub warnings: Vec<String>,
    /// Which of several checkpoints was chosen, to be printed.
    pub taken: Option<String>,
}

impl Checkpoint {
    /// Loads what `path` names: a run folder, a `step_N/` folder, a `.safetensors` file, upstream's file or folder.
    ///
    /// # Errors
    /// With the path, what was found and what to do: see [`resolve()`], [`torch_file::read`] and
    /// [`safetensors_file::read`]; a configuration that is damaged or describes no possible model.
    pub fn load(path: &Path) -> Result<Loaded> {
        resolve(path)?.load(Weights::Auto)
    }

    /// The model with these weights, for puzzles of the given sizes. `dtype` overrides `arch.forward_dtype`.
    ///
    /// # Errors
    /// A checkpoint that does not fit, with the tensor and both shapes.
    pub fn model(&self, dims: Dims, backend: impl Into<Backend>, dtype: Option<Dtype>) -> Result<Model> {
        let mut config = ModelConfig::new(&self.config.arch, dims)
            .with_context(|| format!("{}: its config does not describe a model", self.path.display()))?;
        if let Some(dtype) = dtype {
            config.forward_dtype = dtype;
        }
        Model::from_tensors(config, &self.tensors, backend).with_context(|| self.path.display().to_string())
    }
}

impl Resolved {
    /// Reads the files. Those of which a `manifest.json` beside them tells must be what it says, and weights must be finite
    /// floating-point numbers.
    ///
    /// # Errors
    /// As [`Checkpoint::load`]; weights that were asked for and are not there; files and weights that are not so.
    pub fn load(&self, weights: Weights) -> Result<Loaded> {
        let at = || format!("{}: not usable as a checkpoint's configuration", self.config.display());
        Manifest::verify_beside(&self.config)?;
        let text = input::read_text(&self.config, 1 << 20).with_context(at)?;
        let read = TrainConfig::from_checkpoint_yaml(&text).with_context(at)?;
        read.config.arch.check().with_context(at)?;
        let unknown = read.warnings.into_iter().map(|w| format!("{}: {w}", self.config.display()));
        let mut warnings: Vec<String> = unknown.collect();
        let meta = match self.meta.as_deref().map(CheckpointMeta::read) {
            None => None,
            Some(Ok(meta)) => meta,
            Some(Err(e)) => {
                warnings.push(format!("ignored: {e:#}"));
                None
            }
        };
        let only_ema = meta.as_ref().is_some_and(|m| m.weights.as_deref() == Some("ema"));
        let file = match (weights, &self.ema) {
            (Weights::Auto | Weights::Ema, Some(ema)) => ema,
            (Weights::Ema, None) if !only_ema => {
                bail!("{}: it has no averaged weights ({EMA_FILE}); leave --weights ema out", self.weights.display())
            }
            (Weights::Raw, _) if only_ema => {
                bail!("{}: it holds only averaged weights; leave --weights raw out", self.weights.display())
            }
            _ => &self.weights,
        };
        let averaged = only_ema || self.ema.as_ref() == Some(file);
        Manifest::verify_beside(file)?;
        let tensors = match self.format {
            Format::Safetensors => safetensors_file::read(file)?,
            Format::Torch => torch_file::read(file)?,
        };
        for (name, tensor) in &tensors {
            tensor.check_weights(name, tensor.dtype).with_context(|| file.display().to_string())?;
        }
        let step = meta.as_ref().and_then(|m| m.step).or(self.step);
        let seq_len = meta.as_ref().and_then(|m| m.seq_len);
        let checkpoint = Checkpoint { path: file.clone(), config: read.config, step, seq_len, averaged, tensors };
        Ok(Loaded { checkpoint, format: self.format, meta, warnings, taken: self.taken.clone() })
    }
}

/// Tensors that upstream's modules hold as buffers: they are saved, but no optimizer of parameters sees them.
const BUFFERS: [&str; 3] = ["model.inner.H_init", "model.inner.L_init", "model.inner.puzzle_emb.weights"];

impl Checkpoint {
    /// Trained numbers, as upstream counts them in `num_params`: without the initial states and the puzzle embedding.
    pub fn parameter_count(&self) -> usize {
        self.tensors.iter().filter(|(name, _)| !BUFFERS.contains(&name.as_str())).map(|(_, t)| t.numel()).sum()
    }

    /// Rows of the token embedding, where there is one.
    pub fn vocab_size(&self) -> Option<usize> {
        self.matrix("model.inner.embed_tokens.embedding_weight").map(|(rows, _)| rows)
    }

    /// Columns of the token embedding, where there is one.
    pub fn hidden_size(&self) -> Option<usize> {
        self.matrix("model.inner.embed_tokens.embedding_weight").map(|(_, columns)| columns)
    }

    /// Rows of the puzzle embedding, where there is one.
    pub fn num_puzzle_identifiers(&self) -> Option<usize> {
        self.matrix("model.inner.puzzle_emb.weights").map(|(rows, _)| rows)
    }

    /// Sizes of its model for puzzles of so many cells and tokens.
    ///
    /// # Errors
    /// Sizes beyond 64 bits.
    pub fn dims(&self, cells: usize, vocab_size: usize) -> Result<Dims> {
        Ok(Dims {
            seq_len: i64::try_from(cells)?,
            vocab_size: i64::try_from(vocab_size)?,
            num_puzzle_identifiers: i64::try_from(self.num_puzzle_identifiers().unwrap_or(1))?,
        })
    }

    /// Cells of a puzzle: as meta.json says, else as the learned positions do.
    pub fn cells(&self) -> Option<usize> {
        let learned = || {
            let (positions, _) = self.matrix("model.inner.embed_pos.embedding_weight")?;
            let arch = &self.config.arch;
            let slots =
                usize::try_from(arch.puzzle_emb_ndim).ok()?.div_ceil(usize::try_from(arch.hidden_size).ok()?.max(1));
            positions.checked_sub(slots)
        };
        self.seq_len.or_else(learned)
    }

    /// Shape of a matrix; none where it is missing or no matrix.
    fn matrix(&self, name: &str) -> Option<(usize, usize)> {
        match self.tensor(name)?.shape.as_slice() {
            [rows, columns] => Some((*rows, *columns)),
            _ => None,
        }
    }
}
