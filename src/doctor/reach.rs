//! The datasets and checkpoints that commands find from the folder they are run in.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    checkpoint::{WEIGHTS_FILE, lfs},
    dataset::DatasetMeta,
    escape::shell_word,
    input,
};

/// Built datasets.
#[derive(Debug, Serialize)]
pub struct Data {
    pub datasets: Vec<Dataset>,
}

/// One of them.
#[derive(Debug, Serialize)]
pub struct Dataset {
    pub path: PathBuf,
    /// Groups of each split that is there, e.g. `train`: 1000.
    pub splits: Vec<SplitSize>,
}

/// A split of a dataset.
#[derive(Debug, Serialize)]
pub struct SplitSize {
    pub name: &'static str,
    pub groups: i64,
    pub seq_len: i64,
}

/// Training runs and example checkpoints, newest first.
#[derive(Debug, Serialize)]
pub struct Checkpoints {
    pub runs: Vec<Run>,
}

/// A folder with weights.
#[derive(Debug, Serialize)]
pub struct Run {
    pub path: PathBuf,
    /// Names of the weights in it, steps in order.
    pub weights: Vec<String>,
    /// Of these, the ones that are Git LFS pointers instead of weights.
    pub lfs_pointers: Vec<String>,
}

/// Looks under data/; what is wrong is added to the advice.
pub fn data(advice: &mut Vec<String>) -> Data {
    let mut datasets = Vec::new();
    for path in folders(Path::new("data")) {
        let mut splits = Vec::new();
        for name in ["train", "test"] {
            let file = path.join(name).join("dataset.json");
            let Ok(text) = input::read_text(&file, 1 << 20) else { continue };
            match serde_json::from_str::<DatasetMeta>(&text) {
                Ok(meta) => splits.push(SplitSize { name, groups: meta.total_groups, seq_len: meta.seq_len }),
                Err(e) => {
                    advice
                        .push(format!("{}: not readable ({e}): build the dataset again with --force", file.display()));
                }
            }
        }
        if !splits.is_empty() {
            datasets.push(Dataset { path, splits });
        }
    }
    if datasets.is_empty() {
        advice.push("no dataset under data/: `hrm build-dataset` builds one from the bundled Sudoku sample".into());
    }
    Data { datasets }
}

/// Looks under checkpoints/ and checkpoint_example/; what is wrong is added to the advice.
pub fn checkpoints(advice: &mut Vec<String>) -> Checkpoints {
    let mut dated = Vec::new();
    for root in ["checkpoints", "checkpoint_example"] {
        for path in folders(Path::new(root)).iter().flat_map(|project| folders(project)) {
            let run = look_into(path);
            if run.weights.is_empty() {
                continue;
            }
            if !run.lfs_pointers.is_empty() {
                advice.push(format!(
                    "{}: Git LFS pointers instead of weights ({}): `git lfs pull --include={}`",
                    run.path.display(),
                    run.lfs_pointers.join(", "),
                    shell_word(run.path.join("**"))
                ));
            }
            let time = fs::metadata(&run.path).and_then(|m| m.modified()).ok();
            dated.push((root == "checkpoints", time, run));
        }
    }
    dated.sort_by_key(|(own, time, _)| std::cmp::Reverse((*own, *time)));
    let runs: Vec<_> = dated.into_iter().map(|(_, _, run)| run).collect();
    if runs.is_empty() {
        advice.push(
            "no checkpoint under checkpoints/: `hrm train` makes one (`make demo` a small one in minutes)".into(),
        );
    }
    Checkpoints { runs }
}

/// Our `step_N/` folders and upstream's `step_N` files, `checkpoint` and `example_checkpoint`.
fn look_into(path: PathBuf) -> Run {
    let mut weights = Vec::new();
    let mut lfs_pointers = Vec::new();
    for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = entry.path().join(WEIGHTS_FILE);
        let is_step = name.strip_prefix("step_").is_some_and(|n| n.parse::<u64>().is_ok());
        let file = match entry.path() {
            _ if ours.is_file() => ours,
            file if file.is_file() && (is_step || name == "checkpoint" || name == "example_checkpoint") => file,
            _ => continue,
        };
        if is_lfs_pointer(&file) {
            lfs_pointers.push(name.clone());
        }
        weights.push(name);
    }
    let by_step = |name: &String| name.strip_prefix("step_").and_then(|n| n.parse::<u64>().ok());
    weights.sort_by_key(by_step);
    lfs_pointers.sort_by_key(by_step);
    Run { path, weights, lfs_pointers }
}

fn is_lfs_pointer(path: &Path) -> bool {
    let mut head = Vec::new();
    input::open(path).is_ok_and(|f| f.take(64).read_to_end(&mut head).is_ok()) && lfs::is_pointer(&head)
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> =
        fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
    found.sort();
    found
}
