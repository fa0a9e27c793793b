//! `hrm dataset`: a look into datasets, a search for mistakes in them, new puzzles.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::{
    GlobalArgs,
    args::choices::{KINDS, one_of},
    table::{Table, cells},
    ui::{JsonArg, Ui, writable},
    watch::DatasetWatch,
};
use crate::{
    dataset::{
        Boards, BoardsReport, CheckReport, Dataset, DatasetBoards, Effort, Finding, GrowOptions, Keep, ListBoards,
        Made, MazeOptions, Progress, PuzzleFile, PuzzleList, PuzzleSource, RatingTarget, ReadOptions, Round, Split,
        SplitInspection, check, find_list, grow_sudokus, make_mazes, write_list,
    },
    journal::{Existing, Identity, Journal},
    outcome::Interrupted,
    puzzle::{Geometry, PuzzleKind},
    runtime, say,
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
        DatasetCommand::Inspect(args) => inspect(&args),
        DatasetCommand::Check(args) => check_command(&args, global),
        DatasetCommand::Generate(args) => generate(&args, global),
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

#[derive(Serialize)]
struct Inspection {
    path: PathBuf,
    splits: Vec<SplitInspection>,
}

fn inspect(args: &InspectArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    let present = |split: &Split| args.path.join(split.name()).exists();
    let mut splits: Vec<Split> = [Split::Train, Split::Test].into_iter().filter(present).collect();
    if splits.is_empty() {
        splits.push(Split::Train); // to fail with the error that tells how to build it
    }
    let mut found = Vec::new();
    for split in splits {
        let begin = Instant::now();
        let dataset = Dataset::open(&args.path, split)?;
        let inspection = SplitInspection::of(&dataset, begin.elapsed().as_secs_f64(), !args.no_fingerprint)?;
        tell_split(&ui, &inspection);
        show_boards(&ui, &dataset, inspection.kind, args.show);
        found.push(inspection);
    }
    ui.emit(&Inspection { path: args.path.clone(), splits: found })
}

fn tell_split(ui: &Ui, split: &SplitInspection) {
    let meta = &split.meta;
    let kind = match split.kind.kind() {
        None => "puzzles of a kind unknown here".to_owned(),
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
        "  memory       {} mapped, {} read; opened and checked in {:.2} s",
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
    if !split.cells.is_empty() {
        let what = if split.kind.kind() == Some(PuzzleKind::Maze) { "free cells" } else { "given cells" };
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

fn show_boards(ui: &Ui, dataset: &Dataset, geometry: Geometry, show: usize) {
    let Some(set) = dataset.sets().first() else { return };
    for board in 0..show.min(set.len()) {
        let (question, answer) = set.tokens(board);
        say!(ui, "  board {board}, group {}", set.group_of(board));
        say!(ui, "{}", geometry.grid(Some(&question), &answer, |_, text| text));
    }
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
    /// What lists hold; a dataset folder says it itself
    #[arg(long, value_parser = one_of(KINDS), hide_possible_values = true, value_name = "sudoku|maze", default_value = "sudoku")]
    dataset: PuzzleKind,
    #[command(flatten)]
    json: JsonArg,
}

/// Puzzles as a list or as a dataset's split.
enum Subject {
    List { name: String, list: PuzzleList },
    Split { dataset: Box<Dataset>, geometry: Geometry },
}

impl Subject {
    fn split(root: &Path, split: Split) -> Result<Self> {
        let dataset = Box::new(Dataset::open(root, split)?);
        let geometry = dataset.geometry().known().with_context(|| root.display().to_string())?;
        Ok(Self::Split { dataset, geometry })
    }

    fn list(file: &PuzzleFile, kind: PuzzleKind) -> Result<Self> {
        let options = ReadOptions { kind, min_difficulty: None, first_rows: None };
        Ok(Self::List { name: file.to_string(), list: file.read(&options)? })
    }

    /// The training or test half of what a path names.
    fn find(path: &Path, split: Split, kind: PuzzleKind) -> Result<Self> {
        let other = if split == Split::Train { Split::Test } else { Split::Train };
        if [split, other].iter().any(|split| path.join(split.name()).join("dataset.json").exists()) {
            return Self::split(path, split);
        }
        let source = match path.to_str() {
            Some(text) => text.parse()?,
            None => PuzzleSource::Path(path.into()),
        };
        Self::list(&find_list(kind, &source, split)?, kind)
    }

    fn with_boards<T>(&self, act: impl FnOnce(&dyn Boards) -> T) -> T {
        match self {
            Self::List { name, list } => act(&ListBoards { name: name.clone(), list }),
            Self::Split { dataset, geometry } => act(&DatasetBoards { dataset, geometry: *geometry }),
        }
    }

    fn geometry(&self) -> Geometry {
        self.with_boards(|boards| boards.geometry())
    }
}

fn check_command(args: &CheckArgs, global: &GlobalArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    let train = Subject::find(&args.path, Split::Train, args.dataset)?;
    let has_test = ["bundled", "bundled-small"].iter().any(|name| args.path == Path::new(name))
        || ["test", "test.csv", "test.csv.gz"].iter().any(|name| args.path.join(name).exists());
    let test = match &args.test {
        Some(path) => Some(Subject::find(path, Split::Test, args.dataset)?),
        None if has_test => Some(Subject::find(&args.path, Split::Test, args.dataset)?),
        None => None,
    };
    let kind = train.geometry().kind();
    if let Some(test) = test.as_ref().map(Subject::geometry) {
        ensure!(test.kind() == kind, "training puzzles are of kind {}, test puzzles of kind {test}", train.geometry());
    }

    let watch = DatasetWatch::new(&ui, "checking", "boards");
    let report = pool(global)?.install(|| {
        train.with_boards(|train| match &test {
            Some(test) => test.with_boards(|test| check(train, Some(test), &watch)),
            None => check(train, None, &watch),
        })
    });
    watch.done();
    let report = report?;
    report.checked.iter().for_each(|checked| tell_checked(&ui, checked, kind));
    if let Some(leakage) = &report.leakage {
        let groups = HumanCount(leakage.test_groups as u64);
        tell_finding(
            &ui,
            &format!("test boards equivalent to a training board ({groups} groups)"),
            &leakage.test_boards,
        );
    }
    ui.emit(&report)?;
    ensure!(report.is_clean(kind), "{}: {}", args.path.display(), summary(&report));
    say!(ui, "nothing wrong was found");
    Ok(())
}

fn tell_checked(ui: &Ui, report: &BoardsReport, kind: Option<PuzzleKind>) {
    let (boards, groups) = (HumanCount(report.boards as u64), HumanCount(report.groups as u64));
    say!(ui, "{}: {boards} boards in {groups} groups", report.name);
    tell_finding(ui, "wrong answers", &report.wrong_answers);
    let several = match kind {
        Some(PuzzleKind::Maze) => "several shortest paths (no fault)",
        _ => "several solutions",
    };
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

fn summary(report: &CheckReport) -> String {
    let sum = |count: fn(&BoardsReport) -> usize| report.checked.iter().map(count).sum::<usize>();
    format!(
        "{} wrong answers, {} with several solutions, {} duplicates, {} leaked test boards",
        sum(|r| r.wrong_answers.count),
        sum(|r| r.several_solutions.count),
        sum(|r| r.duplicates.count),
        report.leakage.as_ref().map_or(0, |leakage| leakage.test_boards.count)
    )
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
The same --seed gives the same puzzles, whatever the number of threads. The file appears when it is whole; until then what \
was found lies in FILE.partial. After Ctrl-C, a kill or a full disk the same command with --resume goes on from there, and \
ends with the file that an undisturbed run writes.

Examples:
  hrm dataset generate --count 100000 --output new.csv.gz
      Sudokus rated as Sudoku-Extreme's test set is
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
    /// Make easier puzzles by the million: seeds with one to eight cells filled in, rearranged and relabelled, of any
    /// rating unless --ratings says which
    #[arg(long)]
    fast: bool,
    /// Rows and columns of a maze (default: 30)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(3..=200))]
    side: Option<u64>,
    /// Steps of a maze's shortest path, at least (default: 110 of 30×30, in proportion to the cells for others)
    #[arg(long, value_name = "N")]
    min_steps: Option<usize>,
    /// Go on with FILE.partial, what a stopped run of the same command found; begin where there is none
    #[arg(long)]
    resume: bool,
    /// Replace the file that stands there, and begin anew unless --resume is given
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    json: JsonArg,
}

#[derive(Serialize)]
struct GenerateReport<'a> {
    output: &'a Path,
    dataset: PuzzleKind,
    count: usize,
    seed: u64,
    threads: usize,
    seconds: f64,
    mean_rating: f64,
    /// Puzzles by rating.
    ratings: BTreeMap<i64, usize>,
    #[serde(flatten)]
    effort: Effort,
}

fn generate(args: &GenerateArgs, global: &GlobalArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    let at = || format!("{}", args.output.display());
    ensure!(args.force || !args.output.exists(), "{}: a file exists here; replace it with --force", at());
    writable(&args.output).map_err(|e| anyhow::anyhow!("{}: {e}", at()))?;
    let seed = global.seed.unwrap_or(0);
    let begin = Instant::now();
    let watch = DatasetWatch::new(&ui, "generating", "puzzles");
    let (made, partial) = match args.dataset {
        PuzzleKind::Sudoku => generate_sudokus(args, global, seed, &ui, &watch)?,
        PuzzleKind::Maze => generate_mazes(args, global, seed, &ui, &watch)?,
    };
    if made.stopped || watch.cancelled() {
        let (done, count, place) = (made.puzzles.len(), args.count, args.partial());
        let place = place.display();
        say!(ui, "interrupted after {done} of {count}; what was found lies in {place}, and --resume goes on");
        bail!(Interrupted::TOLD);
    }
    let Made { puzzles, effort, .. } = made;
    write_list(&args.output, "hrm_generated", &puzzles)
        .with_context(|| format!("what was found lies in {}, --resume goes on", args.partial().display()))?;
    partial.remove()?;

    let mut ratings = BTreeMap::new();
    puzzles.iter().for_each(|puzzle| *ratings.entry(puzzle.rating as i64).or_default() += 1);
    let report = GenerateReport {
        output: &args.output,
        dataset: args.dataset,
        count: puzzles.len(),
        seed,
        threads: runtime::cpu_threads(global.threads),
        seconds: begin.elapsed().as_secs_f64(),
        mean_rating: puzzles.iter().map(|p| p.rating as f64).sum::<f64>() / puzzles.len().max(1) as f64,
        ratings,
        effort,
    };
    say!(
        ui,
        "wrote {}: {} puzzles in {:.1} s ({} tries, {} known, {} of other ratings), mean rating {:.1}, seed {seed}",
        args.output.display(),
        HumanCount(report.count as u64),
        report.seconds,
        HumanCount(effort.tries),
        HumanCount(effort.known),
        HumanCount(effort.unwanted),
        report.mean_rating
    );
    print_bars(&ui, &grouped(&report.ratings));
    ui.emit(&report)
}

/// What decides the puzzles of a generation.
#[derive(Serialize)]
struct GenerateIdentity {
    /// The program's version, as another may draw otherwise.
    hrm: &'static str,
    dataset: PuzzleKind,
    count: u64,
    seed: u64,
    #[serde(flatten)]
    options: GenerateOptions,
}

#[derive(Serialize)]
#[serde(untagged)]
enum GenerateOptions {
    Sudoku {
        fast: bool,
        ratings: RatingTarget,
        /// Digests of the lists.
        seeds: String,
        exclude: Vec<String>,
    },
    Maze {
        side: usize,
        min_steps: usize,
    },
}

impl Identity for GenerateIdentity {
    const IS: &'static str = "what a stopped generation leaves";
}

type RoundJournal = Journal<GenerateIdentity, Round>;

impl GenerateArgs {
    fn identity(&self, seed: u64, options: GenerateOptions) -> GenerateIdentity {
        let Self { dataset, count, .. } = *self;
        GenerateIdentity { hrm: env!("CARGO_PKG_VERSION"), dataset, count, seed, options }
    }

    /// The file beside the output that holds what was found so far.
    fn partial(&self) -> PathBuf {
        let mut name = self.output.clone().into_os_string();
        name.push(".partial");
        name.into()
    }

    /// Makes puzzles with `make`, each round kept on disk.
    fn keeping(
        &self,
        asked: &GenerateIdentity,
        ui: &Ui,
        watch: &DatasetWatch,
        make: impl FnOnce(Vec<Round>, &mut Keep<'_>) -> Result<Made>,
    ) -> Result<(Made, RoundJournal)> {
        let path = self.partial();
        let existing = match (self.resume, self.force) {
            (true, _) => Existing::Resume,
            (_, true) => Existing::Replace,
            _ => Existing::Refuse,
        };
        let (mut journal, done) = RoundJournal::open(&path, asked, existing)?;
        let resumed = !done.is_empty();
        if resumed {
            let found = done.iter().map(|round| round.found.len() as u64).sum();
            say!(ui, "{} of {} puzzles were found already", HumanCount(found), HumanCount(self.count));
        }
        let mut lost = false;
        let mut keep = |round: &Round| {
            let kept = journal.append(std::slice::from_ref(round));
            lost = kept.is_err();
            kept.context("what was found before is kept, --resume goes on")
        };
        let made = make(done, &mut keep);
        watch.done();
        match made {
            Ok(made) => Ok((made, journal)),
            // The same command would end like this again.
            Err(e) if !resumed && !lost => {
                journal.remove()?;
                Err(e)
            }
            Err(e) if lost => Err(e),
            Err(e) => Err(e.context(format!("{}: cannot be gone on with (--force begins anew)", path.display()))),
        }
    }
}

fn generate_sudokus(
    args: &GenerateArgs,
    global: &GlobalArgs,
    seed: u64,
    ui: &Ui,
    watch: &DatasetWatch,
) -> Result<(Made, RoundJournal)> {
    ensure!(args.side.is_none() && args.min_steps.is_none(), "--side and --min-steps are for --dataset maze");
    let bundled = || PathBuf::from("bundled");
    let read = |path: &Path, split: Split| match Subject::find(path, split, PuzzleKind::Sudoku)? {
        Subject::List { list, .. } => Ok(list),
        Subject::Split { .. } => bail!("{}: a dataset folder; wanted a list of puzzles", path.display()),
    };
    let seeds = read(&args.seeds.clone().unwrap_or_else(bundled), Split::Train)?;
    let exclude = if args.exclude.is_empty() { vec![bundled()] } else { args.exclude.clone() };
    let shown: Vec<String> = exclude.iter().map(|path| path.display().to_string()).collect();
    let exclude = exclude.iter().map(|path| read(path, Split::Test)).collect::<Result<Vec<_>>>()?;
    let ratings = match &args.ratings {
        Some(ratings) => ratings.clone(),
        None if args.fast => RatingTarget::any(),
        None => RatingTarget::like(&read(&bundled(), Split::Test)?),
    };
    say!(
        ui,
        "growing from {} seeds; none is equivalent to a seed or to {} puzzles of {}",
        HumanCount(seeds.len() as u64),
        HumanCount(exclude.iter().map(PuzzleList::len).sum::<usize>() as u64),
        shown.join(", ")
    );
    let asked = args.identity(
        seed,
        GenerateOptions::Sudoku {
            fast: args.fast,
            ratings: ratings.clone(),
            seeds: seeds.digest(),
            exclude: exclude.iter().map(PuzzleList::digest).collect(),
        },
    );
    let options = GrowOptions { count: args.count, ratings, fast: args.fast, seed };
    let pool = pool(global)?;
    args.keeping(&asked, ui, watch, |done, keep| {
        pool.install(|| grow_sudokus(&seeds, &exclude, &options, done, keep, watch))
    })
}

fn generate_mazes(
    args: &GenerateArgs,
    global: &GlobalArgs,
    seed: u64,
    ui: &Ui,
    watch: &DatasetWatch,
) -> Result<(Made, RoundJournal)> {
    let sudoku_only = args.seeds.is_some() || !args.exclude.is_empty() || args.ratings.is_some() || args.fast;
    ensure!(!sudoku_only, "--seeds, --exclude, --ratings and --fast are for Sudoku");
    let side = args.side.unwrap_or(30) as usize;
    let min_steps = args.min_steps.unwrap_or((side * side * 110 / 900).max(1));
    say!(ui, "mazes of {side}×{side} cells with a shortest path of {min_steps} steps or more");
    let asked = args.identity(seed, GenerateOptions::Maze { side, min_steps });
    let options = MazeOptions { count: args.count, side, min_steps, seed };
    let pool = pool(global)?;
    args.keeping(&asked, ui, watch, |done, keep| pool.install(|| make_mazes(&options, done, keep, watch)))
}

fn pool(global: &GlobalArgs) -> Result<rayon::ThreadPool> {
    let threads = runtime::cpu_threads(global.threads);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().context("cannot start the threads")
}
