//! From the paths that a user names to the boards that are checked.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{
    Boards, CheckReport, Dataset, DatasetBoards, ListBoards, Progress, PuzzleFile, PuzzleList, PuzzleSource,
    ReadOptions, Split, check, find_list, thread_pool,
};
use crate::puzzle::{Geometry, PuzzleKind};

/// What a user asks to have checked.
#[derive(Clone, Debug)]
pub struct CheckRequest {
    /// A dataset folder, a folder of lists, a list, or the name of a bundled one.
    pub path: PathBuf,
    /// Test puzzles in place of its own.
    pub test: Option<PathBuf>,
    /// What lists hold.
    pub kind: PuzzleKind,
    pub threads: usize,
}

impl CheckRequest {
    /// Reads what was named and checks it.
    ///
    /// # Errors
    /// Puzzles that cannot be read, or are of an unknown kind; training and test puzzles of two kinds; a cancelled run.
    pub fn run(&self, progress: &dyn Progress) -> Result<CheckReport> {
        let train = CheckedBoards::find(&self.path, Split::Train, self.kind)?;
        let test = match &self.test {
            Some(path) => Some(CheckedBoards::find(path, Split::Test, self.kind)?),
            None if self.has_test() => Some(CheckedBoards::find(&self.path, Split::Test, self.kind)?),
            None => None,
        };
        let (train, test) = (train.boards(), test.as_ref().map(CheckedBoards::boards));
        if let Some(test) = &test {
            let (train, test) = (train.geometry(), test.geometry());
            ensure!(test.kind() == train.kind(), "training puzzles are of kind {train}, test puzzles of kind {test}");
        }
        thread_pool(self.threads)?.install(|| check(&*train, test.as_deref(), progress))
    }

    fn has_test(&self) -> bool {
        ["bundled", "bundled-small"].iter().any(|name| self.path == Path::new(name))
            || ["test", "test.csv", "test.csv.gz"].iter().any(|name| self.path.join(name).exists())
    }
}

/// Puzzles as a list or as a dataset's split.
pub(super) enum CheckedBoards {
    List { name: String, list: PuzzleList },
    Split { dataset: Box<Dataset>, geometry: Geometry },
}

impl CheckedBoards {
    /// The training or test half of what a path names.
    pub(super) fn find(path: &Path, split: Split, kind: PuzzleKind) -> Result<Self> {
        if [Split::Train, Split::Test].iter().any(|split| path.join(split.name()).join("dataset.json").exists()) {
            let dataset = Box::new(Dataset::open(path, split)?);
            let geometry = dataset.geometry().known().with_context(|| path.display().to_string())?;
            return Ok(Self::Split { dataset, geometry });
        }
        let source = match path.to_str() {
            Some(text) => text.parse()?,
            None => PuzzleSource::Path(path.into()),
        };
        let file: PuzzleFile = find_list(kind, &source, split)?;
        let options = ReadOptions { kind, min_difficulty: None, first_rows: None };
        Ok(Self::List { name: file.to_string(), list: file.read(&options)? })
    }

    fn boards(&self) -> Box<dyn Boards + '_> {
        match self {
            Self::List { name, list } => Box::new(ListBoards { name: name.clone(), list }),
            Self::Split { dataset, geometry } => Box::new(DatasetBoards { dataset, geometry: *geometry }),
        }
    }
}
