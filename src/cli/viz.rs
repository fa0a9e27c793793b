//! `hrm viz`.

use anyhow::{Result, bail};

use super::GlobalArgs;

/// Draw pictures of what a model does
#[derive(clap::Args, Debug)]
pub struct VizArgs {}

pub fn run(_args: VizArgs, _global: &GlobalArgs) -> Result<()> {
    bail!("not written yet")
}
