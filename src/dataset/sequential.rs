//! Test batches: every example once, in the files' order.
//!
//! The batch that begins at `start` covers the global window `[start, min(start + B, N))`. With n ranks and L = B / n,
//! rank r has the window's rows `[start + rL, min(start + (r + 1)L, end))`, which may be none, padded to L rows.

use std::sync::Arc;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::{Dataset, SampledBatch};

/// Where a sequential sampler stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequentialState {
    /// Index of the set in [`Dataset::sets`](super::Dataset::sets).
    pub set: usize,
    /// The next global example of the set.
    pub start: usize,
}

/// Goes through a dataset once. An iterator of this rank's batches.
#[derive(Clone, Debug)]
pub struct SequentialSampler {
    dataset: Arc<Dataset>,
    global_batch_size: usize,
    rank: usize,
    world: usize,
    state: SequentialState,
}

impl SequentialSampler {
    /// A sampler at the first example.
    ///
    /// # Errors
    /// A batch size that the ranks cannot share.
    pub fn new(dataset: Arc<Dataset>, global_batch_size: usize, rank: usize, world: usize) -> Result<Self> {
        ensure!(global_batch_size > 0, "a batch of 0 rows; expected 1 or more");
        ensure!(rank < world, "rank {rank} of {world} processes");
        ensure!(
            global_batch_size.is_multiple_of(world),
            "a batch of {global_batch_size} rows cannot be divided equally among {world} processes"
        );
        Ok(Self { dataset, global_batch_size, rank, world, state: SequentialState::default() })
    }

    /// Batches of all sets from the first example to the last.
    pub fn batches(&self) -> usize {
        self.dataset.sets().iter().map(|set| set.len().div_ceil(self.global_batch_size)).sum()
    }

    /// What is read.
    pub fn dataset(&self) -> &Arc<Dataset> {
        &self.dataset
    }

    /// Where the reader stands.
    pub fn state(&self) -> SequentialState {
        self.state
    }

    /// Continues from a saved place.
    pub fn restore(&mut self, state: SequentialState) -> Result<()> {
        let sets = self.dataset.sets();
        let known = match sets.get(state.set) {
            Some(set) => state.start <= set.len(),
            None => state == SequentialState { set: sets.len(), start: 0 },
        };
        ensure!(known, "set {} has no example {}: is this the same dataset?", state.set, state.start);
        self.state = state;
        Ok(())
    }
}

impl Iterator for SequentialSampler {
    type Item = Result<SampledBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let dataset = Arc::clone(&self.dataset);
        let mut set = dataset.sets().get(self.state.set)?;
        while self.state.start >= set.len() {
            self.state = SequentialState { set: self.state.set + 1, start: 0 };
            set = dataset.sets().get(self.state.set)?;
        }
        let start = self.state.start;
        let end = set.len().min(start.saturating_add(self.global_batch_size));
        self.state.start = end;
        let local = self.global_batch_size / self.world;
        let first = end.min(start.saturating_add(self.rank * local));
        let examples: Vec<usize> = (first..end.min(first.saturating_add(local))).collect();
        let index = self.state.set;
        let yielded = set.padded_rows(&examples, local);
        Some(yielded.map(|batch| SampledBatch { set: index, batch, examples, global_rows: end - start }))
    }
}
