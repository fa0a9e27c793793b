//! A run's folder: checkpoints that are there completely or not at all, which of them stay, which one a run goes on from.
//!
//! A checkpoint is written as `.step_N.part`, file by file with its manifest last, renamed to `step_N`, and then named in
//! `latest`. Old ones lose their training state (all but the newest two) or go as a whole (`keep_last`); the best stays.
//! A run that goes on first brings `best.json`, `latest` and old checkpoints to where its checkpoint had brought them, as
//! the process that wrote it may have been killed before it did.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use log::warn;

use super::{STATE_FILE, STATE_TENSORS_FILE, TrainingState};
use crate::{
    checkpoint::{
        CONFIG_FILE, CheckpointMeta, EMA_FILE, MANIFEST_FILE, Manifest, RawTensor, WEIGHTS_FILE, safetensors_file,
    },
    config::TrainConfig,
    input,
    store::{Existing, clear_leftovers, rename_new, sync_folder, write_bytes},
};

/// Names the newest checkpoint.
pub const LATEST_FILE: &str = "latest";
/// The best evaluation whose weights are there.
pub const BEST_FILE: &str = "best.json";
/// Checkpoints that keep what a resume needs.
const RESUMABLE: usize = 2;

/// Everything of one checkpoint, on the host.
#[derive(Debug)]
pub struct Snapshot {
    /// The run's configuration.
    pub config: TrainConfig,
    /// What `meta.json` says.
    pub meta: CheckpointMeta,
    /// What `training.json` says.
    pub state: TrainingState,
    /// By upstream's names.
    pub weights: Vec<(String, RawTensor)>,
    /// Named as the weights.
    pub ema: Option<Vec<(String, RawTensor)>>,
    /// Of [`super::Trainer::state_tensors`].
    pub training: Vec<(String, RawTensor)>,
}

/// A run's folder that this process writes.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
    keep_last: Option<usize>,
}

impl RunFolder {
    /// Opens the folder, and clears away what a killed process left half done.
    ///
    /// # Errors
    /// Those of the file system, with the path.
    pub fn open(path: &Path, keep_last: Option<i64>) -> Result<Self> {
        for entry in fs::read_dir(path).with_context(|| format!("{}: cannot list the folder", path.display()))? {
            let leftover = entry.with_context(|| path.display().to_string())?.path();
            let name = leftover.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let Some((step, ending)) = name.strip_prefix(".step_").and_then(|name| name.split_once('.')) else {
                continue;
            };
            // Half of either may be gone: earlier versions removed what is called so.
            if step.parse::<i64>().is_ok() && ["part", "old"].contains(&ending) {
                remove(&leftover)?;
            }
        }
        for name in [CONFIG_FILE, BEST_FILE, LATEST_FILE] {
            clear_leftovers(&path.join(name));
        }
        Ok(Self { path: path.to_path_buf(), keep_last: keep_last.and_then(|k| usize::try_from(k).ok()) })
    }

    /// Renames checkpoints of later steps, which are damaged or not to be gone on from, so that the run's new ones are its
    /// newest. Returns a sentence for each.
    ///
    /// # Errors
    /// Those of the file system, with the path.
    pub fn set_aside_after(&self, step: i64) -> Result<Vec<String>> {
        let later = steps(&self.path)?.into_iter().filter(|(later, _)| *later > step);
        later.map(|(_, folder)| set_aside(&folder)).collect()
    }

    /// Brings everything beside a checkpoint to where [`RunFolder::write`] had brought it.
    ///
    /// # Errors
    /// Those of the file system, with the path.
    pub fn settle(&self, state: &TrainingState) -> Result<()> {
        let best = self.path.join(BEST_FILE);
        match &state.best {
            Some(found) => {
                let text = format!("{}\n", serde_json::to_string(found)?);
                write_bytes(&best, Existing::Replace, text.as_bytes())?;
            }
            None if best.exists() => remove(&best)?,
            None => {}
        }
        let latest = format!("step_{}\n", state.step);
        write_bytes(&self.path.join(LATEST_FILE), Existing::Replace, latest.as_bytes())?;
        // The checkpoint stands: what cannot be removed is no reason to stop.
        if let Err(e) = self.prune(state.best.map(|b| b.step)) {
            warn!("old checkpoints stay: {e:#}");
        }
        Ok(())
    }

    /// Writes a checkpoint and removes what need not stay. Returns its folder.
    ///
    /// # Errors
    /// Those of the file system, with the path; nothing of the checkpoint is left then.
    pub fn write(&self, snapshot: &Snapshot) -> Result<PathBuf> {
        let step = snapshot.state.step;
        let (folder, part) = (self.path.join(format!("step_{step}")), self.path.join(format!(".step_{step}.part")));
        if part.exists() {
            remove(&part)?;
        }
        if let Err(e) = fill(&part, snapshot) {
            // What is half there would only take the room that was missing.
            let _ = fs::remove_dir_all(&part);
            return Err(e);
        }
        if folder.symlink_metadata().is_ok() {
            // It came while the run was at work, and is none of the run's.
            warn!("{}", set_aside(&folder)?);
        }
        rename(&part, &folder)?;
        sync_folder(&self.path)?;
        self.settle(&snapshot.state)?;
        Ok(folder)
    }

    fn prune(&self, best: Option<i64>) -> Result<()> {
        // One that cannot go does not keep the others.
        let mut failed = Ok(());
        for (age, (step, folder)) in steps(&self.path)?.iter().rev().enumerate() {
            let done = if self.keep_last.is_some_and(|keep| age >= keep) && Some(*step) != best {
                // A part of a checkpoint is none.
                let part = self.path.join(format!(".step_{step}.part"));
                let cleared = if part.exists() { remove(&part) } else { Ok(()) };
                cleared.and_then(|()| rename(folder, &part)).and_then(|()| remove(&part))
            } else if age >= RESUMABLE {
                forget_training(folder)
            } else {
                Ok(())
            };
            failed = failed.and(done);
        }
        failed
    }
}

/// Removes the training state of a checkpoint, or what a killed process left of it. The manifest loses it first: what it
/// names is there at every moment.
fn forget_training(folder: &Path) -> Result<()> {
    let state = [STATE_TENSORS_FILE, STATE_FILE];
    if !state.iter().any(|name| folder.join(name).exists()) {
        return Ok(());
    }
    clear_leftovers(&folder.join(MANIFEST_FILE));
    let Some(mut manifest) = Manifest::read(folder)? else { return Ok(()) };
    let named = manifest.files.len();
    manifest.files.retain(|name, _| !state.contains(&name.as_str()));
    if manifest.files.len() < named {
        manifest.write(folder)?;
    }
    for path in state.map(|name| folder.join(name)) {
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("{}: cannot remove", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Gives a checkpoint's folder a name that no checkpoint has. Returns a sentence about it.
fn set_aside(folder: &Path) -> Result<String> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    for number in 1_u64.. {
        let ending = if number == 1 { String::new() } else { format!("-{number}") };
        let aside = folder.with_file_name(format!("{name}.aside{ending}"));
        // Even an empty folder of that name stays.
        let moved = if aside.exists() { Err(io::ErrorKind::AlreadyExists.into()) } else { rename_new(folder, &aside) };
        match moved {
            Ok(()) => return Ok(format!("{} is set aside as {}", folder.display(), aside.display())),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e).with_context(|| format!("{}: cannot be set aside", folder.display())),
        }
    }
    bail!("{}: cannot be set aside", folder.display())
}

fn fill(part: &Path, snapshot: &Snapshot) -> Result<()> {
    safetensors_file::save_folder(part, Existing::Refuse, &snapshot.config, &snapshot.meta, &snapshot.weights)?;
    if let Some(ema) = &snapshot.ema {
        safetensors_file::write(&part.join(EMA_FILE), Existing::Refuse, ema)?;
    }
    safetensors_file::write(&part.join(STATE_TENSORS_FILE), Existing::Refuse, &snapshot.training)?;
    let state = format!("{}\n", serde_json::to_string_pretty(&snapshot.state)?);
    write_bytes(&part.join(STATE_FILE), Existing::Refuse, state.as_bytes())?;
    Manifest::of(part)?.write(part)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("{}: cannot rename to {}", from.display(), to.display()))
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.with_context(|| format!("{}: cannot remove", path.display()))
}

/// The `step_N` folders of a run, by step.
fn steps(run: &Path) -> Result<Vec<(i64, PathBuf)>> {
    let mut steps = Vec::new();
    for entry in fs::read_dir(run).with_context(|| format!("{}: cannot list the folder", run.display()))? {
        let path = entry.with_context(|| run.display().to_string())?.path();
        let step = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix("step_")?.parse().ok());
        if let Some(step) = step.filter(|_| path.is_dir()) {
            steps.push((step, path));
        }
    }
    steps.sort();
    Ok(steps)
}

/// A checkpoint that a run can go on from.
#[derive(Clone, Debug)]
pub struct ResumePoint {
    /// The run's folder.
    pub run_dir: PathBuf,
    /// The `step_N` folder.
    pub folder: PathBuf,
    /// What `training.json` says.
    pub state: TrainingState,
    /// As the run was started with.
    pub config: TrainConfig,
    /// Newer checkpoints that were passed over, and why; to be printed.
    pub warnings: Vec<String>,
}

impl ResumePoint {
    /// The newest checkpoint of a run that is whole and has its training state; none where the run has no checkpoint. A
    /// folder that holds a checkpoint means that one, whatever it is called: a run may have the name `step_9`.
    ///
    /// # Errors
    /// No such folder; checkpoints, but none to go on from, with the reason for each.
    pub fn find(path: &Path) -> Result<Option<Self>> {
        ensure!(path.is_dir(), "{}: no such run folder", path.display());
        if [STATE_FILE, MANIFEST_FILE, WEIGHTS_FILE].iter().any(|file| path.join(file).exists()) {
            let run = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            return Self::at(run, path).map(Some);
        }
        let mut warnings = Vec::new();
        for (_, folder) in steps(path)?.into_iter().rev() {
            match Self::at(path, &folder) {
                Ok(point) => return Ok(Some(Self { warnings, ..point })),
                Err(e) => warnings.push(format!("passed over {}: {e:#}", folder.display())),
            }
        }
        ensure!(
            warnings.is_empty(),
            "{}: no checkpoint to resume from ({}); init_from=CHECKPOINT starts a new run from its weights",
            path.display(),
            warnings.join("; ")
        );
        Ok(None)
    }

    fn at(run_dir: &Path, folder: &Path) -> Result<Self> {
        let manifest = Manifest::read(folder)?.context("it has no manifest.json: the copy is probably incomplete")?;
        ensure!(
            manifest.files.contains_key(STATE_FILE),
            "it holds only weights; its training state was removed when newer ones were saved"
        );
        manifest.verify(folder)?;
        let path = folder.join(CONFIG_FILE);
        let text = input::read_text(&path, 1 << 20)?;
        let config = TrainConfig::from_checkpoint_yaml(&text).with_context(|| path.display().to_string())?.config;
        let state = TrainingState::read(folder)?;
        let named = folder.file_name().and_then(|name| name.to_str()?.strip_prefix("step_")?.parse::<i64>().ok());
        ensure!(named.is_none_or(|step| step == state.step), "its training state is that of step {}", state.step);
        Ok(Self { run_dir: run_dir.to_path_buf(), folder: folder.to_path_buf(), state, config, warnings: Vec::new() })
    }

    /// The newest run beside `run_dir` (its project's folder) that has the same configuration, names and settings of
    /// saving apart; what stands in the way of others is not told.
    pub fn beside(run_dir: &Path, config: &TrainConfig) -> Option<Self> {
        let mut found: Vec<(std::time::SystemTime, Self)> = Vec::new();
        for entry in fs::read_dir(run_dir.parent()?).ok()?.flatten() {
            let Ok(Some(point)) = Self::find(&entry.path()) else { continue };
            let written = fs::metadata(&point.folder).and_then(|m| m.modified()).ok()?;
            if changes(&point.config, config).is_empty() {
                found.push((written, point));
            }
        }
        found.into_iter().max_by_key(|(written, _)| *written).map(|(_, point)| point)
    }
}

/// Keys that may change when a run goes on: they decide what is written, not what is computed.
const FREE: [&str; 9] = [
    "project_name",
    "run_name",
    "checkpoint_path",
    "checkpoint_every_eval",
    "checkpoint_every_steps",
    "keep_last",
    "max_minutes",
    "init_from",
    "eval_save_outputs",
];

/// What differs between the configuration of a run and the one that it shall go on with, one line a key.
pub fn changes(run: &TrainConfig, now: &TrainConfig) -> Vec<String> {
    let values = |config: &TrainConfig| {
        let mut config = config.clone();
        // Left out and spelled out is the same.
        config.arch.forward_dtype = Some(config.arch.dtype());
        serde_json::to_value(config).unwrap_or_default()
    };
    let (run, now) = (values(run), values(now));
    let of = |root: &serde_json::Value, key: &str| {
        key.split('.').try_fold(root, |v, part| v.get(part)).cloned().unwrap_or_default()
    };
    let keys = crate::config::keys::KEYS.iter().map(|k| k.name).filter(|name| !FREE.contains(name));
    keys.map(|key| (key, of(&run, key), of(&now, key)))
        .filter(|(_, was, is)| was != is)
        .map(|(key, was, is)| format!("{key} was {was}, is {is}"))
        .collect()
}
