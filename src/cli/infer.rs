//! `hrm infer`.

use anyhow::{Result, bail};

use super::GlobalArgs;

/// Solve a test set with one or several checkpoints and count upstream's votes
#[derive(clap::Args, Debug)]
pub struct InferArgs {}

pub fn run(_args: InferArgs, _global: &GlobalArgs) -> Result<()> {
    bail!("not written yet")
}
