//! `hrm doctor`: what was found on this machine, and what to do about what was not.

mod host;
mod reach;

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use super::{
    GlobalArgs,
    table::Table,
    ui::{JsonArg, Ui},
};
use crate::{
    runtime::{self, CudaObstacle, CudaState, SdpBackend, SdpFlags, driver, libtorch},
    say,
};

/// Say what was found on this machine and what to do about what was not
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Looks at libtorch, the NVIDIA driver and GPUs, memory, the implementations of attention that work (each is run once, \
forward and backward), and at the datasets and checkpoints under data/, checkpoints/ and checkpoint_example/ of the \
folder that it is run in. Nothing is written but the file that --json names. The exit status is 0 also where something \
is missing: `advice` in the JSON lists it.

Examples:
  hrm doctor
  hrm doctor --json - | python3 -m json.tool")]
pub struct DoctorArgs {
    #[command(flatten)]
    json: JsonArg,
}

/// The document of `hrm doctor --json`.
#[derive(Serialize)]
struct Report {
    hrm: &'static str,
    libtorch: Libtorch,
    cuda: Cuda,
    cpu: Cpu,
    memory: host::Memory,
    /// Where `--device` (auto unless given) computes.
    device: String,
    attention: Vec<Attention>,
    data: reach::Data,
    checkpoints: reach::Checkpoints,
    /// What to do, one entry per thing that is missing or wrong.
    advice: Vec<String>,
}

#[derive(Serialize)]
struct Libtorch {
    /// Version of the headers that the binary was compiled with.
    compiled: &'static str,
    /// Version of the library that was loaded; none where its folder does not tell.
    loaded: Option<String>,
    folder: Option<PathBuf>,
}

#[derive(Serialize)]
struct Cuda {
    /// How many GPUs torch can compute on.
    usable_devices: usize,
    /// Why there are none.
    obstacle: Option<String>,
    /// The newest CUDA that the NVIDIA driver serves.
    driver_cuda: Option<&'static str>,
    devices: Vec<Device>,
}

#[derive(Serialize)]
struct Device {
    name: &'static str,
    compute_capability: &'static str,
    multiprocessors: i32,
    /// Bytes.
    memory_total: u64,
    /// Bytes; none where torch cannot use the GPU.
    memory_free: Option<u64>,
}

#[derive(Serialize)]
struct Cpu {
    /// Cores that this process may use.
    cores: usize,
    /// What `--threads` (or OMP_NUM_THREADS, or the cores) comes to.
    threads: usize,
    /// Instruction set of libtorch's kernels.
    kernels: Option<&'static str>,
}

#[derive(Serialize)]
struct Attention {
    device: &'static str,
    dtype: &'static str,
    backend: &'static str,
    usable: bool,
    /// Whether torch's flags let it be chosen.
    allowed: bool,
    /// Torch's reason against it.
    reason: Option<String>,
}

pub fn run(args: DoctorArgs, global: &GlobalArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    let report = examine(global)?;
    tell(&ui, &report);
    ui.emit(&report)
}

fn examine(global: &GlobalArgs) -> Result<Report> {
    let mut advice = Vec::new();
    let runtime = global.init()?;

    let libtorch =
        Libtorch { compiled: runtime::torch_version(), loaded: libtorch::loaded_version(), folder: libtorch::folder() };
    if let Some(loaded) = libtorch.loaded.as_deref()
        && loaded.split('+').next() != Some(libtorch.compiled)
    {
        advice.push(format!(
            "libtorch {loaded} was loaded, {} is wanted: take its folder out of LD_LIBRARY_PATH, then `make build`",
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
    Ok(Report {
        hrm: env!("CARGO_PKG_VERSION"),
        libtorch,
        cuda,
        cpu: Cpu { cores: host::cores(), threads: runtime.threads, kernels: runtime::cpu_capability().ok() },
        memory: host::memory(),
        device: match runtime.device {
            tch::Device::Cuda(n) => format!("cuda:{n}"),
            _ => "cpu".into(),
        },
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

fn tell(ui: &Ui, report: &Report) {
    let mut facts = Table::new(&[0, 1]);
    let torch = &report.libtorch;
    facts.row(["hrm", report.hrm]);
    let from = torch.folder.as_deref().map_or("an unknown folder".into(), |p| p.display().to_string());
    facts.row(["libtorch", &format!("{}, from {from}", torch.loaded.as_deref().unwrap_or(torch.compiled))]);
    let Cpu { cores, threads, kernels } = report.cpu;
    let kernels = kernels.unwrap_or("unknown");
    facts.row(["CPU", &format!("{cores} cores, {threads} threads, {kernels} kernels")]);
    let size = |bytes: Option<u64>| bytes.map_or("unknown".into(), gibibytes);
    let [available, total] = [report.memory.available, report.memory.total].map(size);
    facts.row(["memory", &format!("{available} available of {total}")]);
    tell_cuda(&mut facts, &report.cuda);
    facts.row(["device", &format!("{} for --device as given (auto unless said otherwise)", report.device)]);
    for device in ["cpu", "cuda"] {
        for dtype in ["bf16", "f32"] {
            let of = |usable: bool| -> Vec<&str> {
                let here = |a: &&Attention| a.device == device && a.dtype == dtype && a.usable == usable;
                report.attention.iter().filter(here).map(|a| a.backend).collect()
            };
            let (yes, no) = (of(true), of(false));
            if !yes.is_empty() || !no.is_empty() {
                let without = if no.is_empty() { String::new() } else { format!("; not usable: {}", no.join(", ")) };
                facts.row(["attention", &format!("{device} {dtype}: {}{without}", yes.join(", "))]);
            }
        }
    }
    reach::tell(&mut facts, &report.data, &report.checkpoints);
    facts.print(ui);
    if report.advice.is_empty() {
        say!(ui, "\nNothing is missing.");
        return;
    }
    say!(ui, "\nWhat to do:");
    for advice in &report.advice {
        say!(ui, "  - {advice}");
    }
}

fn tell_cuda(facts: &mut Table, cuda: &Cuda) {
    let version = cuda.driver_cuda.unwrap_or("of unknown version");
    let usable = match &cuda.obstacle {
        None => format!("{} usable GPU(s); the driver serves CUDA {version}", cuda.usable_devices),
        Some(why) => format!("not usable: {why}"),
    };
    facts.row(["CUDA", &usable]);
    for (n, gpu) in cuda.devices.iter().enumerate() {
        let free = gpu.memory_free.map_or(String::new(), |free| format!("{} free of ", gibibytes(free)));
        let Device { name, compute_capability, multiprocessors, memory_total, .. } = gpu;
        let total = gibibytes(*memory_total);
        let what = format!(
            "cuda:{n} {name}, compute capability {compute_capability}, {multiprocessors} multiprocessors, {free}{total}"
        );
        facts.row(["GPU", &what]);
    }
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}
