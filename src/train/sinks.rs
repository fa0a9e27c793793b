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
        let log = MetricsLog::open(&plan.run_dir)?;
        let resumed = plan.resume.is_some() || log.is_begun()?;
        let folder = plan.run_dir.clone();
        let events = plan.tensorboard.then_some(Events { folder, resumed, file: None, failed: false });
        Ok(Self { log, events })
    }

    /// Begins to write, see [`MetricsLog::start`].
    pub fn start(&mut self, plan: &TrainPlan) -> Result<()> {
        self.log.start(plan)
    }

    /// A training step. Returns a warning where TensorBoard's files cannot be written; the run goes on, and they get what
    /// they lack once they can.
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
        Ok(written.or_else(|| self.with_events(EventFile::flush)))
    }

    /// Makes what was written visible to readers of the files.
    pub fn flush(&mut self) -> Result<()> {
        self.log.flush()
    }

    /// Brings all figures onto the disk: a checkpoint has no step that they have not. A warning as of [`Sinks::step`].
    pub fn sync(&mut self) -> Result<Option<String>> {
        self.log.sync()?;
        Ok(self.with_events(EventFile::sync))
    }

    /// Ends the event files; a warning as of [`Sinks::step`].
    pub fn finish(&mut self) -> Result<Option<String>> {
        self.log.flush()?;
        Ok(self.with_events(EventFile::flush))
    }

    fn scalars(&mut self, step: i64, values: impl FnOnce() -> Vec<(String, f64)>) -> Option<String> {
        let events = self.events.as_mut()?;
        // Steps that an earlier process logged, and this one does again, are void.
        events.file.get_or_insert_with(|| EventFile::new(&events.folder, events.resumed.then_some(step)));
        let values = values();
        self.with_events(|file| file.scalars(step, values.iter().map(|(name, value)| (name.as_str(), *value))))
    }

    /// Warns at the first of failures that follow each other.
    fn with_events(&mut self, write: impl FnOnce(&mut EventFile) -> Result<()>) -> Option<String> {
        let events = self.events.as_mut()?;
        let error = write(events.file.as_mut()?).err();
        let failed_before = std::mem::replace(&mut events.failed, error.is_some());
        let error = error.filter(|_| !failed_before)?;
        Some(format!(
            "{error:#}: training goes on, and TensorBoard's files get what they lack once they can be written"
        ))
    }
}

/// TensorBoard's files of a run.
#[derive(Debug)]
struct Events {
    folder: PathBuf,
    /// Whether an earlier process may have logged steps that come again.
    resumed: bool,
    /// Begun at the first values.
    file: Option<EventFile>,
    /// The last attempt to write did.
    failed: bool,
}
