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
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{
    guess::GuessOptions,
    pass::StopRule,
    record::{PassRecord, PuzzleRecord},
    scores::RunShape,
};
use crate::{
    dataset::RowInfo,
    difference::{Difference, first_difference},
    store::{take_lock, write_atomic},
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

#[derive(Serialize, Deserialize)]
struct Mark {
    seconds: f64,
    #[serde(default)]
    complete: bool,
}

#[derive(Deserialize)]
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
    /// Bytes up to the end of the last whole line.
    whole: u64,
}

impl RunIdentity {
    /// The first thing in which two runs differ, names and paths apart.
    fn difference(&self, other: &Self) -> Option<Difference> {
        let told = [self, other].map(|run| {
            let mut run = run.clone();
            run.data = String::new();
            run.checkpoints.iter_mut().for_each(|c| c.path = String::new());
            serde_json::to_value(run).unwrap_or_default()
        });
        first_difference(&told[0], &told[1])
    }
}

/// Reads a results file.
///
/// # Errors
/// A file that is none, or is damaged before its last line; with path and line.
pub fn read(path: &Path) -> Result<StoredResults> {
    let at = |line: usize| format!("{}:{line}", path.display());
    let file = File::open(path).with_context(|| format!("{}: cannot open the results file", path.display()))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).with_context(|| at(1))?;
    let header: Header = serde_json::from_slice(&line).with_context(|| {
        format!("{}: no results file of hrm infer --output (its first line must begin with {{\"hrm_results\"", at(1))
    })?;
    ensure!(line.ends_with(b"\n"), "{}: the first line is torn; remove the file and begin again", at(1));
    ensure!(
        header.hrm_results == VERSION,
        "{}: results of version {}, this program reads {VERSION}",
        at(1),
        header.hrm_results
    );
    ensure!(
        header.first <= header.end && header.end <= header.run.puzzles,
        "{}: puzzles {}..{} of {}",
        at(1),
        header.first,
        header.end,
        header.run.puzzles
    );
    let mut stored = StoredResults {
        puzzles: header.first..header.end,
        run: header.run,
        records: BTreeMap::new(),
        seconds: 0.0,
        complete: false,
        whole: line.len() as u64,
    };
    let passes = stored.run.shape.passes();
    for number in 2.. {
        line.clear();
        if reader.read_until(b'\n', &mut line).with_context(|| at(number))? == 0 || !line.ends_with(b"\n") {
            break;
        }
        let parsed = serde_json::from_slice(&line);
        match parsed.with_context(|| format!("{}: not a line that hrm infer writes", at(number)))? {
            Line::Mark(mark) => {
                stored.seconds += mark.seconds;
                stored.complete = mark.complete;
            }
            Line::Puzzle(record) => {
                let here = stored.puzzles.contains(&record.puzzle);
                ensure!(here, "{}: puzzle {} is none of {:?}", at(number), record.puzzle, stored.puzzles);
                let beyond = record.passes.iter().find(|p| p.pass as usize >= passes);
                ensure!(beyond.is_none(), "{}: pass {} of {passes}", at(number), beyond.map_or(0, |p| p.pass));
                merge(&mut stored.records, record);
            }
        }
        stored.whole += line.len() as u64;
    }
    Ok(stored)
}

/// Whether a file holds a part of our first line and nothing else.
fn barely_begun(path: &Path) -> Result<bool> {
    const BEGINNING: &[u8] = b"{\"hrm_results\":";
    let Ok(file) = File::open(path) else { return Ok(false) };
    let mut line = Vec::new();
    let at = || format!("{}: cannot be read", path.display());
    BufReader::new(file).take(1 << 20).read_until(b'\n', &mut line).with_context(at)?;
    let same = line.iter().zip(BEGINNING).all(|(a, b)| a == b);
    Ok(same && !line.ends_with(b"\n"))
}

/// Adds the passes that are not known yet, in order.
fn merge(records: &mut BTreeMap<usize, PuzzleRecord>, new: PuzzleRecord) {
    let Some(known) = records.get_mut(&new.puzzle) else {
        records.insert(new.puzzle, new);
        return;
    };
    for pass in new.passes {
        if let Err(place) = known.passes.binary_search_by_key(&pass.pass, |p| p.pass) {
            known.passes.insert(place, pass);
        }
    }
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
    /// Whether its passes can stand beside those of `run`.
    ///
    /// # Errors
    /// Other data, checkpoints or guesses; no endings under the rule of `run`.
    pub fn check_comparable(&self, run: &RunIdentity) -> Result<()> {
        let mut other = run.clone();
        other.shape.stop = self.run.shape.stop;
        (other.compare_stops, other.puzzles) = (self.run.compare_stops, self.run.puzzles);
        if let Some(difference) = self.run.difference(&other) {
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
/// Files of different runs; puzzles that are missing, or are in none of the files.
pub fn join(paths: &[PathBuf]) -> Result<StoredResults> {
    let (first, others) = paths.split_first().context("no results file was named")?;
    let mut whole = read(first)?;
    let mut ranges = vec![(whole.puzzles.clone(), first)];
    for path in others {
        let part = read(path)?;
        if let Some(difference) = part.run.difference(&whole.run) {
            let (key, [found, wanted]) = (&difference.at, difference.values());
            bail!("{}: its {key} is {found}, but {} has {wanted}: not of one run", path.display(), first.display());
        }
        ranges.push((part.puzzles.clone(), path));
        whole.seconds += part.seconds;
        part.records.into_values().for_each(|record| merge(&mut whole.records, record));
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
        let left = (0..whole.run.puzzles).filter(|p| !done(p)).count();
        bail!("{name}: {left} puzzles are not done, the first is {missing}: finish it with --resume, then merge");
    }
    whole.puzzles = 0..whole.run.puzzles;
    whole.complete = true;
    Ok(whole)
}

/// Whether the file says that nothing is missing; false where there is no file.
pub fn is_complete(path: &Path) -> bool {
    const END: &[u8] = b"\"complete\":true}\n";
    let last = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
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
        let (first, end) = (self.puzzles.start, self.puzzles.end);
        let header = Header { hrm_results: VERSION, run: self.run.clone(), first, end };
        let mark = Mark { seconds: self.seconds, complete: self.complete };
        write_atomic(path, |file| {
            let mut out = BufWriter::with_capacity(1 << 20, file);
            write_line(&mut out, &header)?;
            self.records.values().try_for_each(|record| write_line(&mut out, record))?;
            write_line(&mut out, &mark)?;
            Ok(out.flush()?)
        })
    }
}

fn write_line(out: &mut impl Write, value: &impl Serialize) -> Result<()> {
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    Ok(out.write_all(b"\n")?)
}

/// Keeps other processes from the file as long as it is open.
fn lock(file: &File, path: &Path) -> Result<()> {
    ensure!(
        take_lock(file),
        "{}: another process is writing it: wait for its end, or name another file with --output",
        path.display()
    );
    Ok(())
}

/// Writes results as they come.
#[derive(Debug)]
pub struct ResultsWriter {
    path: PathBuf,
    file: BufWriter<File>,
    /// Passes of puzzles that are not done, not written yet.
    pending: BTreeMap<usize, PuzzleRecord>,
    flushed: Instant,
    partial: Instant,
    marked: Instant,
}

impl ResultsWriter {
    /// Begins a file.
    ///
    /// # Errors
    /// A file that is there already; those of the file system, with the path.
    pub fn create(path: &Path, run: &RunIdentity, puzzles: Range<usize>) -> Result<Self> {
        let opened = OpenOptions::new().write(true).create_new(true).open(path);
        let file = match opened {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => bail!(
                "{}: is there already: --resume goes on with it, or name another file with --output",
                path.display()
            ),
            Err(e) => return Err(e).with_context(|| format!("{}: cannot be written", path.display())),
        };
        lock(&file, path)?;
        Self::begin(path, file, run, puzzles)
    }

    /// Writes the first line.
    fn begin(path: &Path, file: File, run: &RunIdentity, puzzles: Range<usize>) -> Result<Self> {
        let header = Header { hrm_results: VERSION, run: run.clone(), first: puzzles.start, end: puzzles.end };
        let mut writer = Self::over(path, file);
        writer.line(&header)?;
        writer.flush()?;
        Ok(writer)
    }

    /// Goes on with a file of the same run and the same puzzles; also returns what it holds. A file that is missing, or
    /// that was left in the middle of its first line, is begun.
    ///
    /// # Errors
    /// Another run, by the name of what differs; other puzzles; a damaged file.
    pub fn resume(path: &Path, run: &RunIdentity, puzzles: Range<usize>) -> Result<(Self, Option<StoredResults>)> {
        if !path.exists() {
            return Ok((Self::create(path, run, puzzles)?, None));
        }
        let at = || format!("{}: cannot be written", path.display());
        let mut file = OpenOptions::new().write(true).open(path).with_context(at)?;
        lock(&file, path)?;
        if barely_begun(path)? {
            file.set_len(0).with_context(at)?;
            return Ok((Self::begin(path, file, run, puzzles)?, None));
        }
        let stored = read(path)?;
        if let Some(difference) = stored.run.difference(run) {
            let (key, [found, wanted]) = (&difference.at, difference.values());
            bail!(
                "{}: cannot be resumed: its {key} is {found}, this run's is {wanted}; name another file with --output",
                path.display()
            );
        }
        ensure!(
            stored.puzzles == puzzles,
            "{}: cannot be resumed: it is for the puzzles {}..{}, this run for {}..{}",
            path.display(),
            stored.puzzles.start,
            stored.puzzles.end,
            puzzles.start,
            puzzles.end
        );
        file.set_len(stored.whole).with_context(at)?;
        file.seek(SeekFrom::End(0)).with_context(at)?;
        Ok((Self::over(path, file), Some(stored)))
    }

    fn over(path: &Path, file: File) -> Self {
        let now = Instant::now();
        Self {
            path: path.to_owned(),
            file: BufWriter::with_capacity(1 << 20, file),
            pending: BTreeMap::new(),
            flushed: now,
            partial: now,
            marked: now,
        }
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
            self.line(&Mark { seconds: 0.0, complete })?;
        }
        self.flush()?;
        self.file.get_ref().sync_all().with_context(|| format!("{}: cannot be written", self.path.display()))
    }

    fn write_partial(&mut self) -> Result<()> {
        for record in std::mem::take(&mut self.pending).into_values() {
            self.record(record)?;
        }
        let seconds = self.marked.elapsed().as_secs_f64();
        self.marked = Instant::now();
        self.partial = self.marked;
        self.line(&Mark { seconds, complete: false })?;
        self.flush()
    }

    fn record(&mut self, mut record: PuzzleRecord) -> Result<()> {
        record.passes.sort_by_key(|p| p.pass);
        self.line(&record)
    }

    fn line(&mut self, value: &impl Serialize) -> Result<()> {
        write_line(&mut self.file, value).with_context(|| format!("{}: cannot be written", self.path.display()))
    }

    fn flush(&mut self) -> Result<()> {
        self.flushed = Instant::now();
        self.file.flush().with_context(|| format!("{}: cannot be written", self.path.display()))
    }
}
