//! YAML files: upstream's configuration layout for training, and the `all_config.yaml` of a checkpoint.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Map, Value};

use super::{
    TrainConfig,
    keys::{self, KEYS},
    layers::{Layers, unknown_key},
    python_yaml,
    value::Override,
};
use crate::input;

/// No configuration is larger; a larger file is something else.
const MAX_BYTES: u64 = 1 << 20;

/// The configuration beside a checkpoint, and what in it was not understood.
#[derive(Clone, Debug)]
pub struct CheckpointConfig {
    /// The configuration, with defaults for what the file lacks.
    pub config: TrainConfig,
    /// One line for each key that this version does not know.
    pub warnings: Vec<String>,
}

impl TrainConfig {
    /// Reads the text of a checkpoint's `all_config.yaml`.
    ///
    /// Unknown keys are warnings. Missing keys take their defaults, but a missing `arch.puzzle_emb_ndim` is 0, as it
    /// is in upstream's model class.
    ///
    /// # Errors
    /// Text that is no YAML mapping, and a known key of a wrong type.
    pub fn from_checkpoint_yaml(text: &str) -> Result<CheckpointConfig> {
        let mut warnings = Vec::new();
        let mut layers = Layers::new()?;
        layers.set(Override { key: "arch.puzzle_emb_ndim".into(), value: 0.into() })?;
        for o in flatten(parse_mapping(text)?)? {
            if keys::find(&o.key).is_none() {
                warnings.push(format!("ignored: {:#}", unknown_key(&o.key)));
                continue;
            }
            layers.set(o)?;
        }
        Ok(CheckpointConfig { config: layers.finish()?, warnings })
    }

    /// `all_config.yaml` as upstream writes it: PyYAML's block style, keys sorted, wrapped at 80 columns. Keys that upstream
    /// does not have stand in it only where they differ from their defaults.
    ///
    /// # Errors
    /// None on a checked configuration; a number that JSON cannot hold (not finite) is one.
    pub fn to_yaml(&self) -> Result<String> {
        let mut value = serde_json::to_value(self)?;
        let defaults = serde_json::to_value(Self::default())?;
        for key in KEYS.iter().filter(|k| k.ours) {
            let (group, name) = key.name.split_once('.').map_or((None, key.name), |(g, n)| (Some(g), n));
            let of = |root: &Value| group.map_or(root, |g| &root[g])[name].clone();
            if of(&value) == of(&defaults) {
                let at = match group {
                    Some(group) => value.get_mut(group),
                    None => Some(&mut value),
                };
                at.and_then(Value::as_object_mut).and_then(|map| map.remove(name));
            }
        }
        Ok(python_yaml::dump(&value))
    }
}

/// The `key=value` pairs of a `--config` file, those of its defaults list first (or last, where `_self_` stands
/// before them). `arch_group` (from `arch=NAME`) replaces the list's choice.
pub(super) fn read_training_yaml(path: &Path, arch_group: Option<&str>) -> Result<Vec<Override>> {
    let mut root = read_mapping(path)?;
    root.remove("hydra");
    let defaults = root.remove("defaults");
    let own = flatten(root).with_context(|| path.display().to_string())?;
    for o in &own {
        if keys::find(&o.key).is_none() && o.key != "arch.preset" && o.key != "recipe" {
            return Err(unknown_key(&o.key).context(path.display().to_string()));
        }
    }
    let (mut before, mut after, mut self_seen) = (Vec::new(), Vec::new(), false);
    for group in defaults_list(path, defaults)? {
        match group {
            Include::Itself => self_seen = true,
            Include::Arch(listed) => {
                let name = arch_group.unwrap_or(&listed);
                let values = read_arch_group(path, name)?;
                if self_seen { after.extend(values) } else { before.extend(values) }
            }
        }
    }
    if before.is_empty()
        && after.is_empty()
        && let Some(name) = arch_group
    {
        before = read_arch_group(path, name)?;
    }
    Ok(before.into_iter().chain(own).chain(after).collect())
}

enum Include {
    Itself,
    Arch(String),
}

/// Hydra's `defaults:` list, of which upstream uses `- arch: NAME` and `- _self_`.
fn defaults_list(path: &Path, value: Option<Value>) -> Result<Vec<Include>> {
    let items = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(_) => bail!("{}: defaults: expected a list such as [arch: hrm_v1, _self_]", path.display()),
    };
    let mut includes = Vec::new();
    for item in items {
        match item {
            Value::String(s) if s == "_self_" => includes.push(Include::Itself),
            Value::Object(map) => {
                for (group, name) in map {
                    match (group.trim_start_matches("override "), name) {
                        ("arch", Value::String(name)) => includes.push(Include::Arch(name)),
                        (g, _) if g.starts_with("hydra/") => {}
                        (g, _) => bail!(
                            "{}: defaults: '{}' is not a known group; only `arch: NAME` is",
                            path.display(),
                            g.escape_debug()
                        ),
                    }
                }
            }
            other => {
                bail!("{}: defaults: '{other}' is not understood; expected `arch: NAME` or _self_", path.display())
            }
        }
    }
    Ok(includes)
}

/// `arch/NAME.yaml` beside the file, its keys under `arch.`.
fn read_arch_group(path: &Path, name: &str) -> Result<Vec<Override>> {
    let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-' || c == '.';
    if name.is_empty() || !name.chars().all(plain) || name.contains("..") {
        bail!("{}: '{}' is not the name of a file in arch/", path.display(), name.escape_debug());
    }
    let file = path.with_file_name("arch").join(format!("{name}.yaml"));
    let root = read_mapping(&file).with_context(|| format!("{}: arch: {name}", path.display()))?;
    let values = flatten(Map::from_iter([("arch".to_owned(), Value::Object(root))]))
        .with_context(|| file.display().to_string())?;
    for o in &values {
        if keys::find(&o.key).is_none() {
            return Err(unknown_key(&o.key).context(file.display().to_string()));
        }
    }
    Ok(values)
}

fn read_mapping(path: &Path) -> Result<Map<String, Value>> {
    let at = || path.display().to_string();
    let text = input::read_text(path, MAX_BYTES).context("the configuration")?;
    parse_mapping(&text).with_context(at)
}

/// One YAML document that is a mapping, under limits that no honest configuration reaches.
fn parse_mapping(text: &str) -> Result<Map<String, Value>> {
    if text.len() as u64 > MAX_BYTES {
        bail!("{} bytes is too large for a configuration (at most {MAX_BYTES})", text.len());
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 20_000,
            max_nodes: 10_000,
            max_depth: 16,
            max_aliases: 100,
            max_anchors: 100,
        },
        // Like this a project called `no` or `y` stays text; boolean keys still take yes and no.
        strict_booleans: true,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Value>(text, options) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => bail!("expected `key: value` lines, found something else"),
        Err(e) => Err(anyhow!("not valid YAML: {e}")),
    }
}

/// `{arch: {loss: {name: x}}}` becomes `arch.loss.name = x`. A group that holds no known key stays one entry.
///
/// # Errors
/// A known group, such as `arch`, that is a single value.
fn flatten(map: Map<String, Value>) -> Result<Vec<Override>> {
    fn walk(prefix: &str, map: Map<String, Value>, out: &mut Vec<Override>) -> Result<()> {
        for (name, value) in map {
            let key = format!("{prefix}{name}");
            let group = format!("{key}.");
            let known_group = KEYS.iter().any(|k| k.name.starts_with(&group));
            match value {
                Value::Object(inner) if known_group => walk(&group, inner, out)?,
                Value::Null if known_group => {}
                _ if known_group => bail!("{key}: expected a group of keys below it, found a single value"),
                value => out.push(Override { key, value }),
            }
        }
        Ok(())
    }
    let mut out = Vec::new();
    walk("", map, &mut out)?;
    Ok(out)
}
