//! Traces of many puzzles in one file, with an index of what they are.

use std::ops::ControlFlow;

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Files, StudyFolder, Watcher, interrupted};
use crate::{
    analysis::{
        identity::TraceIdentity,
        trace_file::{TraceArray, TraceFile, TraceLayout, TracePlan, arrays},
    },
    checkpoint::Checkpoint,
    eval::test_puzzles::DataIdentity,
    journal::{Journal, run_batches},
    model::Model,
    puzzle::Puzzle,
};

/// What it writes.
pub const FILES: Files = Files {
    folder: "trace",
    journal: Some("rows.jsonl"),
    pictures: &[],
    others: &["trace.safetensors", "trace.safetensors.part", "index.json"],
};

const FILE: &str = "trace.safetensors";

/// What is traced, with what.
#[derive(Clone, Copy, Debug)]
pub struct TraceStudy<'a> {
    pub checkpoint: &'a Checkpoint,
    pub model: &'a Model,
    pub items: &'a [Puzzle],
    /// Where the items are from.
    pub data: &'a DataIdentity,
    pub segments: usize,
    /// z_L after each segment too.
    pub z_l: bool,
    /// States and logits as f32 whatever the forward dtype is.
    pub as_f32: bool,
    /// Puzzles per batch.
    pub batch_size: usize,
}

/// `index.json`, the document of `hrm trace`.
#[derive(Debug, Serialize)]
pub struct TraceIndex {
    pub file: String,
    pub bytes: u64,
    /// Test row of each of the N.
    rows: Vec<usize>,
    data: String,
    checkpoint: String,
    step: Option<u64>,
    dtype: &'static str,
    segments: usize,
    h_cycles: i64,
    puzzle_emb_len: i64,
    arrays: Value,
    config: Value,
}

/// A trace that is whole.
#[derive(Debug)]
pub struct Traced {
    pub index: TraceIndex,
    /// Of `index.json`.
    pub index_file: String,
    /// An earlier run had traced all rows.
    pub was_whole: bool,
}

impl TraceStudy<'_> {
    fn plan(&self) -> TracePlan {
        TracePlan { rows: self.items.len(), segments: self.segments, z_l: self.z_l, as_f32: self.as_f32 }
    }

    /// The arrays that will be in the file.
    pub fn layout(&self) -> Vec<TraceArray> {
        arrays(self.model.config(), &self.plan())
    }

    /// Writes `trace.safetensors` row by row, on with what is there where that is wanted, then `index.json`.
    ///
    /// # Errors
    /// [`crate::outcome::Interrupted`]; a trace of other rows; a whole file that is another; a failure inside libtorch or of the file system.
    pub fn run(&self, output: &StudyFolder, watcher: &dyn Watcher) -> Result<Traced> {
        let Self { checkpoint, model, items, segments, .. } = *self;
        let rows: Vec<usize> = items.iter().map(|i| i.index()).collect();
        let asked = TraceIdentity {
            weights: checkpoint.weights_digest(),
            data: self.data.clone(),
            rows: rows.clone(),
            segments,
            z_l: self.z_l,
            f32: self.as_f32,
            dtype: model.config().forward_dtype.short_name(),
        };
        let (mut journal, done) = output.journal::<_, usize>("rows.jsonl", &asked)?;
        let done = done.place(items, |row, item| *row == item.index())?;
        let layout = TraceLayout::new(model.config(), self.plan())?;
        let was_whole = done.iter().flatten().count() == items.len() && layout.is_whole(&output.path(FILE))?;
        if !was_whole {
            self.trace(layout, &mut journal, done, output, watcher)?;
        }
        let index = self.index(rows)?;
        let index_file = output.json("index.json", &index)?;
        Ok(Traced { index, index_file, was_whole })
    }

    /// Traces the rows that are not done.
    fn trace(
        &self,
        layout: TraceLayout,
        journal: &mut Journal<TraceIdentity, usize>,
        done: Vec<Option<usize>>,
        output: &StudyFolder,
        watcher: &dyn Watcher,
    ) -> Result<()> {
        let Self { model, items, .. } = *self;
        let before = done.iter().flatten().count();
        let mut file = TraceFile::open(&output.path(FILE), layout, before, output.of_files())?;
        let bar = watcher.bar(items.len(), "trace", "puzzles");
        bar.set_position(before as u64);
        let numbered: Vec<(usize, Puzzle)> = items.iter().cloned().enumerate().collect();
        let compute = |batch: &[(usize, Puzzle)]| {
            let items: Vec<Puzzle> = batch.iter().map(|(_, item)| item.clone()).collect();
            file.trace(model, batch.first().map_or(0, |(row, _)| *row), &items)?;
            Ok(items.iter().map(|i| i.index()).collect())
        };
        let found = run_batches(&numbered, self.batch_size, Some(journal), done, compute, |found| {
            bar.inc(found.len() as u64);
            if watcher.asked_to_stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        bar.finish_and_clear();
        if found.stopped {
            bail!(interrupted(watcher, found.results.len(), items.len(), output.folder()));
        }
        file.finish(output.of_files())
    }

    fn index(&self, rows: Vec<usize>) -> Result<TraceIndex> {
        let Self { checkpoint, model, segments, .. } = *self;
        let shapes: Map<String, Value> = self
            .layout()
            .iter()
            .map(|a| (a.name.to_owned(), json!({"dtype": safetensors::Dtype::from(a.dtype), "shape": a.shape})))
            .collect();
        Ok(TraceIndex {
            file: FILE.to_owned(),
            bytes: TraceLayout::new(model.config(), self.plan())?.bytes(),
            rows,
            data: self.data.data.clone(),
            checkpoint: checkpoint.path.display().to_string(),
            step: checkpoint.step,
            dtype: model.config().forward_dtype.short_name(),
            segments,
            h_cycles: model.config().h_cycles,
            puzzle_emb_len: model.config().puzzle_emb_len(),
            arrays: Value::Object(shapes),
            config: serde_json::to_value(&checkpoint.config)?,
        })
    }
}
