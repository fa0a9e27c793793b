//! Traces of many puzzles as one safetensors file, written row by row: nothing is held but a batch.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
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
    store::{Existing, folder_of, rename_new, sync_folder},
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

/// Where everything stands in a trace file.
#[derive(Debug)]
pub struct TraceLayout {
    arrays: Vec<TraceArray>,
    /// Where each array begins in the file.
    starts: Vec<u64>,
    /// What the file begins with.
    head: Vec<u8>,
    bytes: u64,
    plan: TracePlan,
}

impl TraceLayout {
    /// That of a plan with a model.
    ///
    /// # Errors
    /// Sizes that safetensors does not hold.
    pub fn new(config: &ModelConfig, plan: TracePlan) -> Result<Self> {
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
        let bytes = 8 + header.len() as u64 + offset as u64;
        let head = [&(header.len() as u64).to_le_bytes()[..], &header].concat();
        Ok(Self { arrays, starts, head, bytes, plan })
    }

    /// Bytes of the whole file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the whole file is there; false while it has the name of an unfinished one.
    ///
    /// # Errors
    /// A file of another layout; one that cannot be read.
    pub fn is_whole(&self, path: &Path) -> Result<bool> {
        if part_of(path).exists() || !path.exists() {
            return Ok(false);
        }
        let at = || format!("{}: cannot be read", path.display());
        let (mut file, mut head) = (input::open(path)?, vec![0; self.head.len()]);
        let found = file.metadata().with_context(at)?.len();
        let same = found == self.bytes && {
            file.read_exact(&mut head).with_context(at)?;
            head == self.head
        };
        ensure!(same, "{}: not the trace that was asked for: --force begins anew", path.display());
        Ok(true)
    }
}

/// The name of a trace file until it is whole.
fn part_of(path: &Path) -> PathBuf {
    path.with_extension("safetensors.part")
}

/// A trace file that is being written, under a name of its own until it is whole.
#[derive(Debug)]
pub struct TraceFile {
    path: PathBuf,
    part: PathBuf,
    file: File,
    layout: TraceLayout,
}

impl TraceFile {
    /// Makes the file, or with `done` rows written goes on with it.
    ///
    /// # Errors
    /// Something that is there and must stay; rows that are said to be done, and a part that is not there or of another
    /// length.
    pub fn open(path: &Path, layout: TraceLayout, done: usize, existing: Existing) -> Result<Self> {
        let part = part_of(path);
        let at = || format!("{}: cannot write", part.display());
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        match existing {
            _ if done > 0 => &mut options,
            Existing::Replace => options.create(true).truncate(true),
            Existing::Refuse | Existing::Resume => options.create_new(true),
        };
        let mut file = input::open_with(&mut options, &part).with_context(at)??;
        if done == 0 {
            file.write_all(&layout.head).with_context(at)?;
            file.set_len(layout.bytes).with_context(at)?;
        }
        let (found, wanted) = (file.metadata().with_context(at)?.len(), layout.bytes);
        ensure!(
            found == wanted,
            "{}: {found} bytes, {wanted} are needed for the rows that were traced already: --force begins anew",
            part.display()
        );
        Ok(Self { path: path.to_owned(), part, file, layout })
    }

    /// Writes the parts `step..` of some rows of an array, `count` parts of `of` that a row has.
    fn put(&mut self, name: &str, first_row: usize, (step, of): (usize, usize), values: &Tensor) -> Result<()> {
        let k = self.layout.arrays.iter().position(|a| a.name == name).with_context(|| format!("no array {name}"))?;
        let (row_bytes, start) = (self.layout.arrays[k].row_bytes(), self.layout.starts[k]);
        let raw = to_raw(&values.f_to_kind(self.layout.arrays[k].dtype.into())?);
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
        let segments = self.layout.plan.segments;
        let mut session = model.unroll(model.fresh_carry(batch)).traced();
        session.run(segments, |number, segment| self.put_segment(first_row, number - 1, segment))?;
        Ok(self.file.sync_data()?)
    }

    fn put_segment(&mut self, first_row: usize, k: usize, segment: &Segment) -> Result<()> {
        let n = self.layout.plan.segments;
        let cycles = segment.trace.len();
        for (cycle, z_h) in segment.trace.iter().enumerate() {
            self.put("z_H", first_row, (k * cycles + cycle, n * cycles), z_h)?;
        }
        if self.layout.plan.z_l {
            self.put("z_L", first_row, (k, n), &segment.carry.z_l)?;
        }
        self.put("logits", first_row, (k, n), &segment.logits)?;
        self.put("q_halt", first_row, (k, n), &segment.q_halt)?;
        self.put("q_continue", first_row, (k, n), &segment.q_continue)
    }

    /// Gives the whole file its name.
    ///
    /// # Errors
    /// Something that came there meanwhile; those of the file system.
    pub fn finish(self, existing: Existing) -> Result<()> {
        let at = || format!("{}: cannot write", self.path.display());
        self.file.sync_all().with_context(at)?;
        match existing {
            Existing::Replace => fs::rename(&self.part, &self.path).with_context(at)?,
            Existing::Refuse | Existing::Resume => rename_new(&self.part, &self.path).with_context(at)?,
        }
        sync_folder(folder_of(&self.path))
    }
}
