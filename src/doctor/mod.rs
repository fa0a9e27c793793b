//! What was found on this machine, and what to do about what was not.

mod host;
mod reach;

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use crate::runtime::{self, CudaObstacle, CudaState, Runtime, SdpBackend, SdpFlags, device_name, driver, libtorch};

use host::HostMemory;
pub(crate) use reach::{Checkpoints, Data};

/// The document of `hrm doctor --json`.
#[derive(Debug, Serialize)]
pub struct DoctorReport {
    pub hrm: &'static str,
    pub libtorch: Libtorch,
    pub cuda: Cuda,
    pub cpu: Cpu,
    pub memory: HostMemory,
    /// Where `--device` (auto unless given) computes.
    pub device: String,
    pub attention: Vec<Attention>,
    pub data: Data,
    pub checkpoints: Checkpoints,
    /// What to do, one entry per thing that is missing or wrong.
    pub advice: Vec<String>,
}

/// The library that computes.
#[derive(Debug, Serialize)]
pub struct Libtorch {
    /// Version of the headers that the binary was compiled with.
    pub compiled: &'static str,
    /// Version of the library that was loaded; none where its folder does not tell.
    pub loaded: Option<String>,
    pub folder: Option<PathBuf>,
}

/// The GPUs, as driver and torch see them.
#[derive(Debug, Serialize)]
pub struct Cuda {
    /// How many GPUs torch can compute on.
    pub usable_devices: usize,
    /// Why there are none.
    pub obstacle: Option<String>,
    /// The newest CUDA that the NVIDIA driver serves.
    pub driver_cuda: Option<&'static str>,
    pub devices: Vec<Device>,
}

/// A GPU.
#[derive(Debug, Serialize)]
pub struct Device {
    pub name: &'static str,
    pub compute_capability: &'static str,
    pub multiprocessors: i32,
    /// Bytes.
    pub memory_total: u64,
    /// Bytes; none where torch cannot use the GPU.
    pub memory_free: Option<u64>,
}

/// The processor.
#[derive(Debug, Serialize)]
pub struct Cpu {
    /// Cores that this process may use.
    pub cores: usize,
    /// What `--threads` (or OMP_NUM_THREADS, or the cores) comes to.
    pub threads: usize,
    /// Instruction set of libtorch's kernels.
    pub kernels: Option<&'static str>,
}

/// An implementation of attention on a device in a dtype.
#[derive(Debug, Serialize)]
pub struct Attention {
    pub device: &'static str,
    pub dtype: &'static str,
    pub backend: &'static str,
    pub usable: bool,
    /// Whether torch's flags let it be chosen.
    pub allowed: bool,
    /// Torch's reason against it.
    pub reason: Option<String>,
}

/// Looks at the machine and at the folder that this process runs in. Nothing is written.
///
/// # Errors
/// A failure inside libtorch.
pub fn examine(runtime: Runtime) -> Result<DoctorReport> {
    let mut advice = Vec::new();

    let libtorch =
        Libtorch { compiled: runtime::torch_version(), loaded: libtorch::loaded_version(), folder: libtorch::folder() };
    if let Some(loaded) = libtorch.loaded.as_deref()
        && loaded.split('+').next() != Some(libtorch.compiled)
    {
        advice.push(format!(
            "libtorch {loaded} was loaded, but {} is required: remove its folder from LD_LIBRARY_PATH, then `make build`",
            libtorch.compiled
        ));
    }

    let state = CudaState::probe();
    // A machine without a GPU is in good health.
    if let Err(obstacle) = &state.usable
        && *obstacle != CudaObstacle::NoGpu
    {
        advice.push(format!("GPU: {obstacle}"));
    }
    let attention = try_attention(state.usable.is_ok())?;
    let cuda = describe_cuda(&state);

    let data = reach::data(&mut advice);
    let checkpoints = reach::checkpoints(&mut advice);
    Ok(DoctorReport {
        hrm: env!("CARGO_PKG_VERSION"),
        libtorch,
        cuda,
        cpu: Cpu { cores: host::cores(), threads: runtime.threads, kernels: runtime::cpu_capability().ok() },
        memory: host::memory(),
        device: device_name(runtime.device),
        attention,
        data,
        checkpoints,
        advice,
    })
}

fn describe_cuda(state: &CudaState) -> Cuda {
    let driver = driver::query().ok();
    let usable = state.usable.as_ref().copied().unwrap_or(0);
    let device = |(n, gpu): (usize, &'static driver::Gpu)| Device {
        name: &gpu.name,
        compute_capability: &gpu.compute_capability,
        multiprocessors: gpu.multiprocessors,
        memory_total: gpu.memory_total,
        memory_free: (n < usable).then(|| runtime::device_memory(n).ok()).flatten().map(|m| m.free),
    };
    Cuda {
        usable_devices: usable,
        obstacle: state.usable.as_ref().err().map(ToString::to_string),
        driver_cuda: driver.map(|d| d.cuda_version.as_str()),
        devices: driver.map(|d| d.gpus.iter().enumerate().map(device).collect()).unwrap_or_default(),
    }
}

/// Tries every implementation on the CPU and, where there is one, on the first GPU.
fn try_attention(gpu: bool) -> Result<Vec<Attention>> {
    let flags = SdpFlags::current()?;
    let mut found = Vec::new();
    for (device, name) in [(tch::Device::Cpu, "cpu"), (tch::Device::Cuda(0), "cuda")] {
        if device.is_cuda() && !gpu {
            continue;
        }
        for (bf16, dtype) in [(true, "bf16"), (false, "f32")] {
            for backend in SdpBackend::ALL {
                let tried = backend.try_on(device, bf16);
                found.push(Attention {
                    device: name,
                    dtype,
                    backend: backend.name(),
                    usable: tried.is_ok(),
                    allowed: flags.allows(backend),
                    reason: tried.err().map(|e| e.0),
                });
            }
        }
    }
    Ok(found)
}
