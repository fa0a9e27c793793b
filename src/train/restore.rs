//! Taking a trainer's state to the host and back, see [`super::TrainingState`].

use std::{collections::HashMap, path::Path};

use anyhow::{Context, Result, ensure};
use tch::Kind;

use super::{STATE_TENSORS_FILE, Trainer, TrainingState, state::CarryLimits};
use crate::{
    checkpoint::{EMA_FILE, RawTensor, safetensors_file},
    model::{Carry, to_raw, to_tensor},
};

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
        ensure!(f64::try_from(self.adam.v.min())? >= 0.0, "{}: a second moment is negative", at());
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
        let config = self.model.config();
        let limits = CarryLimits {
            halt_max_steps: config.halt_max_steps,
            vocab_size: config.dims.vocab_size,
            num_puzzle_identifiers: config.dims.num_puzzle_identifiers,
        };
        let mut own = Vec::new();
        for (name, to) in self.carry.named() {
            let raw = tensors.get(name).with_context(|| format!("there is no {name}"))?;
            // The file holds the rows of all ranks.
            let mut wanted = to.size().into_iter().map(usize::try_from).collect::<Result<Vec<_>, _>>()?;
            wanted.iter_mut().take(1).for_each(|rows| *rows *= self.peers.world());
            ensure!(
                raw.shape == wanted && Kind::from(raw.dtype) == to.kind(),
                "{name} is {:?} {}, this run has {wanted:?} {:?}",
                raw.shape,
                raw.dtype,
                to.kind()
            );
            limits.check(name, raw)?;
            own.push((to.shallow_clone(), self.peers.own_rows(&to_tensor(raw))));
        }
        own.into_iter().for_each(|(mut to, from)| to.copy_(&from));
        Ok(())
    }
}
