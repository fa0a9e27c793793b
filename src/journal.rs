//! What long work has found so far, on disk: a JSONL file whose first line says what was asked, and then a line an
//! item, appended batch by batch. A run that was stopped or killed goes on where the file ends.
//!
//! How many items were asked for is no part of the first line: the results of the first N are a beginning for any more.
//! While a journal is open it is locked, so that no second process writes into it.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Seek, SeekFrom, Write},
    marker::PhantomData,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{difference::first_difference, store::take_lock};

/// An open file of results of one type.
#[derive(Debug)]
pub struct Journal<T> {
    path: PathBuf,
    file: File,
    item: PhantomData<T>,
}

/// What to do with a journal that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Refuse,
    Resume,
    Replace,
}

impl<T: Serialize + DeserializeOwned> Journal<T> {
    /// Opens or makes the journal at `path` for the run that `asked` describes, and locks it until it is dropped; returns
    /// the items that it holds, which may be more than the caller wants.
    ///
    /// A last line that was cut off, as by a killed process, is dropped.
    ///
    /// # Errors
    /// A journal that another process has open; one that is there and may not be touched; one of another run, with the
    /// first key that differs; a line that is no item.
    pub fn open(path: &Path, asked: &Value, existing: Existing) -> Result<(Self, Vec<T>)> {
        let at = || format!("{}", path.display());
        // Nothing is cut off before the lock is held.
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).with_context(at)?;
        ensure!(
            take_lock(&file),
            "{}: another process is writing it: wait for its end, or name another output",
            path.display()
        );
        match existing {
            Existing::Refuse if file.metadata().with_context(at)?.len() > 0 => bail!(
                "{}: results of an earlier run: --resume goes on with them, --force begins anew, another output keeps them",
                path.display()
            ),
            Existing::Replace => file.set_len(0).with_context(at)?,
            _ => {}
        }
        let mut reader = BufReader::new(&file);
        let (mut line, mut number, mut whole) = (Vec::new(), 0, 0);
        let mut items = Vec::new();
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).with_context(at)?;
            if !line.ends_with(b"\n") {
                break;
            }
            number += 1;
            whole += read as u64;
            if number == 1 {
                let found: Value = serde_json::from_slice(&line)
                    .with_context(|| format!("{}: its first line does not say what was asked", path.display()))?;
                same_run(path, found, asked)?;
            } else {
                let item = serde_json::from_slice(&line)
                    .with_context(|| format!("{}: line {number} is no result: --force begins anew", path.display()))?;
                items.push(item);
            }
        }
        file.set_len(whole).with_context(at)?;
        file.seek(SeekFrom::End(0)).with_context(at)?;
        if number == 0 {
            file.write_all(format!("{asked}\n").as_bytes()).with_context(at)?;
        }
        Ok((Self { path: path.to_owned(), file, item: PhantomData }, items))
    }

    /// Removes the file, where its results are elsewhere by now or of no more use.
    ///
    /// # Errors
    /// Those of the file system, with the path.
    pub fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).with_context(|| format!("{}: cannot be removed", self.path.display()))
    }

    /// Adds results at the end, a line each.
    ///
    /// # Errors
    /// Those of the file system, with the path.
    pub fn append(&mut self, items: &[T]) -> Result<()> {
        let mut text = Vec::new();
        for item in items {
            serde_json::to_writer(&mut text, item)?;
            text.push(b'\n');
        }
        self.file.write_all(&text).with_context(|| format!("{}: cannot write", self.path.display()))
    }
}

fn same_run(path: &Path, mut found: Value, asked: &Value) -> Result<()> {
    // Before, the first line told how many puzzles were asked for.
    if let Some(puzzles) = found.get_mut("puzzles").and_then(Value::as_object_mut) {
        puzzles.shift_remove("count");
    }
    if let Some(difference) = first_difference(&found, asked) {
        let (key, [was, now]) = (&difference.at, difference.values());
        bail!(
            "{}: results of another run ({key} is {was} there, now {now}): ask for the same, or begin anew with --force \
             or with another output",
            path.display()
        );
    }
    Ok(())
}

/// Results in the order of the items.
#[derive(Debug)]
pub struct Batches<T> {
    pub results: Vec<T>,
    /// Asked to stop before the last item.
    pub stopped: bool,
}

/// Computes what is missing of `items`, `batch_size` at a time; `done` holds the results of the first of them, and any
/// beyond the last item are left aside. Every batch is written to the journal as it ends, then shown to `watch`, which may stop the run.
pub fn run_batches<I, T: Serialize + DeserializeOwned>(
    items: &[I],
    batch_size: usize,
    mut journal: Option<&mut Journal<T>>,
    done: Vec<T>,
    mut compute: impl FnMut(&[I]) -> Result<Vec<T>>,
    mut watch: impl FnMut(&[T]) -> ControlFlow<()>,
) -> Result<Batches<T>> {
    ensure!(batch_size > 0, "the batch size is 0: give at least 1");
    let mut results = done;
    results.truncate(items.len());
    while results.len() < items.len() {
        let from = results.len();
        let batch = &items[from..(from + batch_size).min(items.len())];
        let found = compute(batch)?;
        ensure!(found.len() == batch.len(), "{} results of {} items", found.len(), batch.len());
        if let Some(journal) = &mut journal {
            journal.append(&found)?;
        }
        let stop = watch(&found).is_break();
        results.extend(found);
        if stop && results.len() < items.len() {
            return Ok(Batches { results, stopped: true });
        }
    }
    Ok(Batches { results, stopped: false })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn squares(path: &Path, existing: Existing, stop_after: usize) -> Result<Batches<u64>> {
        squares_to(5, path, existing, stop_after)
    }

    fn squares_to(count: u64, path: &Path, existing: Existing, stop_after: usize) -> Result<Batches<u64>> {
        let (mut journal, done) = Journal::open(path, &json!({"what": "squares"}), existing)?;
        let mut seen = 0;
        run_batches(
            &(1..=count).collect::<Vec<u64>>(),
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

    #[test]
    fn a_stopped_run_goes_on_and_a_cut_line_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j.jsonl");
        let first = squares(&path, Existing::Refuse, 2).unwrap();
        assert!(first.stopped);
        assert_eq!(first.results, [1, 4]);
        // A process killed in the middle of a line.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"9").unwrap();
        let rest = squares(&path, Existing::Resume, 99).unwrap();
        assert!(!rest.stopped);
        assert_eq!(rest.results, [1, 4, 9, 16, 25]);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 6);
    }

    #[test]
    fn other_runs_and_damage_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j.jsonl");
        squares(&path, Existing::Refuse, 99).unwrap();
        let message = |result: Result<(Journal<u64>, Vec<u64>)>| format!("{:#}", result.unwrap_err());
        let again = message(Journal::open(&path, &json!({"what": "squares"}), Existing::Refuse));
        assert!(again.contains("--resume") && again.contains("j.jsonl"), "{again}");
        let other = message(Journal::open(&path, &json!({"what": "cubes"}), Existing::Resume));
        assert!(other.contains("what is \"squares\" there, now \"cubes\""), "{other}");
        fs::write(&path, "{\"what\":\"squares\"}\n1\nfour\n").unwrap();
        let damaged = message(Journal::open(&path, &json!({"what": "squares"}), Existing::Resume));
        assert!(damaged.contains("line 3"), "{damaged}");
        let (_, fresh) = Journal::<u64>::open(&path, &json!({"what": "squares"}), Existing::Replace).unwrap();
        assert!(fresh.is_empty());
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
    fn old_first_lines_are_read_and_differences_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j.jsonl");
        fs::write(&path, "{\"what\":\"runs\",\"puzzles\":{\"data\":\"d\",\"first\":0,\"count\":2}}\n1\n4\n").unwrap();
        let open = |asked: Value| Journal::<u64>::open(&path, &asked, Existing::Resume).map(|(_, items)| items);
        assert_eq!(open(json!({"what": "runs", "puzzles": {"data": "d", "first": 0}})).unwrap(), [1, 4]);
        for (asked, wanted) in [
            (json!({"what": "runs", "puzzles": {"data": "d", "first": 5}}), "(puzzles.first is 0 there, now 5)"),
            (json!({"what": "runs"}), "(puzzles is {\"data\":\"d\",\"first\":0} there, now missing)"),
            (json!({"what": "runs", "puzzles": {"data": "d", "first": 0}, "new": 1}), "(new is missing there, now 1)"),
        ] {
            let error = format!("{:#}", open(asked).unwrap_err());
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn an_open_journal_is_locked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j.jsonl");
        let asked = json!({"what": "squares"});
        let (mut first, _) = Journal::<u64>::open(&path, &asked, Existing::Refuse).unwrap();
        first.append(&[1]).unwrap();
        let before = fs::read(&path).unwrap();
        for existing in [Existing::Refuse, Existing::Resume, Existing::Replace] {
            let error = format!("{:#}", Journal::<u64>::open(&path, &asked, existing).unwrap_err());
            assert!(error.contains("j.jsonl: another process is writing it"), "{error}");
        }
        assert_eq!(fs::read(&path).unwrap(), before, "nothing was cut off");
        drop(first);
        assert_eq!(Journal::<u64>::open(&path, &asked, Existing::Resume).unwrap().1, [1]);
    }
}
