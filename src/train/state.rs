//! What a training checkpoint holds beside the weights, so that a run goes on as if it had never stopped.
//!
//! - `training.safetensors`: both moments of Adam-atan2 under `adam.m.` and `adam.v.` and the parameters' names (f32), and
//!   the carry (`carry.z_H` and so on) in the order of the global batch
//! - `training.json`: [`TrainingState`]
//! - `ema.safetensors`: the moving average, named as the weights, where there is one
//!
//! Sign-SGD has no state, and the schedule follows from the step. Exploration and online augmentation draw from streams
//! keyed by (seed, step, row of the global batch), so the seed and the step are their whole state.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::{batch::IGNORE_LABEL, dataset::SamplerState, input, raw_tensor::RawTensor};

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
        let state: Self = serde_json::from_slice(&input::read(&path, 1 << 20)?).with_context(at)?;
        state.check().with_context(at)?;
        Ok(state)
    }

    fn check(&self) -> Result<()> {
        let Self { version, step, adam_steps, passes, sampler, best, .. } = self;
        ensure!(*version == Self::VERSION, "version {version}, this program supports version {}", Self::VERSION);
        ensure!(*step >= 0 && *passes >= 0, "step {step}, {passes} passes");
        ensure!(*adam_steps <= step.unsigned_abs(), "{adam_steps} steps of the optimiser in {step} steps");
        let taken = sampler.batches_taken;
        ensure!(taken <= step.unsigned_abs(), "{taken} batches of a pass in {step} steps");
        let Some(Best { step: of_best, exact_accuracy }) = best else { return Ok(()) };
        ensure!((0..=*step).contains(of_best), "the best evaluation at step {of_best} of {step}");
        ensure!((0.0..=1.0).contains(exact_accuracy), "an exact accuracy of {exact_accuracy}");
        Ok(())
    }
}

/// What the values of a carry are limited to.
#[derive(Clone, Copy, Debug)]
pub struct CarryLimits {
    /// Segments of a row.
    pub halt_max_steps: i64,
    /// Tokens.
    pub vocab_size: i64,
    /// Rows of the puzzle embedding.
    pub num_puzzle_identifiers: i64,
}

impl CarryLimits {
    /// Whether a tensor of a carry, by its name in [`STATE_TENSORS_FILE`], holds values that a run can have left.
    ///
    /// # Errors
    /// The first value that is out of range.
    pub fn check(&self, name: &str, tensor: &RawTensor) -> Result<()> {
        let range = match name {
            "carry.steps" => 0..self.halt_max_steps + 1,
            "carry.halted" => 0..2,
            "carry.inputs" | "carry.labels" => 0..self.vocab_size,
            "carry.puzzle_identifiers" => 0..self.num_puzzle_identifiers,
            _ => return Ok(tensor.check_weights(name, tensor.dtype)?),
        };
        let unlabelled = |value: i64| name == "carry.labels" && value == i64::from(IGNORE_LABEL);
        let values =
            tensor.integers().with_context(|| format!("{name} is {}, and whole numbers are wanted", tensor.dtype))?;
        match values.into_iter().enumerate().find(|(_, value)| !range.contains(value) && !unlabelled(*value)) {
            Some((at, value)) => bail!("{name} holds {value} (element {at}), which is none of {range:?}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::dtype::Dtype;

    fn read(changes: &[(&str, &str)]) -> Result<TrainingState> {
        let folder = tempfile::tempdir()?;
        let sampler = "{\"seed\":0,\"global_batch_size\":16,\"epochs_per_pass\":4,\"iterations_done\":1,\"set\":0,\
                       \"batches_taken\":2}";
        let mut text = format!(
            "{{\"version\":1,\"step\":20,\"adam_steps\":20,\"passes\":1,\"sampler\":{sampler},\
             \"data_fingerprint\":\"f\",\"best\":{{\"step\":16,\"exact_accuracy\":0.5}}}}"
        );
        for (was, is) in changes {
            text = text.replace(was, is);
        }
        fs::write(folder.path().join(STATE_FILE), text)?;
        TrainingState::read(folder.path())
    }

    #[test]
    fn counts_that_contradict_each_other_are_refused() {
        assert_eq!(read(&[]).unwrap().step, 20);
        for (was, is, wanted) in [
            ("\"step\":20", "\"step\":-20", "step -20"),
            ("\"passes\":1", "\"passes\":-1", "-1 passes"),
            ("\"adam_steps\":20", "\"adam_steps\":18446744073709551615", "18446744073709551615 steps of the optimiser"),
            ("\"batches_taken\":2", "\"batches_taken\":21", "21 batches of a pass in 20 steps"),
            ("\"step\":16", "\"step\":21", "the best evaluation at step 21 of 20"),
            ("0.5", "1e300", "an exact accuracy of 1"),
            ("\"version\":1", "\"version\":2", "version 2, this program supports version 1"),
        ] {
            let error = format!("{:#}", read(&[(was, is)]).unwrap_err());
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn a_carry_holds_what_a_run_can_have_left() {
        let limits = CarryLimits { halt_max_steps: 3, vocab_size: 11, num_puzzle_identifiers: 1 };
        let ints = |value: i32| RawTensor::new(Dtype::I32, vec![2], [[0; 4], value.to_le_bytes()].concat()).unwrap();
        for (name, last, beyond) in [
            ("carry.steps", 3, 4),
            ("carry.inputs", 10, 11),
            ("carry.labels", -100, -1),
            ("carry.puzzle_identifiers", 0, 1),
        ] {
            limits.check(name, &ints(last)).unwrap();
            let error = limits.check(name, &ints(beyond)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name} holds {beyond} (element 1)")), "{error}");
        }
        let flags = |byte| RawTensor::new(Dtype::Bool, vec![1], vec![byte]).unwrap();
        assert!(limits.check("carry.halted", &flags(1)).is_ok() && limits.check("carry.halted", &flags(2)).is_err());
        let nan = RawTensor::new(Dtype::F32, vec![1], f32::NAN.to_le_bytes().to_vec()).unwrap();
        assert!(limits.check("carry.z_H", &nan).is_err() && limits.check("carry.steps", &nan).is_err());
    }

    #[test]
    fn a_state_without_the_test_datas_fingerprint_is_read() {
        let state = read(&[]).unwrap();
        assert_eq!((state.step, state.test_data_fingerprint), (20, None));
    }
}
