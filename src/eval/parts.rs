//! An evaluation that several processes share: which part each of them takes, and how rank 0 joins the parts.
//!
//! The processes talk through the files of their parts alone. A process gives a sign of life when its file changes, if only
//! its time; one that gives none for the peer timeout, because it ended or is suspended, is lost.

use std::{
    fs::{self, OpenOptions},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Result, bail, ensure};
use thiserror::Error;

use super::{
    results_file::{self, StoredResults},
    shard::Shard,
};
use crate::{runtime::launch::Role, store::Existing};

/// How often files are looked at.
const TICK: Duration = Duration::from_millis(100);

/// Which puzzles a process takes, and where its results go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub shard: Shard,
    /// The results file of this process.
    pub output: Option<PathBuf>,
    /// Where the parts of several processes are joined.
    pub whole: Option<PathBuf>,
}

impl Part {
    /// The part of this process: of a single one what `shard` says, of a rank its own. `existing` is for the results that
    /// a process writes, `whole` for the file that they are joined in.
    ///
    /// # Errors
    /// Several processes with a shard, or without an output; results that are there and are not to be resumed.
    pub fn new(
        role: &Role,
        shard: Option<Shard>,
        output: Option<&Path>,
        existing: Existing,
        whole: Existing,
    ) -> Result<Self> {
        let refuse_existing = |files: &[PathBuf]| match files.iter().find(|file| file.exists()) {
            Some(there) if existing == Existing::Refuse => {
                bail!("{}: is there already: --resume goes on with it, --force replaces it", there.display())
            }
            _ => Ok(()),
        };
        if let Role::Single = role {
            let shard = shard.unwrap_or(Shard::WHOLE);
            refuse_existing(output.map(Path::to_owned).as_slice())?;
            return Ok(Self { shard, output: output.map(Path::to_owned), whole: None });
        }
        let own = Shard { index: role.rank(), count: role.world() };
        ensure!(shard.is_none(), "--shard: each of the {} processes already has its part", own.count);
        let Some(output) = output else { bail!("{} processes need --output FILE, to join their results", own.count) };
        let parts = role.ranks().map(|index| Shard { index, ..own }.file(output));
        refuse_existing(&[output.to_owned()].into_iter().chain(parts).collect::<Vec<_>>())?;
        let complete = |index| results_file::is_complete(&Shard { index, ..own }.file(output));
        ensure!(
            whole == Existing::Replace || !output.exists() || (0..own.count).all(complete),
            "{}: is there already, and its parts are not complete: move it away, or --force replaces it",
            output.display()
        );
        Ok(Self { shard: own, output: Some(own.file(output)), whole: Some(output.to_owned()) })
    }
}

/// A process that gave no sign of life for the peer timeout.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PartLost {
    #[error(
        "rank {rank} of {world} did not start: its part {} is missing after {} s; start all {world} processes with \
         the same --output, or wait longer with --peer-timeout",
        .file.display(), .waited.as_secs_f64()
    )]
    Missing { rank: usize, world: usize, file: PathBuf, waited: Duration },
    #[error(
        "rank {rank} of {world} gave no sign of life for {} s, and its part {} is not done; --resume continues what is \
         there",
        .waited.as_secs_f64(), .file.display()
    )]
    Silent { rank: usize, world: usize, file: PathBuf, waited: Duration },
}

/// Gives the signs of life of this process, while it exists: the time of its part changes several times in a peer timeout,
/// however long a batch takes.
#[derive(Debug)]
pub struct SignsOfLife {
    /// Its end ends the thread.
    work: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl SignsOfLife {
    /// Begins; `file` is there already.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn of(file: PathBuf, timeout: Duration) -> Result<Self> {
        let (work, ended) = mpsc::channel();
        let give = move || {
            while ended.recv_timeout(timeout / 8) == Err(RecvTimeoutError::Timeout) {
                // A sign that cannot be given is one that is missing.
                let _ = OpenOptions::new().append(true).open(&file).and_then(|f| f.set_modified(SystemTime::now()));
            }
        };
        let thread = thread::Builder::new().name("signs of life".into()).spawn(give)?;
        Ok(Self { work: Some(work), thread: Some(thread) })
    }
}

impl Drop for SignsOfLife {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The parts that are not complete yet, and when each of them last gave a sign of life.
#[derive(Debug)]
pub struct OpenParts {
    world: usize,
    timeout: Duration,
    open: Vec<OpenPart>,
}

#[derive(Debug)]
struct OpenPart {
    rank: usize,
    file: PathBuf,
    /// Length and time of the last change; none where there is no file.
    state: Option<(u64, Option<SystemTime>)>,
    alive: Instant,
}

impl OpenParts {
    /// The parts of `whole` by `world` processes, waited for from `now` on.
    pub fn new(whole: &Path, world: usize, timeout: Duration, now: Instant) -> Self {
        let part = |rank| {
            let file = Shard { index: rank, count: world }.file(whole);
            OpenPart { rank, state: state_of(&file), file, alive: now }
        };
        Self { world, timeout, open: (0..world).map(part).collect() }
    }

    /// Looks at the files; returns those that are not complete.
    ///
    /// # Errors
    /// [`PartLost`].
    pub fn look(&mut self, now: Instant) -> Result<Vec<&Path>, PartLost> {
        self.open.retain(|part| !results_file::is_complete(&part.file));
        for part in &mut self.open {
            let state = state_of(&part.file);
            if state != part.state {
                (part.state, part.alive) = (state, now);
            } else if now.saturating_duration_since(part.alive) >= self.timeout {
                let (rank, world, file, waited) = (part.rank, self.world, part.file.clone(), self.timeout);
                return Err(match state {
                    None => PartLost::Missing { rank, world, file, waited },
                    Some(_) => PartLost::Silent { rank, world, file, waited },
                });
            }
        }
        Ok(self.open.iter().map(|part| part.file.as_path()).collect())
    }
}

fn state_of(file: &Path) -> Option<(u64, Option<SystemTime>)> {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.len(), metadata.modified().ok()))
}

/// Waits until the parts of `whole` by all `world` processes are complete, and joins them. `watch` sees the files that
/// are not complete now and then, and may end the waiting: then there are no results.
///
/// # Errors
/// [`PartLost`]; those of [`results_file::join`] and of the file system.
pub fn wait_and_join(
    whole: &Path,
    world: usize,
    timeout: Duration,
    mut watch: impl FnMut(&[&Path]) -> ControlFlow<()>,
) -> Result<Option<StoredResults>> {
    let mut parts = OpenParts::new(whole, world, timeout, Instant::now());
    loop {
        let open = parts.look(Instant::now())?;
        if open.is_empty() {
            break;
        }
        if watch(&open).is_break() {
            return Ok(None);
        }
        thread::sleep(TICK);
    }
    let files: Vec<PathBuf> = (0..world).map(|index| Shard { index, count: world }.file(whole)).collect();
    results_file::join(&files).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(3);
    const COMPLETE: &str = "{\"seconds\":0.0,\"complete\":true}\n";

    #[test]
    fn a_part_is_lost_when_it_gives_no_sign_of_life_for_the_timeout() {
        let folder = tempfile::tempdir().unwrap();
        let whole = folder.path().join("r.jsonl");
        let file = |rank| Shard { index: rank, count: 3 }.file(&whole);
        let start = Instant::now();
        let mut parts = OpenParts::new(&whole, 3, TIMEOUT, start);
        fs::write(file(0), COMPLETE).unwrap();
        fs::write(file(1), "{").unwrap();
        assert_eq!(parts.look(start).unwrap(), [file(1), file(2)]);
        let missing = PartLost::Missing { rank: 2, world: 3, file: file(2), waited: TIMEOUT };
        // Rank 1 began after the waiting did, which is a sign of life.
        fs::write(file(1), "{}").unwrap();
        assert_eq!(parts.look(start + TIMEOUT).unwrap_err(), missing);
        fs::write(file(2), COMPLETE).unwrap();
        assert_eq!(parts.look(start + TIMEOUT).unwrap(), [file(1)]);
        let silent = PartLost::Silent { rank: 1, world: 3, file: file(1), waited: TIMEOUT };
        assert_eq!(parts.look(start + 2 * TIMEOUT).unwrap_err(), silent);
        fs::write(file(1), COMPLETE).unwrap();
        assert!(parts.look(start + 3 * TIMEOUT).unwrap().is_empty());
    }

    #[test]
    fn a_process_at_work_gives_signs_of_life() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("part");
        fs::write(&file, "{").unwrap();
        let mut before = state_of(&file);
        let signs = SignsOfLife::of(file.clone(), Duration::from_millis(80)).unwrap();
        for _ in 0..3 {
            while state_of(&file) == before {
                thread::yield_now();
            }
            before = state_of(&file);
        }
        drop(signs);
        assert_eq!(fs::read_to_string(&file).unwrap(), "{");
    }
}
