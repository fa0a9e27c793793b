//! The folder that a study writes into.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ndarray_npy::WriteNpyExt;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    journal::{Identity, Journal, Records},
    json::to_json,
    store::{Existing, Unplaced, create_folder, write_bytes, write_npy},
    viz::{Picture, PictureFormat, render},
};

/// What a study writes, by name.
#[derive(Clone, Copy, Debug)]
pub struct Files {
    /// The folder, unless another is named.
    pub folder: &'static str,
    /// The journal that is begun first; none of a study that is done at once.
    pub journal: Option<&'static str>,
    /// Without ending.
    pub pictures: &'static [&'static str],
    pub others: &'static [&'static str],
}

/// An open output folder.
#[derive(Debug)]
pub struct StudyFolder {
    folder: PathBuf,
    existing: Existing,
    /// What to do with files that are there: those of a run that is gone on with are written again.
    of_files: Existing,
    endings: Vec<&'static str>,
}

impl StudyFolder {
    /// Makes the folder if it is missing. Pictures get each of the `endings`, `png` or `svg`.
    ///
    /// # Errors
    /// A file in its place; a file that the study would write and that is of no run that it goes on with; those of the
    /// file system.
    pub fn open(folder: PathBuf, existing: Existing, endings: Vec<&'static str>, files: Files) -> Result<Self> {
        ensure!(!folder.as_os_str().is_empty(), "--output-dir: an empty name: give a folder");
        ensure!(
            !folder.exists() || folder.is_dir(),
            "{}: this is a file: give a folder as --output-dir",
            folder.display()
        );
        let begun = files.journal.is_some_and(|name| folder.join(name).metadata().is_ok_and(|there| there.len() > 0));
        let of_files = if existing == Existing::Resume && begun { Existing::Replace } else { existing };
        // Without a journal, what a killed run left can be told from other files only when it is written again.
        let known_later = existing == Existing::Resume && files.journal.is_none();
        if of_files != Existing::Replace && !begun && !known_later {
            let pictures = files.pictures.iter().flat_map(|name| endings.iter().map(move |e| format!("{name}.{e}")));
            let mut all =
                pictures.chain(files.others.iter().map(|&name| name.to_owned())).map(|name| folder.join(name));
            if let Some(there) = all.find(|path| path.symlink_metadata().is_ok()) {
                return Err(Unplaced::Taken).with_context(|| there.display().to_string());
            }
        }
        create_folder(&folder)?;
        Ok(Self { folder, existing, of_files, endings })
    }

    /// The journal of that name, and what it holds.
    ///
    /// # Errors
    /// Those of [`Journal::open`].
    pub fn journal<I: Identity, R: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        identity: &I,
    ) -> Result<(Journal<I, R>, Records<R>)> {
        Journal::open(&self.folder.join(name), identity, self.existing)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What to do with a file that is there already.
    pub fn of_files(&self) -> Existing {
        self.of_files
    }

    /// Saves a picture under a name without ending; returns the files.
    pub fn picture<P: Picture>(&self, name: &str, picture: &P) -> Result<Vec<String>> {
        let files = self.endings.iter().map(|ending| self.folder.join(format!("{name}.{ending}")));
        files.map(|path| save_picture(picture, &path, self.of_files).map(|()| path.display().to_string())).collect()
    }

    /// Writes an array under a name without ending, as numpy's `.npy`; returns the file.
    pub fn array(&self, name: &str, array: &impl WriteNpyExt) -> Result<String> {
        let path = self.folder.join(format!("{name}.npy"));
        write_npy(&path, self.of_files, array)?;
        Ok(path.display().to_string())
    }

    /// Writes a JSON document; returns the file.
    pub fn json<T: Serialize>(&self, name: &str, value: &T) -> Result<String> {
        let path = self.folder.join(name);
        write_bytes(&path, self.of_files, &to_json(value)?)?;
        Ok(path.display().to_string())
    }
}

/// Draws a picture and puts it at `path`, whole or not at all.
///
/// # Errors
/// A name that ends in neither .png nor .svg; those of [`write_bytes`].
pub fn save_picture(picture: &impl Picture, path: &Path, existing: Existing) -> Result<()> {
    write_bytes(path, existing, &render(picture, PictureFormat::of(path)?)?)
}
