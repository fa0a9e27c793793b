//! `hrm analyze`.

mod attention;
mod cells;
mod modes;
mod segments;
mod stability;

use anyhow::Result;
use clap::Subcommand;

use super::{
    GlobalArgs,
    args::{
        output::OutputArgs,
        puzzles::{ManyArgs, check_kind, open_test_set},
    },
    ui::Ui,
    watch::StudyWatch,
};
use crate::{
    analysis::identity::PuzzlesIdentity,
    say,
    study::{
        batch_size,
        runs::{RunPuzzles, RunsPlan},
    },
};

/// Measure how a model reasons: the paper's findings on any checkpoint
#[derive(clap::Args, Debug)]
pub struct AnalyzeArgs {
    #[command(subcommand)]
    finding: Finding,
}

#[derive(Subcommand, Debug)]
enum Finding {
    Segments(segments::SegmentsArgs),
    Modes(modes::ModesArgs),
    Stability(stability::StabilityArgs),
    Cells(cells::CellsArgs),
    Attention(attention::AttentionArgs),
}

pub fn run(args: AnalyzeArgs, global: &GlobalArgs) -> Result<()> {
    match args.finding {
        Finding::Segments(args) => segments::run(&args, global),
        Finding::Modes(args) => modes::run(&args, global),
        Finding::Stability(args) => stability::run(&args, global),
        Finding::Cells(args) => cells::run(&args, global),
        Finding::Attention(args) => attention::run(&args, global),
    }
}

/// Runs the puzzles that were asked for, on with what the folder holds where that is wanted.
fn run_many(ui: &Ui, global: &GlobalArgs, args: &ManyArgs, output: &OutputArgs, default: &str) -> Result<RunPuzzles> {
    let checkpoint = args.checkpoint.load(ui, args.run.model.weights)?;
    let puzzles = open_test_set(ui, &args.data, &checkpoint)?;
    check_kind(&puzzles, &checkpoint)?;
    let items = puzzles.rows_from(args.first, args.count.rows())?;
    if args.count.rows().is_some_and(|n| items.len() < n) {
        say!(ui, "fewer test puzzles than asked for: the {} from row {} on", items.len(), args.first);
    }
    let runtime = global.init()?;
    let model = args.run.load(&checkpoint, &puzzles, runtime)?;
    let output = output.open(default)?;
    let watch = StudyWatch::new(ui);
    let plan = RunsPlan {
        checkpoint: &checkpoint,
        model: &model,
        items: &items,
        puzzles: &PuzzlesIdentity::Rows { data: puzzles.identity()?, first: args.first },
        segments: args.run.segments(&model)?,
        batch_size: batch_size(args.run.batch_size, &model),
        file: "runs.jsonl",
    };
    let runs = plan.run(&output, &watch)?;
    Ok(RunPuzzles { checkpoint, model, items, runs, output, origin: puzzles.origin })
}
