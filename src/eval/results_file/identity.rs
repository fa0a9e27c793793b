//! What decides the results of a run.

use std::ops::Range;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{Header, VERSION};
use crate::{
    difference::Difference,
    eval::{guess_options::GuessOptions, scores::RunShape},
    journal::Identity,
};

/// Everything that decides the results, and what they are called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunIdentity {
    /// What decides how passes are counted.
    pub shape: RunShape,
    /// Whether the endings under other rules are kept.
    pub compare_stops: bool,
    /// What guesses consist of.
    pub options: GuessOptions,
    /// In the order of the pass numbers.
    pub checkpoints: Vec<CheckpointIdentity>,
    /// Of the data.
    pub data_fingerprint: String,
    /// Its folder or name, for people.
    pub data: String,
    /// Puzzles of the whole run.
    pub puzzles: usize,
}

/// A checkpoint of a run: what decides its results, and what it is called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointIdentity {
    /// SHA-256 of the weights' names, shapes and bytes.
    pub weights: String,
    /// Training steps, where the checkpoint tells.
    pub step: Option<u64>,
    /// Forward dtype.
    pub dtype: String,
    /// Where it was read from, for people.
    pub path: String,
}

impl RunIdentity {
    /// The first thing in which a stored run differs, names and paths apart.
    pub(super) fn difference(&self, stored: &Self) -> Result<Option<Difference>> {
        let header = |run: &Self| Header { hrm_results: VERSION, run: run.clone(), first: 0, end: 0 };
        header(self).difference(serde_json::to_value(header(stored))?)
    }

    pub(super) fn header(&self, puzzles: &Range<usize>) -> Header {
        Header { hrm_results: VERSION, run: self.clone(), first: puzzles.start, end: puzzles.end }
    }
}
