//! `hrm build-dataset`.

use anyhow::{Result, bail};

use super::GlobalArgs;

/// Build a dataset folder from puzzle lists
#[derive(clap::Args, Debug)]
pub struct BuildDatasetArgs {}

pub fn run(_args: BuildDatasetArgs, _global: &GlobalArgs) -> Result<()> {
    bail!("not written yet")
}
