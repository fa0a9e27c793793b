//! From what the user typed to one checked configuration: built-in defaults, then preset and recipe, then the
//! `--config` file, then the other `key=value` overrides. The later one wins.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Map, Value};

use super::{
    PRESETS, Preset, RECIPES, TrainConfig, file,
    keys::{self, KEYS},
    value::{Override, parse_override},
};

/// A checked configuration and what was decided without being asked for.
#[derive(Clone, Debug)]
pub struct ResolvedConfig {
    pub config: TrainConfig,
    /// One sentence for each preset, recipe or default that was taken, to be printed.
    pub taken: Vec<String>,
}

/// Makes the configuration of a training run from `--config FILE` and `key=value` overrides.
///
/// With neither, `arch.preset=sudoku` and `recipe=sudoku` are taken; with either, upstream's defaults hold wherever
/// nothing was given.
///
/// # Errors
/// Names the key and its origin for an unknown key (with the nearest known one), a wrong type, an unknown preset,
/// and whatever [`TrainConfig::check`] refuses.
pub fn resolve(config_file: Option<&Path>, overrides: &[String]) -> Result<ResolvedConfig> {
    resolve_over(None, config_file, overrides)
}

/// [`resolve`] with the configuration of an earlier run in the built-in defaults' place.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_over(
    base: Option<&TrainConfig>,
    config_file: Option<&Path>,
    overrides: &[String],
) -> Result<ResolvedConfig> {
    let typed: Vec<Override> = overrides.iter().map(|o| parse_override(o)).collect::<Result<_>>()?;
    let (groups, typed): (Vec<_>, Vec<_>) = typed.into_iter().partition(|o| o.key == "arch");
    let arch_group = groups.last().map(group_name).transpose()?;
    let from_file = match config_file {
        Some(path) => file::read_training_yaml(path, arch_group.as_deref())?,
        None => {
            if let Some(name) = arch_group.as_deref().filter(|n| *n != "hrm_v1") {
                bail!("arch={name} names a file arch/{name}.yaml beside --config FILE, and no --config was given");
            }
            Vec::new()
        }
    };

    let mut taken = Vec::new();
    let bare = base.is_none() && config_file.is_none() && overrides.is_empty();
    let mut layers = match base {
        None => Layers::new()?,
        Some(base) => Layers::of(base)?,
    };
    for (key, presets) in [("arch.preset", PRESETS), ("recipe", RECIPES)] {
        let asked = from_file.iter().chain(&typed).rfind(|o| o.key == key).map(|o| &o.value);
        let preset = match asked {
            Some(name) => find_preset(key, name, presets)?,
            None if bare => &presets[0],
            None => continue,
        };
        for line in preset.values {
            layers.set(parse_override(line)?)?;
        }
        let why = if asked.is_some() { "" } else { " (nothing else was asked for)" };
        taken.push(format!("{key}={}: {}{why}", preset.name, preset.help));
    }
    let is_preset = |o: &&Override| o.key == "arch.preset" || o.key == "recipe";
    for o in from_file.iter().filter(|o| !is_preset(o)) {
        let at = || config_file.unwrap_or(Path::new("")).display().to_string();
        layers.set(o.clone()).with_context(at)?;
    }
    for o in typed.iter().filter(|o| !is_preset(o)) {
        layers.set(o.clone())?;
    }
    let config = layers.finish()?;
    config.check()?;
    Ok(ResolvedConfig { config, taken })
}

/// The file name in `arch=NAME`.
fn group_name(o: &Override) -> Result<String> {
    match &o.value {
        Value::String(name) => Ok(name.clone()),
        _ => bail!("arch=NAME wants the name of a file arch/NAME.yaml; a single value is set as arch.KEY=VALUE"),
    }
}

fn find_preset(key: &str, name: &Value, presets: &'static [Preset]) -> Result<&'static Preset> {
    let name = name.as_str().unwrap_or_default();
    presets.iter().find(|p| p.name == name).ok_or_else(|| {
        let known: Vec<_> = presets.iter().map(|p| p.name).collect();
        anyhow!("{key}={name}: there is no such one; known: {}", known.join(", "))
    })
}

/// Values by key, references such as `${.hidden_size}` not yet followed.
pub(super) struct Layers {
    values: BTreeMap<&'static str, Value>,
}

impl Layers {
    /// The built-in defaults.
    pub(super) fn new() -> Result<Self> {
        let mut layers = Self::of(&TrainConfig::default())?;
        layers.values.insert("arch.puzzle_emb_ndim", Value::from("${.hidden_size}"));
        Ok(layers)
    }

    /// The values of a configuration.
    fn of(config: &TrainConfig) -> Result<Self> {
        let config = serde_json::to_value(config)?;
        let mut values = BTreeMap::new();
        for key in KEYS {
            let value = key.name.split('.').try_fold(&config, |v, part| v.get(part));
            values.insert(key.name, value.cloned().unwrap_or(Value::Null));
        }
        Ok(Self { values })
    }

    /// Sets one key; its type is checked here unless it is a reference.
    pub(super) fn set(&mut self, o: Override) -> Result<()> {
        let Some(key) = keys::find(&o.key) else { return Err(unknown_key(&o.key)) };
        let value = if reference(&o.value).is_some() { o.value } else { key.accept(o.value)? };
        self.values.insert(key.name, value);
        Ok(())
    }

    /// Follows the references and makes the configuration, unchecked.
    pub(super) fn finish(self) -> Result<TrainConfig> {
        let mut root = Map::new();
        for key in KEYS {
            let value = key.accept(self.follow(key.name)?)?;
            let mut parts: Vec<&str> = key.name.split('.').collect();
            let last = parts.pop().unwrap_or_default();
            let mut group = &mut root;
            for part in parts {
                let entry = group.entry(part).or_insert_with(|| Value::Object(Map::new()));
                group = entry.as_object_mut().ok_or_else(|| anyhow!("{}: '{part}' is no group of keys", key.name))?;
            }
            group.insert(last.to_owned(), value);
        }
        Ok(serde_json::from_value(Value::Object(root))?)
    }

    fn follow(&self, name: &'static str) -> Result<Value> {
        let mut at = name;
        for _ in 0..8 {
            let value = self.values.get(at).cloned().unwrap_or(Value::Null);
            let Some(target) = reference(&value) else { return Ok(value) };
            let group = at.rsplit_once('.').map_or("", |(group, _)| group);
            let absolute = match target.strip_prefix('.') {
                Some(sibling) if !group.is_empty() => format!("{group}.{sibling}"),
                Some(sibling) => sibling.to_owned(),
                None => target.to_owned(),
            };
            at = keys::find(&absolute)
                .ok_or_else(|| unknown_key(&absolute).context(format!("{name}={}", value.as_str().unwrap_or(""))))?
                .name;
        }
        bail!("{name}: its references go round in a circle")
    }
}

/// `x` of `${x}`.
fn reference(value: &Value) -> Option<&str> {
    value.as_str()?.strip_prefix("${")?.strip_suffix('}')
}

pub(super) fn unknown_key(name: &str) -> anyhow::Error {
    let shown: String = name.chars().take(80).collect::<String>().escape_debug().to_string();
    if name == "hydra" || name.starts_with("hydra.") || name.starts_with("hydra/") {
        return anyhow!("'{shown}': Hydra's own settings mean nothing here; leave it out");
    }
    let presets = ["arch.preset", "recipe"];
    match keys::nearest(name, KEYS.iter().map(|k| k.name).chain(presets)) {
        Some(near) => anyhow!("unknown key '{shown}': did you mean '{near}'?"),
        None => anyhow!("unknown key '{shown}': `hrm train --help` lists the keys"),
    }
}
