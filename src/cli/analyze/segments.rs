//! `hrm analyze segments`.

use anyhow::Result;
use ndarray::Array2;
use serde::Serialize;

use super::many::{Head, Many, ManyArgs, between, percent, run_many};
use crate::{
    analysis::{
        runs::PuzzleRun,
        segments::{SegmentsSummary, summarise},
    },
    cli::{
        GlobalArgs,
        study::OutputArgs,
        table::{Table, cells},
    },
    say,
    viz::{chart::Words, segments::SegmentsPicture},
};

const DETAILS: &str = "\
For every puzzle and every segment: the loss per cell, right cells, q_halt and q_continue, broken rules, and how far the \
state moved, |Δz|/|z|, for z_H and z_L. A puzzle is *grokked* at the segment from which on its answer stays right to the \
end. The paper's point is the picture: the mean loss falls smoothly, each single loss falls at once.

How sudden it is, in numbers: of a puzzle's whole fall of the loss, the share that its steepest segment carries (1 = all in \
one step), beside the same share of the mean curve.

Files in --output-dir:
  segments.png   the picture
  segments.json  the means, and when each puzzle is grokked
  runs.jsonl     every puzzle's numbers; `hrm analyze modes` can go on from it (--resume --output-dir the same folder)
  loss.npy (f64), exact.npy (bool), q_halt.npy, q_continue.npy, move_h.npy, move_l.npy (f32)
                 the same as matrices [puzzles, segments]; move_h is |Δz_H|/|z_H|

Examples:
  hrm analyze segments --count 500
  hrm analyze segments --checkpoint runs/a --count all --segments 32 --format both";

/// Loss, accuracy, q and motion by segment: the mean beside the single puzzles, and when each is solved
#[derive(clap::Args, Debug)]
#[command(after_long_help = DETAILS, after_help = "Example: hrm analyze segments --count 500    (--help tells more)")]
pub struct SegmentsArgs {
    #[command(flatten)]
    many: ManyArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    head: Head,
    #[serde(flatten)]
    summary: &'a SegmentsSummary,
    /// By puzzle, in order; null where the last answer is wrong.
    grokked_at: Vec<Option<usize>>,
}

pub fn run(args: &SegmentsArgs, global: &GlobalArgs) -> Result<()> {
    let ui = args.output.ui();
    let many = run_many(&ui, global, &args.many, &args.output, "analysis/segments")?;
    let summary = summarise(&many.runs, global.seed.unwrap_or(0));
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
    table.print(&ui);
    say!(ui, "");
    let grok = &summary.grokking;
    let solved = summary.puzzles - grok.never;
    let steps: Vec<String> =
        grok.at.iter().enumerate().filter(|(_, n)| **n > 0).map(|(k, n)| format!("{}: {n}", k + 1)).collect();
    say!(ui, "right for good from segment: {}", if steps.is_empty() { "none".to_owned() } else { steps.join(", ") });
    say!(ui, "wrong at the end: {} (of them right at some segment before: {})", grok.never, grok.lost);
    let jump = grok.steepest_share.map(|own| (own, grok.steepest_share_of_mean.unwrap_or(0.0)));
    if let Some((own, of_mean)) = jump {
        say!(
            ui,
            "steepest segment's share of the whole fall, puzzles solved after segment 1: {} in single puzzles, {} in their \
             mean",
            percent(own),
            percent(of_mean)
        );
    }
    let title = match jump {
        Some((own, of_mean)) => format!(
            "One segment carries {:.0} % of a solved puzzle's fall of the loss, {:.0} % of their mean's",
            100.0 * own,
            100.0 * of_mean
        ),
        None => format!("{solved} of {} puzzles are right at the end, none later than at segment 1", summary.puzzles),
    };
    let words = Words {
        title: title.clone(),
        subtitle: format!(
            "{} puzzles, {} segments each; {solved} are right at the end",
            summary.puzzles,
            summary.segments.len()
        ),
        sources: many.sources(),
    };
    let picture = SegmentsPicture { words, runs: &many.runs, summary: &summary };
    let pictures = many.output.picture("segments", &picture)?;
    say!(ui, "picture: {}", pictures.join(", "));
    let arrays = arrays(&many)?;
    let listed = arrays.join(", ");
    let report = Report {
        head: many.head(&title, pictures, arrays),
        summary: &summary,
        grokked_at: many.runs.iter().map(|r| r.right_for_good()).collect(),
    };
    say!(ui, "data: {}, {listed}", many.output.json("segments.json", &report)?);
    ui.emit(&report)
}

/// Every puzzle's numbers as matrices `[puzzles, segments]`.
fn arrays(many: &Many) -> Result<Vec<String>> {
    let shape = (many.runs.len(), many.runs.first().map_or(0, |r| r.segments()));
    let floats = |of: fn(&PuzzleRun) -> &Vec<f32>| Array2::from_shape_fn(shape, |(p, k)| of(&many.runs[p])[k]);
    Ok(vec![
        many.output.array("loss", &Array2::from_shape_fn(shape, |(p, k)| many.runs[p].loss[k]))?,
        many.output.array("exact", &Array2::from_shape_fn(shape, |(p, k)| many.runs[p].exact(k + 1)))?,
        many.output.array("q_halt", &floats(|r| &r.q_halt))?,
        many.output.array("q_continue", &floats(|r| &r.q_continue))?,
        many.output.array("move_h", &floats(|r| &r.move_h))?,
        many.output.array("move_l", &floats(|r| &r.move_l))?,
    ])
}
