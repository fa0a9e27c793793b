//! `hrm checkpoint inspect` and `hrm checkpoint convert`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::ValueEnum;

use super::{
    GlobalArgs,
    args::checkpoints::{WeightsArg, compute_dtype, load_with_origin},
    table::{Table, cells},
    ui::{JsonArg, Ui, warn},
};
use crate::{
    checkpoint::{CheckpointReport, Conversion, Format},
    dtype::Dtype,
    say,
};

/// Look into checkpoints and convert them
#[derive(clap::Args, Debug)]
pub struct CheckpointArgs {
    #[command(subcommand)]
    command: CheckpointCommand,
}

#[derive(clap::Subcommand, Debug)]
enum CheckpointCommand {
    Inspect(InspectArgs),
    Convert(ConvertArgs),
}

/// Show a checkpoint's configuration, tensors, step and origin
#[derive(clap::Args, Debug)]
#[command(after_help = "\
A checkpoint is a run folder (its largest step is used), a step_N folder, a .safetensors file, or upstream's \
torch.save file or folder.

Examples:
  hrm checkpoint inspect
  hrm checkpoint inspect checkpoints/Sudoku-extreme-full\\ ACT-torch/my-run --json -")]
struct InspectArgs {
    /// The checkpoint [default: the newest step of the newest run under checkpoints/]
    path: Option<PathBuf>,
    #[command(flatten)]
    weights: WeightsArg,
    #[command(flatten)]
    json: JsonArg,
}

/// Convert between our form (safetensors) and upstream's (torch.save)
#[derive(clap::Args, Debug)]
#[command(after_help = "\
--to safetensors writes DST/model.safetensors, DST/all_config.yaml and DST/meta.json.
--to torch writes DST/step_N and DST/all_config.yaml, which upstream's own loader takes.
Without --dtype every tensor keeps its type, and converting there and back changes no bit.

Examples:
  hrm checkpoint convert checkpoint_example/run/example_checkpoint mine --to safetensors
  hrm checkpoint convert mine for-python --to torch --dtype bf16")]
struct ConvertArgs {
    /// The checkpoint to read: a run folder, step_N folder, .safetensors file, or upstream's file or folder
    src: PathBuf,
    /// The folder to write
    dst: PathBuf,
    /// The form to write
    #[arg(long, value_name = "FORM")]
    to: Target,
    /// Convert every floating-point tensor to this type [default: each keeps its own]
    #[arg(long, value_parser = compute_dtype())]
    dtype: Option<Dtype>,
    #[command(flatten)]
    weights: WeightsArg,
    /// Replace existing files
    #[arg(long)]
    force: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq)]
enum Target {
    Safetensors,
    Torch,
}

pub fn run(args: CheckpointArgs, _global: &GlobalArgs) -> Result<()> {
    match args.command {
        CheckpointCommand::Inspect(a) => inspect(a),
        CheckpointCommand::Convert(a) => convert(a),
    }
}

fn inspect(args: InspectArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    let loaded = load_with_origin(&ui, args.path.as_deref(), args.weights)?;
    let report = CheckpointReport::new(&loaded);
    print_report(&ui, &report)?;
    ui.emit(&report)
}

fn print_report(ui: &Ui, report: &CheckpointReport<'_>) -> Result<()> {
    let mut facts = Table::new(&[0, 1]);
    facts.row(["checkpoint", &report.path]);
    facts.row(["format", report.format]);
    facts.row(["step", &report.step.map_or("not recorded".into(), |s| s.to_string())]);
    facts.row(["parameters", &format!("{} ({} bytes with buffers)", report.parameters, report.bytes)]);
    let known = |n: Option<usize>| n.map_or("unknown".into(), |n| n.to_string());
    facts.row(["vocabulary", &known(report.vocab_size)]);
    facts.row(["puzzle ids", &known(report.num_puzzle_identifiers)]);
    if let Some(meta) = report.meta {
        facts.row(["written by", &format!("hrm {}", meta.hrm_version)]);
        facts.row(["command", &meta.command_line.join(" ")]);
        facts.row(["data", meta.data_fingerprint.as_deref().unwrap_or("no fingerprint")]);
        meta.other.iter().for_each(|(name, value)| facts.row(cells![name, value]));
    }
    facts.print(ui);
    say!(ui, "\nconfiguration");
    for line in report.config.to_yaml()?.lines() {
        say!(ui, "  {line}");
    }
    say!(ui, "\n{} tensors", report.tensors.len());
    let mut table = Table::new(&[0, 1, 3]);
    for t in &report.tensors {
        table.row(cells![t.name, t.dtype, format!("{} bytes", t.bytes), format!("{:?}", t.shape)]);
    }
    table.print_behind(ui, "  ");
    Ok(())
}

fn convert(args: ConvertArgs) -> Result<()> {
    let ui = Ui::default();
    if args.dst.exists() && !args.dst.is_dir() {
        bail!("{}: is a file; the destination is a folder that the checkpoint is written into", args.dst.display());
    }
    let loaded = load_with_origin(&ui, Some(&args.src), args.weights)?;
    let (path, format) = (loaded.checkpoint.path.display().to_string(), loaded.format.name());
    let conversion = Conversion {
        folder: args.dst,
        to: match args.to {
            Target::Safetensors => Format::Safetensors,
            Target::Torch => Format::Torch,
        },
        dtype: args.dtype,
        force: args.force,
    };
    let written = conversion.run(loaded)?;
    if written.without_step {
        warn(format_args!("{path}: its step is not recorded, written as step_0"));
    }
    say!(ui, "{path} ({format}) -> {} ({} tensors)", written.file.display(), written.tensors);
    Ok(())
}
