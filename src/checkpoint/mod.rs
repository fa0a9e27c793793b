//! Checkpoints on disk: ours (safetensors folders) and upstream's (`torch.save` files), read and written
//! without libtorch.
//!
//! [`resolve()`] turns what a user named into the files of one checkpoint, [`Checkpoint::load`] reads them,
//! [`safetensors_file::save_folder`] and [`torch_writer::save_folder`] write them. [`Checkpoint::model`] makes a model of
//! what was read.
//!
//! ```no_run
//! let loaded = hrm::checkpoint::Checkpoint::load("checkpoints/Sudoku ACT-torch/my run".as_ref())?;
//! for (name, tensor) in &loaded.checkpoint.tensors {
//!     println!("{name} {:?} {}", tensor.shape, tensor.dtype);
//! }
//! # anyhow::Ok(())
//! ```

mod convert;
mod inspect;
pub(crate) mod lfs;
mod load;
mod manifest;
mod meta;
mod names;
mod on_hub;
mod pickle;
pub mod resolve;
pub mod safetensors_file;
pub mod torch_file;
pub mod torch_writer;

use std::path::PathBuf;

use sha2::{Digest, Sha256};

pub(crate) use convert::Conversion;
pub(crate) use inspect::CheckpointReport;
pub use load::{Loaded, Weights};
pub use manifest::{FileRecord, MANIFEST_FILE, Manifest};
pub use meta::CheckpointMeta;
pub(crate) use names::{short_names, weights_name};
pub use resolve::{Format, Resolved, resolve, resolve_or_default};

pub use crate::raw_tensor::RawTensor;

use crate::config::TrainConfig;

/// Weights inside a `step_N/` folder.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Their moving average beside them, where the run kept one.
pub const EMA_FILE: &str = "ema.safetensors";
/// The configuration beside the weights, under upstream's name.
pub const CONFIG_FILE: &str = "all_config.yaml";
/// Step, version, command line, data fingerprint.
pub const META_FILE: &str = "meta.json";

/// A checkpoint as read from disk. Tensor names are upstream's without `_orig_mod.`.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The weights file.
    pub path: PathBuf,
    /// The configuration of the run that wrote it.
    pub config: TrainConfig,
    /// Training step, where meta.json or the file name tells it.
    pub step: Option<u64>,
    /// Cells of a puzzle, where meta.json tells it.
    pub seq_len: Option<usize>,
    /// Whether these are the moving average of a run's weights.
    pub averaged: bool,
    /// In the file's order.
    pub tensors: Vec<(String, RawTensor)>,
}

impl Checkpoint {
    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&RawTensor> {
        self.tensors.iter().find(|(n, _)| n == name).map(|(_, t)| t)
    }

    /// SHA-256 over the tensors' names, shapes, dtypes and bytes, in hex: results of other weights are never mixed.
    pub fn weights_digest(&self) -> String {
        let mut hash = Sha256::new();
        for (name, tensor) in &self.tensors {
            hash.update(format!("{name} {:?} {}\n", tensor.shape, tensor.dtype));
            hash.update(&tensor.data);
        }
        hex::encode(hash.finalize())
    }
}
