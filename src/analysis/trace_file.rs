//! Traces of many puzzles as one safetensors file, written row by row: nothing is held but a batch.

use std::{
    fs::{self, File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use safetensors::tensor::{Metadata, TensorInfo};
use tch::Tensor;

use crate::{
    dtype::Dtype,
    input,
    model::{Model, ModelConfig, Segment, to_raw},
    puzzle::Puzzle,
    store::sync_folder,
};

/// What of a trace is kept, and as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracePlan {
    pub rows: usize,
    pub segments: usize,
    /// z_L after each segment too.
    pub z_l: bool,
    /// States and logits as f32 whatever the forward dtype is.
    pub as_f32: bool,
}

/// One array of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceArray {
    pub name: &'static str,
    pub dtype: Dtype,
    /// Rows first.
    pub shape: Vec<usize>,
}

impl TraceArray {
    fn row_bytes(&self) -> usize {
        self.shape[1..].iter().product::<usize>() * self.dtype.size()
    }

    /// Bytes of the whole array.
    pub fn bytes(&self) -> usize {
        self.shape[0] * self.row_bytes()
    }
}

/// The arrays that a plan makes of a model, in the file's order.
///
/// - `z_H`: `[N, segments * H_cycles, T, h]`; `z_L` (if wanted): `[N, segments, T, h]`
/// - `logits`: `[N, segments, S, V]`
/// - `q_halt`, `q_continue`: `[N, segments]`, f32
/// - `inputs`, `labels`: `[N, S]`, uint8 tokens
pub fn arrays(config: &ModelConfig, plan: &TracePlan) -> Vec<TraceArray> {
    let size = |n: i64| usize::try_from(n).unwrap_or(0);
    let state = if plan.as_f32 { Dtype::F32 } else { config.forward_dtype };
    let (n, k) = (plan.rows, plan.segments);
    let (t, h) = (size(config.total_seq()), size(config.hidden_size));
    let (s, v) = (size(config.dims.seq_len), size(config.dims.vocab_size));
    let array = |name, dtype, shape: &[usize]| TraceArray { name, dtype, shape: shape.to_vec() };
    let mut all = vec![array("z_H", state, &[n, k * size(config.h_cycles), t, h])];
    if plan.z_l {
        all.push(array("z_L", state, &[n, k, t, h]));
    }
    all.extend([
        array("logits", state, &[n, k, s, v]),
        array("q_halt", Dtype::F32, &[n, k]),
        array("q_continue", Dtype::F32, &[n, k]),
        array("inputs", Dtype::U8, &[n, s]),
        array("labels", Dtype::U8, &[n, s]),
    ]);
    // Wide elements first keeps every array aligned.
    all.sort_by_key(|a| std::cmp::Reverse(a.dtype.size()));
    all
}

/// A trace file that is being written, under a name of its own until it is whole.
#[derive(Debug)]
pub struct TraceFile {
    path: PathBuf,
    part: PathBuf,
    file: File,
    arrays: Vec<TraceArray>,
    /// Where each array begins in the file.
    starts: Vec<u64>,
    plan: TracePlan,
}

impl TraceFile {
    /// Makes the file, or with `done` rows written goes on with it.
    ///
    /// # Errors
    /// Rows that are said to be done, and a part that is not there or of another length.
    pub fn open(path: &Path, config: &ModelConfig, plan: TracePlan, done: usize) -> Result<Self> {
        let arrays = arrays(config, &plan);
        let mut offset = 0;
        let infos = arrays.iter().map(|a| {
            let from = offset;
            offset += a.bytes();
            (
                a.name.to_owned(),
                TensorInfo { dtype: a.dtype.into(), shape: a.shape.clone(), data_offsets: (from, offset) },
            )
        });
        let infos: Vec<_> = infos.collect();
        let first = |info: &TensorInfo| info.data_offsets.0 as u64;
        let mut header = serde_json::to_vec(&Metadata::new(None, infos.clone())?)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        let starts = infos.iter().map(|(_, info)| 8 + header.len() as u64 + first(info)).collect();
        let length = 8 + header.len() as u64 + offset as u64;
        let part = path.with_extension("safetensors.part");
        let at = || format!("{}: cannot write", part.display());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(done == 0);
        let mut file = input::open_with(&mut options, &part).with_context(at)??;
        if done == 0 {
            file.write_all(&(header.len() as u64).to_le_bytes()).with_context(at)?;
            file.write_all(&header).with_context(at)?;
            file.set_len(length).with_context(at)?;
        }
        let found = file.metadata().with_context(at)?.len();
        ensure!(
            found == length,
            "{}: {found} bytes, {length} are needed for the rows that were traced already: --force begins anew",
            part.display()
        );
        Ok(Self { path: path.to_owned(), part, file, arrays, starts, plan })
    }

    /// Bytes of the whole file.
    pub fn bytes(&self) -> u64 {
        self.starts.iter().zip(&self.arrays).map(|(s, a)| s + a.bytes() as u64).max().unwrap_or(0)
    }

    /// Writes the parts `step..` of some rows of an array, `count` parts of `of` that a row has.
    fn put(&mut self, name: &str, first_row: usize, (step, of): (usize, usize), values: &Tensor) -> Result<()> {
        let k = self.arrays.iter().position(|a| a.name == name).with_context(|| format!("no array {name}"))?;
        let (row_bytes, start) = (self.arrays[k].row_bytes(), self.starts[k]);
        let raw = to_raw(&values.f_to_kind(self.arrays[k].dtype.into())?);
        let part_bytes = row_bytes / of;
        for (row, bytes) in raw.data.chunks_exact(part_bytes).enumerate() {
            let at = start + ((first_row + row) * row_bytes + step * part_bytes) as u64;
            self.file.seek(SeekFrom::Start(at))?;
            self.file.write_all(bytes)?;
        }
        Ok(())
    }

    /// Runs rows `first_row..` and writes what they give.
    pub fn trace(&mut self, model: &Model, first_row: usize, items: &[Puzzle]) -> Result<()> {
        let part = self.part.clone();
        self.trace_rows(model, first_row, items).with_context(|| format!("{}: cannot write", part.display()))
    }

    fn trace_rows(&mut self, model: &Model, first_row: usize, items: &[Puzzle]) -> Result<()> {
        let batch = super::runs::batch_of(model, items)?;
        let tokens = |of: &dyn Fn(&Puzzle) -> &[u8]| {
            Tensor::from_slice(&items.iter().flat_map(|i| of(i).iter().copied()).collect::<Vec<u8>>())
        };
        self.put("inputs", first_row, (0, 1), &tokens(&Puzzle::tokens))?;
        self.put("labels", first_row, (0, 1), &tokens(&|puzzle| puzzle.solution().unwrap_or_default()))?;
        let segments = self.plan.segments;
        let mut session = model.unroll(model.fresh_carry(batch)).traced();
        session.run(segments, |number, segment| self.put_segment(first_row, number - 1, segment))?;
        Ok(self.file.sync_data()?)
    }

    fn put_segment(&mut self, first_row: usize, k: usize, segment: &Segment) -> Result<()> {
        let n = self.plan.segments;
        let cycles = segment.trace.len();
        for (cycle, z_h) in segment.trace.iter().enumerate() {
            self.put("z_H", first_row, (k * cycles + cycle, n * cycles), z_h)?;
        }
        if self.plan.z_l {
            self.put("z_L", first_row, (k, n), &segment.carry.z_l)?;
        }
        self.put("logits", first_row, (k, n), &segment.logits)?;
        self.put("q_halt", first_row, (k, n), &segment.q_halt)?;
        self.put("q_continue", first_row, (k, n), &segment.q_continue)
    }

    /// Gives the whole file its name.
    pub fn finish(self) -> Result<()> {
        let at = || format!("{}: cannot write", self.path.display());
        self.file.sync_all().with_context(at)?;
        fs::rename(&self.part, &self.path).with_context(at)?;
        sync_folder(match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        })
    }
}
