//! `hrm build-dataset`.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{HumanBytes, HumanCount, ProgressBar};
use serde::Serialize;

use super::{
    GlobalArgs,
    ui::{JsonArg, Ui, warn},
};
use crate::{
    dataset::{
        Augmentation, BUNDLED_TEST_ROWS, BuildOptions, BuildReport, Progress, PuzzleFile, PuzzleList, PuzzleSource,
        ReadOptions, SplitFiles, SplitReport, build, check_output_folder, resolve_sources,
    },
    puzzle::PuzzleKind,
    say,
};

/// Build a dataset folder from puzzle lists
///
/// Reads lists of puzzles with their solutions, checks every row, multiplies the training puzzles by Sudoku's
/// symmetries and by hints, and writes a folder that `hrm train` and upstream's Python programs read.
#[derive(clap::Args, Debug)]
#[command(after_long_help = AFTER_HELP)]
pub struct BuildDatasetArgs {
    /// Folder to write (default: data/sudoku-extreme-full, -hint appended with --hint; mazes: data/maze-30x30-hard-1k)
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Kind of puzzle
    #[arg(long, value_enum, default_value = "sudoku", hide_possible_values = true, value_name = "sudoku|maze")]
    dataset: PuzzleKind,
    /// Where puzzles come from: the bundled sample, a folder with train.csv and test.csv, or a file of training puzzles
    #[arg(long, value_name = "bundled|DIR|FILE", default_value = "bundled")]
    source: PuzzleSource,
    /// Where test puzzles come from (default: DIR's test.csv, else the bundled test rows)
    #[arg(long, value_name = "bundled|DIR|FILE")]
    test_source: Option<PuzzleSource>,
    /// Take the first N test rows (default: 2000 of the bundled file, all of any other)
    #[arg(long, value_name = "N|all")]
    test_rows: Option<TestRows>,
    /// Keep N training puzzles, drawn at random without replacement (default: all, in the file's order)
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    subsample_size: Option<usize>,
    /// Add N random shuffles of each training Sudoku: digits, rows, columns, bands, stacks, transposition
    #[arg(long, value_name = "N", default_value_t = 0)]
    num_aug: usize,
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
and the line, and nothing is written. The folder appears only when it is whole.

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
  hrm build-dataset --source puzzles.csv.gz --min-difficulty 20 --output-dir data/hard
      your own training puzzles, the bundled test rows rated 20 or more";

/// `--test-rows N|all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TestRows {
    All,
    First(usize),
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

/// Everything that was asked for, checked, and the lists read; nothing has been written.
struct Plan {
    output_dir: PathBuf,
    files: SplitFiles,
    train: PuzzleList,
    test: PuzzleList,
    options: BuildOptions,
    threads: usize,
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
    file_size_limits_are_errors();
    let output_dir = output_dir(&args, &ui);
    let output = check_output_folder(&output_dir, args.force)?;
    let plan = Plan::new(args, global, output_dir, &ui)?;

    let watch = Watch { bar: OnceLock::new(), ui: ui.clone(), stop: AtomicBool::new(false) };
    let watch: &'static Watch = Box::leak(Box::new(watch));
    // Without the handler the build goes on as well; an interrupted one then leaves its temporary folder.
    let _ = ctrlc::set_handler(|| watch.stop.store(true, Ordering::Relaxed));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(plan.threads).build().context("cannot start the threads")?;
    let built = pool.install(|| build(&plan.train, &plan.test, &plan.options, &output, watch));
    if let Some(bar) = watch.bar.get() {
        bar.finish_and_clear();
    }
    let built = built?;

    plan.tell(&built, &ui);
    ui.emit(&Report {
        output_dir: &plan.output_dir,
        dataset: plan.train.kind(),
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

fn output_dir(args: &BuildDatasetArgs, ui: &Ui) -> PathBuf {
    if let Some(given) = &args.output_dir {
        return given.clone();
    }
    let folder = match (args.dataset, args.hint) {
        (PuzzleKind::Sudoku, false) => "data/sudoku-extreme-full",
        (PuzzleKind::Sudoku, true) => "data/sudoku-extreme-full-hint",
        (PuzzleKind::Maze, _) => "data/maze-30x30-hard-1k",
    };
    say!(ui, "--output-dir not given: {folder}");
    folder.into()
}

impl Plan {
    fn new(args: BuildDatasetArgs, global: &GlobalArgs, output_dir: PathBuf, ui: &Ui) -> Result<Self> {
        match args.dataset {
            PuzzleKind::Sudoku => ensure!(!args.aug, "--aug turns mazes; a Sudoku is shuffled with --num-aug N"),
            PuzzleKind::Maze if args.num_aug > 0 => bail!("--num-aug shuffles Sudokus; a maze is turned with --aug"),
            PuzzleKind::Maze => ensure!(!args.hint, "--hint is for Sudoku"),
        }
        let files = resolve_sources(args.dataset, &args.source, args.test_source.as_ref())?;
        let seed = global.seed.unwrap_or_else(|| {
            say!(ui, "--seed not given: 0");
            0
        });
        if files.train == PuzzleFile::Bundled(crate::dataset::Split::Train) {
            say!(ui, "training puzzles: the bundled sample (1,000 of Sudoku-Extreme; others with --source)");
        }
        let bundled_test = matches!(files.test, PuzzleFile::Bundled(_));
        let first_rows = match args.test_rows {
            Some(TestRows::All) => None,
            Some(TestRows::First(n)) => Some(n),
            None if bundled_test => {
                say!(
                    ui,
                    "test puzzles: the first {} bundled rows (--test-rows all takes all)",
                    count(BUNDLED_TEST_ROWS)
                );
                Some(BUNDLED_TEST_ROWS)
            }
            None => None,
        };

        let reading = ReadOptions { kind: args.dataset, min_difficulty: args.min_difficulty, first_rows: None };
        let train = files.train.read(&reading)?;
        let test = files.test.read(&ReadOptions { first_rows, ..reading })?;
        if let Some(size) = args.subsample_size.filter(|&size| size >= train.len()) {
            say!(ui, "--subsample-size {size}: all {} training puzzles are kept, in order", count(train.len()));
        }
        if let Some(TestRows::First(n)) = args.test_rows
            && args.min_difficulty.is_none()
            && test.len() < n
        {
            warn(format_args!("--test-rows {n}: {} has only {}", files.test, count(test.len())));
        }
        let augmentation = Augmentation { num_aug: args.num_aug, hint: args.hint, dihedral: args.aug };
        let options = BuildOptions { augmentation, subsample_size: args.subsample_size, seed };
        Ok(Self { output_dir, files, train, test, options, threads: threads(global) })
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

fn count(n: usize) -> HumanCount {
    HumanCount(n as u64)
}

/// `--threads`, else OMP_NUM_THREADS, else all cores.
fn threads(global: &GlobalArgs) -> usize {
    let from_environment = || std::env::var("OMP_NUM_THREADS").ok()?.trim().parse().ok().filter(|&n| n > 0);
    let all_cores = || std::thread::available_parallelism().map_or(1, usize::from);
    global.threads.map(|n| n as usize).or_else(from_environment).unwrap_or_else(all_cores)
}

/// A write beyond the user's file size limit should fail like a full disk; by default it kills the process, and the
/// half-written folder would stay.
fn file_size_limits_are_errors() {
    #[cfg(unix)]
    // SAFETY: ignoring a signal installs no handler.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// The progress bar, and Ctrl-C.
struct Watch {
    bar: OnceLock<ProgressBar>,
    ui: Ui,
    stop: AtomicBool,
}

impl Progress for Watch {
    fn start(&self, boards: u64) {
        self.bar.get_or_init(|| self.ui.progress(boards, "building", "boards"));
    }

    fn advance(&self, boards: u64) {
        if let Some(bar) = self.bar.get() {
            bar.inc(boards);
        }
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
