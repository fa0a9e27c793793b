//! The folder that a study writes into.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use ndarray_npy::WriteNpyExt;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    journal::{Existing, Identity, Journal, Records},
    json::to_json,
    store::{create_folder, write_bytes, write_npy},
    viz::{Picture, PictureFormat, render},
};

/// An open output folder.
#[derive(Debug)]
pub struct Output {
    folder: PathBuf,
    existing: Existing,
    endings: Vec<&'static str>,
}

impl Output {
    /// Makes the folder if it is missing. Pictures get each of the `endings`, `png` or `svg`.
    ///
    /// # Errors
    /// A file in its place; those of the file system.
    pub fn open(folder: PathBuf, existing: Existing, endings: Vec<&'static str>) -> Result<Self> {
        ensure!(!folder.as_os_str().is_empty(), "--output-dir: an empty name: give a folder");
        ensure!(
            !folder.exists() || folder.is_dir(),
            "{}: this is a file: give a folder as --output-dir",
            folder.display()
        );
        create_folder(&folder)?;
        Ok(Self { folder, existing, endings })
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

    /// Saves a picture under a name without ending; returns the files.
    pub fn picture<P: Picture>(&self, name: &str, picture: &P) -> Result<Vec<String>> {
        let files = self.endings.iter().map(|ending| self.folder.join(format!("{name}.{ending}")));
        files.map(|path| save_picture(picture, &path).map(|()| path.display().to_string())).collect()
    }

    /// Writes an array under a name without ending, as numpy's `.npy`; returns the file.
    pub fn array(&self, name: &str, array: &impl WriteNpyExt) -> Result<String> {
        let path = self.folder.join(format!("{name}.npy"));
        write_npy(&path, array)?;
        Ok(path.display().to_string())
    }

    /// Writes a JSON document; returns the file.
    pub fn json<T: Serialize>(&self, name: &str, value: &T) -> Result<String> {
        let path = self.folder.join(name);
        write_bytes(&path, &to_json(value)?)?;
        Ok(path.display().to_string())
    }
}

/// Draws a picture and puts it at `path`, whole or not at all.
///
/// # Errors
/// A name that ends in neither .png nor .svg; a folder that is not there or cannot be written.
pub fn save_picture(picture: &impl Picture, path: &Path) -> Result<()> {
    write_bytes(path, &render(picture, PictureFormat::of(path)?)?)
}
