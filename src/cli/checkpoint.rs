//! `hrm checkpoint`.

use anyhow::{Result, bail};

use super::GlobalArgs;

/// Look into checkpoints and convert them
#[derive(clap::Args, Debug)]
pub struct CheckpointArgs {}

pub fn run(_args: CheckpointArgs, _global: &GlobalArgs) -> Result<()> {
    bail!("not written yet")
}
