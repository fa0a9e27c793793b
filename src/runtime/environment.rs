//! Environment variables that CUDA's libraries read and that they can be told in no other way.
//!
//! They are set once, at the start of the program, and only where the user has not set them. The environment must not
//! change while another thread may read it, so that nothing is set in a process that has threads already, such as a
//! Python that imported this library: there it is the user who sets them.

use std::{env, fs, sync::Once};

use super::dist::Place;

/// NVLink multicast of NCCL: where a host's fabric is not set up for it, NCCL hangs or fails at its first use.
const NVLS: (&str, &str) = ("NCCL_NVLS_ENABLE", "0");
/// Where all ranks are on one host, NCCL needs no other interface.
const LOOPBACK: (&str, &str) = ("NCCL_SOCKET_IFNAME", "lo");
/// cuBLAS is deterministic with a workspace of a fixed size alone.
const WORKSPACE: (&str, &str) = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8");

/// Sets the variables; the first call alone does anything.
pub(super) fn settle(deterministic: bool) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let one_host = Place::from_env().is_ok_and(|place| place.is_some_and(|place| place.one_host));
        let wanted = [Some(NVLS), one_host.then_some(LOOPBACK), deterministic.then_some(WORKSPACE)];
        let wanted = wanted.into_iter().flatten();
        let unset: Vec<_> = wanted.filter(|(name, _)| env::var_os(name).is_none()).collect();
        let alone = fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1);
        for (name, value) in unset {
            if alone {
                // SAFETY: no other thread can read the environment, as there is none.
                unsafe { env::set_var(name, value) };
            } else {
                log::warn!(
                    "{name} is not set to {value}, as this process has threads already: set it before the start"
                );
            }
        }
    });
}
