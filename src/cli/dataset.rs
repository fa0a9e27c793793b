//! `hrm dataset`: a look into datasets, a search for mistakes in them, new puzzles.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context, Result};
use clap::Subcommand;
use indicatif::{HumanBytes, HumanCount};
use serde_json::json;

use super::{
    GlobalArgs,
    args::{
        choices::{KINDS, one_of},
        output::check_files,
    },
    table::{Table, cells},
    ui::{JsonArg, Ui},
    watch::DatasetWatch,
};
use crate::{
    dataset::{
        BoardsReport, CheckRequest, Dataset, Effort, Finding, GenerateReport, GenerateRequest, RatingTarget,
        SplitInspection, inspect,
    },
    puzzle::{Geometry, PuzzleKind},
    runtime, say,
    store::Existing,
};

/// Look into datasets, find mistakes in them, make new puzzles
#[derive(clap::Args, Debug)]
#[command(after_long_help = "\
Examples:
  hrm dataset inspect data/sudoku-extreme-full
  hrm dataset check data/sudoku-extreme-full
  hrm dataset generate --count 10000 --output new.csv.gz")]
pub struct DatasetArgs {
    #[command(subcommand)]
    command: DatasetCommand,
}

#[derive(Subcommand, Debug)]
enum DatasetCommand {
    Inspect(InspectArgs),
    Check(CheckArgs),
    Generate(GenerateArgs),
}

pub fn run(args: DatasetArgs, global: &GlobalArgs) -> Result<()> {
    match args.command {
        DatasetCommand::Inspect(args) => inspect_command(&args),
        DatasetCommand::Check(args) => check_command(args, global),
        DatasetCommand::Generate(args) => generate(args, global),
    }
}

/// Show what a dataset folder holds
///
/// Counts, ratings and sources of the original puzzles, how many cells are given, sizes, some boards, and the
/// fingerprint by which training runs and evaluations name their data.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "\
Example:
  hrm dataset inspect data/sudoku-extreme-full --show 2
      counts and histograms of both splits, and the first two boards of each")]
struct InspectArgs {
    /// A dataset folder, as `hrm build-dataset` writes it
    #[arg(value_name = "DIR")]
    path: PathBuf,
    /// Show the first N boards of each split
    #[arg(long, value_name = "N", default_value_t = 1)]
    show: usize,
    /// Leave out the fingerprint, which takes about a second for a gigabyte
    #[arg(long)]
    no_fingerprint: bool,
    #[command(flatten)]
    json: JsonArg,
}

fn inspect_command(args: &InspectArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    let found = inspect(&args.path, !args.no_fingerprint)?;
    for (dataset, inspection) in &found {
        tell_split(&ui, inspection);
        show_boards(&ui, dataset, inspection.kind, args.show)?;
    }
    let splits: Vec<&SplitInspection> = found.iter().map(|(_, inspection)| inspection).collect();
    ui.emit(&json!({ "path": args.path, "splits": splits }))
}

fn tell_split(ui: &Ui, split: &SplitInspection) {
    let meta = &split.meta;
    let kind = match split.kind.kind() {
        None => "puzzles of an unknown kind".to_owned(),
        Some(_) => split.kind.to_string(),
    };
    say!(
        ui,
        "{}: {kind}, {} boards of {} cells, {} groups ({:.1} boards each), {} tokens",
        split.split,
        HumanCount(split.boards as u64),
        meta.seq_len,
        HumanCount(split.groups as u64),
        split.boards_per_group,
        meta.vocab_size
    );
    say!(
        ui,
        "  memory       {} in files, {} read; opened and checked in {:.2} s",
        HumanBytes(split.mapped_bytes),
        HumanBytes(split.read_bytes),
        split.open_seconds
    );
    if let Some(fingerprint) = &split.fingerprint {
        say!(ui, "  fingerprint  {fingerprint}");
    }
    match &split.ratings {
        None => say!(ui, "  ratings      none (no all__rows.csv)"),
        Some(ratings) => {
            say!(
                ui,
                "  ratings      {} to {}, mean {:.1}, median {}",
                ratings.least,
                ratings.greatest,
                ratings.mean,
                ratings.median
            );
            print_bars(ui, &grouped(&ratings.histogram));
            let sources: Vec<String> =
                ratings.sources.iter().map(|(name, n)| format!("{name} {}", HumanCount(*n as u64))).collect();
            let more = if sources.len() > 12 { format!(", and {} more", sources.len() - 12) } else { String::new() };
            say!(ui, "  sources      {}{more}", sources[..sources.len().min(12)].join(", "));
        }
    }
    if let Some((what, _)) = split.kind.counted().filter(|_| !split.cells.is_empty()) {
        say!(ui, "  {what}");
        let wide = split.cells.len() > 20;
        let cells: BTreeMap<i64, usize> = split.cells.iter().map(|(&cells, &n)| (cells as i64, n)).collect();
        let rows = cells.iter().map(|(cells, &n)| (cells.to_string(), n)).collect();
        print_bars(ui, &if wide { grouped(&cells) } else { rows });
    }
}

/// A histogram in ten or so equal steps of a round size.
fn grouped(histogram: &BTreeMap<i64, usize>) -> Vec<(String, usize)> {
    let (Some((&least, _)), Some((&greatest, _))) = (histogram.first_key_value(), histogram.last_key_value()) else {
        return Vec::new();
    };
    let span = greatest.saturating_sub(least).saturating_add(1);
    let steps = (0..18).flat_map(|power| [1, 2, 5].map(|digit| digit * 10i64.pow(power)));
    let step = steps.into_iter().find(|step| span / step <= 10).unwrap_or(i64::MAX);
    let mut groups: BTreeMap<i64, usize> = BTreeMap::new();
    for (&value, &n) in histogram {
        *groups.entry(value.div_euclid(step)).or_default() += n;
    }
    let name = |at: i64| {
        let low = at.saturating_mul(step);
        if step == 1 { low.to_string() } else { format!("{low}-{}", low.saturating_add(step - 1)) }
    };
    groups.into_iter().map(|(at, n)| (name(at), n)).collect()
}

/// Prints a line with a bar for each row.
fn print_bars(ui: &Ui, rows: &[(String, usize)]) {
    let most = rows.iter().map(|(_, n)| *n).max().unwrap_or(1).max(1);
    let mut table = Table::new(&[2]);
    for (name, n) in rows {
        table.row(cells![name, HumanCount(*n as u64), "▪".repeat((40 * n).div_ceil(most))]);
    }
    table.print_behind(ui, "    ");
}

fn show_boards(ui: &Ui, dataset: &Dataset, geometry: Geometry, show: usize) -> Result<()> {
    let Some(set) = dataset.sets().first() else { return Ok(()) };
    for board in 0..show.min(set.len()) {
        let (question, answer) = set.tokens(board)?;
        say!(ui, "  board {board}, group {}", set.group_of(board));
        say!(ui, "{}", geometry.grid(Some(&question), &answer, |_, text| text));
    }
    Ok(())
}

/// Find wrong answers, several solutions, duplicates, and test puzzles among the training puzzles
///
/// Puzzles count as the same if they are equivalent: for Sudoku under relabelled digits, transposition, and exchanges of
/// bands, stacks and lines within them; for mazes turned or mirrored. Versions of one puzzle (one group) are no
/// duplicates. Ends with an error if something is found.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "\
Examples:
  hrm dataset check data/sudoku-extreme-full
      both splits of a dataset, and the test split against the training split
  hrm dataset check new.csv.gz --test bundled
      a list, and the bundled test rows against it")]
struct CheckArgs {
    /// A dataset folder, a folder with train.csv and test.csv, a list of puzzles, bundled, or bundled-small (mazes)
    #[arg(value_name = "DIR|FILE|bundled")]
    path: PathBuf,
    /// Test puzzles in place of its own: a dataset's test split, a folder's test.csv, a list, or the bundled test rows
    #[arg(long, value_name = "DIR|FILE|bundled")]
    test: Option<PathBuf>,
    /// Kind of the puzzles in lists; a dataset folder states its own
    #[arg(long, value_parser = one_of(KINDS), hide_possible_values = true, value_name = "sudoku|maze", default_value = "sudoku")]
    dataset: PuzzleKind,
    #[command(flatten)]
    json: JsonArg,
}

fn check_command(args: CheckArgs, global: &GlobalArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    let shown = args.path.display().to_string();
    let CheckArgs { path, test, dataset: kind, .. } = args;
    let request = CheckRequest { path, test, kind, threads: runtime::cpu_threads(global.threads) };
    let report = request.run(&DatasetWatch::new(&ui))?;
    report.checked.iter().for_each(|checked| tell_checked(&ui, checked, report.kind));
    if let Some(leakage) = &report.leakage {
        let groups = HumanCount(leakage.test_groups as u64);
        let what = format!("test boards equivalent to a training board ({groups} groups)");
        tell_finding(&ui, &what, &leakage.test_boards);
    }
    ui.emit(&report)?;
    report.check_clean().context(shown)?;
    say!(ui, "no faults were found");
    Ok(())
}

fn tell_checked(ui: &Ui, report: &BoardsReport, kind: Option<PuzzleKind>) {
    let (boards, groups) = (HumanCount(report.boards as u64), HumanCount(report.groups as u64));
    say!(ui, "{}: {boards} boards in {groups} groups", report.name);
    tell_finding(ui, "wrong answers", &report.wrong_answers);
    let fault = kind.is_none_or(PuzzleKind::has_one_solution);
    let several = if fault { "several solutions" } else { "several shortest paths (not an error)" };
    tell_finding(ui, several, &report.several_solutions);
    tell_finding(ui, "groups equivalent to an earlier group", &report.duplicates);
}

fn tell_finding(ui: &Ui, what: &str, finding: &Finding) {
    say!(ui, "  {what}: {}", HumanCount(finding.count as u64));
    for example in &finding.examples {
        say!(ui, "    {example}");
    }
    if finding.count > finding.examples.len() {
        say!(ui, "    and {} more", HumanCount((finding.count - finding.examples.len()) as u64));
    }
}

/// Make new puzzles
///
/// Sudokus are grown from seeds: a given or two are taken away and others put in until one solution is left, then every
/// given that is not needed is dropped. Each is rated as Sudoku-Extreme is (guesses of the tdoku solver) in eight
/// arrangements, of which one with a wanted rating is taken. None is equivalent to a seed, to a puzzle of --exclude or to
/// another one. Mazes are carved at random, with one shortest path,
/// rated by its steps.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "\
The same --seed gives the same puzzles, whatever the number of threads. The file appears when it is complete; until then \
the results are in FILE.partial. After Ctrl-C, a kill or a full disk the same command with --resume continues from there, and writes the same file as an uninterrupted run.

Examples:
  hrm dataset generate --count 100000 --output new.csv.gz
      Sudokus with the ratings of Sudoku-Extreme's test set
  hrm dataset generate --count 5000 --ratings 0-9=20,10-49=50,50-=30 --seeds hard.csv --output new.csv
      your own seeds and your own mix of ratings
  hrm dataset generate --dataset maze --side 12 --count 1000 --output mazes.csv.gz")]
struct GenerateArgs {
    /// What to make
    #[arg(long, value_parser = one_of(KINDS), hide_possible_values = true, value_name = "sudoku|maze", default_value = "sudoku")]
    dataset: PuzzleKind,
    /// How many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    count: u64,
    /// The list to write, gzipped if its name ends with .gz
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Sudokus to grow from: a list, a folder's train.csv, or the bundled training puzzles (default: bundled)
    #[arg(long, value_name = "bundled|DIR|FILE")]
    seeds: Option<PathBuf>,
    /// Sudokus that none may be equivalent to: a list, a folder's test.csv, or the bundled test rows; may be repeated
    /// (default: bundled)
    #[arg(long, value_name = "bundled|DIR|FILE")]
    exclude: Vec<PathBuf>,
    /// Ratings and their shares, as LOW-HIGH=SHARE,.. (default: as the bundled test rows)
    #[arg(long, value_name = "LOW-HIGH=SHARE,..")]
    ratings: Option<RatingTarget>,
    /// Make easier puzzles quickly: seeds with one to eight cells filled in, rearranged and relabelled, of any
    /// rating unless --ratings says which
    #[arg(long)]
    fast: bool,
    /// Rows and columns of a maze (default: 30)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(3..=200))]
    side: Option<u64>,
    /// Steps of a maze's shortest path, at least (default: 110 of 30×30, in proportion to the cells for others)
    #[arg(long, value_name = "N")]
    min_steps: Option<usize>,
    /// Continue FILE.partial of a stopped run of the same command; start if there is none
    #[arg(long)]
    resume: bool,
    /// Replace an existing file, and start over unless --resume is given
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    json: JsonArg,
}

fn generate(args: GenerateArgs, global: &GlobalArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    // The request itself judges what is there.
    check_files([args.output.as_path()], Existing::Resume, &args.json)?;
    let request = GenerateRequest {
        kind: args.dataset,
        count: args.count,
        output: args.output,
        seeds: args.seeds,
        exclude: args.exclude,
        ratings: args.ratings,
        fast: args.fast,
        side: args.side.map(usize::try_from).transpose()?,
        min_steps: args.min_steps,
        resume: args.resume,
        force: args.force,
        seed: global.seed.unwrap_or(0),
        threads: runtime::cpu_threads(global.threads),
    };
    request.run(&DatasetWatch::new(&ui), |report| tell_generated(&ui, report))
}

fn tell_generated(ui: &Ui, report: &GenerateReport) -> Result<()> {
    let Effort { tries, known, unwanted } = report.effort;
    say!(
        ui,
        "wrote {}: {} puzzles in {:.1} s ({} tries, {} known, {} of other ratings), mean rating {:.1}, seed {}",
        report.output.display(),
        HumanCount(report.count as u64),
        report.seconds,
        HumanCount(tries),
        HumanCount(known),
        HumanCount(unwanted),
        report.mean_rating,
        report.seed
    );
    print_bars(ui, &grouped(&report.ratings));
    ui.emit(report)
}
