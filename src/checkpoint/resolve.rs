//! What a checkpoint argument may be, and which files it stands for.
//!
//! - a run folder: its checkpoint with the largest step, `step_N/` folders and upstream's `step_N` files alike;
//!   without any, upstream's single file `checkpoint` or `example_checkpoint`
//! - a `step_N/` folder, or any folder that holds `model.safetensors`
//! - a `.safetensors` file, or a file of `torch.save`
//! - `hf://org/name[@revision][/file]`: one of these in a repository of the Hugging Face hub
//!
//! `all_config.yaml` lies beside the weights, or, for ours, in the run folder above.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, Result, bail};

use super::{
    CONFIG_FILE, EMA_FILE, MANIFEST_FILE, META_FILE, Manifest, WEIGHTS_FILE, lfs, on_hub, torch_file::ZIP_MAGIC,
};
use crate::input;

/// How the weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A safetensors file.
    Safetensors,
    /// A file of `torch.save`, as upstream writes it.
    Torch,
}

impl Format {
    /// The name of the form.
    pub fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Torch => "torch",
        }
    }
}

/// The files of one checkpoint. The weights exist; nothing is read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The weights file.
    pub weights: PathBuf,
    /// The configuration, `all_config.yaml`.
    pub config: PathBuf,
    /// The moving average of the weights, where there is one.
    pub ema: Option<PathBuf>,
    /// `meta.json`, where there is one.
    pub meta: Option<PathBuf>,
    /// How the weights are stored.
    pub format: Format,
    /// The step in the name of the folder or file.
    pub step: Option<u64>,
    /// Says in a sentence what was chosen, where there was a choice or a default.
    pub taken: Option<String>,
}

/// Folders that are searched, in this order, where no checkpoint is named.
const DEFAULT_ROOTS: [&str; 2] = ["checkpoints", EXAMPLES];
const EXAMPLES: &str = "checkpoint_example";

/// Finds the files of the checkpoint that `path` names.
///
/// # Errors
/// Nothing there, no checkpoint in the folder, a Git LFS pointer (for weights or configuration), no `all_config.yaml`,
/// what the hub says of an `hf://` address.
pub fn resolve(path: &Path) -> Result<Resolved> {
    if let Some(address) = path.to_str().filter(|p| p.starts_with("hf://")) {
        let mut resolved = resolve(&on_hub::fetch(address)?)?;
        resolved.taken = Some(format!("{address} is {}", resolved.weights.display()));
        return Ok(resolved);
    }
    let kind = fs::metadata(path).with_context(|| {
        format!(
            "{}: no such checkpoint; give a run folder, a step_N folder, a .safetensors file or a file of \
             torch.save",
            path.display()
        )
    })?;
    let resolved = if kind.is_dir() { resolve_folder(path)? } else { resolve_file(path)? };
    lfs::refuse_pointer(&resolved.weights)?;
    lfs::refuse_pointer(&resolved.config)?;
    Ok(resolved)
}

/// [`resolve`], or without a path the newest step of the newest run under `root/checkpoints`, else one of
/// `root/checkpoint_example`.
///
/// # Errors
/// As [`resolve`]; and where no path is given, that there is none to take.
pub fn resolve_or_default(path: Option<&Path>, root: &Path) -> Result<Resolved> {
    let Some(path) = path else { return default_checkpoint(root) };
    resolve(path)
}

fn default_checkpoint(root: &Path) -> Result<Resolved> {
    let mut skipped = None;
    for name in DEFAULT_ROOTS {
        let mut runs = find_runs(&root.join(name));
        runs.sort();
        if name == EXAMPLES {
            // A clone writes them all at once: the first by name.
            runs.sort_by(|a, b| b.folder.cmp(&a.folder));
        }
        while let Some(run) = runs.pop() {
            match resolve(&run.folder) {
                Ok(mut resolved) => {
                    let why = skipped.map_or(String::new(), |e| format!(" (a newer one cannot be used: {e:#})"));
                    resolved.taken = Some(format!("no checkpoint given: using {}{why}", resolved.weights.display()));
                    return Ok(resolved);
                }
                Err(e) => skipped = skipped.or(Some(e)),
            }
        }
    }
    let none = "no checkpoint was given, and there is none under checkpoints/ or checkpoint_example/: train \
                one with `hrm train`, or give one with --checkpoint PATH";
    Err(skipped.map_or_else(|| anyhow::anyhow!(none), |e| e.context(none)))
}

/// A folder with a checkpoint in it, ordered by age.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    written: SystemTime,
    folder: PathBuf,
}

/// The runs one and two levels below `root`.
fn find_runs(root: &Path) -> Vec<Run> {
    let mut runs = Vec::new();
    for project in subfolders(root) {
        for folder in subfolders(&project).into_iter().chain([project.clone()]) {
            let own = folder.join(WEIGHTS_FILE);
            let own_weights = own.is_file();
            let weights = if own_weights { Some(own) } else { candidates(&folder).ok().flatten().map(|c| c.weights) };
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            // A run's own checkpoints, whole or set aside, are found through the run.
            let part = (name.starts_with("step_") && own_weights) || name.starts_with('.');
            if let Some(weights) = weights.filter(|_| !part) {
                let written = fs::metadata(&weights).and_then(|m| m.modified());
                runs.push(Run { written: written.unwrap_or(SystemTime::UNIX_EPOCH), folder });
            }
        }
    }
    runs
}

fn subfolders(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect()
}

/// One checkpoint of a run folder.
struct Candidate {
    weights: PathBuf,
    step: Option<u64>,
    format: Format,
    among: usize,
    /// Newer ones that are damaged.
    passed_over: Vec<String>,
}

/// `N` of `.../step_N`.
fn step_in_name(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("step_")?.parse().ok()
}

/// The checkpoint of a run folder with the largest step whose weights are what was written; none where there is no
/// checkpoint. Upstream's rule for files: anything called `step_*`, a suffix that is no integer counts as 0.
fn candidates(folder: &Path) -> Result<Option<Candidate>> {
    let at = || format!("{}: cannot list the folder", folder.display());
    let mut steps: Vec<(u64, bool, PathBuf)> = Vec::new();
    let mut single = None;
    for entry in fs::read_dir(folder).with_context(at)? {
        let path = entry.with_context(at)?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
        let number = step_in_name(&path);
        if name.starts_with("step_") && path.is_file() {
            steps.push((number.unwrap_or(0), false, path));
        } else if let Some(step) = number
            && (path.join(WEIGHTS_FILE).is_file() || path.join(MANIFEST_FILE).is_file())
        {
            steps.push((step, true, path.join(WEIGHTS_FILE)));
        } else if (name == "checkpoint" || name == "example_checkpoint") && path.is_file() {
            single = single.max(Some(path));
        }
    }
    steps.sort();
    let (among, mut passed_over) = (steps.len(), Vec::new());
    while let Some((step, ours, weights)) = steps.pop() {
        let damage = if ours { damage(&weights) } else { None };
        if let Some(damage) = damage {
            passed_over.push(damage);
            continue;
        }
        return Ok(Some(Candidate {
            step: if ours { Some(step) } else { step_in_name(&weights) },
            format: if ours { Format::Safetensors } else { Format::Torch },
            weights,
            among,
            passed_over,
        }));
    }
    if let Some(weights) = single {
        return Ok(Some(Candidate { weights, step: None, format: Format::Torch, among: 1, passed_over }));
    }
    match passed_over.first() {
        Some(first) => bail!("{first}; no other checkpoint of the run is intact"),
        None => Ok(None),
    }
}

/// What is wrong with weights that a manifest describes; nothing where they are as written, or without a manifest.
fn damage(weights: &Path) -> Option<String> {
    let folder = weights.parent()?;
    let checked = Manifest::read(folder).and_then(|manifest| {
        let Some(mut manifest) = manifest else { return Ok(()) };
        manifest.files.retain(|name, _| name == WEIGHTS_FILE || name == EMA_FILE);
        manifest.verify(folder)
    });
    checked.err().map(|e| format!("damaged: {e:#}"))
}

fn resolve_folder(folder: &Path) -> Result<Resolved> {
    let weights = folder.join(WEIGHTS_FILE);
    if weights.is_file() {
        return with_companions(weights, Format::Safetensors, step_in_name(folder), None);
    }
    let Some(found) = candidates(folder)? else {
        let runs = subfolders(folder).into_iter().filter(|p| matches!(candidates(p), Ok(Some(_))));
        let runs: Vec<String> = runs.take(5).map(|p| p.display().to_string()).collect();
        let hint = if runs.is_empty() { String::new() } else { format!("; name one of: {}", runs.join(", ")) };
        bail!(
            "{}: there is no checkpoint in this folder (looked for {WEIGHTS_FILE}, step_N, checkpoint and \
             example_checkpoint){hint}",
            folder.display()
        );
    };
    let taken = match found.passed_over.as_slice() {
        [] => (found.among > 1)
            .then(|| format!("using {}, the largest of {} steps", found.weights.display(), found.among)),
        damaged => Some(format!("using {}, as newer ones are {}", found.weights.display(), damaged.join("; "))),
    };
    with_companions(found.weights, found.format, found.step, taken)
}

fn resolve_file(path: &Path) -> Result<Resolved> {
    let by_name = path.extension().is_some_and(|e| e == "safetensors");
    if by_name {
        let step = path.parent().and_then(step_in_name);
        return with_companions(path.to_path_buf(), Format::Safetensors, step, None);
    }
    lfs::refuse_pointer(path)?;
    let mut first = Vec::new();
    let file = input::open(path)?;
    file.take(4).read_to_end(&mut first).with_context(|| format!("{}: cannot read", path.display()))?;
    // A pickle (0x80) is torch's old format: its reader says so.
    if first != ZIP_MAGIC && first.first() != Some(&0x80) {
        bail!(
            "{}: not a checkpoint; expected a .safetensors file or a file of torch.save (a zip archive)",
            path.display()
        );
    }
    with_companions(path.to_path_buf(), Format::Torch, step_in_name(path), None)
}

fn with_companions(weights: PathBuf, format: Format, step: Option<u64>, taken: Option<String>) -> Result<Resolved> {
    let folder = match weights.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let beside = folder.join(CONFIG_FILE);
    let above = if folder.file_name().is_some() { folder.parent().map(|p| p.join(CONFIG_FILE)) } else { None };
    let config = [Some(beside.clone()), above.filter(|_| format == Format::Safetensors)]
        .into_iter()
        .flatten()
        .find(|p| p.is_file())
        .with_context(|| {
            format!(
                "{}: {CONFIG_FILE} is missing (looked for {}); copy the one that the training wrote beside the weights",
                weights.display(),
                beside.display()
            )
        })?;
    let beside = |name: &str| Some(folder.join(name)).filter(|p| format == Format::Safetensors && p.is_file());
    let ema = beside(EMA_FILE).filter(|_| weights.file_name().is_some_and(|n| n == WEIGHTS_FILE));
    Ok(Resolved { ema, meta: beside(META_FILE), weights, config, format, step, taken })
}
