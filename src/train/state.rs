//! What a training checkpoint holds beside the weights, so that a run goes on as if it had never stopped.
//!
//! - `training.safetensors`: both moments of Adam-atan2 under `adam.m.` and `adam.v.` and the parameters' names (f32), and
//!   the carry (`carry.z_H` and so on) in the order of the global batch
//! - `training.json`: [`TrainingState`]
//! - `ema.safetensors`: the moving average, named as the weights, where there is one
//!
//! Sign-SGD has no state, and the schedule follows from the step. Exploration and online augmentation draw from streams
//! keyed by (seed, step, row of the global batch), so the seed and the step are their whole state.

use std::{collections::HashMap, fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::Trainer;
use crate::{
    checkpoint::{EMA_FILE, RawTensor, safetensors_file},
    dataset::SamplerState,
    model::{Carry, to_raw, to_tensor},
};

/// Moments and carry.
pub const STATE_TENSORS_FILE: &str = "training.safetensors";
/// Scalars.
pub const STATE_FILE: &str = "training.json";

/// `training.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingState {
    /// [`Self::VERSION`] of the program that wrote it.
    pub version: u32,
    /// Training steps done.
    pub step: i64,
    /// Steps of Adam-atan2 done.
    pub adam_steps: u64,
    /// Passes over the data whose evaluation is done.
    pub passes: i64,
    /// Where the sampler stands.
    pub sampler: SamplerState,
    /// Of the training split.
    pub data_fingerprint: String,
    /// Of the test split; earlier versions did not tell.
    #[serde(default)]
    pub test_data_fingerprint: Option<String>,
    /// The best evaluation so far whose weights were saved.
    pub best: Option<Best>,
}

/// An evaluation's exact accuracy and where its weights are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Training steps of those weights.
    pub step: i64,
    /// The higher of raw and averaged weights, in the last segment.
    pub exact_accuracy: f64,
}

impl TrainingState {
    /// Version of the file's layout; others are refused.
    pub const VERSION: u32 = 1;

    /// Reads `training.json` of a checkpoint folder.
    ///
    /// # Errors
    /// A missing or damaged file, or one of a later version.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(STATE_FILE);
        let at = || format!("{}: not readable as a training state", path.display());
        let size = fs::metadata(&path).with_context(at)?.len();
        ensure!(size <= 1 << 20, "{}: {size} bytes", at());
        let state: Self = serde_json::from_str(&fs::read_to_string(&path).with_context(at)?).with_context(at)?;
        ensure!(
            state.version == Self::VERSION,
            "{}: version {}, this program reads version {}",
            at(),
            state.version,
            Self::VERSION
        );
        Ok(state)
    }
}

impl Trainer {
    /// Moments and the carry of the global batch on the host, for [`STATE_TENSORS_FILE`].
    pub fn state_tensors(&self, carry: &Carry) -> Vec<(String, RawTensor)> {
        let params = self.model.params();
        let moments = [("adam.m.", &self.adam.m), ("adam.v.", &self.adam.v)].into_iter().flat_map(|(prefix, flat)| {
            params.parts_of(flat).into_iter().map(move |(name, raw)| (format!("{prefix}{name}"), raw))
        });
        let carry = carry.named().into_iter().map(|(name, tensor)| (name.to_owned(), to_raw(tensor)));
        moments.chain(carry).collect()
    }

    /// Takes moments, average and carry from a checkpoint folder. The weights are the model's already. The inner result
    /// tells whether the carry fitted, which that of another batch size or dtype does not.
    ///
    /// # Errors
    /// A file that is missing or damaged, a moment that does not fit, by name. The trainer is then half restored.
    pub fn restore(&mut self, folder: &Path, state: &TrainingState) -> Result<Result<()>> {
        let path = folder.join(STATE_TENSORS_FILE);
        let tensors = safetensors_file::read(&path)?;
        let map: HashMap<&str, &RawTensor> = tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let at = || path.display().to_string();
        self.adam.m = self.model.params().flat_from(&map, "adam.m.").with_context(at)?;
        self.adam.v = self.model.params().flat_from(&map, "adam.v.").with_context(at)?;
        self.adam.steps = state.adam_steps;
        self.step = state.step;
        if self.ema.is_some() {
            let path = folder.join(EMA_FILE);
            let averaged = safetensors_file::read(&path)?;
            let averaged: HashMap<&str, &RawTensor> = averaged.iter().map(|(n, t)| (n.as_str(), t)).collect();
            self.ema = Some(self.model.params().flat_from(&averaged, "").with_context(|| path.display().to_string())?);
        }
        Ok(self.restore_carry(&map).with_context(at))
    }

    fn restore_carry(&mut self, tensors: &HashMap<&str, &RawTensor>) -> Result<()> {
        for (name, to) in self.carry.named() {
            let raw = tensors.get(name).with_context(|| format!("there is no {name}"))?;
            let from = self.peers.own_rows(&to_tensor(raw));
            ensure!(
                from.size() == to.size() && from.kind() == to.kind(),
                "{name} is {:?} {:?}, this run has {:?} {:?}",
                from.size(),
                from.kind(),
                to.size(),
                to.kind()
            );
            to.shallow_clone().copy_(&from);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_without_the_test_datas_fingerprint_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let sampler = "{\"seed\":0,\"global_batch_size\":16,\"epochs_per_pass\":4,\"iterations_done\":1,\"set\":0,\
                       \"batches_taken\":2}";
        let text = format!(
            "{{\"version\":1,\"step\":20,\"adam_steps\":20,\"passes\":1,\"sampler\":{sampler},\
             \"data_fingerprint\":\"f\",\"best\":null}}"
        );
        fs::write(folder.path().join(STATE_FILE), text).unwrap();
        let state = TrainingState::read(folder.path()).unwrap();
        assert_eq!((state.step, state.test_data_fingerprint), (20, None));
    }
}
