//! From what a user asks of a build to the dataset: defaults filled in, lists found, fetched and read.

use std::{fmt::Display, path::PathBuf};

use anyhow::{Context, Result};
use indicatif::HumanCount;
use serde::Serialize;

use super::{
    Augmentation, BUNDLED_TEST_ROWS, BuildOptions, BuildReport, OutputFolder, Progress, PuzzleFile, PuzzleInput,
    PuzzleSource, ReadOptions, RowCount, Split, SplitFiles, build, check_output_folder, find_list, resolve_sources,
    thread_pool,
};
use crate::{
    hub::{Hub, RepoId},
    puzzle::PuzzleKind,
};

/// What a user asks for; what is none has a default.
#[derive(Clone, Debug, Default)]
pub struct BuildRequest {
    /// The folder to write.
    pub output_dir: Option<PathBuf>,
    pub kind: Option<PuzzleKind>,
    pub source: Option<PuzzleSource>,
    /// A repository of the hub in place of `source`.
    pub source_repo: Option<RepoId>,
    /// Of the test puzzles.
    pub test_source: Option<PuzzleSource>,
    pub test_rows: Option<RowCount>,
    /// Training puzzles to keep.
    pub subsample_size: Option<usize>,
    /// Shuffles of each training Sudoku.
    pub num_aug: Option<usize>,
    /// The lowest rating to keep.
    pub min_difficulty: Option<i64>,
    pub hint: bool,
    /// The eight versions of each training maze.
    pub aug: bool,
    /// Replace the dataset that stands in the folder.
    pub force: bool,
    pub seed: Option<u64>,
    pub threads: usize,
}

/// A build with everything decided; no row has been read.
#[derive(Clone, Debug)]
pub struct BuildPlan {
    output_dir: PathBuf,
    output: OutputFolder,
    kind: PuzzleKind,
    files: SplitFiles,
    test_rows: RowCount,
    min_difficulty: Option<i64>,
    options: BuildOptions,
    threads: usize,
}

/// The JSON document of `hrm build-dataset`.
#[derive(Clone, Debug, Serialize)]
pub struct BuiltDataset {
    pub output_dir: PathBuf,
    pub dataset: PuzzleKind,
    pub seed: u64,
    pub train_source: String,
    pub test_source: String,
    pub num_aug: usize,
    pub hint: bool,
    pub aug: bool,
    pub threads: usize,
    #[serde(flatten)]
    pub built: BuildReport,
}

/// Remembers each default taken, to be told before the work starts.
#[derive(Default)]
struct Defaults(Vec<String>);

impl Defaults {
    fn take<T: Display>(&mut self, flag: &str, default: T) -> T {
        self.0.push(format!("{flag} {default}"));
        default
    }
}

impl BuildRequest {
    /// Fills in the defaults, which are noted, and finds the lists.
    ///
    /// # Errors
    /// Options that the kind of puzzle does not have; a folder that cannot be written to; a list that is not there.
    pub fn plan(&self, progress: &dyn Progress) -> Result<BuildPlan> {
        let mut defaults = Defaults::default();
        let kind = self.kind.unwrap_or_else(|| defaults.take("--dataset", PuzzleKind::Sudoku));
        let folder = || defaults.take("--output-dir", self.default_folder(kind)).into();
        let output_dir: PathBuf = self.output_dir.clone().unwrap_or_else(folder);
        let mut augmentation = Augmentation { num_aug: self.num_aug.unwrap_or(0), hint: self.hint, dihedral: self.aug };
        augmentation.check(kind)?;
        if kind == PuzzleKind::Sudoku {
            augmentation.num_aug = self.num_aug.unwrap_or_else(|| defaults.take("--num-aug", 0));
        }
        let output = check_output_folder(&output_dir, self.force)?;
        let files = match &self.source_repo {
            Some(repo) => {
                self.fetch(kind, repo, progress).context("no puzzles were read (--source bundled needs no network)")?
            }
            None => {
                let bundled = || defaults.take("--source", PuzzleSource::Bundled);
                resolve_sources(kind, &self.source.clone().unwrap_or_else(bundled), self.test_source.as_ref())?
            }
        };
        let test_rows = self.test_rows.unwrap_or_else(|| match files.test {
            PuzzleFile::Bundled(_) => defaults.take("--test-rows", RowCount::First(BUNDLED_TEST_ROWS)),
            _ => RowCount::All,
        });
        let seed = self.seed.unwrap_or_else(|| defaults.take("--seed", 0));
        if !defaults.0.is_empty() {
            progress.note(format_args!("defaults taken: {}", defaults.0.join(", ")));
        }
        Ok(BuildPlan {
            output_dir,
            output,
            kind,
            files,
            test_rows,
            min_difficulty: self.min_difficulty,
            options: BuildOptions { augmentation, subsample_size: self.subsample_size, seed },
            threads: self.threads,
        })
    }

    fn default_folder(&self, kind: PuzzleKind) -> &'static str {
        match (kind, self.hint) {
            (PuzzleKind::Sudoku, false) => "data/sudoku-extreme-full",
            (PuzzleKind::Sudoku, true) => "data/sudoku-extreme-full-hint",
            (PuzzleKind::Maze, _) if self.source == Some(PuzzleSource::BundledSmall) => "data/maze-11x11",
            (PuzzleKind::Maze, _) => "data/maze-30x30-hard-1k",
        }
    }

    /// A repository's lists. A failure never falls back on other puzzles.
    fn fetch(&self, kind: PuzzleKind, repo: &RepoId, progress: &dyn Progress) -> Result<SplitFiles> {
        let file = |split: Split| -> Result<PuzzleFile> {
            let path = Hub::from_env()?.dataset_file(repo, &format!("{split}.csv"))?;
            progress.note(format_args!("{split} puzzles: {split}.csv of {repo}, cached as {}", path.display()));
            Ok(PuzzleFile::File(path))
        };
        let test = match &self.test_source {
            Some(source) => find_list(kind, source, Split::Test)?,
            None => file(Split::Test)?,
        };
        Ok(SplitFiles { train: file(Split::Train)?, test })
    }
}

impl BuildPlan {
    /// Reads and checks the lists, then builds.
    ///
    /// # Errors
    /// Those of [`PuzzleInput::read`] and [`build()`].
    pub fn run(&self, progress: &dyn Progress) -> Result<BuiltDataset> {
        let BuildOptions { augmentation, seed, .. } = self.options;
        let built = thread_pool(self.threads)?.install(|| {
            let (train, test) = self.read(progress)?;
            build(&train, &test, &self.options, &self.output, progress)
        })?;
        Ok(BuiltDataset {
            output_dir: self.output_dir.clone(),
            dataset: self.kind,
            seed,
            train_source: self.files.train.to_string(),
            test_source: self.files.test.to_string(),
            num_aug: augmentation.num_aug,
            hint: augmentation.hint,
            aug: augmentation.dihedral,
            threads: self.threads,
            built,
        })
    }

    /// The lists of both splits.
    fn read(&self, progress: &dyn Progress) -> Result<(PuzzleInput, PuzzleInput)> {
        let read = |file: &PuzzleFile, first_rows: Option<usize>| {
            let options = ReadOptions { kind: self.kind, min_difficulty: self.min_difficulty, first_rows };
            PuzzleInput::read(file, &options, progress)
        };
        let (train, test) = (read(&self.files.train, None)?, read(&self.files.test, self.test_rows.rows())?);
        let count = |input: &PuzzleInput| HumanCount(input.len() as u64);
        if let Some(size) = self.options.subsample_size.filter(|&size| size > train.len()) {
            let all = count(&train);
            progress.note(format_args!("--subsample-size {size}: all {all} training puzzles are kept, in order"));
        }
        if let RowCount::First(rows) = self.test_rows
            && self.min_difficulty.is_none()
            && test.len() < rows
        {
            log::warn!("--test-rows {rows}: {} has only {}", self.files.test, count(&test));
        }
        Ok((train, test))
    }
}
