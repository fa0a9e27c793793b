//! What `hrm infer` prints.

use crate::{
    cli::{
        table::{Table, cells},
        ui::Ui,
    },
    eval::{
        pass::StopRule,
        report::InferReport,
        results_file::Differences,
        scores::{BreakdownPart, Scores, Stop, VerifiedShare, ratio},
        stats::Interval,
    },
    say,
};

/// The report for people.
pub fn print(report: &InferReport, ui: &Ui) {
    print_passes(report, ui);
    say!(ui, "");
    let mut table = Table::new(&[0, 2, 3]);
    let mut line = |name: &str, value: f64, ends: [f64; 2], what: &str| {
        table.row([name, &percent(value), &between(ends), what]);
    };
    let ends = |i: &Interval| [i.low, i.high];
    let passes = match report.stop {
        StopRule::Never => format!("mean over {} pass(es), last segment", report.passes.len()),
        StopRule::Halt => format!("mean over {} pass(es), at the first halt", report.passes.len()),
        StopRule::Verified => "mean over the passes that ran".to_owned(),
    };
    line("exact accuracy", report.exact_accuracy, ends(&report.exact_accuracy_interval), &passes);
    line("cell accuracy", report.cell_accuracy, ends(&report.cell_accuracy_interval), "all cells, givens included");
    let Scores { verified, vote, best_halt } = &report.scores;
    match verified {
        Some(VerifiedShare { share, label_mismatches }) => {
            let mismatches = match label_mismatches {
                0 => String::new(),
                n => format!("; {n} differ from the label"),
            };
            let what = format!("some pass is right by the puzzle's rules; no label{mismatches}");
            line("verified", share.accuracy, share.ci95, &what);
        }
        None => {
            say!(ui, "{:<16}       -    the rules of these puzzles are unknown: no answer can be verified", "verified")
        }
    }
    line("vote", vote.accuracy, vote.ci95, "most frequent answer of the halted passes");
    line("best halt", best_halt.accuracy, best_halt.ci95, "answer with the highest q_halt - q_continue");
    if let Some(rule) = &report.upstream_rule {
        let what = "counts passes that are right, so it uses the labels";
        line("upstream's rule", rule.accuracy, ends(&rule.interval), what);
    }
    table.print(ui);
    print_stops(report, ui);
    print_breakdown(report, ui);
    say!(ui, "");
    if let Some(Differences { passes, answers, stops }) = report.how.against {
        say!(ui, "against the other run: {answers} of {passes} answers differ, {stops} stop otherwise");
    }
    say!(ui, "{:.1} s, {:.1} puzzles/s", report.seconds, report.puzzles_per_second);
}

fn print_passes(report: &InferReport, ui: &Ui) {
    say!(ui, "");
    let columns = ["pass", "guess", "exact", "95 %", "cells", "95 %", "halted", "verified", "segments"];
    let mut table = Table::headed(columns, &[]);
    for (i, pass) in report.passes.iter().enumerate() {
        table.row(cells![
            i + 1,
            pass.permutation,
            percent(pass.exact),
            between([pass.exact_interval.low, pass.exact_interval.high]),
            percent(pass.cell),
            between([pass.cell_interval.low, pass.cell_interval.high]),
            percent(pass.halted),
            pass.verified.map_or_else(none, percent),
            format!("{:.2}", pass.segments_mean)
        ]);
    }
    let mut lines = table.lines().into_iter();
    lines.by_ref().take(1).for_each(|headings| say!(ui, "{headings}"));
    let mut named = "";
    for (pass, line) in report.passes.iter().zip(lines) {
        if pass.checkpoint != named {
            say!(ui, "{}", pass.checkpoint);
            named = &pass.checkpoint;
        }
        say!(ui, "{line}");
    }
}

fn print_stops(report: &InferReport, ui: &Ui) {
    let rules: Vec<(&str, &Stop)> =
        [("never", &report.stops.never), ("halt", &report.stops.halt), ("verified", &report.stops.verified)]
            .into_iter()
            .filter_map(|(name, stop)| Some((name, stop.as_ref()?)))
            .collect();
    say!(ui, "");
    let columns = ["stop", "exact", "verified", "vote", "best halt", "segments", "computed", "seconds"];
    let mut table = Table::headed(columns, &[0]);
    for (name, stop) in &rules {
        table.row(cells![
            name,
            percent(stop.exact_accuracy),
            stop.scores.verified.map_or_else(none, |verified| percent(verified.share.accuracy)),
            percent(stop.scores.vote.accuracy),
            percent(stop.scores.best_halt.accuracy),
            format!("{:.2}", stop.segments_mean),
            format!("{} ({:.1} %)", stop.segments, 100.0 * ratio(stop.segments, stop.segments_nominal)),
            format!("{:.1}{}", stop.seconds, if stop.measured { " " } else { "*" })
        ]);
    }
    table.print(ui);
    if rules.iter().any(|(_, stop)| !stop.measured) {
        say!(ui, "* this run's seconds in proportion to the segments");
    }
}

fn print_breakdown(report: &InferReport, ui: &Ui) {
    let Some(breakdown) = &report.breakdown else { return };
    say!(ui, "");
    let mut table = Table::headed(["puzzles", "number", "exact", "verified", "vote"], &[0]);
    let mut line = |name: &str, g: &BreakdownPart| {
        table.row(cells![
            name,
            g.total,
            percent(g.exact_accuracy),
            g.verified.map_or_else(none, percent),
            percent(g.vote)
        ]);
    };
    for (source, group) in &breakdown.by_source {
        line(source, group);
    }
    for range in &breakdown.by_rating {
        let name = match range.high {
            Some(high) if high == range.low => format!("rating {high}"),
            Some(high) => format!("rating {} to {high}", range.low),
            None => format!("rating {} and more", range.low),
        };
        line(&name, &range.group);
    }
    table.print(ui);
}

/// In place of a share that is unknown.
fn none() -> String {
    "-".to_owned()
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

fn between([low, high]: [f64; 2]) -> String {
    format!("[{:.2}, {:.2}]", 100.0 * low, 100.0 * high)
}
