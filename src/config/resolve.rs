//! From what the user typed to one checked configuration: built-in defaults, then preset and recipe, then the
//! `--config` file, then the other `key=value` overrides. The later one wins.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::{
    PRESETS, Preset, RECIPES, TrainConfig, file,
    layers::Layers,
    value::{Override, parse_override},
};

/// A checked configuration and what was decided without being asked for.
#[derive(Clone, Debug)]
pub struct ResolvedConfig {
    /// The configuration; every key is in its range.
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
        _ => bail!("arch=NAME must name a file arch/NAME.yaml; a single value is set as arch.KEY=VALUE"),
    }
}

fn find_preset(key: &str, name: &Value, presets: &'static [Preset]) -> Result<&'static Preset> {
    let name = name.as_str().unwrap_or_default();
    presets.iter().find(|p| p.name == name).ok_or_else(|| {
        let known: Vec<_> = presets.iter().map(|p| p.name).collect();
        anyhow!("{key}={name}: unknown name; known: {}", known.join(", "))
    })
}
