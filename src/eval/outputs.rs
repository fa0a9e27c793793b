//! Tensors of an evaluation's last segment, kept for other programs: upstream's `eval_save_outputs`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ndarray::ArrayD;
use tch::{Device, Kind, Tensor};

use crate::{
    checkpoint::{RawTensor, safetensors_file},
    model::{Segment, to_raw},
    store::{self, Existing, Staging},
};

/// What can be kept, under upstream's names. N rows in the files' order, padding left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SavedTensor {
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

impl SavedTensor {
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
    /// A safetensors file, or a folder with a .npy file of each output.
    path: PathBuf,
    wanted: Vec<SavedTensor>,
    /// (set, parts of each wanted output)
    sets: Vec<(String, Vec<Vec<Tensor>>)>,
}

impl SavedOutputs {
    /// Outputs of these sets that will go to a file that ends so, else to a folder.
    pub fn new(path: &Path, sets: &[&str], wanted: &[SavedTensor]) -> Self {
        let nothing = |&set: &&str| (set.to_owned(), wanted.iter().map(|_| Vec::new()).collect());
        Self { path: path.to_owned(), wanted: wanted.to_vec(), sets: sets.iter().map(nothing).collect() }
    }

    fn is_one_file(&self) -> bool {
        self.path.extension().is_some_and(|e| e == "safetensors")
    }

    /// Keeps the first `rows` rows of a segment.
    ///
    /// # Errors
    /// A set that was not named; a failure inside libtorch.
    pub fn add(&mut self, set: &str, segment: &Segment, rows: usize) -> Result<()> {
        let there = self.sets.iter_mut().find(|(name, _)| name == set);
        let (_, parts) = there.with_context(|| format!("no outputs of set '{set}' were asked for"))?;
        for (output, parts) in self.wanted.iter().zip(parts) {
            let kept = output.of(segment).f_narrow(0, 0, i64::try_from(rows)?)?;
            parts.push(kept.f_to_device(Device::Cpu)?.copy());
        }
        Ok(())
    }

    /// Each output with its name and its parts; with several sets a name begins with its set's.
    fn named(&self) -> impl Iterator<Item = (String, &Vec<Tensor>)> {
        let several = self.sets.len() > 1;
        self.sets.iter().flat_map(move |(set, parts)| {
            let name = move |output: &SavedTensor| match several {
                false => output.name().to_owned(),
                true => format!("{set}.{}", output.name()),
            };
            self.wanted.iter().map(name).zip(parts)
        })
    }

    /// The files that will be written; none where a folder is new.
    pub fn files(&self) -> Vec<PathBuf> {
        if self.is_one_file() {
            return vec![self.path.clone()];
        }
        let in_folder = |(name, _): (String, _)| self.path.join(format!("{name}.npy"));
        if self.path.exists() { self.named().map(in_folder).collect() } else { Vec::new() }
    }

    /// Writes the files. A new folder appears with all of them.
    ///
    /// # Errors
    /// Those of [`store::write_file`] and [`Staging`].
    pub fn write(&self, existing: Existing) -> Result<()> {
        let joined = self.named().map(|(name, parts)| Ok((name, Tensor::f_cat(parts, 0)?)));
        let tensors: Vec<(String, Tensor)> = joined.collect::<Result<_>>()?;
        if self.is_one_file() {
            let raw: Vec<(String, RawTensor)> = tensors.iter().map(|(name, t)| (name.clone(), to_raw(t))).collect();
            return safetensors_file::write(&self.path, existing, &raw);
        }
        let fill = |folder: &Path, existing| {
            tensors.iter().try_for_each(|(name, tensor)| {
                write_npy(&folder.join(format!("{name}.npy")), existing, tensor).with_context(|| name.clone())
            })
        };
        if self.path.symlink_metadata().is_ok() {
            return fill(&self.path, existing);
        }
        let staging = Staging::beside(&self.path)?;
        fill(staging.path(), Existing::Refuse)?;
        staging.place(Existing::Refuse, |_| Ok(()))
    }
}

fn write_npy(path: &Path, existing: Existing, tensor: &Tensor) -> Result<()> {
    let shape: Vec<usize> = tensor.size().iter().map(|&n| n as usize).collect();
    let flat = tensor.f_contiguous()?.f_view([-1])?;
    if tensor.kind() == Kind::Int {
        store::write_npy(path, existing, &ArrayD::from_shape_vec(shape, Vec::<i32>::try_from(flat)?)?)
    } else {
        let values = Vec::<f32>::try_from(flat.f_to_kind(Kind::Float)?)?;
        store::write_npy(path, existing, &ArrayD::from_shape_vec(shape, values)?)
    }
}
