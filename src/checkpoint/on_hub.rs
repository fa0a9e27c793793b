//! Checkpoints by their address on the hub: `hf://org/name[@revision][/file]`.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, ensure};

use super::{CONFIG_FILE, META_FILE, WEIGHTS_FILE};
use crate::hub::{Hub, RepoId, RepoKind};

/// Brings a checkpoint and its configuration into the cache; the path of its weights.
///
/// Without a file the rule for run folders holds: the largest `step_N`, else `model.safetensors`, `checkpoint` or
/// `example_checkpoint`.
///
/// # Errors
/// No address, no checkpoint in the repository, what the hub or the network says.
pub(super) fn fetch(address: &str) -> Result<PathBuf> {
    find_and_get(address).with_context(|| address.to_owned())
}

fn find_and_get(address: &str) -> Result<PathBuf> {
    let inner = address.strip_prefix("hf://").context("not a hub address")?.trim_end_matches('/');
    let wanted = || anyhow!("expected hf://ORG/NAME or hf://ORG/NAME/FILE");
    let (org, rest) = inner.split_once('/').ok_or_else(wanted)?;
    let (name, file) = match rest.split_once('/') {
        Some((name, file)) => (name, Some(file)),
        None => (rest, None),
    };
    let id: RepoId = format!("{org}/{name}").parse().map_err(|e: String| anyhow!(e))?;
    let hub = Hub::from_env()?;
    let repo = hub.repo(&id, RepoKind::Model);
    let files = hub.list(&repo)?;
    let has = |name: &str| files.iter().any(|file| file == name);
    let weights = match file {
        Some(file) if has(&format!("{file}/{WEIGHTS_FILE}")) => format!("{file}/{WEIGHTS_FILE}"),
        Some(file) => file.to_owned(),
        None => choose(&files).with_context(|| format!("no checkpoint among its files: {}", shown(&files)))?,
    };
    ensure!(has(&weights), "it has no file {weights}; it has {}", shown(&files));

    // The configuration lies beside the weights or one folder above.
    let folder = weights.rsplit_once('/').map_or("", |(folder, _)| folder);
    let above = folder.rsplit_once('/').map_or("", |(above, _)| above);
    let join = |folder: &str, name: &str| if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
    let config = [folder, above].map(|folder| join(folder, CONFIG_FILE)).into_iter().find(|name| has(name));
    let config = config.with_context(|| format!("{CONFIG_FILE} is not beside {weights}"))?;
    // The weights come first: where they are new, so is the commit, and the others are looked up beside them.
    let path = hub.get(&repo, &weights)?;
    hub.get(&repo, &config)?;
    let meta = join(folder, META_FILE);
    if has(&meta) {
        hub.get(&repo, &meta)?;
    }
    Ok(path)
}

fn choose(files: &[String]) -> Option<String> {
    let step = |file: &&String| {
        let name = file.strip_suffix(&format!("/{WEIGHTS_FILE}")).unwrap_or(file);
        name.strip_prefix("step_").and_then(|n| n.parse::<u64>().ok())
    };
    let single =
        || [WEIGHTS_FILE, "checkpoint", "example_checkpoint"].into_iter().find(|name| files.iter().any(|f| f == name));
    files.iter().filter(|file| step(file).is_some()).max_by_key(step).cloned().or_else(|| single().map(str::to_owned))
}

fn shown(files: &[String]) -> String {
    let more = if files.len() > 12 { ", .." } else { "" };
    format!("{}{more}", files[..files.len().min(12)].join(", "))
}

#[cfg(test)]
mod tests {
    use super::choose;

    #[test]
    fn the_largest_step_is_chosen() {
        let chosen = |files: &[&str]| choose(&files.iter().map(|&f| f.to_owned()).collect::<Vec<_>>());
        assert_eq!(chosen(&["README.md", "checkpoint", "all_config.yaml"]).as_deref(), Some("checkpoint"));
        assert_eq!(chosen(&["step_9", "step_10", "checkpoint"]).as_deref(), Some("step_10"));
        let ours = ["step_9/model.safetensors", "step_200/model.safetensors", "step_200/meta.json"];
        assert_eq!(chosen(&ours).as_deref(), Some("step_200/model.safetensors"));
        assert_eq!(chosen(&["model.safetensors"]).as_deref(), Some("model.safetensors"));
        assert_eq!(chosen(&["README.md"]), None);
    }
}
