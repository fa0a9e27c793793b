//! The command line: every file here turns one command's arguments into a checked plan and a call into the library.

mod analyze;
mod args;
mod bench;
mod build_dataset;
mod checkpoint;
mod dataset;
mod doctor;
mod eval;
mod infer;
mod manual;
mod report;
mod runs;
mod solve;
mod table;
mod trace;
mod train;
pub mod ui;
mod viz;
mod watch;
mod work;

use std::{
    borrow::Cow,
    ffi::OsString,
    io::{self, Write},
    num::NonZero,
    process::ExitCode,
    thread,
};

use anyhow::{Error, Result, anyhow};
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::ui::complain;
use crate::{
    escape::printable,
    memory,
    outcome::{INTERRUPTED, Interrupted, Outcome},
    runtime::{self, OutOfMemory, catch_panics},
    signals,
};

/// Train, evaluate and analyse Hierarchical Reasoning Models
#[derive(Parser, Debug)]
#[command(name = "hrm", version = runtime::long_version(), propagate_version = true, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// Their heading in every command's help, below the command's own.
const SHARED: &str = "Options of every command";

/// Flags that mean the same on every command.
#[derive(clap::Args, Clone, Debug)]
pub struct GlobalArgs {
    /// Where to compute: auto uses a GPU if there is a usable one
    #[arg(long, global = true, help_heading = SHARED, value_name = "auto|cpu|cuda[:N]", default_value = "auto")]
    pub device: runtime::DeviceChoice,
    /// CPU threads [default: OMP_NUM_THREADS, else all cores]
    #[arg(long, global = true, help_heading = SHARED, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Seed of everything random; the same seed gives the same result [default: 0; train: the configuration's]
    #[arg(long, global = true, help_heading = SHARED, value_name = "S", allow_negative_numbers = true)]
    pub seed: Option<u64>,
}

impl GlobalArgs {
    /// Makes libtorch ready as `--device` and `--threads` ask. Every command that computes begins with it.
    pub fn init(&self) -> Result<runtime::Runtime> {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        if let Some(threads) = self.threads
            && usize::try_from(threads).is_ok_and(|threads| threads > cores)
        {
            ui::warn(format_args!(
                "--threads {threads}: this process may use {cores} core(s); more threads are slower"
            ));
        }
        runtime::init(self.device, self.threads)
    }

    /// [`GlobalArgs::init`] for one of several processes, whose device follows from its number.
    pub fn init_on(&self, device: runtime::DeviceChoice) -> Result<runtime::Runtime> {
        Self { device, ..self.clone() }.init()
    }
}

#[derive(Subcommand, Debug)]
enum Command {
    BuildDataset(build_dataset::BuildDatasetArgs),
    Train(train::TrainArgs),
    Runs(runs::RunsArgs),
    Infer(infer::InferArgs),
    Eval(eval::EvalArgs),
    Solve(solve::SolveArgs),
    #[command(alias = "visualize")]
    Viz(viz::VizArgs),
    #[command(alias = "analyse")]
    Analyze(analyze::AnalyzeArgs),
    Report(report::ReportArgs),
    Trace(trace::TraceArgs),
    Checkpoint(checkpoint::CheckpointArgs),
    Dataset(dataset::DatasetArgs),
    Bench(bench::BenchArgs),
    Doctor(doctor::DoctorArgs),
    Completions(manual::CompletionsArgs),
    Man(manual::ManArgs),
}

impl Command {
    /// Whether the same bits are asked for at every repetition.
    fn is_deterministic(&self) -> bool {
        matches!(self, Self::Train(args) if args.deterministic)
    }

    /// Whether the command uses libtorch.
    fn computes(&self) -> bool {
        match self {
            Self::Train(_) | Self::Bench(_) | Self::Infer(_) | Self::Eval(_) | Self::Solve(_) | Self::Viz(_) => true,
            Self::Analyze(_) | Self::Report(_) | Self::Trace(_) | Self::Doctor(_) => true,
            Self::BuildDataset(_) | Self::Dataset(_) | Self::Runs(_) | Self::Checkpoint(_) => false,
            Self::Completions(_) | Self::Man(_) => false,
        }
    }
}

/// The whole program: parse, run, report an error chain once.
pub fn main() -> ExitCode {
    ui::show_warnings();
    signals::install();
    let args = with_dashes(std::env::args_os());
    let outcome = match Cli::command().try_get_matches_from(args) {
        Ok(matches) => {
            let advice = advice(&matches);
            memory::advise(advice);
            let told = |e: Error| match e.downcast_ref() {
                Some(OutOfMemory(what)) => anyhow!("{what}: it does not fit into memory{advice}"),
                None => e,
            };
            Outcome::from(catch_panics(|| run(Cli::from_arg_matches(&matches)?)).map_err(told))
        }
        Err(usage) => return print_usage(&usage),
    };
    match outcome {
        Outcome::Done => match ui::lost_output() {
            None => ExitCode::SUCCESS,
            Some(e) => {
                complain(format_args!("error: cannot write to standard output: {e}"));
                ExitCode::FAILURE
            }
        },
        Outcome::Interrupted(untold) => {
            if untold != Interrupted::TOLD {
                complain(format_args!("{untold}"));
            }
            ExitCode::from(INTERRUPTED)
        }
        Outcome::Failed(e) => {
            thread::sleep(runtime::launch::report_delay(&e));
            complain(format_args!("error: {e:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Help, or what is wrong with the arguments; quoted control characters are escaped, in exchange for the colours.
fn print_usage(usage: &clap::Error) -> ExitCode {
    let text = usage.render().to_string();
    let _ = match printable(&text) {
        Cow::Borrowed(_) => usage.print(),
        Cow::Owned(escaped) => io::stderr().lock().write_all(escaped.as_bytes()),
    };
    ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(u8::MAX))
}

/// What to do about too little memory, where the command has a flag for that.
fn advice(matches: &ArgMatches) -> &'static str {
    let (mut command, mut matches) = (&Cli::command(), matches);
    while let Some((name, inner)) = matches.subcommand()
        && let Some(found) = command.find_subcommand(name)
    {
        (command, matches) = (found, inner);
    }
    match command.get_arguments().any(|arg| arg.get_long() == Some("batch-size")) {
        true => "; give a smaller --batch-size",
        false => "",
    }
}

fn run(cli: Cli) -> Result<()> {
    let global = &cli.global;
    signals::file_size_limits_are_errors();
    if cli.command.computes() {
        runtime::prepare(global.device, cli.command.is_deterministic());
    }
    match cli.command {
        Command::BuildDataset(a) => build_dataset::run(a, global),
        Command::Train(a) => train::run(a, global),
        Command::Runs(a) => runs::run(&a),
        Command::Infer(a) => infer::run(a, global),
        Command::Eval(a) => eval::run(a, global),
        Command::Solve(a) => solve::run(a, global),
        Command::Viz(a) => viz::run(a, global),
        Command::Analyze(a) => analyze::run(a, global),
        Command::Report(a) => report::run(a, global),
        Command::Trace(a) => trace::run(a, global),
        Command::Checkpoint(a) => checkpoint::run(a, global),
        Command::Dataset(a) => dataset::run(a, global),
        Command::Bench(a) => bench::run(a, global),
        Command::Doctor(a) => doctor::run(a, global),
        Command::Completions(a) => manual::completions(a, Cli::command()),
        Command::Man(a) => manual::man(a, Cli::command()),
    }
}

/// Upstream spells its flags with underscores: `--num_batch` means `--num-batch`. Values are left alone.
fn with_dashes(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut literal = false;
    args.map(|arg| {
        let Some(text) = arg.to_str() else { return arg };
        literal |= text == "--";
        if literal || !text.starts_with("--") || !text.contains('_') {
            return arg;
        }
        match text.split_once('=') {
            Some((flag, value)) => format!("{}={value}", flag.replace('_', "-")).into(),
            None => text.replace('_', "-").into(),
        }
    })
    .collect()
}
