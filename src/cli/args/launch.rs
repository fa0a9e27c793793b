//! How a command runs as several processes.

use anyhow::{Result, anyhow};

use crate::runtime::{
    DeviceChoice,
    dist::peer_timeout,
    launch::{LaunchRequest, Processes, Role},
};

/// Flags of every command that can run as many processes.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Many processes")]
pub struct LaunchArgs {
    /// Start N processes on this host, one for each GPU, that share the work; `gpu` counts the GPUs
    #[arg(long, value_name = "N|gpu")]
    nproc_per_node: Option<Processes>,
    /// Number of hosts; the same command is started on each, with its own --node-rank [default: 1]
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=1 << 16), requires = "nproc_per_node")]
    nnodes: Option<u32>,
    /// This host's number, from 0
    #[arg(long, value_name = "R", requires = "nnodes")]
    node_rank: Option<u32>,
    /// Name or address of host 0
    #[arg(long, value_name = "HOST", requires = "nnodes")]
    master_addr: Option<String>,
    /// A free port of host 0 [default: 29500; on one host any free one]
    #[arg(long, value_name = "PORT", requires = "nproc_per_node")]
    master_port: Option<u16>,
    /// Seconds to wait for a process that does not connect or does not answer [default: HRM_PEER_TIMEOUT, else 600]
    #[arg(long, value_name = "SECONDS")]
    peer_timeout: Option<String>,
}

impl LaunchArgs {
    /// What this process is, from the flags and the environment.
    ///
    /// # Errors
    /// A time that is no number of seconds; those of [`LaunchRequest::role`].
    pub fn role(&self, device: DeviceChoice) -> Result<Role> {
        let seconds = |text: &String| {
            peer_timeout(Some(text)).map_err(|_| anyhow!("--peer-timeout {text}: give a number of seconds"))
        };
        let number = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        let request = LaunchRequest {
            processes: self.nproc_per_node,
            nodes: self.nnodes.map(number),
            node: self.node_rank.map(number),
            host: self.master_addr.clone(),
            port: self.master_port,
            peer_timeout: self.peer_timeout.as_ref().map(seconds).transpose()?,
        };
        request.role(device)
    }
}
