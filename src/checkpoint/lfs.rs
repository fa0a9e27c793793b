//! Git LFS pointers: the few lines that stand in for a large file which was not fetched.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

use crate::{escape::shell_word, input};

const FIRST_LINE: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Whether a file's first bytes are those of a Git LFS pointer.
pub fn is_pointer(first_bytes: &[u8]) -> bool {
    first_bytes.starts_with(FIRST_LINE)
}

/// Refuses a Git LFS pointer and names the command that mends it.
///
/// # Errors
/// The file is a pointer. One that cannot be read is left to whoever opens it next.
pub fn refuse_pointer(path: &Path) -> Result<()> {
    let mut first = Vec::new();
    let read = input::open(path).map(|file| file.take(FIRST_LINE.len() as u64).read_to_end(&mut first).is_ok());
    if !read.unwrap_or(false) || !is_pointer(&first) {
        return Ok(());
    }
    let place = Place::of(path);
    let within = place.root.map_or(String::new(), |root| format!(" in {}", root.display()));
    bail!(
        "{}: this is a Git LFS pointer, not the file itself; fetch it{within} with: git lfs pull --include {}",
        path.display(),
        shell_word(place.include)
    )
}

/// Where a file lies in its Git work tree.
struct Place {
    root: Option<PathBuf>,
    /// Relative to the root, with `/`; the path as given outside a work tree.
    include: String,
}

impl Place {
    fn of(path: &Path) -> Self {
        let full = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let root = full.ancestors().skip(1).find(|folder| folder.join(".git").exists());
        match root.and_then(|root| Some((root, full.strip_prefix(root).ok()?))) {
            Some((root, inner)) => Self { root: Some(root.to_path_buf()), include: inner.display().to_string() },
            None => Self { root: None, include: path.display().to_string() },
        }
    }
}
