//! `hrm train`.

use anyhow::{Result, bail};

use super::GlobalArgs;

/// Train a model
#[derive(clap::Args, Debug)]
pub struct TrainArgs {}

pub fn run(_args: TrainArgs, _global: &GlobalArgs) -> Result<()> {
    bail!("not written yet")
}
