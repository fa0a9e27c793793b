//! Which checkpoints a command takes, and how their models compute.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::{
    ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};

use crate::{
    checkpoint::{Checkpoint, Loaded, Weights, resolve_or_default},
    cli::ui::{Ui, warn},
    dtype::Dtype,
    say,
};

/// One checkpoint.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct CheckpointArg {
    /// A run folder, a step_N folder, a .safetensors file or upstream's [default: the newest]
    #[arg(long, visible_alias = "checkpoints", value_name = "PATH")]
    checkpoint: Option<PathBuf>,
}

impl CheckpointArg {
    /// Loads the checkpoint; without one the newest, which is then said.
    pub fn load(&self, ui: &Ui, weights: WeightsArg) -> Result<Checkpoint> {
        load_checkpoint(ui, self.checkpoint.as_deref(), weights)
    }
}

/// One or several checkpoints.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct CheckpointsArg {
    /// Checkpoints: run folders, step_N folders, .safetensors files or upstream's; separated by commas or repeated
    #[arg(long, visible_alias = "checkpoint", value_name = "PATH[,PATH...]", value_delimiter = ',')]
    pub checkpoints: Vec<PathBuf>,
}

/// How a model computes.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ModelArgs {
    /// Number format of the forward pass [default: the checkpoint's]
    #[arg(long, value_name = "bf16|f32", value_parser = compute_dtype())]
    pub dtype: Option<Dtype>,
    #[command(flatten)]
    pub weights: WeightsArg,
}

/// What `--dtype` takes: bf16 or f32.
pub fn compute_dtype() -> impl TypedValueParser<Value = Dtype> {
    let names = [Dtype::Bf16, Dtype::F32].map(Dtype::short_name);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Dtype>())
}

/// Which weights a command loads.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct WeightsArg {
    /// Weights of the last step, or their moving average; auto: the average where the checkpoint has one
    #[arg(long, value_name = "auto|raw|ema", default_value = "auto", hide_possible_values = true)]
    weights: WeightsChoice,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum WeightsChoice {
    #[default]
    Auto,
    Raw,
    Ema,
}

impl From<WeightsArg> for Weights {
    fn from(arg: WeightsArg) -> Self {
        match arg.weights {
            WeightsChoice::Auto => Self::Auto,
            WeightsChoice::Raw => Self::Raw,
            WeightsChoice::Ema => Self::Ema,
        }
    }
}

/// Loads the checkpoint that `path` names; without one the newest, which is then said.
pub fn load_checkpoint(ui: &Ui, path: Option<&Path>, weights: WeightsArg) -> Result<Checkpoint> {
    Ok(load_with_origin(ui, path, weights)?.checkpoint)
}

/// [`load_checkpoint`] for every path, for none of them the newest; at least one.
pub fn load_checkpoints(ui: &Ui, paths: &[PathBuf], weights: WeightsArg) -> Result<Vec<Checkpoint>> {
    if paths.is_empty() {
        return Ok(vec![load_checkpoint(ui, None, weights)?]);
    }
    check_names(paths)?;
    paths.iter().map(|path| load_checkpoint(ui, Some(path), weights)).collect()
}

/// The weights files that `paths` name, for none of them the newest: what [`load_checkpoints`] would load.
pub fn checkpoint_files(ui: &Ui, paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let find = |path: Option<&Path>| -> Result<PathBuf> {
        let resolved = resolve_or_default(path, Path::new(""))?;
        if let Some(taken) = &resolved.taken {
            say!(ui, "checkpoint: {taken}");
        }
        Ok(resolved.weights)
    };
    check_names(paths)?;
    if paths.is_empty() { Ok(vec![find(None)?]) } else { paths.iter().map(|path| find(Some(path))).collect() }
}

fn check_names(paths: &[PathBuf]) -> Result<()> {
    ensure!(!paths.iter().any(|p| p.as_os_str().is_empty()), "--checkpoints: an empty name between commas");
    Ok(())
}

/// [`load_checkpoint`] with what lies beside the weights.
pub fn load_with_origin(ui: &Ui, path: Option<&Path>, weights: WeightsArg) -> Result<Loaded> {
    let loaded = resolve_or_default(path, Path::new(""))?.load(weights.into())?;
    if let Some(taken) = &loaded.taken {
        say!(ui, "checkpoint: {taken}");
    }
    if loaded.checkpoint.averaged {
        say!(ui, "weights: the moving average, {}", loaded.checkpoint.path.display());
    }
    for warning in &loaded.warnings {
        warn(format_args!("{warning}"));
    }
    Ok(loaded)
}
