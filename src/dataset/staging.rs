//! A dataset folder appears whole or not at all: it is written beside its place and renamed at the end.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use crate::store::{Existing, Staging};

/// A folder that a dataset may be written to; nothing has been touched yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFolder {
    target: PathBuf,
    replace: bool,
}

/// Checks that a dataset may be written to `path`: it is new or empty, or `replace` is set and it holds a dataset and
/// nothing else.
///
/// # Errors
/// Names what stands in the way and the flag that allows it.
pub fn check_output_folder(path: &Path, replace: bool) -> Result<OutputFolder> {
    let shown = path.display();
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            ensure!(!path.is_symlink(), "{shown}: a link to something that does not exist");
            ensure!(path.file_name().is_some(), "{shown}: not a name for a new folder");
            return Ok(OutputFolder { target: path.to_owned(), replace });
        }
        Err(e) => return Err(e).with_context(|| format!("{shown}: cannot be used as --output-dir")),
    };
    ensure!(metadata.is_dir(), "{shown}: a file of this name exists; choose another --output-dir");
    // A link is followed here, so that renaming replaces the folder it points to and not the link.
    let target = fs::canonicalize(path).with_context(|| format!("{shown}"))?;
    ensure!(target.file_name().is_some(), "{shown}: a dataset cannot replace this folder");

    if !entries(&target)?.is_empty() {
        check_replaceable(path, &target)?;
        ensure!(replace, "{shown}: a dataset exists here; replace it with --force, or choose another --output-dir");
    }
    Ok(OutputFolder { target, replace })
}

/// Whether `folder`, which is or was that at `path`, holds a dataset and nothing else.
fn check_replaceable(path: &Path, folder: &Path) -> Result<()> {
    let shown = path.display();
    ensure!(folder.is_dir(), "{shown}: a file of this name exists; choose another --output-dir");
    if let Some(foreign) = foreign_entry(folder, &entries(folder)?)? {
        bail!(
            "{shown}: contains {}, which is not part of a dataset, so it will not be replaced; choose another --output-dir",
            foreign.display()
        );
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = || fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect::<io::Result<Vec<_>>>();
    let mut found = list().with_context(|| format!("{}: cannot list", folder.display()))?;
    found.sort();
    Ok(found)
}

/// The first thing in `folder` that no dataset has.
fn foreign_entry(folder: &Path, top: &[PathBuf]) -> Result<Option<PathBuf>> {
    let relative = |path: &Path| path.strip_prefix(folder).unwrap_or(path).to_owned();
    for path in top {
        let is_split = ["train", "test"].iter().any(|name| path.file_name() == Some(OsStr::new(name)));
        if is_split && path.is_dir() && !path.is_symlink() {
            if let Some(file) = entries(path)?.iter().find(|file| !is_split_file(file)) {
                return Ok(Some(relative(file)));
            }
        } else if path.file_name() != Some(OsStr::new("identifiers.json")) {
            return Ok(Some(relative(path)));
        }
    }
    Ok(None)
}

fn is_split_file(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    !path.is_dir() && (name == "dataset.json" || name.ends_with(".npy") || name.ends_with("__rows.csv"))
}

impl OutputFolder {
    /// Where the dataset will stand.
    pub fn path(&self) -> &Path {
        &self.target
    }

    /// Makes the temporary folder beside it, and the folders above where they are missing.
    pub(super) fn stage(&self) -> Result<Staging> {
        Staging::beside(&self.target)
    }

    /// Puts what was staged in place.
    pub(super) fn commit(&self, staging: Staging) -> Result<()> {
        let existing = if self.replace { Existing::Replace } else { Existing::Refuse };
        staging.place(existing, |old| check_replaceable(&self.target, old))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let Ok(found) = entries(folder) else { return Vec::new() };
        found.iter().filter_map(|p| p.file_name()).map(|n| n.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn only_datasets_and_empty_folders_are_replaced() -> Result<()> {
        let temp = tempfile::tempdir()?;
        let target = temp.path().join("set");
        let refusal = |replace| check_output_folder(&target, replace).expect_err("refused").to_string();
        assert!(check_output_folder(&target, false).is_ok());

        fs::create_dir_all(target.join("train"))?;
        assert!(refusal(false).contains("--force"));
        assert!(check_output_folder(&target, true).is_ok());

        fs::write(target.join("train/all__inputs.npy"), "")?;
        fs::write(target.join("identifiers.json"), "")?;
        assert!(check_output_folder(&target, true).is_ok());

        fs::write(target.join("train/notes.txt"), "")?;
        assert!(refusal(true).contains("train/notes.txt"), "{}", refusal(true));
        fs::remove_file(target.join("train/notes.txt"))?;

        fs::create_dir(target.join("thesis"))?;
        assert!(refusal(true).contains("thesis"));

        fs::remove_dir_all(&target)?;
        fs::write(&target, "")?;
        assert!(refusal(true).contains("a file of this name"));
        assert!(check_output_folder(Path::new("/"), true).is_err());
        Ok(())
    }

    #[test]
    fn a_folder_appears_whole_or_not_at_all() -> Result<()> {
        let temp = tempfile::tempdir()?;
        let target = temp.path().join("set");
        let output = check_output_folder(&target, false)?;
        let staging = output.stage()?;
        fs::write(staging.path().join("identifiers.json"), "one")?;
        drop(staging);
        assert!(names(temp.path()).is_empty());

        for text in ["two", "three"] {
            let output = check_output_folder(&target, true)?;
            let staging = output.stage()?;
            fs::write(staging.path().join("identifiers.json"), text)?;
            output.commit(staging)?;
            assert_eq!(names(temp.path()), ["set"]);
            assert_eq!(fs::read_to_string(target.join("identifiers.json"))?, text);
        }
        Ok(())
    }

    #[test]
    fn a_foreign_file_that_appears_during_the_work_stays() -> Result<()> {
        let temp = tempfile::tempdir()?;
        let target = temp.path().join("set");
        for (replace, name) in [(false, "identifiers.json"), (true, "notes.txt")] {
            let output = check_output_folder(&target, replace)?;
            let staging = output.stage()?;
            fs::create_dir_all(&target)?;
            fs::write(target.join(name), "mine")?;
            assert!(output.commit(staging).is_err());
            assert_eq!(fs::read_to_string(target.join(name))?, "mine");
            assert_eq!(names(temp.path()), ["set"]);
        }
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn a_link_goes_on_pointing_to_the_new_dataset() -> Result<()> {
        let temp = tempfile::tempdir()?;
        let (real, link) = (temp.path().join("big-disk"), temp.path().join("set"));
        fs::create_dir(&real)?;
        std::os::unix::fs::symlink(&real, &link)?;
        let output = check_output_folder(&link, false)?;
        let staging = output.stage()?;
        fs::write(staging.path().join("identifiers.json"), "new")?;
        output.commit(staging)?;
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(real.join("identifiers.json"))?, "new");
        Ok(())
    }
}
