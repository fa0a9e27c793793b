//! Training batches, packed as upstream's loader packs them.
//!
//! A pass covers `epochs_per_pass` epochs, and every epoch visits each group once in random order. A batch is packed
//! greedily: the next group gives one random puzzle, the puzzle gives `min(its examples, room)` distinct random
//! examples. Examples of a puzzle that find no room are dropped, and so is the last batch of a pass if it is not full.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{
    Dataset, SampledBatch,
    draws::{DrawSource, PassDraws, PassKey, SeededDraws},
};

/// What a training sampler needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplerConfig {
    /// Of all draws.
    pub seed: u64,
    /// Rows over all ranks.
    pub global_batch_size: usize,
    /// Epochs between two evaluations.
    pub epochs_per_pass: usize,
    /// This process, from 0.
    pub rank: usize,
    /// Number of ranks.
    pub world: usize,
}

impl SamplerConfig {
    /// Rows of this rank.
    pub fn local_batch_size(&self) -> usize {
        self.global_batch_size / self.world.max(1)
    }

    fn check(&self) -> Result<()> {
        let Self { global_batch_size, world, rank, .. } = *self;
        ensure!(global_batch_size > 0, "global_batch_size is 0; expected 1 or more");
        ensure!(self.epochs_per_pass > 0, "a pass of 0 epochs; eval_interval (else epochs) must be 1 or more");
        ensure!(rank < world, "rank {rank} of {world} processes");
        ensure!(
            global_batch_size.is_multiple_of(world),
            "global_batch_size {global_batch_size} cannot be divided equally among {world} processes"
        );
        Ok(())
    }
}

/// Where a sampler stands, for an exact resume: [`TrainSampler::restore`] continues with the very next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplerState {
    /// As in [`SamplerConfig`].
    pub seed: u64,
    /// As in [`SamplerConfig`].
    pub global_batch_size: usize,
    /// As in [`SamplerConfig`].
    pub epochs_per_pass: usize,
    /// Set passes begun before the current one.
    pub iterations_done: u64,
    /// The set of the current pass, as an index into the dataset's sets.
    pub set: usize,
    /// Batches taken from the current set in this pass.
    pub batches_taken: u64,
}

/// Draws training batches pass after pass.
#[derive(Debug)]
pub struct TrainSampler<D: DrawSource = SeededDraws> {
    dataset: Arc<Dataset>,
    config: SamplerConfig,
    draws: D,
    state: SamplerState,
    /// The running pass over the current set; none before its first batch.
    pass: Option<Pass<D::Pass>>,
}

#[derive(Debug)]
struct Pass<P> {
    draws: P,
    epoch: usize,
    order: Vec<u32>,
    /// Groups of `order` already visited.
    visited: usize,
}

impl TrainSampler<SeededDraws> {
    /// A sampler at its beginning, with seeded draws.
    pub fn new(dataset: Arc<Dataset>, config: SamplerConfig) -> Result<Self> {
        Self::with_draws(dataset, config, SeededDraws)
    }
}

impl<D: DrawSource> TrainSampler<D> {
    /// A sampler at its beginning, with draws of the caller's.
    ///
    /// # Errors
    /// A batch size that the ranks cannot share, or that no pass can fill.
    pub fn with_draws(dataset: Arc<Dataset>, config: SamplerConfig, draws: D) -> Result<Self> {
        config.check()?;
        for set in dataset.sets() {
            let largest = |group| set.puzzles_of(group).map(|p| set.examples_of(p).len()).max().unwrap_or(0);
            let epoch_rows: usize = (0..set.groups()).map(largest).sum();
            let rows = epoch_rows.saturating_mul(config.epochs_per_pass);
            ensure!(
                rows >= config.global_batch_size,
                "set '{}' gives at most {rows} rows in {} epochs, less than one batch of global_batch_size {}; lower it, \
                 or raise eval_interval",
                set.name(),
                config.epochs_per_pass,
                config.global_batch_size
            );
        }
        let state = SamplerState {
            seed: config.seed,
            global_batch_size: config.global_batch_size,
            epochs_per_pass: config.epochs_per_pass,
            iterations_done: 0,
            set: 0,
            batches_taken: 0,
        };
        Ok(Self { dataset, config, draws, state, pass: None })
    }

    /// What is drawn from.
    pub fn dataset(&self) -> &Arc<Dataset> {
        &self.dataset
    }

    /// Seed, batch size, epochs a pass, ranks.
    pub fn config(&self) -> &SamplerConfig {
        &self.config
    }

    /// Batches of a pass where every puzzle has one example (all datasets built here): `⌊epochs · groups / batch⌋`
    /// summed over the sets; elsewhere an estimate.
    pub fn batches_per_pass(&self) -> u64 {
        let rows = |groups: usize| groups.saturating_mul(self.config.epochs_per_pass);
        self.dataset.sets().iter().map(|set| (rows(set.groups()) / self.config.global_batch_size) as u64).sum()
    }

    /// This rank's part of the next batch. None ends the pass; the call after it begins the next pass.
    ///
    /// # Shapes
    /// - inputs, labels: `[local_batch_size, seq_len]`
    pub fn next_batch(&mut self) -> Result<Option<SampledBatch>> {
        while self.state.set < self.dataset.sets().len() {
            if let Some(global) = self.pack() {
                self.state.batches_taken += 1;
                let (set, local) = (self.state.set, self.config.local_batch_size());
                let first = self.config.rank * local;
                let examples = global[first..first + local].to_vec();
                let batch = self.dataset.sets()[set].padded_rows(&examples, local)?;
                return Ok(Some(SampledBatch { set, batch, examples, global_rows: global.len() }));
            }
            self.pass = None;
            self.state = SamplerState {
                iterations_done: self.state.iterations_done + 1,
                set: self.state.set + 1,
                batches_taken: 0,
                ..self.state
            };
        }
        self.state.set = 0;
        Ok(None)
    }

    /// The example indices of the next full global batch of the current set; none when the pass over it is at its end.
    fn pack(&mut self) -> Option<Vec<usize>> {
        let set = &self.dataset.sets()[self.state.set];
        let key = PassKey { seed: self.config.seed, iteration: self.state.iterations_done + 1 };
        let pass = self.pass.get_or_insert_with(|| Pass {
            draws: self.draws.start(key),
            epoch: 0,
            order: Vec::new(),
            visited: 0,
        });
        let mut packed = Vec::with_capacity(self.config.global_batch_size);
        while packed.len() < self.config.global_batch_size {
            if pass.visited == pass.order.len() {
                if pass.epoch == self.config.epochs_per_pass {
                    return None;
                }
                pass.order = pass.draws.group_order(pass.epoch, set.groups());
                pass.epoch += 1;
                pass.visited = 0;
            }
            let group = *pass.order.get(pass.visited)? as usize;
            pass.visited += 1;
            let puzzle = pass.draws.puzzle(set.puzzles_of(group));
            let examples = set.examples_of(puzzle);
            let count = examples.len().min(self.config.global_batch_size - packed.len());
            pass.draws.examples(examples, count, &mut packed);
        }
        Some(packed)
    }

    /// Where the sampler stands. The same on every rank.
    pub fn state(&self) -> SamplerState {
        self.state
    }

    /// Continues from a saved place: the next batch is the one that would have followed there. The pass is replayed up
    /// to it, without reading any board.
    ///
    /// # Errors
    /// A state of another seed, batch size or pass length, or a place that this dataset does not have.
    pub fn restore(&mut self, state: SamplerState) -> Result<()> {
        for (name, saved, now) in [
            ("seed", state.seed, self.config.seed),
            ("global_batch_size", state.global_batch_size as u64, self.config.global_batch_size as u64),
            ("epochs between evaluations", state.epochs_per_pass as u64, self.config.epochs_per_pass as u64),
        ] {
            ensure!(
                saved == now,
                "the saved run had {name} {saved}, this one has {now}: it cannot be resumed from there"
            );
        }
        let sets = self.dataset.sets().len();
        ensure!(state.set < sets, "the saved run is at set {} of {sets}: is this its dataset?", state.set);
        self.state = SamplerState { batches_taken: 0, ..state };
        self.pass = None;
        for taken in 0..state.batches_taken {
            if self.pack().is_none() {
                bail!(
                    "the saved run had taken {} batches of a pass of {taken}: is this its dataset?",
                    state.batches_taken
                );
            }
        }
        self.state = state;
        Ok(())
    }
}

impl<D: DrawSource> TrainSampler<D> {
    /// A sampler that continues from a saved place; see [`Self::restore`].
    pub fn resumed(dataset: Arc<Dataset>, config: SamplerConfig, draws: D, state: SamplerState) -> Result<Self> {
        let mut sampler = Self::with_draws(dataset, config, draws)?;
        sampler.restore(state).context("cannot resume the data order")?;
        Ok(sampler)
    }
}
