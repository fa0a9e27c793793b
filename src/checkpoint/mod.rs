//! Checkpoints on disk: ours (safetensors folders) and upstream's (`torch.save` files), without any libtorch type.

use std::path::PathBuf;

use crate::config::TrainConfig;

/// Element type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawDtype {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

/// A dense little-endian row-major tensor in host memory.
#[derive(Clone, Debug, PartialEq)]
pub struct RawTensor {
    pub dtype: RawDtype,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

/// A checkpoint as read from disk. Tensor names are upstream's without `_orig_mod.`.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The weights file.
    pub path: PathBuf,
    pub config: TrainConfig,
    /// Training step, where meta.json or the file name tells it.
    pub step: Option<u64>,
    /// In the file's order.
    pub tensors: Vec<(String, RawTensor)>,
}
