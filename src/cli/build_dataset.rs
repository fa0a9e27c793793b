//! `hrm build-dataset`.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::{
    GlobalArgs,
    args::choices::{KINDS, one_of},
    ui::{JsonArg, Ui, warn},
    watch::DatasetWatch,
};
use crate::{
    dataset::{
        Augmentation, BUNDLED_TEST_ROWS, BuildOptions, BuildReport, PuzzleFile, PuzzleInput, PuzzleSource, ReadOptions,
        Split, SplitFiles, SplitReport, build, check_output_folder, find_list, resolve_sources,
    },
    hub::{Hub, RepoId},
    puzzle::PuzzleKind,
    runtime, say,
};

/// Build a dataset folder from puzzle lists
///
/// Reads lists of puzzles with their solutions, checks every row, multiplies the training puzzles by Sudoku's
/// symmetries and by hints, and writes a folder that `hrm train` and upstream's Python programs read.
#[derive(clap::Args, Debug)]
#[command(after_long_help = AFTER_HELP)]
pub struct BuildDatasetArgs {
    /// Folder to write (default: data/sudoku-extreme-full, -hint appended with --hint; mazes: data/maze-30x30-hard-1k, data/maze-11x11 for bundled-small)
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Kind of puzzle (default: sudoku)
    #[arg(long, value_parser = one_of(KINDS), hide_possible_values = true, value_name = "sudoku|maze")]
    dataset: Option<PuzzleKind>,
    /// Where puzzles come from: a folder with train.csv and test.csv, a file of training puzzles, or the bundled sample;
    /// bundled-small: mazes of 11x11 cells (default: bundled)
    #[arg(long, value_name = "bundled|bundled-small|DIR|FILE")]
    source: Option<PuzzleSource>,
    /// Take the puzzles from a repository of the Hugging Face hub, train.csv and test.csv, through the cache that Python's
    /// huggingface_hub uses
    #[arg(long, value_name = "ORG/NAME[@REVISION]", conflicts_with = "source")]
    source_repo: Option<RepoId>,
    /// Where test puzzles come from (default: DIR's test.csv, else the bundled test rows)
    #[arg(long, value_name = "bundled|DIR|FILE")]
    test_source: Option<PuzzleSource>,
    /// Take the first N test rows (default: 2000 of the bundled Sudokus, all of any other)
    #[arg(long, value_name = "N|all")]
    test_rows: Option<TestRows>,
    /// Keep N training puzzles, drawn at random without replacement (default: all, in the file's order)
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    subsample_size: Option<usize>,
    /// Add N random shuffles of each training Sudoku: digits, rows, columns, bands, stacks, transposition (default: 0)
    #[arg(long, value_name = "N")]
    num_aug: Option<usize>,
    /// Keep puzzles rated N or more, in both splits (default: all)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    min_difficulty: Option<i64>,
    /// Follow each training Sudoku by a copy with a random part of its blanks filled in
    #[arg(long)]
    hint: bool,
    /// Add the seven turned and mirrored versions of each training maze
    #[arg(long)]
    aug: bool,
    /// Replace the dataset that stands in the output folder
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    json: JsonArg,
}

const AFTER_HELP: &str = "\
Input: CSV, plain or gzipped, with the header source,question,answer,rating. A Sudoku is 81 characters, row by row, 1-9 \
and '.' or 0 for a blank; a maze is a square of '#', ' ', 'S', 'G', 'o'. A bad row ends the build with the file's name \
and the line, and nothing is written. The folder appears only when it is whole. A list is read twice, to be checked and \
to be written, and is never in memory as a whole, unless it comes through a pipe; it must not change meanwhile.

The same --seed gives the same files, whatever the number of threads. Rows taken by --test-rows are counted before \
--min-difficulty leaves any out.

Two differences from upstream's builders, on purpose: arrays are uint8 always (upstream's become int64, eight times as \
large, once --num-aug is used; readers take both), and with --hint a board that has one blank is followed by an \
unchanged copy (upstream stops with an error), so that every board has two rows.

Examples:
  hrm build-dataset
      the bundled 1,000 training and 2,000 test puzzles, as they are
  hrm build-dataset --subsample-size 1000 --num-aug 1000 --hint
      the paper's training set with hints: 2,002,000 boards in data/sudoku-extreme-full-hint
  hrm build-dataset --source-repo sapientinc/sudoku-extreme --subsample-size 1000 --num-aug 1000
      the same from the whole of Sudoku-Extreme on the Hugging Face hub (HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN, \
HF_HUB_OFFLINE and HF_HUB_DOWNLOAD_TIMEOUT are honoured)
  hrm build-dataset --source puzzles.csv.gz --min-difficulty 20 --output-dir data/hard
      your own training puzzles, the bundled test rows rated 20 or more
  hrm build-dataset --dataset maze --source bundled-small --aug
      mazes that a laptop can train on: 1,000 of 11x11 cells in eight versions each, and 200 to test";

/// `--test-rows N|all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TestRows {
    All,
    First(usize),
}

impl fmt::Display for TestRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::First(n) => write!(f, "{n}"),
        }
    }
}

impl FromStr for TestRows {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        if s == "all" { Ok(Self::All) } else { at_least_one(s).map(Self::First) }
    }
}

fn at_least_one(s: &str) -> Result<usize, String> {
    s.parse().ok().filter(|&n| n > 0).ok_or_else(|| "wanted a whole number, 1 or more".to_owned())
}

/// Everything that was asked for, with the defaults filled in and the sources found; no row has been read.
struct Plan {
    output_dir: PathBuf,
    kind: PuzzleKind,
    files: SplitFiles,
    /// Rows of the test file to take; none takes all.
    test_rows: Option<usize>,
    min_difficulty: Option<i64>,
    options: BuildOptions,
    threads: usize,
}

/// The lists of both splits, checked.
struct Lists {
    train: PuzzleInput,
    test: PuzzleInput,
}

#[derive(Serialize)]
struct Report<'a> {
    output_dir: &'a Path,
    dataset: PuzzleKind,
    seed: u64,
    train_source: String,
    test_source: String,
    num_aug: usize,
    hint: bool,
    aug: bool,
    threads: usize,
    #[serde(flatten)]
    built: BuildReport,
}

pub fn run(args: BuildDatasetArgs, global: &GlobalArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    let plan = Plan::new(&args, global, &ui)?;
    let output = check_output_folder(&plan.output_dir, args.force)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(plan.threads).build().context("cannot start the threads")?;
    let mut watch = DatasetWatch::new(&ui, "checking", "bytes");
    let lists = pool.install(|| plan.read_lists(&ui, &mut watch))?;
    watch.next("building", "boards");
    let built = pool.install(|| build(&lists.train, &lists.test, &plan.options, &output, &watch));
    watch.done();
    let built = built?;

    plan.tell(&built, &ui);
    ui.emit(&Report {
        output_dir: &plan.output_dir,
        dataset: plan.kind,
        seed: plan.options.seed,
        train_source: plan.files.train.to_string(),
        test_source: plan.files.test.to_string(),
        num_aug: plan.options.augmentation.num_aug,
        hint: plan.options.augmentation.hint,
        aug: plan.options.augmentation.dihedral,
        threads: plan.threads,
        built,
    })
}

/// Remembers each default taken, to be told before the work starts.
#[derive(Default)]
struct Defaults(Vec<String>);

impl Defaults {
    fn take<T: std::fmt::Display>(&mut self, flag: &str, given: Option<T>, default: T) -> T {
        given.unwrap_or_else(|| {
            self.0.push(format!("{flag} {default}"));
            default
        })
    }
}

impl Plan {
    fn new(args: &BuildDatasetArgs, global: &GlobalArgs, ui: &Ui) -> Result<Self> {
        let mut defaults = Defaults::default();
        let kind = defaults.take("--dataset", args.dataset, PuzzleKind::Sudoku);
        let folder = match (kind, args.hint) {
            (PuzzleKind::Sudoku, false) => "data/sudoku-extreme-full",
            (PuzzleKind::Sudoku, true) => "data/sudoku-extreme-full-hint",
            (PuzzleKind::Maze, _) if args.source == Some(PuzzleSource::BundledSmall) => "data/maze-11x11",
            (PuzzleKind::Maze, _) => "data/maze-30x30-hard-1k",
        };
        let given = args.output_dir.as_ref().map(|path| path.display().to_string());
        let shown = defaults.take("--output-dir", given, folder.to_owned());
        let output_dir = args.output_dir.clone().unwrap_or_else(|| shown.into());
        match kind {
            PuzzleKind::Sudoku => ensure!(!args.aug, "--aug turns mazes; a Sudoku is shuffled with --num-aug N"),
            PuzzleKind::Maze if args.num_aug.is_some() => {
                bail!("--num-aug shuffles Sudokus; a maze is turned with --aug")
            }
            PuzzleKind::Maze => ensure!(!args.hint, "--hint is for Sudoku"),
        }
        let num_aug = match kind {
            PuzzleKind::Sudoku => defaults.take("--num-aug", args.num_aug, 0),
            PuzzleKind::Maze => 0,
        };
        let files = match &args.source_repo {
            Some(repo) => from_hub(kind, repo, args.test_source.as_ref(), ui)?,
            None => {
                let source = defaults.take("--source", args.source.clone(), PuzzleSource::Bundled);
                resolve_sources(kind, &source, args.test_source.as_ref())?
            }
        };
        let test_rows = if matches!(files.test, PuzzleFile::Bundled(_)) {
            defaults.take("--test-rows", args.test_rows, TestRows::First(BUNDLED_TEST_ROWS))
        } else {
            args.test_rows.unwrap_or(TestRows::All)
        };
        let seed = defaults.take("--seed", global.seed, 0);
        if !defaults.0.is_empty() {
            say!(ui, "defaults taken: {}", defaults.0.join(", "));
        }
        Ok(Self {
            output_dir,
            kind,
            files,
            test_rows: match test_rows {
                TestRows::All => None,
                TestRows::First(n) => Some(n),
            },
            min_difficulty: args.min_difficulty,
            options: BuildOptions {
                augmentation: Augmentation { num_aug, hint: args.hint, dihedral: args.aug },
                subsample_size: args.subsample_size,
                seed,
            },
            threads: runtime::cpu_threads(global.threads),
        })
    }

    fn read_lists(&self, ui: &Ui, watch: &mut DatasetWatch) -> Result<Lists> {
        let mut read = |file: &PuzzleFile, first_rows: Option<usize>| {
            watch.next("checking", "bytes");
            let options = ReadOptions { kind: self.kind, min_difficulty: self.min_difficulty, first_rows };
            let input = PuzzleInput::read(file, &options, watch);
            watch.done();
            input
        };
        let train = read(&self.files.train, None)?;
        let test = read(&self.files.test, self.test_rows)?;
        if let Some(size) = self.options.subsample_size.filter(|&size| size > train.len()) {
            say!(ui, "--subsample-size {size}: all {} training puzzles are kept, in order", count(train.len()));
        }
        if let Some(rows) = self.test_rows
            && self.min_difficulty.is_none()
            && test.len() < rows
        {
            warn(format_args!("--test-rows {rows}: {} has only {}", self.files.test, count(test.len())));
        }
        Ok(Lists { train, test })
    }

    fn tell(&self, built: &BuildReport, ui: &Ui) {
        let split = |split: &SplitReport| {
            let rating = format!("mean rating {:.1}", split.mean_rating);
            format!("{} puzzles, {} boards, {rating}", count(split.puzzles), count(split.boards))
        };
        say!(ui, "train: {} ({})", split(&built.train), self.files.train);
        say!(ui, "test:  {} ({})", split(&built.test), self.files.test);
        say!(
            ui,
            "wrote {}: {} in {:.2} s on {} thread{}, seed {}",
            self.output_dir.display(),
            HumanBytes(built.bytes),
            built.seconds,
            self.threads,
            if self.threads == 1 { "" } else { "s" },
            self.options.seed
        );
        say!(ui, "train on it: hrm train data_path={}", self.output_dir.display());
    }
}

/// A repository's lists. A failure never falls back on other puzzles.
fn from_hub(kind: PuzzleKind, repo: &RepoId, test_source: Option<&PuzzleSource>, ui: &Ui) -> Result<SplitFiles> {
    let file = |split: Split| -> Result<PuzzleFile> {
        let path = Hub::from_env()?.dataset_file(repo, &format!("{split}.csv"))?;
        say!(ui, "{split} puzzles: {split}.csv of {repo}, cached as {}", path.display());
        Ok(PuzzleFile::File(path))
    };
    let fetch = || -> Result<SplitFiles> {
        let test = match test_source {
            Some(source) => find_list(kind, source, Split::Test)?,
            None => file(Split::Test)?,
        };
        Ok(SplitFiles { train: file(Split::Train)?, test })
    };
    fetch().context("no puzzles were taken (--source bundled needs no network)")
}

fn count(n: usize) -> HumanCount {
    HumanCount(n as u64)
}
