//! `hrm doctor`.

use anyhow::{Result, bail};

use super::GlobalArgs;

/// Say what was found on this machine and what to do about what was not
#[derive(clap::Args, Debug)]
pub struct DoctorArgs {}

pub fn run(_args: DoctorArgs, _global: &GlobalArgs) -> Result<()> {
    bail!("not written yet")
}

/// `hrm man`: the manual from the definition that --help comes from.
pub fn man(_cmd: clap::Command, _dir: Option<&std::path::Path>) -> Result<()> {
    bail!("not written yet")
}
