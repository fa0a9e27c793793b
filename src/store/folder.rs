//! Folders that appear whole.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::{
    Existing, Unplaced, clear_leftovers, folder_of, is_at,
    leftovers::{self, OLD},
    rename::{exchange, is_unsupported},
    sync_folder, take_lock,
};

/// A folder that is being written beside its place. Dropped without [`Staging::place`], it is removed.
#[derive(Debug)]
pub struct Staging {
    folder: TempDir,
    /// Tells other processes that this one lives.
    _lock: File,
    target: PathBuf,
}

impl Staging {
    /// Makes the folder, and those above it where they are missing; removes what killed processes left, and puts back
    /// what one of them had set aside.
    ///
    /// # Errors
    /// Those of the file system, with the path.
    pub fn beside(target: &Path) -> Result<Self> {
        let parent = folder_of(target);
        fs::create_dir_all(parent).with_context(|| format!("{}: cannot be made", parent.display()))?;
        recover(target)?;
        clear_leftovers(target);
        let at = || format!("{}: cannot make a folder in it", parent.display());
        loop {
            let made = leftovers::beside(target, |builder, parent| {
                // A temporary folder is private unless told otherwise; this one is to be under the user's umask.
                #[cfg(unix)]
                builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
                builder.tempdir_in(parent)
            });
            let folder = made.with_context(at)?;
            if let Ok(lock) = File::open(folder.path())
                && take_lock(&lock)
                && is_at(&lock, folder.path())
            {
                return Ok(Self { folder, _lock: lock, target: target.to_owned() });
            }
        }
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Brings everything onto the disk and gives the folder its name. An empty folder of that name is always replaced;
    /// with [`Existing::Replace`] so is another one if `may_go` finds nothing in it that must stay. At every moment there
    /// is the one or the other.
    ///
    /// # Errors
    /// [`Unplaced::Taken`]; what `may_go` says, and then what was there is there again; those of the file system.
    pub fn place(self, existing: Existing, may_go: impl Fn(&Path) -> Result<()>) -> Result<()> {
        let Self { folder, target, .. } = &self;
        let shown = target.display();
        sync_tree(folder.path())?;
        if existing == Existing::Replace && fs::symlink_metadata(target).is_ok() {
            may_go(target)?;
            if let Ok(there) = fs::metadata(target) {
                let _ = fs::set_permissions(folder.path(), there.permissions());
            }
            match exchange(folder.path(), target) {
                // Looked at again: now nobody can reach it any more under its name.
                Ok(()) => may_go(folder.path()).or_else(|e| {
                    exchange(folder.path(), target).with_context(|| format!("{shown}: cannot be put back"))?;
                    Err(e)
                })?,
                Err(e) if is_unsupported(&e) => replace_by_steps(folder.path(), target)?,
                Err(e) => return Err(e).with_context(|| format!("{shown}: cannot be replaced")),
            }
        } else if let Err(e) = fs::rename(folder.path(), target) {
            use io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, NotADirectory};
            let taken = [AlreadyExists, DirectoryNotEmpty, NotADirectory].contains(&e.kind());
            let why = if taken { anyhow::Error::from(Unplaced::Taken) } else { anyhow::Error::from(e) };
            return Err(why.context(format!("{shown}: cannot be put in place")));
        }
        sync_folder(folder_of(target))?;
        let old = self.folder.path().to_owned();
        if let Err(e) = self.folder.close()
            && e.kind() != io::ErrorKind::NotFound
        {
            log::warn!("{}: what was replaced stays there: it cannot be removed: {e}", old.display());
        }
        Ok(())
    }
}

/// [`Staging::place`] where two folders cannot change places: what is there is set aside first. If the process dies in
/// between, [`recover`] puts it back.
fn replace_by_steps(new: &Path, target: &Path) -> Result<()> {
    let shown = target.display();
    let aside = new.with_extension(OLD.trim_start_matches('.'));
    // Locked, so that nobody puts it back meanwhile.
    let lock = File::open(target).with_context(|| format!("{shown}: cannot be opened"))?;
    take_lock(&lock);
    fs::rename(target, &aside).with_context(|| format!("{shown}: cannot be replaced"))?;
    if let Err(e) = fs::rename(new, target) {
        if fs::rename(&aside, target).is_err() {
            bail!("{shown}: cannot be replaced ({e}); what stood there is now in {}", aside.display());
        }
        return Err(e).with_context(|| format!("{shown}: cannot be put in place"));
    }
    fs::remove_dir_all(&aside).with_context(|| format!("{}: cannot be removed", aside.display()))
}

/// Puts back what a killed process had set aside, or removes it where its successor is in place.
fn recover(target: &Path) -> Result<()> {
    for (aside, _lock) in leftovers::left(target, OLD) {
        if fs::symlink_metadata(target).is_err() {
            let at = || format!("{}: cannot be put back as {}", aside.display(), target.display());
            fs::rename(&aside, target).with_context(at)?;
        } else {
            // What cannot be removed is in nobody's way.
            let _ = fs::remove_dir_all(&aside);
        }
    }
    Ok(())
}

/// Brings a folder and everything in it onto the disk.
fn sync_tree(folder: &Path) -> Result<()> {
    let at = |path: &Path| format!("{}: cannot be brought onto the disk", path.display());
    for entry in fs::read_dir(folder).with_context(|| at(folder))? {
        let path = entry.with_context(|| at(folder))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path).and_then(|file| file.sync_all()).with_context(|| at(&path))?;
        }
    }
    sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staged(target: &Path, text: &str) -> Staging {
        let staging = Staging::beside(target).unwrap();
        fs::write(staging.path().join("file"), text).unwrap();
        staging
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn text(target: &Path) -> String {
        fs::read_to_string(target.join("file")).unwrap()
    }

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let temp = tempfile::tempdir().unwrap();
        let target = temp.path().join("set");
        drop(staged(&target, "one"));
        assert!(names(temp.path()).is_empty());
        fs::create_dir(&target).unwrap();
        staged(&target, "two").place(Existing::Refuse, |_| Ok(())).unwrap();
        assert_eq!((names(temp.path()), text(&target)), (vec!["set".into()], "two".into()));
        staged(&target, "three").place(Existing::Replace, |_| Ok(())).unwrap();
        assert_eq!((names(temp.path()), text(&target)), (vec!["set".into()], "three".into()));
    }

    #[test]
    fn what_appears_meanwhile_stays() {
        let temp = tempfile::tempdir().unwrap();
        let target = temp.path().join("set");
        let staging = staged(&target, "ours");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("file"), "mine").unwrap();
        let error = staging.place(Existing::Refuse, |_| Ok(())).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(Unplaced::Taken)), "{error:#}");
        assert_eq!((names(temp.path()), text(&target)), (vec!["set".into()], "mine".into()));

        // It came between the two looks: the folders have changed places, and change back.
        let looks = std::cell::Cell::new(0);
        let may_go = |old: &Path| {
            looks.set(looks.get() + 1);
            if looks.get() == 2 {
                assert_eq!((text(old), text(&target)), ("mine".into(), "ours".into()));
                bail!("it must stay");
            }
            Ok(())
        };
        let error = staged(&target, "ours").place(Existing::Replace, may_go).unwrap_err();
        assert_eq!(error.to_string(), "it must stay");
        assert_eq!((names(temp.path()), text(&target)), (vec!["set".into()], "mine".into()));
    }

    #[test]
    fn what_was_set_aside_is_put_back_and_leftovers_go() {
        let temp = tempfile::tempdir().unwrap();
        let target = temp.path().join("set");
        let lay = |name: &str, text: &str| {
            fs::create_dir(temp.path().join(name)).unwrap();
            fs::write(temp.path().join(name).join("file"), text).unwrap();
        };
        lay(".set.abcdef.old", "old");
        lay(".set.ghijkl.part", "half");
        let living = staged(&target, "living");
        assert_eq!(text(&target), "old", "put back");
        let new = staged(&target, "new");
        assert_eq!(names(temp.path()).len(), 3, "the target and two that are being written");
        drop(living);

        replace_by_steps(new.path(), &target).unwrap();
        assert_eq!((names(temp.path()), text(&target)), (vec!["set".into()], "new".into()));
        lay(".set.abcdef.old", "old");
        drop(staged(&target, ""));
        assert_eq!((names(temp.path()), text(&target)), (vec!["set".into()], "new".into()));
    }
}
