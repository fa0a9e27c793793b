//! Dataset folders in upstream's format: building, reading, drawing batches.
//!
//! A folder holds `train/`, `test/` and `identifiers.json`. A split holds `dataset.json` ([`DatasetMeta`]) and, for each
//! set (nearly always one, `all`):
//!
//! - `all__inputs.npy`, `all__labels.npy`: tokens, `[examples, seq_len]`
//! - `all__puzzle_identifiers.npy`: the embedding row of each puzzle, `[puzzles]`
//! - `all__puzzle_indices.npy`: where each puzzle's examples begin, `[puzzles + 1]`, from 0 to `examples`
//! - `all__group_indices.npy`: where each group's puzzles begin, `[groups + 1]`, from 0 to `puzzles`
//! - `all__rows.csv` (ours; readers may find it missing): source and rating of each group's original puzzle
//!
//! # Example
//! ```
//! use hrm::dataset::Dataset;
//!
//! let test = Dataset::bundled_test(Some(10))?;
//! let rows: Vec<usize> = (0..test.sets()[0].len()).collect();
//! let batch = test.sets()[0].rows_as_stored(&rows)?;
//! assert_eq!(batch.inputs.dim(), (10, 81));
//! # Ok::<(), anyhow::Error>(())
//! ```

mod array_data;
mod build;
mod build_request;
mod check;
mod check_request;
mod draws;
mod format;
mod generate;
mod generate_request;
mod input;
mod inspect;
mod list_reader;
mod list_writer;
mod npy;
mod puzzle_list;
mod row_count;
mod sequential;
mod source;
mod staging;
mod train_sampler;

use std::fmt;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

pub use crate::batch::{Batch, IGNORE_LABEL};
pub(crate) use build::give_hints;
pub use build::{Augmentation, BuildOptions, BuildReport, Progress, SplitReport, build};
pub(crate) use build_request::{BuildRequest, BuiltDataset};
pub(crate) use check::{Boards, BoardsReport, CheckReport, DatasetBoards, Finding, ListBoards, check};
pub(crate) use check_request::CheckRequest;
use check_request::CheckedBoards;
pub use draws::{DrawSource, PassDraws, PassKey, SeededDraws};
pub use format::{Dataset, DatasetSet, Memory, SetArrays};
pub(crate) use generate::{
    Effort, Generated, GrowOptions, Keep, Made, MazeOptions, RatingTarget, Round, grow_sudokus, make_mazes,
};
pub(crate) use generate_request::{GenerateReport, GenerateRequest};
pub use input::PuzzleInput;
pub(crate) use inspect::{SplitInspection, inspect};
pub use list_reader::ReadOptions;
pub(crate) use list_writer::write_list;
pub use puzzle_list::{PuzzleList, RowInfo};
pub use row_count::RowCount;
pub use sequential::{SequentialSampler, SequentialState};
pub use source::{PuzzleFile, PuzzleSource, SplitFiles, find_list, resolve_sources};
pub use staging::{OutputFolder, check_output_folder};
pub use train_sampler::{SamplerConfig, SamplerState, TrainSampler};

use crate::dims::Dims;

/// `dataset.json` of one split, fields in upstream's order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DatasetMeta {
    /// Token of padding.
    pub pad_id: i64,
    /// Label that counts as "no label"; batches carry [`IGNORE_LABEL`] in its place.
    pub ignore_label_id: Option<i64>,
    /// Puzzle identifier of padded rows.
    pub blank_identifier_id: i64,
    /// Tokens that there are, padding included.
    pub vocab_size: i64,
    /// Tokens of an example.
    pub seq_len: i64,
    /// Rows of the puzzle embedding.
    pub num_puzzle_identifiers: i64,
    /// Groups of all sets together.
    pub total_groups: i64,
    /// Mean number of examples of a puzzle.
    pub mean_puzzle_examples: f64,
    /// Names of the sets, which begin the names of their array files.
    pub sets: Vec<String>,
}

impl From<&DatasetMeta> for Dims {
    fn from(meta: &DatasetMeta) -> Self {
        Self { seq_len: meta.seq_len, vocab_size: meta.vocab_size, num_puzzle_identifiers: meta.num_puzzle_identifiers }
    }
}

/// Rows of the bundled test file that stand for it unless more are asked for.
pub const BUNDLED_TEST_ROWS: usize = 2000;

/// Threads for long work on datasets.
fn thread_pool(threads: usize) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().context("cannot start the threads")
}

/// What a sampler yields: one rank's part of a global batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampledBatch {
    /// Index of the set in [`Dataset::sets`].
    pub set: usize,
    /// This rank's rows, padded up to the local batch size.
    pub batch: Batch,
    /// The example that each unpadded row of `batch` is, as an index into the set.
    pub examples: Vec<usize>,
    /// Rows of the global batch over all ranks, padding not counted.
    pub global_rows: usize,
}

/// The two halves of a dataset folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// `train/`.
    Train,
    /// `test/`.
    Test,
}

impl Split {
    /// The folder's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
