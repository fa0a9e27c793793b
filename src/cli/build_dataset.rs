//! `hrm build-dataset`.

use std::path::PathBuf;

use anyhow::Result;
use indicatif::{HumanBytes, HumanCount};

use super::{
    GlobalArgs,
    args::choices::{KINDS, one_of},
    ui::{JsonArg, Ui},
    watch::DatasetWatch,
};
use crate::{
    dataset::{BuildRequest, BuiltDataset, PuzzleSource, RowCount, SplitReport},
    escape::shell_word,
    hub::RepoId,
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
    test_rows: Option<RowCount>,
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
    /// Replace an existing dataset in the output folder
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    json: JsonArg,
}

const AFTER_HELP: &str = "\
Input: CSV, plain or gzipped, with the header source,question,answer,rating. A Sudoku is 81 characters, row by row, 1-9 \
and '.' or 0 for a blank; a maze is a square of '#', ' ', 'S', 'G', 'o'. A bad row ends the build with the file's name \
and the line, and nothing is written. The folder appears only when it is complete. A list is read twice, once to check and \
once to write, and is never held in memory as a whole, unless it comes through a pipe; it must not change in the meantime.

The same --seed gives the same files, whatever the number of threads. Rows taken by --test-rows are counted before \
--min-difficulty leaves any out.

Two intentional differences from upstream's builders: arrays are always uint8 (upstream's become int64, eight times as \
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
      mazes for training on a laptop: 1,000 of 11x11 cells in eight versions each, and 200 to test";

fn at_least_one(s: &str) -> Result<usize, String> {
    s.parse().ok().filter(|&n| n > 0).ok_or_else(|| "expected a whole number, 1 or more".to_owned())
}

pub fn run(args: BuildDatasetArgs, global: &GlobalArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    let watch = DatasetWatch::new(&ui);
    let request = BuildRequest {
        output_dir: args.output_dir,
        kind: args.dataset,
        source: args.source,
        source_repo: args.source_repo,
        test_source: args.test_source,
        test_rows: args.test_rows,
        subsample_size: args.subsample_size,
        num_aug: args.num_aug,
        min_difficulty: args.min_difficulty,
        hint: args.hint,
        aug: args.aug,
        force: args.force,
        seed: global.seed,
        threads: runtime::cpu_threads(global.threads),
    };
    let built = request.plan(&watch)?.run(&watch)?;
    drop(watch);
    tell(&ui, &built);
    ui.emit(&built)
}

fn tell(ui: &Ui, dataset: &BuiltDataset) {
    let BuiltDataset { built, threads, .. } = dataset;
    let split = |split: &SplitReport| {
        let count = |n: usize| HumanCount(n as u64);
        let rating = format!("mean rating {:.1}", split.mean_rating);
        format!("{} puzzles, {} boards, {rating}", count(split.puzzles), count(split.boards))
    };
    say!(ui, "train: {} ({})", split(&built.train), dataset.train_source);
    say!(ui, "test:  {} ({})", split(&built.test), dataset.test_source);
    say!(
        ui,
        "wrote {}: {} in {:.2} s on {threads} thread{}, seed {}",
        dataset.output_dir.display(),
        HumanBytes(built.bytes),
        built.seconds,
        if *threads == 1 { "" } else { "s" },
        dataset.seed
    );
    say!(ui, "train on it: hrm train data_path={}", shell_word(&dataset.output_dir));
}
