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

mod identity;
mod join;
mod writer;

use std::{
    collections::BTreeMap,
    io::{Read, Seek, SeekFrom},
    ops::Range,
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

pub use identity::{CheckpointIdentity, RunIdentity};
pub use join::join;
pub use writer::ResultsWriter;

use super::{
    pass::{Ending, StopRule},
    record::{PassRecord, PuzzleRecord},
    scores::RunShape,
};
use crate::{
    input,
    journal::{self, Identity, Name, Records},
    store::Existing,
};

/// The first line's mark; another number is another form.
const VERSION: u32 = 1;
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
        shape.check()
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
    Puzzle(PuzzleRecord<u32>),
    Mark(Mark),
}

/// What a results file holds.
#[derive(Clone, Debug)]
pub struct StoredResults {
    /// What the results are of.
    pub run: RunIdentity,
    /// The part of the set that the file is for.
    pub puzzles: Range<usize>,
    /// By puzzle; some may lack passes.
    pub records: BTreeMap<usize, PuzzleRecord>,
    /// Wall time of the work in it.
    pub seconds: f64,
    /// The last mark says that nothing is missing.
    pub complete: bool,
}

/// Reads a results file.
///
/// # Errors
/// A file that is none, or whose lines no such run can have written or contradict each other; with path and line.
pub fn read(path: &Path) -> Result<StoredResults> {
    let (header, lines) = journal::read::<Header, Line>(path)?;
    StoredResults::of(path, header, lines)
}

/// Adds the passes that are not known yet, in order.
///
/// # Errors
/// A known pass that ended otherwise. Its margins may differ, as devices round differently: the larger one stays, whatever
/// the order is.
fn merge(records: &mut BTreeMap<usize, PuzzleRecord>, new: PuzzleRecord, guesses: usize) -> Result<()> {
    let Some(known) = records.get_mut(&new.puzzle) else {
        records.insert(new.puzzle, new);
        return Ok(());
    };
    ensure!(known.row == new.row, "puzzle {} has another source or rating before this line", new.puzzle);
    for pass in new.passes {
        match known.passes.binary_search_by_key(&pass.pass, |p| p.pass) {
            Err(place) => known.passes.insert(place, pass),
            Ok(place) => {
                let (number, was) = (pass.pass.number(guesses), &mut known.passes[place]);
                let ends = [
                    (Some(&mut was.end), Some(pass.end)),
                    (was.at_halt.as_mut(), pass.at_halt),
                    (was.at_verified.as_mut(), pass.at_verified),
                ];
                let same = ends.into_iter().all(|(was, is)| same_ending(was, is));
                ensure!(same, "pass {number} of puzzle {} ended otherwise before this line", new.puzzle);
            }
        }
    }
    Ok(())
}

/// Whether both are the same but for their margins; the first then has the larger margin.
fn same_ending(was: Option<&mut Ending>, is: Option<Ending>) -> bool {
    match (was, is) {
        (None, None) => true,
        (Some(was), Some(is)) => {
            was.margin = was.margin.max(is.margin);
            Ending { margin: was.margin, ..is } == *was
        }
        _ => false,
    }
}

/// Whether a run of that shape can have written this.
fn check_record(shape: &RunShape, record: &PuzzleRecord) -> Result<()> {
    let (all, cells) = (shape.passes(), shape.cells);
    let ordered = record.passes.windows(2).all(|pair| pair[0].pass < pair[1].pass);
    ensure!(ordered, "passes of puzzle {} are repeated or out of order", record.puzzle);
    for pass in &record.passes {
        let number = pass.pass.number(shape.guesses as usize);
        let most = *shape.segments.get(pass.pass.checkpoint).with_context(|| format!("pass {number} of {all}"))?;
        for end in [Some(&pass.end), pass.at_halt.as_ref(), pass.at_verified.as_ref()].into_iter().flatten() {
            let commas = end.answer.matches(',').count();
            // Of an unknown kind an answer may be numbers.
            let found = if commas > 0 { commas + 1 } else { end.answer.chars().count() };
            ensure!(found == cells, "an answer of {found} cells instead of {cells}");
            let (right, exact) = end.cells.zip(end.exact).context("an answer that was compared with no label")?;
            ensure!(right as usize <= cells && exact == (right as usize == cells), "{right} right cells of {cells}");
            ensure!((1..=most).contains(&end.segments), "{} segments of {most}", end.segments);
            ensure!(end.margin.is_finite(), "a margin of {}", end.margin);
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
    fn of(path: &Path, header: Header, lines: Records<Line>) -> Result<Self> {
        let puzzles = header.first..header.end;
        let (run, records) = (header.run, BTreeMap::new());
        let mut stored = Self { puzzles: puzzles.clone(), run, records, seconds: 0.0, complete: false };
        stored.add(path, &puzzles, lines)?;
        Ok(stored)
    }

    /// Adds the lines of a file of the same run, which tells of `puzzles`.
    ///
    /// # Errors
    /// A line that the run cannot have written, or that contradicts one before it, by path and number.
    fn add(&mut self, path: &Path, puzzles: &Range<usize>, lines: Records<Line>) -> Result<()> {
        for (number, line) in lines.with_lines() {
            let at = || format!("{}:{number}", path.display());
            match line {
                Line::Mark(mark) => {
                    ensure!(mark.seconds.is_finite() && mark.seconds >= 0.0, "{}: {} seconds", at(), mark.seconds);
                    self.seconds += mark.seconds;
                    self.complete = mark.complete;
                }
                Line::Puzzle(record) => {
                    let guesses = self.run.shape.guesses as usize;
                    let record = record.identified(guesses);
                    let here = puzzles.contains(&record.puzzle);
                    ensure!(here, "{}: puzzle {} is none of {puzzles:?}", at(), record.puzzle);
                    check_record(&self.run.shape, &record).with_context(at)?;
                    merge(&mut self.records, record, guesses).with_context(at)?;
                }
            }
        }
        Ok(())
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

/// Whether the file says that nothing is missing; false where there is no file.
pub fn is_complete(path: &Path) -> bool {
    const END: &[u8] = b"\"complete\":true}\n";
    let last = || -> Result<Vec<u8>> {
        let mut file = input::open(path)?;
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
    /// Those of [`crate::store::write_file`].
    pub fn write(&self, path: &Path, existing: Existing) -> Result<()> {
        let guesses = self.run.shape.guesses as usize;
        let puzzles = self.records.values().cloned().map(|record| Line::Puzzle(record.numbered(guesses)));
        let mark = Line::Mark(Mark { seconds: self.seconds, complete: self.complete });
        journal::write_whole(path, existing, &self.run.header(&self.puzzles), puzzles.chain([mark]))
    }
}
