//! From what a user asks of a generation to the list: what was found is kept beside it until it is whole.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    slice,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use indicatif::HumanCount;
use serde::Serialize;

use super::{
    CheckedBoards, Effort, GrowOptions, Keep, Made, MazeOptions, Progress, PuzzleList, RatingTarget, Round, Split,
    grow_sudokus, make_mazes, thread_pool, write_list,
};
use crate::{
    journal::{Identity, Journal},
    outcome::Interrupted,
    puzzle::PuzzleKind,
    store::{Existing, check_output, is_stream},
};

/// What a user asks for; what is none has a default.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    pub kind: PuzzleKind,
    /// Puzzles.
    pub count: u64,
    /// The list to write.
    pub output: PathBuf,
    /// Sudokus to grow from.
    pub seeds: Option<PathBuf>,
    /// Sudokus that none may be equivalent to; the bundled test rows where there are none.
    pub exclude: Vec<PathBuf>,
    pub ratings: Option<RatingTarget>,
    /// [`GrowOptions::fast`]
    pub fast: bool,
    /// Rows and columns of a maze.
    pub side: Option<usize>,
    /// Steps of a maze's shortest path, at least.
    pub min_steps: Option<usize>,
    /// Go on with what a stopped run found.
    pub resume: bool,
    /// Replace the list that stands there.
    pub force: bool,
    pub seed: u64,
    pub threads: usize,
}

/// The JSON document of `hrm dataset generate`.
#[derive(Clone, Debug, Serialize)]
pub struct GenerateReport {
    pub output: PathBuf,
    pub dataset: PuzzleKind,
    pub count: usize,
    pub seed: u64,
    pub threads: usize,
    pub seconds: f64,
    pub mean_rating: f64,
    /// Puzzles by rating.
    pub ratings: BTreeMap<i64, usize>,
    #[serde(flatten)]
    pub effort: Effort,
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
    options: IdentityOptions,
}

#[derive(Serialize)]
#[serde(untagged)]
enum IdentityOptions {
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
    const IS: &'static str = "the partial file of a generation";
    const SEQUENTIAL: bool = true;
}

type RoundJournal = Journal<GenerateIdentity, Round>;

/// What is made, with the lists read.
enum Work {
    Sudokus { seeds: Box<PuzzleList>, exclude: Vec<PuzzleList>, options: GrowOptions },
    Mazes(MazeOptions),
}

impl GenerateRequest {
    /// Makes the puzzles, writes the list, and shows `tell` what was made. What was found on the way is kept until then:
    /// the same request with `resume` does again whatever was not done.
    ///
    /// # Errors
    /// Another list that stands there; options of the other kind; those of [`grow_sudokus`] and [`make_mazes`], of `tell`
    /// and of the file system. [`Interrupted`] where it was asked to stop.
    pub fn run(&self, progress: &dyn Progress, tell: impl FnOnce(&GenerateReport) -> Result<()>) -> Result<()> {
        let begin = Instant::now();
        let existing = if self.force { Existing::Replace } else { self.of_partial() };
        check_output(&self.output, existing).with_context(|| self.output.display().to_string())?;
        let work = match self.kind {
            PuzzleKind::Sudoku => self.sudokus(progress)?,
            PuzzleKind::Maze => self.mazes(progress)?,
        };
        let (Made { puzzles, effort, stopped }, partial) = self.make(&work, progress)?;
        let kept = match self.partial() {
            Some(place) => format!("what was found lies in {}, --resume goes on", place.display()),
            None => format!("{}: what was found is lost", self.output.display()),
        };
        if stopped || progress.cancelled() {
            progress.note(format_args!("interrupted after {} of {}; {kept}", puzzles.len(), self.count));
            bail!(Interrupted::TOLD);
        }
        write_list(&self.output, existing, "hrm_generated", &puzzles).context(kept)?;
        let mut ratings = BTreeMap::new();
        puzzles.iter().for_each(|puzzle| *ratings.entry(puzzle.rating as i64).or_default() += 1);
        tell(&GenerateReport {
            output: self.output.clone(),
            dataset: self.kind,
            count: puzzles.len(),
            seed: self.seed,
            threads: self.threads,
            seconds: begin.elapsed().as_secs_f64(),
            mean_rating: puzzles.iter().map(|p| p.rating as f64).sum::<f64>() / puzzles.len().max(1) as f64,
            ratings,
            effort,
        })?;
        partial.map_or(Ok(()), Journal::remove)
    }

    /// The file beside the output that holds what was found so far; none where the output is a pipe or a device.
    fn partial(&self) -> Option<PathBuf> {
        let mut name = self.output.clone().into_os_string();
        name.push(".partial");
        (!is_stream(&self.output)).then(|| name.into())
    }

    /// What to do with that file where it is there already.
    fn of_partial(&self) -> Existing {
        match (self.resume, self.force) {
            (true, _) => Existing::Resume,
            (_, true) => Existing::Replace,
            _ => Existing::Refuse,
        }
    }

    fn sudokus(&self, progress: &dyn Progress) -> Result<Work> {
        ensure!(self.side.is_none() && self.min_steps.is_none(), "--side and --min-steps are for --dataset maze");
        let bundled = PathBuf::from("bundled");
        let read = |path: &Path, split: Split| match CheckedBoards::find(path, split, PuzzleKind::Sudoku)? {
            CheckedBoards::List { list, .. } => Ok(list),
            CheckedBoards::Split { .. } => bail!("{}: a dataset folder; expected a list of puzzles", path.display()),
        };
        let seeds = Box::new(read(self.seeds.as_ref().unwrap_or(&bundled), Split::Train)?);
        let paths = if self.exclude.is_empty() { slice::from_ref(&bundled) } else { &self.exclude };
        let exclude = paths.iter().map(|path| read(path, Split::Test)).collect::<Result<Vec<_>>>()?;
        let ratings = match &self.ratings {
            Some(ratings) => ratings.clone(),
            None if self.fast => RatingTarget::any(),
            None => RatingTarget::like(&read(&bundled, Split::Test)?),
        };
        progress.note(format_args!(
            "growing from {} seeds; none is equivalent to a seed or to {} puzzles of {}",
            HumanCount(seeds.len() as u64),
            HumanCount(exclude.iter().map(PuzzleList::len).sum::<usize>() as u64),
            paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
        ));
        let options = GrowOptions { count: self.count, ratings, fast: self.fast, seed: self.seed };
        Ok(Work::Sudokus { seeds, exclude, options })
    }

    fn mazes(&self, progress: &dyn Progress) -> Result<Work> {
        let sudoku_only = self.seeds.is_some() || !self.exclude.is_empty() || self.ratings.is_some() || self.fast;
        ensure!(!sudoku_only, "--seeds, --exclude, --ratings and --fast are for Sudoku");
        let side = self.side.unwrap_or(30);
        let min_steps = self.min_steps.unwrap_or((side * side * 110 / 900).max(1));
        progress.note(format_args!("mazes of {side}×{side} cells with a shortest path of {min_steps} steps or more"));
        Ok(Work::Mazes(MazeOptions { count: self.count, side, min_steps, seed: self.seed }))
    }

    fn identity(&self, work: &Work) -> GenerateIdentity {
        let options = match work {
            Work::Sudokus { seeds, exclude, options } => IdentityOptions::Sudoku {
                fast: options.fast,
                ratings: options.ratings.clone(),
                seeds: seeds.digest(),
                exclude: exclude.iter().map(PuzzleList::digest).collect(),
            },
            Work::Mazes(MazeOptions { side, min_steps, .. }) => {
                IdentityOptions::Maze { side: *side, min_steps: *min_steps }
            }
        };
        let Self { kind, count, seed, .. } = *self;
        GenerateIdentity { hrm: env!("CARGO_PKG_VERSION"), dataset: kind, count, seed, options }
    }

    /// Makes the puzzles, each round kept on disk.
    fn make(&self, work: &Work, progress: &dyn Progress) -> Result<(Made, Option<RoundJournal>)> {
        let pool = thread_pool(self.threads)?;
        let Some(path) = self.partial() else {
            ensure!(!self.resume, "{}: no file: --resume has nothing to go on with", self.output.display());
            let made = pool.install(|| work.run(Vec::new(), &mut |_| Ok(()), progress));
            return Ok((made?, None));
        };
        let (mut journal, done) = RoundJournal::open(&path, &self.identity(work), self.of_partial())?;
        let done: Vec<Round> = done.into_values();
        let resumed = !done.is_empty();
        if resumed {
            let found = done.iter().map(|round| round.found.len() as u64).sum();
            progress.note(format_args!(
                "{} of {} puzzles were found already",
                HumanCount(found),
                HumanCount(self.count)
            ));
        }
        let mut lost = false;
        let mut keep = |round: &Round| {
            let kept = journal.append(slice::from_ref(round));
            lost = kept.is_err();
            kept.context("earlier results are kept, --resume continues")
        };
        let made = pool.install(|| work.run(done, &mut keep, progress));
        match made {
            Ok(made) => Ok((made, Some(journal))),
            // The same command would end like this again.
            Err(e) if !resumed && !lost => {
                journal.remove()?;
                Err(e)
            }
            Err(e) if lost => Err(e),
            Err(e) => Err(e.context(format!("{}: cannot be resumed (--force starts over)", path.display()))),
        }
    }
}

impl Work {
    fn run(&self, done: Vec<Round>, keep: &mut Keep<'_>, progress: &dyn Progress) -> Result<Made> {
        match self {
            Self::Sudokus { seeds, exclude, options } => grow_sudokus(seeds, exclude, options, done, keep, progress),
            Self::Mazes(options) => make_mazes(options, done, keep, progress),
        }
    }
}
