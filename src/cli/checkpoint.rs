//! `hrm checkpoint inspect` and `hrm checkpoint convert`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::Serialize;

use super::{
    GlobalArgs,
    sources::{WeightsArg, compute_dtype, load_with_origin},
    table::{Table, cells},
    ui::{JsonArg, Ui, warn},
};
use crate::{
    checkpoint::{
        CONFIG_FILE, Checkpoint, CheckpointMeta, Format, Loaded, META_FILE, WEIGHTS_FILE, safetensors_file,
        torch_writer,
    },
    config::TrainConfig,
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
A checkpoint is a run folder (its largest step is taken), a step_N folder, a .safetensors file, or upstream's \
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
    /// Replace files that are there already
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

#[derive(Serialize)]
struct Report<'a> {
    path: String,
    format: &'static str,
    step: Option<u64>,
    /// As upstream counts: without the buffers H_init, L_init and puzzle_emb.weights.
    parameters: usize,
    bytes: usize,
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    num_puzzle_identifiers: Option<usize>,
    tensors: Vec<TensorLine<'a>>,
    config: &'a TrainConfig,
    meta: Option<&'a CheckpointMeta>,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct TensorLine<'a> {
    name: &'a str,
    dtype: &'static str,
    shape: &'a [usize],
    bytes: usize,
}

fn inspect(args: InspectArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    let loaded = load_with_origin(&ui, args.path.as_deref(), args.weights)?;
    let checkpoint = &loaded.checkpoint;
    let lines = checkpoint.tensors.iter().map(|(name, t)| TensorLine {
        name,
        dtype: t.dtype.name(),
        shape: &t.shape,
        bytes: t.data.len(),
    });
    let report = Report {
        path: checkpoint.path.display().to_string(),
        format: format_name(loaded.format),
        step: checkpoint.step,
        parameters: checkpoint.parameter_count(),
        bytes: checkpoint.tensors.iter().map(|(_, t)| t.data.len()).sum(),
        vocab_size: checkpoint.vocab_size(),
        hidden_size: checkpoint.hidden_size(),
        num_puzzle_identifiers: checkpoint.num_puzzle_identifiers(),
        tensors: lines.collect(),
        config: &checkpoint.config,
        meta: loaded.meta.as_ref(),
        warnings: &loaded.warnings,
    };
    print_report(&ui, &report)?;
    ui.emit(&report)
}

fn print_report(ui: &Ui, report: &Report<'_>) -> Result<()> {
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
    let Loaded { checkpoint, meta, format, .. } = load_with_origin(&ui, Some(&args.src), args.weights)?;
    let Checkpoint { path, config, step, averaged, mut tensors, .. } = checkpoint;
    if let Some(dtype) = args.dtype {
        for (_, tensor) in &mut tensors {
            *tensor = tensor.to_float(dtype);
        }
    }
    let written = match args.to {
        Target::Safetensors => {
            refuse_overwrite(&args, &[WEIGHTS_FILE, META_FILE, CONFIG_FILE])?;
            let mut meta = meta.unwrap_or_else(|| CheckpointMeta::of_this_process(step, None));
            meta.weights = averaged.then(|| "ema".to_owned());
            meta.other.insert("converted_from".into(), path.display().to_string().into());
            safetensors_file::save_folder(&args.dst, &config, &meta, &tensors)?;
            args.dst.join(WEIGHTS_FILE)
        }
        Target::Torch => {
            let step = step.unwrap_or_else(|| {
                warn(format_args!("{}: its step is not recorded, written as step_0", path.display()));
                0
            });
            // Several steps of one run share a configuration, and so can share a folder.
            let same = std::fs::read_to_string(args.dst.join(CONFIG_FILE)).ok() == Some(config.to_yaml()?);
            let name = format!("step_{step}");
            refuse_overwrite(&args, &[&name])?;
            if !same {
                refuse_overwrite(&args, &[CONFIG_FILE])?;
            }
            torch_writer::sort_as_upstream(&mut tensors);
            torch_writer::save_folder(&args.dst, step, &config, &tensors)?
        }
    };
    say!(ui, "{} ({}) -> {} ({} tensors)", path.display(), format_name(format), written.display(), tensors.len());
    Ok(())
}

/// Everything that would be replaced is looked for before anything is written.
fn refuse_overwrite(args: &ConvertArgs, names: &[&str]) -> Result<()> {
    let there = names.iter().map(|n| args.dst.join(n)).find(|p| p.exists());
    match there {
        Some(path) if !args.force => {
            bail!("{}: is there already; give another folder, or --force to replace it", path.display())
        }
        Some(path) if path.is_dir() => {
            bail!("{}: is a folder, and a file is to be written there; give another folder", path.display())
        }
        _ => Ok(()),
    }
}

fn format_name(format: Format) -> &'static str {
    match format {
        Format::Safetensors => "safetensors",
        Format::Torch => "torch",
    }
}
