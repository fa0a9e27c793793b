//! A configuration in the making: values by key, the later one wins, with references such as `${.hidden_size}`.

use anyhow::{Result, anyhow, bail};
use serde_json::Value;

use super::{
    TrainConfig,
    keys::{self, KEYS},
    value::Override,
};

/// The configuration as a tree of values, references not yet followed.
pub(super) struct Layers {
    root: Value,
}

impl Layers {
    /// The built-in defaults.
    pub(super) fn new() -> Result<Self> {
        let mut layers = Self::of(&TrainConfig::default())?;
        layers.put("arch.puzzle_emb_ndim", Value::from("${.hidden_size}"))?;
        Ok(layers)
    }

    /// The values of a configuration.
    pub(super) fn of(config: &TrainConfig) -> Result<Self> {
        Ok(Self { root: serde_json::to_value(config)? })
    }

    /// Sets one key; its type is checked here unless it is a reference.
    pub(super) fn set(&mut self, o: Override) -> Result<()> {
        let Some(key) = keys::find(&o.key) else { return Err(unknown_key(&o.key)) };
        let value = if reference(&o.value).is_some() { o.value } else { key.accept(o.value)? };
        self.put(key.name, value)
    }

    /// Follows the references and makes the configuration, unchecked.
    pub(super) fn finish(mut self) -> Result<TrainConfig> {
        for key in KEYS {
            if self.get(key.name).is_some_and(|value| reference(value).is_some()) {
                let value = key.accept(self.follow(key.name)?)?;
                self.put(key.name, value)?;
            }
        }
        Ok(serde_json::from_value(self.root)?)
    }

    fn get(&self, name: &str) -> Option<&Value> {
        name.split('.').try_fold(&self.root, |group, part| group.get(part))
    }

    fn put(&mut self, name: &str, value: Value) -> Result<()> {
        let mut slot = &mut self.root;
        for part in name.split('.') {
            let Some(group) = slot.as_object_mut() else { bail!("{name}: '{part}' is not in a group of keys") };
            slot = group.entry(part).or_insert(Value::Null);
        }
        *slot = value;
        Ok(())
    }

    fn follow(&self, name: &'static str) -> Result<Value> {
        let mut at = name;
        for _ in 0..8 {
            let value = self.get(at).cloned().unwrap_or(Value::Null);
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
        bail!("{name}: its references form a cycle")
    }
}

/// `x` of `${x}`.
fn reference(value: &Value) -> Option<&str> {
    value.as_str()?.strip_prefix("${")?.strip_suffix('}')
}

pub(super) fn unknown_key(name: &str) -> anyhow::Error {
    let shown: String = name.chars().take(80).collect::<String>().escape_debug().to_string();
    if name == "hydra" || name.starts_with("hydra.") || name.starts_with("hydra/") {
        return anyhow!("'{shown}': Hydra's own settings are not supported; leave it out");
    }
    let presets = ["arch.preset", "recipe"];
    match keys::nearest(name, KEYS.iter().map(|k| k.name).chain(presets)) {
        Some(near) => anyhow!("unknown key '{shown}': did you mean '{near}'?"),
        None => anyhow!("unknown key '{shown}': `hrm train --help` lists the keys"),
    }
}
