//! Writing results while a run goes on.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{Header, Line, Mark, RunIdentity, StoredResults};
use crate::{
    dataset::RowInfo,
    eval::record::{PassRecord, PuzzleRecord},
    journal::Journal,
    store::Existing,
};

/// Unfinished puzzles' passes are written this often.
const PARTIAL: Duration = Duration::from_secs(60);
/// What is written reaches the file after this time.
const FLUSH: Duration = Duration::from_millis(200);

/// Writes results as they come.
#[derive(Debug)]
pub struct ResultsWriter {
    journal: Journal<Header, Line>,
    /// Guesses of each checkpoint.
    guesses: usize,
    /// Passes of puzzles that are not done, not written yet.
    pending: BTreeMap<usize, PuzzleRecord>,
    flushed: Instant,
    partial: Instant,
    marked: Instant,
}

impl ResultsWriter {
    /// Begins a file, or with `Existing::Resume` goes on with one of the same run and the same puzzles; also returns what
    /// it holds, none where it was begun.
    ///
    /// # Errors
    /// Those of the journal; passes that the run cannot have.
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
        let guesses = run.shape.guesses as usize;
        let writer = Self { journal, guesses, pending: BTreeMap::new(), flushed: now, partial: now, marked: now };
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
        self.journal.write(&Line::Puzzle(record.numbered(self.guesses)))
    }

    fn flush(&mut self) -> Result<()> {
        self.flushed = Instant::now();
        self.journal.flush()
    }
}
