//! metrics.jsonl: one JSON object a line; the first tells what the run is.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::{TrainPlan, tensorboard::host_name};
use crate::{eval::evaluate::Evaluation, model::METRICS, runtime};

/// The file's name in a run folder.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// A run's metrics file, open for appending.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: BufWriter<File>,
}

impl MetricsLog {
    /// Starts the file with a line of `num_params`, `config`, versions, data fingerprint and command line.
    pub fn create(folder: &Path, plan: &TrainPlan) -> Result<Self> {
        let path = folder.join(METRICS_FILE);
        let file = File::create_new(&path).with_context(|| format!("{}: cannot start", path.display()))?;
        let mut log = Self { path, file: BufWriter::new(file) };
        log.line(&json!({
            "num_params": plan.derived().parameters,
            "config": plan.config,
            "hrm_version": env!("CARGO_PKG_VERSION"),
            "torch_version": runtime::torch_version(),
            "data_fingerprint": plan.fingerprint,
            "command_line": std::env::args().collect::<Vec<_>>(),
            "total_steps": plan.total_steps,
            "host": host_name(),
            "pid": std::process::id(),
            "time": now(),
        }))?;
        log.flush()?;
        Ok(log)
    }

    /// A training step's line.
    pub fn step(&mut self, step: i64, metrics: &TrainMetrics) -> Result<()> {
        let mut line = Map::new();
        line.insert("step".into(), step.into());
        line.insert("time".into(), now().into());
        line.extend(metrics.values.iter().map(|(k, v)| (format!("train/{k}"), number(*v))));
        line.insert("train/lr".into(), metrics.lr.into());
        self.line(&Value::Object(line))
    }

    /// An evaluation's line, `<set>/<metric>`.
    pub fn evaluation(&mut self, step: i64, evaluation: &Evaluation) -> Result<()> {
        let mut line = Map::new();
        line.insert("step".into(), step.into());
        line.insert("time".into(), now().into());
        for (set, metrics) in &evaluation.sets {
            line.extend(metrics.iter().map(|(k, v)| (format!("{set}/{k}"), number(*v))));
        }
        self.line(&Value::Object(line))?;
        self.flush()
    }

    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().with_context(|| format!("{}: cannot write", self.path.display()))
    }

    fn line(&mut self, value: &Value) -> Result<()> {
        writeln!(self.file, "{value}").with_context(|| format!("{}: cannot write", self.path.display()))
    }
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
    /// In [`METRICS`]' order; q_continue_loss is left out where there is none.
    pub values: Vec<(&'static str, f64)>,
    pub lr: f64,
}

impl TrainMetrics {
    /// From a step's sums, `[8]` in [`METRICS`]' order.
    pub fn from_sums(sums: &[f64], global_batch_size: i64, lr: f64, with_continue: bool) -> Self {
        let count = sums.first().copied().unwrap_or(0.0).max(1.0);
        let values = METRICS
            .iter()
            .zip(sums)
            .filter(|(name, _)| with_continue || **name != "q_continue_loss")
            .map(|(name, sum)| {
                let divisor = if name.ends_with("loss") { global_batch_size as f64 } else { count };
                (*name, sum / divisor)
            })
            .collect();
        Self { values, lr }
    }

    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
    }
}
