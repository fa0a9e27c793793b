//! `hrm report`.

use anyhow::Result;

use super::{
    GlobalArgs,
    args::{
        output::OutputArgs,
        puzzles::{RunArgs, SeveralArgs},
    },
    table::Table,
    watch::StudyWatch,
    work::foretell_runs,
};
use crate::{
    dataset::RowCount,
    say,
    study::report::{FILES, ReportPlan},
};

const DETAILS: &str = "\
Runs every checkpoint on the first --count test puzzles and writes one self-contained HTML file: a table of \
accuracies and modes (see `hrm analyze modes`), the pictures of `hrm analyze segments` and `modes`, and an explorer: pick a \
puzzle, slide through the segments, see the board (given, right, wrong, changed, confidence), the path of the hidden state \
and the losses. The file loads nothing from elsewhere.

The explorer has --explore puzzles a checkpoint, drawn from the modes in turn, so that successes and failures are both \
among them.

Files in --output-dir: report.html, and runs-K.jsonl with every run of checkpoint K (for --resume).

Examples:
  hrm report --checkpoint runs/a
  hrm report --checkpoints runs/vanilla,runs/hint --count 500 --explore 40 --output-dir compare";

/// Write a report that anybody can open: one HTML file with an explorer
#[derive(clap::Args, Debug)]
#[command(after_long_help = DETAILS, after_help = "Example: hrm report --checkpoint runs/a    (--help has the details)")]
pub struct ReportArgs {
    #[command(flatten)]
    several: SeveralArgs,
    /// How many test puzzles; with --resume also more or fewer than the folder has
    #[arg(long, value_name = "N|all", default_value = "200")]
    count: RowCount,
    /// Puzzles in the explorer, for each checkpoint
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=500))]
    explore: u32,
    /// The page's title
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn run(args: ReportArgs, global: &GlobalArgs) -> Result<()> {
    let ui = args.output.ui();
    let (checkpoints, puzzles) = args.several.open(&ui, args.run.model.weights)?;
    let items = puzzles.rows_from(0, args.count.rows())?;
    let runtime = global.init()?;
    let subjects = args.run.load_all(checkpoints, &puzzles, runtime)?;
    foretell_runs(&ui, &subjects, args.run.segments, items.len())?;
    let output = args.output.open(FILES)?;
    let watch = StudyWatch::new(&ui);
    let plan = ReportPlan {
        title: args.title.unwrap_or_else(|| "How it reasons".to_owned()),
        explore: usize::try_from(args.explore)?,
        segments: args.run.segments.map(usize::try_from).transpose()?,
        batch_size: args.run.batch_size,
        seed: global.seed.unwrap_or(0),
    };
    let (document, rows) = plan.run(&puzzles, &items, &subjects, &output, &watch)?;
    let mut table = Table::new(&[0]);
    rows.iter().for_each(|row| table.row(row));
    table.print(&ui);
    say!(ui, "report: {} ({:.2} MB), open it in any browser", document.file, document.bytes as f64 / 1e6);
    ui.emit(&document)
}
