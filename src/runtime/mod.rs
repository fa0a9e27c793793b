//! libtorch at run time: which one it is, opening its CUDA half, choosing the device, the number of threads.

mod backend;
mod device;
pub(crate) mod dist;
pub(crate) mod driver;
mod environment;
mod failure;
mod graph;
pub(crate) mod launch;
pub(crate) mod libtorch;
mod plugin;
mod shim;
mod threads;

use std::sync::OnceLock;

use anyhow::Result;

pub use backend::{Acceleration, Backend};
pub use device::{CudaObstacle, CudaState, DeviceChoice};
pub(crate) use failure::{OutOfMemory, catch_panics};
pub(crate) use graph::{CudaGraph, Recorded};
pub use shim::{SdpBackend, SdpFlags, ShimError};
pub(crate) use shim::{cpu_capability, cuda_stream, device_memory, reset_peak_memory, torch_version};
pub(crate) use threads::resolve as cpu_threads;

/// Where and how wide this process computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Where tensors are made.
    pub device: tch::Device,
    /// CPU threads of torch and of rayon.
    pub threads: usize,
    /// What models may use on the device.
    pub acceleration: Acceleration,
}

/// Opens libtorch's CUDA half where the driver works and `device` may mean a GPU. The first thing in a program that
/// computes: torch decides at its first use whether there is CUDA. Before that, the environment of CUDA's libraries is
/// settled; `deterministic`: also that of [`make_deterministic`].
pub fn prepare(device: DeviceChoice, deterministic: bool) {
    if device == DeviceChoice::Cpu {
        return;
    }
    environment::settle(deterministic);
    if !driver::hidden_by_user() && driver::query().is_ok() {
        // What went wrong is told where the device is resolved.
        let _ = libtorch::open_cuda();
    }
}

/// Makes libtorch ready: opens its CUDA half where the device may need it, settles the number of threads, resolves
/// the device. To be called before any tensor is made.
///
/// ```
/// let runtime = hrm::runtime::init(hrm::runtime::DeviceChoice::Cpu, Some(1))?;
/// assert_eq!(runtime.threads, 1);
/// # Ok::<(), anyhow::Error>(())
/// ```
///
/// # Errors
/// A GPU was asked for by name and cannot be used.
pub fn init(device: DeviceChoice, threads: Option<u32>) -> Result<Runtime> {
    let device = device.resolve()?;
    if let tch::Device::Cuda(index) = device {
        shim::set_device(index)?;
    }
    let threads = threads::resolve(threads);
    threads::apply(threads);
    Ok(Runtime { device, threads, acceleration: Acceleration::from_env() })
}

/// Makes torch choose the deterministic form of its operations in this process; on a GPU [`prepare`] must know of it. To be
/// called before CUDA starts. Models repeat the same bits if they leave [`Acceleration::tuned_products`] out as well.
///
/// # Errors
/// A failure inside libtorch.
pub fn make_deterministic() -> Result<()> {
    Ok(shim::set_deterministic()?)
}

/// A host tensor on a device. To a GPU it goes through pinned memory, so that the copy waits in the stream and not on
/// the host.
pub fn upload(host: &tch::Tensor, device: tch::Device) -> tch::Tensor {
    let pinned = if device.is_cuda() { shim::pin(host).ok() } else { None };
    match pinned {
        Some(pinned) => pinned.to_device_(device, host.kind(), true, false),
        None => host.to_device(device),
    }
}

/// A device as `--device` spells it.
pub fn device_name(device: tch::Device) -> String {
    match device {
        tch::Device::Cpu => "cpu".to_owned(),
        tch::Device::Cuda(n) => format!("cuda:{n}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// `0.1.0 (libtorch 2.11.0)`.
pub fn long_version() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| format!("{} (libtorch {})", env!("CARGO_PKG_VERSION"), torch_version()))
}
