//! `hrm analyze`.

mod attention;
mod cells;
mod modes;
mod segments;
mod stability;

use anyhow::Result;
use clap::Subcommand;

use super::GlobalArgs;

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
