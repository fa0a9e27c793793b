//! `hrm analyze segments`.

use anyhow::Result;

use crate::{
    analysis::segments::{SegmentsSummary, summarise},
    cli::{
        GlobalArgs,
        args::{output::OutputArgs, puzzles::ManyArgs},
        table::{Table, cells},
        ui::Ui,
    },
    say,
    study::{
        between, percent,
        segments::{self, FILES},
    },
};

const DETAILS: &str = "\
For every puzzle and every segment: the loss per cell, right cells, q_halt and q_continue, broken rules, and how far the \
state moved, |Δz|/|z|, for z_H and z_L. A puzzle is *grokked* at the segment from which on its answer stays right to the \
end. The picture shows the paper's point: the mean loss falls smoothly, each single loss falls at once.

How sudden it is: the share of a puzzle's total decrease of the loss that its steepest segment carries (1 = all in one \
segment), beside the same share of the mean curve.

Files in --output-dir:
  segments.png   the picture
  segments.json  the means, and when each puzzle is grokked
  runs.jsonl     every puzzle's numbers; `hrm analyze modes` can continue it (--resume --output-dir the same folder)
  loss.npy (f64), exact.npy (bool), q_halt.npy, q_continue.npy, move_h.npy, move_l.npy (f32)
                 the same as matrices [puzzles, segments]; move_h is |Δz_H|/|z_H|

Examples:
  hrm analyze segments --count 500
  hrm analyze segments --checkpoint runs/a --count all --segments 32 --format both";

/// Loss, accuracy, q and motion by segment: the mean beside the single puzzles, and when each is solved
#[derive(clap::Args, Debug)]
#[command(after_long_help = DETAILS, after_help = "Example: hrm analyze segments --count 500    (--help has the details)")]
pub struct SegmentsArgs {
    #[command(flatten)]
    many: ManyArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn run(args: &SegmentsArgs, global: &GlobalArgs) -> Result<()> {
    let ui = args.output.ui();
    let many = args.many.run(&ui, global, &args.output, FILES)?;
    let summary = summarise(&many.runs, global.seed.unwrap_or(0));
    print(&ui, &summary);
    let (report, file) = segments::write(&many, &summary)?;
    say!(ui, "picture: {}", report.head.pictures.join(", "));
    say!(ui, "data: {file}, {}", report.head.arrays.join(", "));
    ui.emit(&report)
}

fn print(ui: &Ui, summary: &SegmentsSummary) {
    say!(ui, "");
    let headings = ["segment", "loss", "exact", "95 %", "cells", "halts", "q_halt", "q_cont", "|dzH|/|z|", "|dzL|/|z|"];
    let mut table = Table::headed(headings, &[]);
    for s in &summary.segments {
        table.row(cells![
            s.segment,
            format!("{:.4}", s.loss),
            percent(s.exact),
            between(&s.exact_interval),
            percent(s.cells),
            percent(s.halts),
            format!("{:.2}", s.q_halt),
            format!("{:.2}", s.q_continue),
            format!("{:.4}", s.move_h),
            format!("{:.4}", s.move_l)
        ]);
    }
    table.print(ui);
    say!(ui, "");
    let grok = &summary.grokking;
    let steps: Vec<String> =
        grok.at.iter().enumerate().filter(|(_, n)| **n > 0).map(|(k, n)| format!("{}: {n}", k + 1)).collect();
    say!(ui, "right for good from segment: {}", if steps.is_empty() { "none".to_owned() } else { steps.join(", ") });
    say!(ui, "wrong at the end: {} (of them right at some segment before: {})", grok.never, grok.lost);
    if let Some([own, of_mean]) = grok.jump() {
        say!(
            ui,
            "steepest segment's share of the whole fall, puzzles solved after segment 1: {} in single puzzles, {} in their \
             mean",
            percent(own),
            percent(of_mean)
        );
    }
}
