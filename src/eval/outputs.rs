//! Tensors of an evaluation's last segment, kept for other programs: upstream's `eval_save_outputs`.

use std::path::Path;

use anyhow::{Context, Result};
use ndarray::ArrayD;
use tch::{Device, Kind, Tensor};

use crate::{
    checkpoint::{RawTensor, safetensors_file},
    model::{Segment, to_raw},
    store,
};

/// What can be kept, under upstream's names. N rows in the files' order, padding left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// `[N, S]`, int32
    Inputs,
    /// `[N, S]`, int32, −100 where there is none
    Labels,
    /// `[N]`, int32
    PuzzleIdentifiers,
    /// `[N, S, V]`, the forward pass's dtype (f32 in .npy files)
    Logits,
    /// `[N]`, f32
    QHaltLogits,
    QContinueLogits,
}

impl Output {
    /// All of them, as upstream's evaluate.py keeps by default.
    pub const ALL: [Self; 6] =
        [Self::Inputs, Self::Labels, Self::PuzzleIdentifiers, Self::Logits, Self::QHaltLogits, Self::QContinueLogits];

    pub fn name(self) -> &'static str {
        match self {
            Self::Inputs => "inputs",
            Self::Labels => "labels",
            Self::PuzzleIdentifiers => "puzzle_identifiers",
            Self::Logits => "logits",
            Self::QHaltLogits => "q_halt_logits",
            Self::QContinueLogits => "q_continue_logits",
        }
    }

    fn of(self, segment: &Segment) -> &Tensor {
        match self {
            Self::Inputs => &segment.carry.batch.inputs,
            Self::Labels => &segment.carry.batch.labels,
            Self::PuzzleIdentifiers => &segment.carry.batch.puzzle_identifiers,
            Self::Logits => &segment.logits,
            Self::QHaltLogits => &segment.q_halt,
            Self::QContinueLogits => &segment.q_continue,
        }
    }
}

/// Collects outputs batch by batch, on the host.
#[derive(Debug)]
pub struct SavedOutputs {
    wanted: Vec<Output>,
    /// (set, parts of each wanted output)
    sets: Vec<(String, Vec<Vec<Tensor>>)>,
}

impl SavedOutputs {
    pub fn new(wanted: &[Output]) -> Self {
        Self { wanted: wanted.to_vec(), sets: Vec::new() }
    }

    /// Keeps the first `rows` rows of a segment; sets come one after the other.
    pub fn add(&mut self, set: &str, segment: &Segment, rows: usize) -> Result<()> {
        if self.sets.last().is_none_or(|(name, _)| name != set) {
            let parts = self.wanted.iter().map(|_| Vec::new()).collect();
            self.sets.push((set.to_owned(), parts));
        }
        let Some((_, parts)) = self.sets.last_mut() else { return Ok(()) };
        for (output, parts) in self.wanted.iter().zip(parts) {
            let kept = output.of(segment).f_narrow(0, 0, i64::try_from(rows)?)?;
            parts.push(kept.f_to_device(Device::Cpu)?.copy());
        }
        Ok(())
    }

    /// Names and tensors; with several sets a name begins with its set's.
    fn joined(&self) -> Result<Vec<(String, Tensor)>> {
        let mut all = Vec::new();
        for (set, parts) in &self.sets {
            for (output, parts) in self.wanted.iter().zip(parts) {
                let name =
                    if self.sets.len() == 1 { output.name().to_owned() } else { format!("{set}.{}", output.name()) };
                all.push((name, Tensor::f_cat(parts, 0)?));
            }
        }
        Ok(all)
    }

    /// Writes one safetensors file, or where the name does not end so a folder with a .npy file of each output.
    ///
    /// # Errors
    /// Those of the file system, with the path.
    pub fn write(&self, path: &Path) -> Result<()> {
        let tensors = self.joined()?;
        if path.extension().is_some_and(|e| e == "safetensors") {
            let raw: Vec<(String, RawTensor)> = tensors.iter().map(|(name, t)| (name.clone(), to_raw(t))).collect();
            return safetensors_file::write(path, &raw);
        }
        store::create_folder(path)?;
        for (name, tensor) in &tensors {
            let file = path.join(format!("{name}.npy"));
            write_npy(&file, tensor).with_context(|| name.clone())?;
        }
        Ok(())
    }
}

fn write_npy(path: &Path, tensor: &Tensor) -> Result<()> {
    let shape: Vec<usize> = tensor.size().iter().map(|&n| n as usize).collect();
    let flat = tensor.f_contiguous()?.f_view([-1])?;
    if tensor.kind() == Kind::Int {
        store::write_npy(path, &ArrayD::from_shape_vec(shape, Vec::<i32>::try_from(flat)?)?)
    } else {
        store::write_npy(path, &ArrayD::from_shape_vec(shape, Vec::<f32>::try_from(flat.f_to_kind(Kind::Float)?)?)?)
    }
}
