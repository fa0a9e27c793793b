//! Results as they come: a file of JSON lines that a killed evaluation goes on with.
//!
//! ```text
//! {"hrm_results": 1, "run": {what decides the results}, "first": 0, "end": 1000}
//! {"puzzle": 0, "source": .., "rating": .., "passes": [{"pass": 0, "answer": ..}, ..]}
//! {"seconds": 12.5, "complete": true}
//! ```
//!
//! A puzzle's line comes when it is done. At a stop, and now and then before, the passes of puzzles that are not done are
//! written as well: a puzzle may have several lines, each with other passes. `seconds` are those since the mark before.
//! A last line that is torn was being written when the process died; it is cut off.

use std::{
    collections::BTreeMap,
    io::{Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{
    guess::GuessOptions,
    pass::{Ending, PassId, StopRule},
    record::{PassRecord, PuzzleRecord},
    scores::RunShape,
};
use crate::{
    dataset::RowInfo,
    difference::Difference,
    journal::{self, Existing, Identity, Journal, Name, open_regular},
};

/// The first line's mark; another number is another form.
const VERSION: u32 = 1;
/// Unfinished puzzles' passes are written this often.
const PARTIAL: Duration = Duration::from_secs(60);
/// What is written reaches the file after this time.
const FLUSH: Duration = Duration::from_millis(200);

/// Everything that decides the results, and what they are called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunIdentity {
    pub shape: RunShape,
    /// Whether the endings under other rules are kept.
    pub compare_stops: bool,
    pub options: GuessOptions,
    pub checkpoints: Vec<CheckpointIdentity>,
    /// Of the data.
    pub data_fingerprint: String,
    /// Its folder or name, for people.
    pub data: String,
    /// Puzzles of the whole run.
    pub puzzles: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointIdentity {
    /// SHA-256 of the weights' names, shapes and bytes.
    pub weights: String,
    pub step: Option<u64>,
    pub dtype: String,
    /// Where it was read from, for people.
    pub path: String,
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Header {
    hrm_results: u32,
    run: RunIdentity,
    /// The puzzles of this file: `first..end`.
    first: usize,
    end: usize,
}

impl Identity for Header {
    const IS: &'static str = "a results file of hrm infer --output";
    const NAMES: &'static [Name] = &[
        Name { within: "run", key: "data", digest: "data_fingerprint" },
        Name { within: "run.checkpoints.*", key: "path", digest: "weights" },
    ];

    fn check(&self) -> Result<()> {
        let Self { hrm_results: version, run, first, end } = self;
        ensure!(*version == VERSION, "results of version {version}, this program reads {VERSION}");
        ensure!(first <= end && *end <= run.puzzles, "puzzles {first}..{end} of {}", run.puzzles);
        let (shape, checkpoints) = (&run.shape, run.checkpoints.len());
        ensure!(
            checkpoints > 0 && checkpoints == shape.segments.len(),
            "{checkpoints} checkpoints, and segments of {}",
            shape.segments.len()
        );
        let (guesses, most) = (shape.guesses, GuessOptions::MOST);
        ensure!((1..=most).contains(&u64::from(guesses)), "{guesses} guesses of {most}");
        Ok(())
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    seconds: f64,
    #[serde(default)]
    complete: bool,
}

/// A further line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Puzzle(PuzzleRecord),
    Mark(Mark),
}

/// What a results file holds.
#[derive(Clone, Debug)]
pub struct StoredResults {
    pub run: RunIdentity,
    pub puzzles: Range<usize>,
    /// By puzzle; some may lack passes.
    pub records: BTreeMap<usize, PuzzleRecord>,
    pub seconds: f64,
    /// The last mark says that nothing is missing.
    pub complete: bool,
}

impl RunIdentity {
    /// The first thing in which a stored run differs, names and paths apart.
    fn difference(&self, stored: &Self) -> Result<Option<Difference>> {
        let header = |run: &Self| Header { hrm_results: VERSION, run: run.clone(), first: 0, end: 0 };
        header(self).difference(serde_json::to_value(header(stored))?)
    }

    fn header(&self, puzzles: &Range<usize>) -> Header {
        Header { hrm_results: VERSION, run: self.clone(), first: puzzles.start, end: puzzles.end }
    }
}

/// Reads a results file.
///
/// # Errors
/// A file that is none, or is damaged before its last line; with path and line.
pub fn read(path: &Path) -> Result<StoredResults> {
    let (header, lines) = journal::read::<Header, Line>(path)?;
    StoredResults::of(path, header, lines)
}

/// Adds the passes that are not known yet, in order.
///
/// # Errors
/// A known pass that ended otherwise. Its margin may differ, as devices round differently.
fn merge(records: &mut BTreeMap<usize, PuzzleRecord>, new: PuzzleRecord) -> Result<()> {
    let Some(known) = records.get_mut(&new.puzzle) else {
        records.insert(new.puzzle, new);
        return Ok(());
    };
    for pass in new.passes {
        match known.passes.binary_search_by_key(&pass.pass, |p| p.pass) {
            Err(place) => known.passes.insert(place, pass),
            Ok(place) => {
                let was = &known.passes[place].end;
                let same = Ending { margin: was.margin, ..pass.end } == *was;
                ensure!(same, "pass {} of puzzle {} ended otherwise elsewhere", pass.pass, new.puzzle);
            }
        }
    }
    Ok(())
}

/// Whether a run of that shape can have written this.
fn check_record(shape: &RunShape, record: &PuzzleRecord) -> Result<()> {
    let (all, cells) = (shape.passes(), shape.cells);
    let ordered = record.passes.windows(2).all(|pair| pair[0].pass < pair[1].pass);
    ensure!(ordered, "passes of puzzle {} are there twice or in disorder", record.puzzle);
    for pass in &record.passes {
        ensure!((pass.pass as usize) < all, "pass {} of {all}", pass.pass);
        let most = shape.segments[PassId::from_number(pass.pass, shape.guesses as usize).checkpoint];
        for end in [Some(&pass.end), pass.at_halt.as_ref(), pass.at_verified.as_ref()].into_iter().flatten() {
            let commas = end.answer.matches(',').count();
            // Of an unknown kind an answer may be numbers.
            let found = if commas > 0 { commas + 1 } else { end.answer.chars().count() };
            ensure!(found == cells, "an answer of {found} cells instead of {cells}");
            let (right, exact) = end.cells.zip(end.exact).context("an answer that was compared with no label")?;
            ensure!(right as usize <= cells && exact == (right as usize == cells), "{right} right cells of {cells}");
            ensure!((1..=most).contains(&end.segments), "{} segments of {most}", end.segments);
        }
    }
    Ok(())
}

/// Passes beside those of another run over the same puzzles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Differences {
    /// Passes that both have.
    pub passes: u64,
    /// Whose answers differ.
    pub answers: u64,
    /// Which stopped at another segment, or halted here and not there.
    pub stops: u64,
}

impl StoredResults {
    fn of(path: &Path, header: Header, lines: Vec<Line>) -> Result<Self> {
        let puzzles = header.first..header.end;
        let mut stored = Self { puzzles, run: header.run, records: BTreeMap::new(), seconds: 0.0, complete: false };
        for (line, number) in lines.into_iter().zip(2..) {
            match line {
                Line::Mark(mark) => {
                    stored.seconds += mark.seconds;
                    stored.complete = mark.complete;
                }
                Line::Puzzle(record) => {
                    let at = || format!("{}:{number}", path.display());
                    let here = stored.puzzles.contains(&record.puzzle);
                    ensure!(here, "{}: puzzle {} is none of {:?}", at(), record.puzzle, stored.puzzles);
                    check_record(&stored.run.shape, &record).with_context(at)?;
                    merge(&mut stored.records, record).with_context(at)?;
                }
            }
        }
        Ok(stored)
    }

    /// Whether its passes can stand beside those of `run`.
    ///
    /// # Errors
    /// Other data, checkpoints or guesses; no endings under the rule of `run`.
    pub fn check_comparable(&self, run: &RunIdentity) -> Result<()> {
        let mut other = run.clone();
        other.shape.stop = self.run.shape.stop;
        (other.compare_stops, other.puzzles) = (self.run.compare_stops, self.run.puzzles);
        if let Some(difference) = other.difference(&self.run)? {
            let (key, [found, wanted]) = (&difference.at, difference.values());
            bail!("its {key} is {found}, this run's is {wanted}");
        }
        let (there, here) = (self.run.shape.stop, run.shape.stop);
        ensure!(
            there == here || self.run.compare_stops,
            "it has no endings under --stop {}: make it with --compare-stops",
            here.name()
        );
        Ok(())
    }

    /// Counts a pass of a run under `rule`.
    pub fn compare(&self, puzzle: usize, pass: &PassRecord, rule: StopRule, counts: &mut Differences) {
        let known = self.records.get(&puzzle).and_then(|r| r.passes.iter().find(|p| p.pass == pass.pass));
        if let Some(end) = known.and_then(|known| known.under(rule, self.run.shape.stop)) {
            counts.passes += 1;
            counts.answers += u64::from(end.answer != pass.end.answer);
            counts.stops += u64::from((end.segments, end.halted) != (pass.end.segments, pass.end.halted));
        }
    }
}

/// Joins the files of a run's shards.
///
/// # Errors
/// Files of different runs, or that contradict each other; puzzles that are missing, or are in none of the files.
pub fn join(paths: &[PathBuf]) -> Result<StoredResults> {
    let (first, others) = paths.split_first().context("no results file was named")?;
    let mut whole = read(first)?;
    let mut ranges = vec![(whole.puzzles.clone(), first)];
    for path in others {
        let part = read(path)?;
        if let Some(difference) = whole.run.difference(&part.run)? {
            let (key, [found, wanted]) = (&difference.at, difference.values());
            bail!("{}: its {key} is {found}, but {} has {wanted}: not of one run", path.display(), first.display());
        }
        ranges.push((part.puzzles.clone(), path));
        whole.seconds += part.seconds;
        let at = || format!("{} does not fit the files before it", path.display());
        part.records.into_values().try_for_each(|record| merge(&mut whole.records, record)).with_context(at)?;
    }
    ranges.sort_by_key(|(range, _)| (range.start, range.end));
    let mut reached = 0;
    for (range, path) in &ranges {
        ensure!(
            range.start <= reached,
            "puzzles {reached} to {} of {} are in none of the files; the next is {}",
            range.start - 1,
            whole.run.puzzles,
            path.display()
        );
        reached = reached.max(range.end);
    }
    ensure!(
        reached == whole.run.puzzles,
        "puzzles {reached} to {} are in none of the files",
        whole.run.puzzles.saturating_sub(1)
    );
    let (all, stop) = (whole.run.shape.passes(), whole.run.shape.stop);
    let done = |p: &usize| whole.records.get(p).is_some_and(|r| r.is_complete(all, stop));
    if let Some(missing) = (0..whole.run.puzzles).find(|p| !done(p)) {
        let file = ranges.iter().find(|(range, _)| range.contains(&missing));
        let name = file.map_or_else(|| first.display(), |(_, path)| path.display());
        let left = whole.run.puzzles - whole.records.keys().filter(|p| done(p)).count();
        bail!("{name}: {left} puzzles are not done, the first is {missing}: finish it with --resume, then merge");
    }
    whole.puzzles = 0..whole.run.puzzles;
    whole.complete = true;
    Ok(whole)
}

/// Whether the file says that nothing is missing; false where there is no file.
pub fn is_complete(path: &Path) -> bool {
    const END: &[u8] = b"\"complete\":true}\n";
    let last = || -> Result<Vec<u8>> {
        let mut file = open_regular(path)?;
        file.seek(SeekFrom::End(-(END.len() as i64)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    last().is_ok_and(|bytes| bytes == END)
}

impl StoredResults {
    /// Writes everything as one file, whole or not at all.
    ///
    /// # Errors
    /// Those of the file system, with the path.
    pub fn write(&self, path: &Path) -> Result<()> {
        let puzzles = self.records.values().cloned().map(Line::Puzzle);
        let mark = Line::Mark(Mark { seconds: self.seconds, complete: self.complete });
        journal::write_whole(path, &self.run.header(&self.puzzles), puzzles.chain([mark]))
    }
}

/// Writes results as they come.
#[derive(Debug)]
pub struct ResultsWriter {
    journal: Journal<Header, Line>,
    /// Passes of puzzles that are not done, not written yet.
    pending: BTreeMap<usize, PuzzleRecord>,
    flushed: Instant,
    partial: Instant,
    marked: Instant,
}

impl ResultsWriter {
    /// Begins a file, or with [`Existing::Resume`] goes on with one of the same run and the same puzzles; also returns what
    /// it holds, none where it was begun.
    ///
    /// # Errors
    /// Those of [`Journal::open`]; passes that the run cannot have.
    pub fn open(
        path: &Path,
        run: &RunIdentity,
        puzzles: &Range<usize>,
        existing: Existing,
    ) -> Result<(Self, Option<StoredResults>)> {
        let header = run.header(puzzles);
        let (journal, lines) = Journal::open(path, &header, existing)?;
        let stored = if lines.is_empty() { None } else { Some(StoredResults::of(path, header, lines)?) };
        let now = Instant::now();
        let writer = Self { journal, pending: BTreeMap::new(), flushed: now, partial: now, marked: now };
        Ok((writer, stored))
    }

    /// A pass has ended.
    ///
    /// # Errors
    /// Those of the file system, with the path; as all that follow.
    pub fn pass(&mut self, puzzle: usize, row: Option<&RowInfo>, pass: &PassRecord) -> Result<()> {
        let blank = || PuzzleRecord { puzzle, row: row.cloned(), passes: Vec::new() };
        self.pending.entry(puzzle).or_insert_with(blank).passes.push(pass.clone());
        if self.partial.elapsed() >= PARTIAL {
            self.write_partial()?;
        }
        Ok(())
    }

    /// All passes of a puzzle have ended.
    pub fn done(&mut self, puzzle: usize) -> Result<()> {
        if let Some(record) = self.pending.remove(&puzzle) {
            self.record(record)?;
        }
        if self.flushed.elapsed() >= FLUSH {
            self.flush()?;
        }
        Ok(())
    }

    /// Everything that is known goes to the file, then the time and whether nothing is missing.
    pub fn finish(mut self, complete: bool) -> Result<()> {
        self.write_partial()?;
        if complete {
            self.journal.write(&Line::Mark(Mark { seconds: 0.0, complete }))?;
        }
        self.journal.sync()
    }

    fn write_partial(&mut self) -> Result<()> {
        for record in std::mem::take(&mut self.pending).into_values() {
            self.record(record)?;
        }
        let seconds = self.marked.elapsed().as_secs_f64();
        self.marked = Instant::now();
        self.partial = self.marked;
        self.journal.write(&Line::Mark(Mark { seconds, complete: false }))?;
        self.flush()
    }

    fn record(&mut self, mut record: PuzzleRecord) -> Result<()> {
        record.passes.sort_by_key(|p| p.pass);
        self.journal.write(&Line::Puzzle(record))
    }

    fn flush(&mut self) -> Result<()> {
        self.flushed = Instant::now();
        self.journal.flush()
    }
}
