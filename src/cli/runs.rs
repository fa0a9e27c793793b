//! `hrm runs`.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use super::{
    table::Table,
    ui::{JsonArg, Ui, warn},
};
use crate::{
    say,
    train::{RunHistory, RunState, find_runs},
};

const DETAILS: &str = "\
A run is a folder with a metrics.jsonl, as `hrm train` makes it. Its state is
  running   a process holds its metrics.jsonl
  finished  its last evaluation was done and saved
  stopped   it ended with a checkpoint of its last step (Ctrl-C, SIGTERM): `hrm train --resume RUN` goes on
  dead      it ended without one (killed, failed): `hrm train --resume RUN` goes on from the last checkpoint

Examples:
  hrm runs
  hrm runs checkpoints/Sudoku --json -";

/// List training runs: how far they are, how good, and whether they still run
#[derive(clap::Args, Debug)]
#[command(after_long_help = DETAILS, after_help = "Example: hrm runs checkpoints    (--help tells more)")]
pub struct RunsArgs {
    /// Where to look, four levels deep
    #[arg(value_name = "DIR", default_value = "checkpoints")]
    folder: PathBuf,
    #[command(flatten)]
    json: JsonArg,
}

/// A line of the list.
#[derive(Debug, Serialize)]
struct Row {
    run: PathBuf,
    state: RunState,
    step: i64,
    /// None where the run does not say, as older ones.
    total_steps: Option<i64>,
    best_exact_accuracy: Option<f64>,
    best_step: Option<i64>,
    /// Seconds since the run was last written to.
    age: f64,
}

impl Row {
    fn new(run: &Path, history: &RunHistory) -> Self {
        let best = history.best_exact();
        Self {
            run: run.to_path_buf(),
            state: history.state(),
            step: history.step(),
            total_steps: history.about.get("total_steps").and_then(Value::as_i64),
            best_exact_accuracy: best.map(|b| b.1),
            best_step: best.map(|b| b.0),
            age: SystemTime::now().duration_since(history.changed).unwrap_or_default().as_secs_f64(),
        }
    }

    fn cells(&self) -> [String; 5] {
        let steps = match self.total_steps {
            Some(total) => format!("{} of {total}", self.step),
            None => self.step.to_string(),
        };
        let best = match (self.best_exact_accuracy, self.best_step) {
            (Some(exact), Some(step)) => format!("{:.2} % at {step}", 100.0 * exact),
            _ => "-".into(),
        };
        let age = format!("{} ago", indicatif::HumanDuration(Duration::from_secs(self.age as u64)));
        [self.run.display().to_string(), self.state.name().into(), steps, best, age]
    }
}

pub fn run(args: &RunsArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    let mut rows = Vec::new();
    for run in find_runs(&args.folder)? {
        match RunHistory::read(&run) {
            Ok(history) => rows.push(Row::new(&run, &history)),
            // One damaged run must not hide the others.
            Err(e) => warn(format_args!("{e:#}")),
        }
    }
    if rows.is_empty() {
        say!(ui, "{}: no runs", args.folder.display());
    } else {
        let mut table = Table::headed(["run", "state", "step", "best exact accuracy", "last written"], &[0, 1, 4]);
        rows.iter().for_each(|row| table.row(row.cells()));
        table.print(&ui);
    }
    ui.emit(&rows)
}
