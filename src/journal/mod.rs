//! What long work has found so far, on disk: a JSONL file whose first line is the work's [`Identity`], and then a line a
//! record, appended as they come. A run that was stopped or killed goes on where the file ends.
//!
//! How many records were asked for is no part of the identity where the first N are a beginning for any more. While a
//! journal is open it is locked, so that no second process writes into it. A damaged line costs itself and a warning, or
//! where each record builds on those before it ([`Identity::SEQUENTIAL`]), what follows as well.

mod batches;
mod identity;
mod lines;
mod records;

use std::{fs, io::BufWriter, io::Write, marker::PhantomData, path::Path};

use anyhow::{Context, Result, bail, ensure};
use log::warn;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

pub use batches::run_batches;
pub use identity::{Identity, Name};
pub use lines::LineFile;
pub use records::Records;

use crate::{
    input::Lines,
    store::{Existing, clear_leftovers, write_file},
};

/// No line of a journal is longer, in bytes.
const LONGEST_LINE: usize = 1 << 28;
/// Nor is its first line.
const LONGEST_IDENTITY: usize = 1 << 23;

/// An open file of records of one type, about work of one identity.
#[derive(Debug)]
pub struct Journal<I, R> {
    file: LineFile,
    of: PhantomData<fn(I, R)>,
}

impl<I: Identity, R: Serialize + DeserializeOwned> Journal<I, R> {
    /// Opens or makes the journal at `path`, and locks it until it is dropped; returns the records that it holds, which
    /// may be more than the caller wants. What a killed process left of a line is cut off.
    ///
    /// # Errors
    /// A journal that another process has open; one that is there and may not be touched; one of another identity, with
    /// the first key that differs; a file that is none.
    pub fn open(path: &Path, identity: &I, existing: Existing) -> Result<(Self, Records<R>)> {
        let busy = "another process is writing it: wait for it to end, or name another output";
        let mut file = LineFile::open(path, busy)?;
        clear_leftovers(&fs::canonicalize(path).with_context(|| path.display().to_string())?);
        match existing {
            Existing::Refuse if !file.is_empty()? => bail!(
                "{}: exists already: --resume continues it, --force replaces it; or name another output",
                path.display()
            ),
            Existing::Replace => {
                return Ok((Self { file: file.replaced(identity)?, of: PhantomData }, Records::none(path)));
            }
            _ => {}
        }
        let mut lines = file.lines(LONGEST_LINE)?;
        let (records, end) = match lines.next_line()? {
            Some(line) => {
                same_run(path, line, identity)?;
                let records = if I::SEQUENTIAL { first_whole(path, &mut lines)? } else { rest(path, &mut lines)? };
                (records, lines.end())
            }
            None => {
                // Only what this program has begun is begun again.
                let first = serde_json::to_vec(identity)?;
                let mark = first.iter().position(|&b| b == b':').unwrap_or(0);
                ensure!(lines.torn().iter().zip(&first[..mark]).all(|(a, b)| a == b), "{}", is_none::<I>(path));
                (Records::none(path), 0)
            }
        };
        file.cut(end)?;
        if end == 0 {
            file.write(identity)?;
            file.flush()?;
        }
        Ok((Self { file, of: PhantomData }, records))
    }

    /// Adds a record at the end, which reaches the file at the next [`Journal::flush`].
    ///
    /// # Errors
    /// Those of the file system, with the path; as all that follow.
    pub fn write(&mut self, record: &R) -> Result<()> {
        self.file.write(record)
    }

    /// Hands the records written so far to the system.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush()
    }

    /// Brings the records written so far onto the disk.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync()
    }

    /// Adds records and flushes.
    pub fn append(&mut self, records: &[R]) -> Result<()> {
        records.iter().try_for_each(|record| self.write(record))?;
        self.flush()
    }

    /// Removes the file, where its records are elsewhere by now or of no more use.
    pub fn remove(self) -> Result<()> {
        let path = self.file.path();
        fs::remove_file(path).with_context(|| format!("{}: cannot be removed", path.display()))
    }
}

/// Reads a journal whatever it is about. A torn last line is passed over.
///
/// # Errors
/// A file that is none.
pub fn read<I: Identity + DeserializeOwned, R: DeserializeOwned>(path: &Path) -> Result<(I, Records<R>)> {
    let mut lines = Lines::open(path, LONGEST_LINE)?;
    let Some(first) = lines.next_line()? else {
        ensure!(lines.torn().is_empty(), "{}:1: the first line is incomplete", path.display());
        bail!(is_none::<I>(path));
    };
    ensure!(first.len() <= LONGEST_IDENTITY, "{}", is_none::<I>(path));
    let identity: I = serde_json::from_slice(first).with_context(|| is_none::<I>(path))?;
    identity.check().with_context(|| format!("{}:1", path.display()))?;
    Ok((identity, rest(path, &mut lines)?))
}

/// Writes a journal with all its records, whole or not at all.
///
/// # Errors
/// As [`write_file`].
pub fn write_whole<I: Identity, R: Serialize>(
    path: &Path,
    existing: Existing,
    identity: &I,
    records: impl IntoIterator<Item = R>,
) -> Result<()> {
    write_file(path, existing, |file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        lines::write_line(&mut out, identity)?;
        records.into_iter().try_for_each(|record| lines::write_line(&mut out, &record))?;
        Ok(out.flush()?)
    })
}

fn is_none<I: Identity>(path: &Path) -> String {
    format!("{}:1: not {}", path.display(), I::IS)
}

/// The records of all lines that are not damaged.
fn rest<R: DeserializeOwned>(path: &Path, lines: &mut Lines<impl std::io::Read>) -> Result<Records<R>> {
    let mut records = Records::none(path);
    while let Some(record) = lines.next_value()? {
        records.add(lines.number(), record);
    }
    records.set_damaged(!lines.damaged().is_empty());
    Ok(records)
}

/// The records before the first damaged line, with which `lines` then end.
fn first_whole<R: DeserializeOwned>(path: &Path, lines: &mut Lines<impl std::io::Read>) -> Result<Records<R>> {
    let mut records = Records::none(path);
    while let Some(line) = lines.next_line()? {
        let Ok(record) = serde_json::from_slice(line) else {
            warn!("{}: line {} is damaged: what follows is done again", path.display(), lines.number());
            lines.step_back();
            break;
        };
        records.add(lines.number(), record);
    }
    Ok(records)
}

fn same_run<I: Identity>(path: &Path, line: &[u8], identity: &I) -> Result<()> {
    ensure!(line.len() <= LONGEST_IDENTITY, "{}", is_none::<I>(path));
    let found: Value = serde_json::from_slice(line).with_context(|| is_none::<I>(path))?;
    ensure!(found.is_object(), "{}", is_none::<I>(path));
    if let Some(difference) = identity.difference(found)? {
        let (key, [was, now]) = (&difference.at, difference.values());
        bail!(
            "{}: cannot be resumed: its {key} is {was}, this run's is {now}: use the same settings, or name another output",
            path.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, ops::ControlFlow};

    use serde_json::json;

    use super::{batches::Batches, *};

    #[derive(Serialize, serde::Deserialize)]
    struct Asked {
        what: String,
        puzzles: Option<Value>,
    }

    impl Identity for Asked {
        const IS: &'static str = "a journal of squares";
        const NAMES: &'static [Name] = &[Name { within: "puzzles", key: "data", digest: "data_fingerprint" }];
    }

    fn asked(what: &str) -> Asked {
        Asked { what: what.into(), puzzles: None }
    }

    type Squares = Journal<Asked, u64>;

    fn squares(path: &Path, existing: Existing, stop_after: usize) -> Result<Batches<u64>> {
        squares_to(5, path, existing, stop_after)
    }

    fn squares_to(count: u64, path: &Path, existing: Existing, stop_after: usize) -> Result<Batches<u64>> {
        let (mut journal, done) = Squares::open(path, &asked("squares"), existing)?;
        let items: Vec<u64> = (1..=count).collect();
        let done = done.place(&items, |square, i| *square == i * i)?;
        let mut seen = 0;
        run_batches(
            &items,
            2,
            Some(&mut journal),
            done,
            |items| Ok(items.iter().map(|i| i * i).collect()),
            |found| {
                seen += found.len();
                if seen >= stop_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        )
    }

    fn message<T>(result: Result<T>) -> String {
        format!("{:#}", result.err().unwrap())
    }

    #[test]
    fn a_stopped_run_goes_on_and_a_cut_line_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j.jsonl");
        let first = squares(&path, Existing::Refuse, 2).unwrap();
        assert!(first.stopped);
        assert_eq!(first.results, [1, 4]);
        // A process killed in the middle of a line.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"9").unwrap();
        assert_eq!(read::<Asked, u64>(&path).unwrap().1.into_values(), [1, 4]);
        let rest = squares(&path, Existing::Resume, 99).unwrap();
        assert!(!rest.stopped);
        assert_eq!(rest.results, [1, 4, 9, 16, 25]);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 6);
    }

    #[test]
    fn other_runs_damage_and_other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j.jsonl");
        squares(&path, Existing::Refuse, 99).unwrap();
        let again = message(Squares::open(&path, &asked("squares"), Existing::Refuse));
        assert!(again.contains("j.jsonl: exists already: --resume continues it"), "{again}");
        let other = message(Squares::open(&path, &asked("cubes"), Existing::Resume));
        assert!(other.contains("cannot be resumed: its what is \"squares\", this run's is \"cubes\""), "{other}");
        fs::write(&path, "{\"what\":\"squares\",\"puzzles\":null}\n1\n5\n").unwrap();
        let foreign = message(squares(&path, Existing::Resume, 99));
        assert!(foreign.contains("j.jsonl:3: none of this work"), "{foreign}");
        for text in ["notes", "notes\n", "[]\n"] {
            fs::write(&path, text).unwrap();
            let foreign = message(Squares::open(&path, &asked("squares"), Existing::Resume));
            assert!(foreign.contains("j.jsonl:1: not a journal of squares"), "{foreign}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        let (_, fresh) = Squares::open(&path, &asked("squares"), Existing::Replace).unwrap();
        assert!(fresh.is_empty());
    }

    #[test]
    fn a_damaged_line_costs_itself_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j.jsonl");
        let first = "{\"what\":\"squares\",\"puzzles\":null}\n";
        fs::write(&path, format!("{first}1\nfour\n9\n\u{0}6\n25\n36\n")).unwrap();
        let mut computed: Vec<u64> = Vec::new();
        for count in [5, 3, 6] {
            let (mut journal, done) = Squares::open(&path, &asked("squares"), Existing::Resume).unwrap();
            let items: Vec<u64> = (1..=count).collect();
            let done = done.place(&items, |square, i| *square == i * i).unwrap();
            let compute = |items: &[u64]| {
                computed.extend(items);
                Ok(items.iter().map(|i| i * i).collect())
            };
            let found = run_batches(&items, 2, Some(&mut journal), done, compute, |_| ControlFlow::Continue(()));
            assert_eq!(found.unwrap().results, items.iter().map(|i| i * i).collect::<Vec<u64>>());
        }
        assert_eq!(computed, [2, 4], "each once");
        let text = format!("{first}1\nfour\n9\n\u{0}6\n25\n36\n4\n16\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn where_records_build_on_each_other_what_follows_a_damaged_line_is_cut_off() {
        #[derive(Serialize)]
        struct Steps {
            what: u32,
        }
        impl Identity for Steps {
            const IS: &'static str = "a journal of steps";
            const SEQUENTIAL: bool = true;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j.jsonl");
        fs::write(&path, "{\"what\":1}\n1\n2\nx\n4\n").unwrap();
        let (mut journal, found) = Journal::<_, u64>::open(&path, &Steps { what: 1 }, Existing::Resume).unwrap();
        assert_eq!(found.into_values(), [1, 2]);
        journal.append(&[3]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"what\":1}\n1\n2\n3\n");
    }

    #[test]
    fn a_journal_that_was_left_in_its_first_line_is_begun_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j.jsonl");
        for torn in ["", "{\"wh", "{\"what\":\"cub"] {
            fs::write(&path, torn).unwrap();
            assert!(read::<Asked, u64>(&path).is_err());
            assert_eq!(squares(&path, Existing::Resume, 99).unwrap().results.len(), 5);
        }
    }

    #[test]
    fn results_of_some_are_a_beginning_of_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j.jsonl");
        squares(&path, Existing::Refuse, 99).unwrap();
        let five = fs::read(&path).unwrap();
        assert_eq!(squares_to(3, &path, Existing::Resume, 99).unwrap().results, [1, 4, 9]);
        assert_eq!(fs::read(&path).unwrap(), five, "fewer leave the file alone");
        assert_eq!(squares_to(7, &path, Existing::Resume, 99).unwrap().results, [1, 4, 9, 16, 25, 36, 49]);
        assert!(fs::read(&path).unwrap().starts_with(&five), "more are appended");
    }

    #[test]
    fn first_lines_of_earlier_versions_are_read_and_differences_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j.jsonl");
        fs::write(&path, "{\"what\":\"runs\",\"puzzles\":{\"data\":\"d\",\"first\":0}}\n1\n4\n").unwrap();
        let open = |puzzles: Value| {
            let asked = Asked { what: "runs".into(), puzzles: Some(puzzles) };
            Squares::open(&path, &asked, Existing::Resume).map(|(_, records)| records.into_values())
        };
        assert_eq!(open(json!({"data_fingerprint": "f", "data": "d", "first": 0})).unwrap(), [1, 4]);
        for (puzzles, wanted) in [
            (json!({"data_fingerprint": "f", "data": "d", "first": 5}), "its puzzles.first is 0, this run's is 5"),
            (
                json!({"data_fingerprint": "f", "data": "e", "first": 0}),
                "its puzzles.data is \"d\", this run's is \"e\"",
            ),
            (json!({"data": "d", "first": 0, "new": 1}), "its puzzles.new is missing, this run's is 1"),
        ] {
            let error = message(open(puzzles));
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn an_open_journal_is_locked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j.jsonl");
        let (mut first, _) = Squares::open(&path, &asked("squares"), Existing::Refuse).unwrap();
        first.append(&[1]).unwrap();
        let before = fs::read(&path).unwrap();
        for existing in [Existing::Refuse, Existing::Resume, Existing::Replace] {
            let error = message(Squares::open(&path, &asked("squares"), existing));
            assert!(error.contains("j.jsonl: another process is writing it"), "{error}");
        }
        assert_eq!(fs::read(&path).unwrap(), before, "nothing was cut off");
        drop(first);
        assert_eq!(Squares::open(&path, &asked("squares"), Existing::Resume).unwrap().1.into_values(), [1]);
    }
}
