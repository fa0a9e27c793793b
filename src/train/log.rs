//! metrics.jsonl: one JSON object a line; the first tells what the run is.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use super::{
    TrainPlan,
    metrics_file::{LONGEST_LINE, METRICS_FILE},
};
use crate::{
    eval::evaluate::Evaluation,
    journal::LineFile,
    metrics::{GRADIENT_NORM, LEARNING_RATE, Metric, MetricValues, TRAIN_PREFIX, train_key},
    runtime,
};

/// How its first line begins.
const FIRST_KEY: &[u8] = b"{\"num_params\"";

/// A run's metrics file, open for appending.
#[derive(Debug)]
pub struct MetricsLog {
    /// None in a process that leaves the writing to another.
    file: Option<LineFile>,
}

impl MetricsLog {
    /// A log that writes nothing.
    pub fn none() -> Self {
        Self { file: None }
    }

    /// Opens the file of a run, or makes it, and holds it for this process. Nothing in it changes.
    ///
    /// # Errors
    /// A file that cannot be written, or that another process holds.
    pub fn open(folder: &Path) -> Result<Self> {
        let file = LineFile::open(&folder.join(METRICS_FILE), "another process is training this run")?;
        Ok(Self { file: Some(file) })
    }

    /// Whether an earlier process has logged something.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn is_begun(&self) -> Result<bool> {
        self.file.as_ref().map_or(Ok(false), |file| Ok(!file.is_empty()?))
    }

    /// Begins to log. A new run's file starts with a line of `num_params`, `config`, versions, data fingerprint and command
    /// line; where a run goes on, lines of later steps are cut off, as they will be written again, and a line says so.
    pub fn start(&mut self, plan: &TrainPlan) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let keep = match &plan.resume {
            // What is there is of a run that was killed before its first checkpoint.
            None => begins_a_run(file)?,
            Some(point) => end_of_step(file, point.state.step, point.state.passes)?,
        };
        file.cut(keep)?;
        if keep == 0 {
            self.first_line(plan)?;
        }
        if let Some(point) = &plan.resume {
            self.line(&json!({
                "resumed_at_step": point.state.step,
                "total_steps": plan.total_steps,
                "passes": plan.passes,
                "hrm_version": env!("CARGO_PKG_VERSION"),
                "command_line": command_line(),
                "time": now(),
            }))?;
        }
        self.flush()
    }

    fn first_line(&mut self, plan: &TrainPlan) -> Result<()> {
        self.line(&json!({
            "num_params": plan.derived().parameters,
            "config": plan.config,
            "hrm_version": env!("CARGO_PKG_VERSION"),
            "torch_version": runtime::torch_version(),
            "data_fingerprint": plan.fingerprint,
            "command_line": command_line(),
            "total_steps": plan.total_steps,
            "passes": plan.passes,
            "time": now(),
        }))
    }

    /// A training step's line.
    pub fn step(&mut self, step: i64, metrics: &TrainMetrics) -> Result<()> {
        let mut line = Map::new();
        line.insert("step".into(), step.into());
        line.insert("time".into(), now().into());
        line.extend(metrics.entries().map(|(key, value)| (key, number(value))));
        self.line(&Value::Object(line))
    }

    /// An evaluation's line, `<set>/<metric>`.
    pub fn evaluation(&mut self, step: i64, evaluation: &Evaluation) -> Result<()> {
        let mut line = Map::new();
        line.insert("step".into(), step.into());
        line.insert("time".into(), now().into());
        line.extend(evaluation.entries().map(|(key, value)| (key, number(value))));
        self.line(&Value::Object(line))?;
        self.flush()
    }

    /// Hands what is buffered to the file system.
    pub fn flush(&mut self) -> Result<()> {
        self.file.as_mut().map_or(Ok(()), LineFile::flush)
    }

    /// Brings everything written so far onto the disk.
    pub fn sync(&mut self) -> Result<()> {
        self.file.as_mut().map_or(Ok(()), LineFile::sync)
    }

    fn line(&mut self, value: &Value) -> Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.write(value))
    }
}

/// Makes sure that a file is empty or begins as this program begins a run's, so that it may be begun anew: returns 0.
fn begins_a_run(file: &mut LineFile) -> Result<u64> {
    let path = file.path().to_owned();
    let mut lines = file.lines(LONGEST_LINE)?;
    let ours = match lines.next_line()? {
        Some(line) => serde_json::from_slice::<Value>(line).is_ok_and(|first| first.get("num_params").is_some()),
        None => lines.torn().iter().zip(FIRST_KEY).all(|(a, b)| a == b),
    };
    ensure!(ours, "{}: no run's metrics: give another run_name or checkpoint_path, or move it away", path.display());
    Ok(0)
}

/// Where the lines up to a step end: the first line, those of steps before, the step's own, and of evaluations the first
/// `passes`. Damaged lines are passed over.
fn end_of_step(file: &mut LineFile, step: i64, passes: i64) -> Result<u64> {
    let (mut end, mut evaluations) = (0, 0);
    let mut lines = file.lines(LONGEST_LINE)?;
    while let Some(line) = lines.next_value::<Map<String, Value>>()? {
        let at = line.get("step").and_then(Value::as_i64);
        let evaluation = at.is_some() && line.get(LEARNING_RATE).is_none();
        evaluations += i64::from(evaluation);
        if at.is_some_and(|at| at > step) || (evaluation && evaluations > passes) {
            lines.warn_of_damage();
            return Ok(end);
        }
        end = lines.end();
    }
    Ok(end)
}

/// NaN and infinity have no JSON form; the line then carries their name.
fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or_else(|| Value::from(value.to_string()), Value::Number)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// A step's metrics as upstream logs them: losses per row of the global batch, the others per valid row.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainMetrics {
    /// Means over rows.
    pub means: MetricValues,
    /// Whether there is a [`Metric::QContinueLoss`].
    pub with_continue: bool,
    /// The gradient's norm, where it is logged.
    pub grad_norm: Option<f64>,
    /// Learning rate of the dense parameters.
    pub lr: f64,
}

impl TrainMetrics {
    /// From a step's sums, `[8]` in the order of [`Metric::ALL`], and with `log_grad_norm` the gradient's norm behind them.
    ///
    /// # Errors
    /// Fewer sums.
    pub fn from_sums(sums: &[f64], global_batch_size: i64, lr: f64, with_continue: bool) -> Result<Self> {
        let (row, rest) = sums.split_first_chunk().with_context(|| format!("{} sums of a step", sums.len()))?;
        let sums = MetricValues::from_row(*row);
        let (count, rows) = (sums.count.max(1.0), global_batch_size as f64);
        let means = sums.divided(|metric| if metric.is_loss() { rows } else { count });
        Ok(Self { means, with_continue, grad_norm: rest.first().copied(), lr })
    }

    /// What a line of metrics.jsonl tells of the step.
    pub fn entries(&self) -> impl Iterator<Item = (String, f64)> + '_ {
        let there = move |metric: &Metric| self.with_continue || *metric != Metric::QContinueLoss;
        let means =
            Metric::ALL.into_iter().filter(there).map(move |metric| (train_key(metric), self.means.get(metric)));
        let norm = self.grad_norm.map(|norm| (GRADIENT_NORM.to_owned(), norm));
        means.chain(norm).chain([(LEARNING_RATE.to_owned(), self.lr)])
    }

    /// The first metric that is NaN or infinite, by its name.
    pub fn not_finite(&self) -> Option<(String, f64)> {
        let (key, value) = self.entries().find(|(_, value)| !value.is_finite())?;
        Some((key.trim_start_matches(TRAIN_PREFIX).to_owned(), value))
    }
}

/// How this program was called; what is not UTF-8 is replaced.
fn command_line() -> Vec<String> {
    std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect()
}
