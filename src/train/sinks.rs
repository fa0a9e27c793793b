//! Where the figures of a run go: metrics.jsonl, and TensorBoard's event files where they are wanted.

use std::path::PathBuf;

use anyhow::Result;

use super::{EventFile, MetricsLog, TrainMetrics, TrainPlan};
use crate::eval::evaluate::Evaluation;

/// All sinks of a run's figures, driven together. In a process that leaves the writing to another there are none.
#[derive(Debug)]
pub struct Sinks {
    log: MetricsLog,
    events: Option<Events>,
}

impl Sinks {
    /// Sinks that write nothing.
    pub fn none() -> Self {
        Self { log: MetricsLog::none(), events: None }
    }

    /// Opens metrics.jsonl, which holds the run's folder for this process. Nothing in the folder changes.
    ///
    /// # Errors
    /// Those of [`MetricsLog::open`].
    pub fn open(plan: &TrainPlan) -> Result<Self> {
        let events = plan.tensorboard.then(|| Events { folder: plan.run_dir.clone(), file: None });
        Ok(Self { log: MetricsLog::open(&plan.run_dir)?, events })
    }

    /// Begins to write, see [`MetricsLog::start`].
    pub fn start(&mut self, plan: &TrainPlan) -> Result<()> {
        self.log.start(plan)
    }

    /// A training step. Returns a warning where TensorBoard's files are given up; the run goes on without them.
    ///
    /// # Errors
    /// Those of the file system on metrics.jsonl; as all that follow.
    pub fn step(&mut self, step: i64, metrics: &TrainMetrics) -> Result<Option<String>> {
        self.log.step(step, metrics)?;
        Ok(self.scalars(step, || metrics.entries().collect()))
    }

    /// An evaluation; a warning as of [`Sinks::step`].
    pub fn evaluation(&mut self, step: i64, evaluation: &Evaluation) -> Result<Option<String>> {
        self.log.evaluation(step, evaluation)?;
        let written = self.scalars(step, || evaluation.entries().collect());
        Ok(written.or_else(|| self.flush_events()))
    }

    /// Makes what was written visible to readers of the files.
    pub fn flush(&mut self) -> Result<()> {
        self.log.flush()
    }

    /// Brings the lines of metrics.jsonl onto the disk.
    pub fn sync(&mut self) -> Result<()> {
        self.log.sync()
    }

    /// Ends the event files; a warning as of [`Sinks::step`].
    pub fn finish(&mut self) -> Result<Option<String>> {
        self.log.flush()?;
        Ok(self.flush_events())
    }

    fn scalars(&mut self, step: i64, values: impl FnOnce() -> Vec<(String, f64)>) -> Option<String> {
        self.with_events(|events| {
            let values = values();
            events.file(step)?.scalars(step, values.iter().map(|(name, value)| (name.as_str(), *value)))
        })
    }

    fn flush_events(&mut self) -> Option<String> {
        self.with_events(|events| events.file.as_mut().map_or(Ok(()), EventFile::flush))
    }

    /// Gives the event files up at the first failure.
    fn with_events(&mut self, write: impl FnOnce(&mut Events) -> Result<()>) -> Option<String> {
        let error = write(self.events.as_mut()?).err()?;
        self.events = None;
        Some(format!("{error:#}: training goes on without TensorBoard files"))
    }
}

/// TensorBoard's files of a run.
#[derive(Debug)]
struct Events {
    folder: PathBuf,
    /// Started at the first values.
    file: Option<EventFile>,
}

impl Events {
    fn file(&mut self, step: i64) -> Result<&mut EventFile> {
        let file = match self.file.take() {
            Some(file) => file,
            None => EventFile::create(&self.folder, Some(step).filter(|&step| step > 1))?,
        };
        Ok(self.file.insert(file))
    }
}
