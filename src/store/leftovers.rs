//! Temporary names beside an output, and what killed processes left under them.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    path::{Path, PathBuf},
};

use tempfile::Builder;

use super::folder_of;

/// A name that is being written.
pub(super) const PART: &str = ".part";
/// What is being replaced, set aside for a moment, where two folders cannot change places at once.
pub(super) const OLD: &str = ".old";
/// Letters and digits between the output's name and the ending.
const RANDOM: usize = 6;

/// `.NAME.`, which all temporary names of an output begin with.
fn prefix(place: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(place.file_name().unwrap_or_default());
    prefix.push(".");
    prefix
}

/// Makes something under a temporary name beside `place`, through what `make` does with the settings for that.
pub(super) fn beside<T>(
    place: &Path,
    make: impl FnOnce(&mut Builder<'_, '_>, &Path) -> std::io::Result<T>,
) -> std::io::Result<T> {
    let (prefix, folder) = (prefix(place), folder_of(place));
    let mut builder = Builder::new();
    builder.prefix(&prefix).suffix(PART).rand_bytes(RANDOM);
    make(&mut builder, folder)
}

/// What killed processes left beside `place` under names with that ending, each with its lock.
pub(super) fn left(place: &Path, ending: &str) -> Vec<(PathBuf, File)> {
    let (prefix, folder) = (prefix(place), folder_of(place));
    let is_ours = |name: &OsStr| {
        let middle = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        let middle = middle.and_then(|rest| rest.strip_suffix(ending.as_bytes()));
        middle.is_some_and(|middle| middle.len() == RANDOM && middle.iter().all(u8::is_ascii_alphanumeric))
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| {
        // A link or a pipe is none of ours, and a pipe would not let itself be opened.
        is_ours(&entry.file_name()) && entry.file_type().is_ok_and(|kind| kind.is_file() || kind.is_dir())
    });
    let unlocked = ours.filter_map(|entry| {
        let file = File::open(entry.path()).ok()?;
        file.try_lock().is_ok().then(|| (entry.path(), file))
    });
    unlocked.collect()
}

/// Removes what killed processes left of their attempts to write `place`. What a living one is writing stays.
pub fn clear_leftovers(place: &Path) {
    for (path, _locked) in left(place, PART) {
        // What cannot be removed is in nobody's way.
        let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    }
}
