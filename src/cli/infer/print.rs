//! What `hrm infer` prints.

use crate::{
    cli::ui::Ui,
    eval::{
        engine::StopRule,
        report::{InferReport, share},
        results_file::Differences,
        scores::{Group, Scores, Stop},
        stats::Interval,
    },
    say,
};

/// The report for people.
pub fn print(report: &InferReport, ui: &Ui) {
    print_passes(report, ui);
    say!(ui, "");
    let line = |name: &str, value: f64, [low, high]: [f64; 2], what: &str| {
        let between = format!("[{:.2}, {:.2}]", 100.0 * low, 100.0 * high);
        say!(ui, "{name:<16} {:>7} %  {between:<16}  {what}", format!("{:.2}", 100.0 * value));
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
    let mismatches = match verified.label_mismatches {
        0 => String::new(),
        n => format!("; {n} differ from the label"),
    };
    let verified_what = format!("some pass is right by the puzzle's rules; no label{mismatches}");
    line("verified", verified.share.accuracy, verified.share.ci95, &verified_what);
    line("vote", vote.accuracy, vote.ci95, "most frequent answer of the halted passes");
    line("best halt", best_halt.accuracy, best_halt.ci95, "answer with the highest q_halt - q_continue");
    if let Some(rule) = &report.upstream_rule {
        let what = "counts passes that are right: it looks at the labels";
        line("upstream's rule", rule.accuracy, ends(&rule.interval), what);
    }
    print_stops(report, ui);
    print_breakdown(report, ui);
    say!(ui, "");
    if let Some(Differences { passes, answers, stops }) = report.how.against {
        say!(ui, "against the other run: {answers} of {passes} answers differ, {stops} stop otherwise");
    }
    say!(ui, "{:.1} s, {:.1} puzzles/s", report.seconds, report.puzzles_per_second);
}

fn print_passes(report: &InferReport, ui: &Ui) {
    let percent = |x: f64| format!("{:.2} %", 100.0 * x);
    let between = |i: &Interval| format!("[{:.2}, {:.2}]", 100.0 * i.low, 100.0 * i.high);
    say!(ui, "");
    say!(
        ui,
        "{:>4}  {:>10}  {:>9}  {:>16}  {:>9}  {:>16}  {:>9}  {:>9}  {:>8}",
        "pass",
        "permutation",
        "exact",
        "95 %",
        "cells",
        "95 %",
        "halted",
        "verified",
        "segments"
    );
    let mut named = "";
    for (i, pass) in report.passes.iter().enumerate() {
        if pass.checkpoint != named {
            say!(ui, "{}", pass.checkpoint);
            named = &pass.checkpoint;
        }
        say!(
            ui,
            "{:>4}  {:>11}  {:>9}  {:>16}  {:>9}  {:>16}  {:>9}  {:>9}  {:>8.2}",
            i + 1,
            pass.permutation,
            percent(pass.exact),
            between(&pass.exact_interval),
            percent(pass.cell),
            between(&pass.cell_interval),
            percent(pass.halted),
            percent(pass.verified),
            pass.segments_mean
        );
    }
}

fn print_stops(report: &InferReport, ui: &Ui) {
    let rules: Vec<(&str, &Stop)> =
        [("never", &report.stops.never), ("halt", &report.stops.halt), ("verified", &report.stops.verified)]
            .into_iter()
            .filter_map(|(name, stop)| Some((name, stop.as_ref()?)))
            .collect();
    say!(ui, "");
    say!(
        ui,
        "{:<10}  {:>9}  {:>9}  {:>9}  {:>9}  {:>8}  {:>24}  {:>9}",
        "stop",
        "exact",
        "verified",
        "vote",
        "best halt",
        "segments",
        "computed",
        "seconds"
    );
    for (name, stop) in rules {
        let percent = |x: f64| format!("{:.2} %", 100.0 * x);
        let computed = format!("{} ({:.1} %)", stop.segments, 100.0 * share(stop.segments, stop.segments_nominal));
        say!(
            ui,
            "{name:<10}  {:>9}  {:>9}  {:>9}  {:>9}  {:>8.2}  {computed:>24}  {:>8.1}{}",
            percent(stop.exact_accuracy),
            percent(stop.scores.verified.share.accuracy),
            percent(stop.scores.vote.accuracy),
            percent(stop.scores.best_halt.accuracy),
            stop.segments_mean,
            stop.seconds,
            if stop.measured { " " } else { "*" }
        );
    }
    if [&report.stops.never, &report.stops.halt, &report.stops.verified].into_iter().flatten().any(|s| !s.measured) {
        say!(ui, "* this run's seconds in proportion to the segments");
    }
}

fn print_breakdown(report: &InferReport, ui: &Ui) {
    let Some(breakdown) = &report.breakdown else { return };
    say!(ui, "");
    say!(ui, "{:<28}  {:>8}  {:>9}  {:>9}  {:>9}", "puzzles", "number", "exact", "verified", "vote");
    let line = |name: &str, g: &Group| {
        let percent = |x: f64| format!("{:.2} %", 100.0 * x);
        say!(
            ui,
            "{name:<28}  {:>8}  {:>9}  {:>9}  {:>9}",
            g.total,
            percent(g.exact_accuracy),
            percent(g.verified),
            percent(g.vote)
        );
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
}
