//! `hrm doctor`: what was found on this machine, and what to do about what was not.

use anyhow::Result;

use super::{
    GlobalArgs,
    table::Table,
    ui::{JsonArg, Ui},
};
use crate::{
    doctor::{Attention, Checkpoints, Cpu, Cuda, Data, Device, DoctorReport, examine},
    say,
};

/// Say what was found on this machine and what to do about what was not
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Looks at libtorch, the NVIDIA driver and GPUs, memory, the implementations of attention that work (each is run once, \
forward and backward), and at the datasets and checkpoints under data/, checkpoints/ and checkpoint_example/ of the \
folder that it is run in. Only the file that --json names is written. The exit status is 0 even if something is \
missing: `advice` in the JSON lists it.

Examples:
  hrm doctor
  hrm doctor --json - | python3 -m json.tool")]
pub struct DoctorArgs {
    #[command(flatten)]
    json: JsonArg,
}

pub fn run(args: DoctorArgs, global: &GlobalArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    let report = examine(global.init()?)?;
    tell(&ui, &report);
    ui.emit(&report)
}

fn tell(ui: &Ui, report: &DoctorReport) {
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
    facts.row(["device", &format!("{} for --device as given (default: auto)", report.device)]);
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
    tell_reach(&mut facts, &report.data, &report.checkpoints);
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
        None => format!("{} usable GPU(s); the driver supports CUDA {version}", cuda.usable_devices),
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

fn tell_reach(facts: &mut Table, data: &Data, checkpoints: &Checkpoints) {
    facts.row(["data", "Sudoku-Extreme sample (1,000 training and 10,000 test puzzles) bundled with this program"]);
    for dataset in &data.datasets {
        let splits: Vec<_> =
            dataset.splits.iter().map(|s| format!("{} {} groups of {} cells", s.name, s.groups, s.seq_len)).collect();
        facts.row(["data", &format!("{}: {}", dataset.path.display(), splits.join(", "))]);
    }
    if data.datasets.is_empty() {
        facts.row(["data", "no dataset under data/"]);
    }
    for run in &checkpoints.runs {
        let (count, last) = (run.weights.len(), run.weights.last().map_or("", String::as_str));
        facts.row(["checkpoints", &format!("{}: {count} checkpoint(s), last {last}", run.path.display())]);
    }
    if checkpoints.runs.is_empty() {
        facts.row(["checkpoints", "none under checkpoints/ or checkpoint_example/"]);
    }
}
