//! `hrm analyze cells`.

use anyhow::Result;

use crate::{
    analysis::cells::{CellsSummary, summarise_cells},
    cli::{
        GlobalArgs,
        args::{output::OutputArgs, puzzles::ManyArgs},
        table::{Table, cells},
        ui::Ui,
    },
    say,
    study::{self, cells::FILES, percent},
};

const DETAILS: &str = "\
Looks at open cells, those that the puzzle does not give; of a maze its free cells, each part of the path or not. For each: the segment from which on it is right to the end, and \
the probability that the model's own output function (stablemax or softmax, as trained) gives its answer. Over all puzzles: \
the share that is right and the confidence in right and in wrong cells by segment; whether cells with a confidence of 90 % \
are right 90 % of the time; and, for Sudoku, how much it matters how many digits row, column and box leave for a cell.

Files in --output-dir: cells.png (with the order of one puzzle, --show ROW), cells.json, right_from.npy (int32 [puzzles, \
cells]: the segment from which on each cell is right, 0 where it is wrong at the end), and runs.jsonl, which \
`hrm analyze segments` and `modes` can continue.

Examples:
  hrm analyze cells --count 500 --show 7
  hrm analyze cells --resume --output-dir analysis/segments      (the runs of hrm analyze segments)";

/// In which order cells become right, and how sure the model is of them
#[derive(clap::Args, Debug)]
#[command(after_long_help = DETAILS, after_help = "Example: hrm analyze cells --count 500    (--help has the details)")]
pub struct CellsArgs {
    #[command(flatten)]
    many: ManyArgs,
    /// The test row whose board is drawn [default: the first that took longest to solve]
    #[arg(long, value_name = "ROW")]
    show: Option<usize>,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn run(args: &CellsArgs, global: &GlobalArgs) -> Result<()> {
    let ui = args.output.ui();
    let many = args.many.run(&ui, global, &args.output, FILES)?;
    let summary = summarise_cells(&many.runs, &many.items);
    print(&ui, &summary);
    let (report, file) = study::cells::write(&many, &summary, args.show)?;
    say!(ui, "picture: {}", report.head.pictures.join(", "));
    say!(ui, "data: {file}, {}", report.head.arrays.join(", "));
    ui.emit(&report)
}

fn print(ui: &Ui, summary: &CellsSummary) {
    let optional = |x: Option<f64>| x.map_or_else(|| "-".to_owned(), percent);
    say!(ui, "");
    let headings = ["segment", "right", "confidence, right", "confidence, wrong", "right from here"];
    let mut table = Table::headed(headings, &[]);
    for (s, from) in summary.by_segment.iter().zip(&summary.right_from) {
        let sure = [optional(s.sure_of_right), optional(s.sure_of_wrong)];
        table.row(cells![s.segment, percent(s.right), sure[0], sure[1], from]);
    }
    table.print(ui);
    say!(ui, "{} open cells of {} puzzles; {} wrong at the end", summary.open_cells, summary.puzzles, summary.never);
    let mut table = Table::new(&[1]);
    for r in &summary.reliability {
        let range = format!("{:.0} to {:.0} % sure:", 100.0 * r.from, 100.0 * r.from + 10.0);
        table.row([range, format!("{} cells, {} right", r.cells, percent(r.right))]);
    }
    for b in &summary.by_candidates {
        let step = b.mean_step.map_or_else(String::new, |step| format!(", from segment {step:.1} on"));
        let cells = format!("{} cells, {} right{step}", b.cells, percent(b.right));
        table.row([format!("{} digit(s) left:", b.candidates), cells]);
    }
    table.print(ui);
}
