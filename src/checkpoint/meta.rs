//! `meta.json`: where a checkpoint comes from.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::input;

/// What `meta.json` of a `step_N/` folder says. Every key may be missing, unknown ones are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckpointMeta {
    /// Training step.
    pub step: Option<u64>,
    /// The version that wrote the folder, such as `0.1.0`.
    pub hrm_version: String,
    /// The program's arguments, the first one its name.
    pub command_line: Vec<String>,
    /// Fingerprint of the training data.
    pub data_fingerprint: Option<String>,
    /// Cells of a puzzle, which weights with rotary positions do not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq_len: Option<usize>,
    /// `ema` where the folder's only weights are the moving average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Keys of later versions.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl CheckpointMeta {
    /// That of a checkpoint which this process writes.
    pub fn of_this_process(step: Option<u64>, data_fingerprint: Option<String>) -> Self {
        Self {
            step,
            hrm_version: env!("CARGO_PKG_VERSION").into(),
            command_line: std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect(),
            data_fingerprint,
            seq_len: None,
            weights: None,
            other: serde_json::Map::new(),
        }
    }

    /// Reads the file; none where there is none.
    ///
    /// # Errors
    /// A file that cannot be read, is larger than 1 MiB, or is not such JSON.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let at = || format!("{}: not readable as meta.json", path.display());
        match input::read(path, 1 << 20) {
            Err(e) if input::is_missing(&e) => Ok(None),
            text => serde_json::from_slice(&text?).with_context(at).map(Some),
        }
    }
}
