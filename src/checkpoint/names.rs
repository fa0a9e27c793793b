//! What checkpoints are called.

use std::{collections::HashSet, path::Path};

use super::Checkpoint;

/// A checkpoint's path, and its step where the path does not tell it.
pub fn weights_name(checkpoint: &Checkpoint) -> String {
    match checkpoint.step {
        Some(step) if !checkpoint.path.display().to_string().contains(&format!("step_{step}")) => {
            format!("{} (step {step})", checkpoint.path.display())
        }
        _ => checkpoint.path.display().to_string(),
    }
}

/// Names that tell checkpoints apart, as short as they can be: the last parts of their folders, and the step where that
/// does not tell it.
pub fn short_names(checkpoints: &[&Checkpoint]) -> Vec<String> {
    let mut names = suffixes(&checkpoints.iter().map(|c| c.path.as_path()).collect::<Vec<_>>());
    for (name, checkpoint) in names.iter_mut().zip(checkpoints) {
        if let Some(step) = checkpoint.step.filter(|step| !name.contains(&format!("step_{step}"))) {
            name.push_str(&format!(" (step {step})"));
        }
    }
    names
}

/// The shortest ends of paths that differ; a weights file whose name says nothing stands for its folder.
fn suffixes(paths: &[&Path]) -> Vec<String> {
    let usual = |path: &Path| path.file_stem().is_some_and(|stem| stem == "model" || stem == "ema");
    let folders: Vec<Vec<String>> = paths
        .iter()
        .map(|path| path.parent().filter(|p| usual(path) && p.file_name().is_some()).unwrap_or(path))
        .map(|path| path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect())
        .collect();
    let longest = folders.iter().map(Vec::len).max().unwrap_or(1);
    let ends = |parts: usize| -> Vec<String> {
        folders.iter().map(|f| f[f.len().saturating_sub(parts)..].join("/")).collect()
    };
    let distinct = |names: &[String]| names.iter().collect::<HashSet<_>>().len() == names.len();
    (1..=longest)
        .map(ends)
        .find(|names| distinct(names))
        .unwrap_or_else(|| paths.iter().map(|path| path.display().to_string()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_named_by_what_differs() {
        let names = |paths: &[&str]| suffixes(&paths.iter().map(Path::new).collect::<Vec<_>>());
        assert_eq!(names(&["a/mini/model.safetensors", "a/mini-hint/model.safetensors"]), ["mini", "mini-hint"]);
        assert_eq!(
            names(&["runs/a/step_9/model.safetensors", "runs/b/step_9/ema.safetensors"]),
            ["a/step_9", "b/step_9"]
        );
        assert_eq!(names(&["x/model.safetensors"]), ["x"]);
        assert_eq!(names(&["x/one.safetensors", "x/two.safetensors"]), ["one.safetensors", "two.safetensors"]);
        assert_eq!(names(&["x/model.safetensors", "x/ema.safetensors"]), ["x/model.safetensors", "x/ema.safetensors"]);
        assert_eq!(names(&["model.safetensors"]), ["model.safetensors"]);
    }
}
