//! Many processes that compute as one, through libtorch's c10d: a TCP store to find one another, Gloo for tensors on the
//! host, NCCL for tensors on a GPU.
//!
//! The processes find one another through the variables that torchrun sets (RANK, WORLD_SIZE, LOCAL_RANK,
//! LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT); `hrm train --nproc-per-node` sets the same ones. Every rank calls the
//! same collectives in the same order.

mod group;
mod place;
mod store;

use std::{ffi::CString, time::Duration};

use anyhow::{Context, Result};

pub use group::{Group, PeerLost};
pub use place::{PEER_TIMEOUT_VARIABLE, Place, STORE_VARIABLE, is_loopback, peer_timeout, peer_timeout_from_env};
pub use store::{Reach, SharedStore, Store};

/// A wait longer than this is told on standard error.
const PATIENCE: Duration = Duration::from_secs(5);

const STOPPED_WAITING: &str = "stopped while it waited for its peers; nothing was begun";

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn text(value: &str) -> Result<CString> {
    CString::new(value).with_context(|| format!("{value:?} holds a zero byte"))
}
