//! A repository in the cache that Python's huggingface_hub uses.
//!
//! ```text
//! models--ORG--NAME/refs/REVISION            the commit that the revision was
//! models--ORG--NAME/blobs/HASH               the bytes of a file, named by their hash
//! models--ORG--NAME/snapshots/COMMIT/FILE    a relative link to its blob
//! .locks/models--ORG--NAME/HASH.lock         held while the blob is fetched
//! ```
//!
//! Under the name of a blob lies nothing but what has its hash: bytes that arrive lie in `HASH.incomplete` until they are
//! whole and compared. What an earlier version left unchecked is found when it is used.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use log::warn;

use super::{
    RepoId,
    hash::{ContentHash, is_hex},
};
use crate::{
    input,
    store::{Existing, create_folder, sync_folder, take_lock, write_bytes},
};

/// Whether a repository holds a model or a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RepoKind {
    Model,
    Dataset,
}

pub(super) struct RepoCache {
    folder: PathBuf,
    locks: PathBuf,
    revision: String,
}

/// What the cache has of a file.
pub(super) enum Cached {
    Nothing,
    Whole(PathBuf),
    /// The blob whose bytes do not have the hash that it is named by.
    Damaged(PathBuf),
}

impl RepoCache {
    pub fn new(cache: &Path, kind: RepoKind, id: &RepoId) -> Self {
        let kind = match kind {
            RepoKind::Model => "models",
            RepoKind::Dataset => "datasets",
        };
        let name = format!("{kind}--{}", id.name.replace('/', "--"));
        Self { locks: cache.join(".locks").join(&name), folder: cache.join(name), revision: id.revision.clone() }
    }

    /// The snapshot of the revision, as far as the cache knows its commit.
    pub fn snapshot(&self) -> Option<PathBuf> {
        let commit = if is_hex(&self.revision, 40) {
            self.revision.clone()
        } else {
            input::read_text(&self.folder.join("refs").join(&self.revision), 1 << 16).ok()?.trim().to_owned()
        };
        is_hex(&commit, 40).then(|| self.folder.join("snapshots").join(commit))
    }

    /// Looks a file up and compares its bytes with the hash that its blob is named by.
    ///
    /// # Errors
    /// The blob cannot be read.
    pub fn find(&self, file: &str) -> Result<Cached> {
        let Some(path) = self.snapshot().map(|snapshot| snapshot.join(file)) else { return Ok(Cached::Nothing) };
        if !path.is_file() {
            return Ok(Cached::Nothing);
        }
        // Python puts the file itself here where the file system has no links; then no name tells its hash.
        let Ok(blob) = fs::read_link(&path) else { return Ok(Cached::Whole(path)) };
        let name = blob.file_name().and_then(|name| name.to_str());
        let Some(hash) = name.and_then(ContentHash::from_name) else { return Ok(Cached::Nothing) };
        if is_whole(&path, &hash)? { Ok(Cached::Whole(path)) } else { Ok(Cached::Damaged(self.blob(&hash))) }
    }

    pub fn blob(&self, hash: &ContentHash) -> PathBuf {
        self.folder.join("blobs").join(hash.to_string())
    }

    /// Where the bytes lie until they are whole, under Python's name.
    pub fn incomplete(&self, hash: &ContentHash) -> PathBuf {
        self.folder.join("blobs").join(format!("{hash}.incomplete"))
    }

    /// Whether the blob is there and has its hash.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn has(&self, hash: &ContentHash) -> Result<bool> {
        let blob = self.blob(hash);
        Ok(blob.is_file() && is_whole(&blob, hash)?)
    }

    /// Keeps other processes, Python's too, from fetching the same blob; waits for one that does. Closing gives it back.
    ///
    /// # Errors
    /// The lock file cannot be made.
    pub fn lock(&self, hash: &ContentHash, file: &str) -> Result<File> {
        fs::create_dir_all(&self.locks).with_context(|| format!("{}: cannot make the folder", self.locks.display()))?;
        create_folder(&self.folder.join("blobs"))?;
        let path = self.locks.join(format!("{hash}.lock"));
        let at = || format!("{}: cannot lock", path.display());
        let lock = File::options().create(true).truncate(false).write(true).open(&path).with_context(at)?;
        if !take_lock(&lock) {
            warn!("another process is fetching {file}: waiting for it");
            lock.lock().with_context(at)?;
        }
        Ok(lock)
    }

    /// Gives what was fetched and compared its name.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn place(&self, hash: &ContentHash) -> Result<()> {
        let (from, to) = (self.incomplete(hash), self.blob(hash));
        fs::rename(&from, &to).with_context(|| format!("{}: cannot be renamed to {}", from.display(), to.display()))?;
        sync_folder(&self.folder.join("blobs"))
    }

    /// Puts a blob into a commit's snapshot, and notes the commit as the revision's; the path in the snapshot.
    ///
    /// # Errors
    /// Those of the file system; something else lies there.
    pub fn link(&self, commit: &str, file: &str, hash: &ContentHash) -> Result<PathBuf> {
        ensure!(is_hex(commit, 40), "{commit:?} is not a commit");
        let path = self.folder.join("snapshots").join(commit).join(file);
        let at = || format!("{}: cannot be linked", path.display());
        let target = format!("{}../../blobs/{hash}", "../".repeat(file.matches('/').count()));
        create_folder(path.parent().unwrap_or(&self.folder))?;
        // Another process may be reading through a link that is right.
        let is_right = || fs::read_link(&path).is_ok_and(|found| found == Path::new(&target));
        if !is_right() {
            if fs::read_link(&path).is_ok() {
                fs::remove_file(&path).with_context(at)?;
            }
            match symlink(&target, &path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && is_right() => {}
                made => made.with_context(at)?,
            }
        }
        if self.revision != commit {
            let reference = self.folder.join("refs").join(&self.revision);
            create_folder(reference.parent().unwrap_or(&self.folder))?;
            write_bytes(&reference, Existing::Replace, commit.as_bytes())?;
        }
        Ok(path)
    }
}

fn is_whole(path: &Path, hash: &ContentHash) -> Result<bool> {
    let whole = hash.is_of(&mut input::open(path)?);
    whole.with_context(|| format!("{}: cannot be read", path.display()))
}
