//! What a run's metrics.jsonl tells, read back.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{METRICS_FILE, TrainingState, is_running, metrics_file::LONGEST_LINE};
use crate::{
    input::Lines,
    metrics::{Metric, SetName, TRAIN_PREFIX},
};

/// No run has nearly so many metrics: a set has eight, and three for each segment.
const MOST_NAMES: usize = 10_000;

/// Metric names of one kind of line, and the values of each step. Where a step was logged twice, the later line counts.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// In the order in which they came.
    names: Vec<String>,
    columns: HashMap<String, Vec<Entry>>,
    /// The line that counts, of each step.
    steps: BTreeMap<i64, usize>,
    lines: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    step: i64,
    line: usize,
    value: f64,
}

impl Series {
    fn add(&mut self, step: i64, values: Map<String, Value>) {
        let line = self.lines;
        self.lines += 1;
        self.steps.insert(step, line);
        for (name, value) in values.into_iter().filter(|(name, _)| *name != "step" && *name != "time") {
            // NaN and infinities are written as their names.
            let Some(value) = value.as_f64().or_else(|| value.as_str()?.parse().ok()) else { continue };
            let column = self.columns.entry(name).or_insert_with_key(|name| {
                self.names.push(name.clone());
                Vec::new()
            });
            column.push(Entry { step, line, value });
        }
    }

    /// Names of what was logged, such as `train/lm_loss`.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Steps and finite values of a metric, in order.
    pub fn of(&self, name: &str) -> Vec<(i64, f64)> {
        let column = self.columns.get(name).into_iter().flatten();
        let counts = |entry: &&Entry| self.steps.get(&entry.step) == Some(&entry.line) && entry.value.is_finite();
        let mut found: Vec<(i64, f64)> = column.filter(counts).map(|entry| (entry.step, entry.value)).collect();
        found.sort_by_key(|(step, _)| *step);
        found
    }

    pub fn last_step(&self) -> Option<i64> {
        self.steps.keys().next_back().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// Whether a run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Its plan was done.
    Finished,
    Running,
    /// It ended early, with a checkpoint of its last step.
    Stopped,
    /// It ended early, without one.
    Dead,
}

impl RunState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Dead => "dead",
        }
    }
}

/// A run in figures: a line of `hrm runs`.
#[derive(Clone, Debug, Serialize)]
pub struct RunSummary {
    pub run: PathBuf,
    pub state: RunState,
    pub step: i64,
    /// [`RunHistory::total_steps`]
    pub total_steps: Option<i64>,
    pub best_exact_accuracy: Option<f64>,
    pub best_step: Option<i64>,
    /// Seconds since the run was last written to.
    pub age: f64,
}

impl RunSummary {
    /// Of the run in folder `run`.
    ///
    /// # Errors
    /// Those of [`RunHistory::read`].
    pub fn read(run: PathBuf) -> Result<Self> {
        let history = RunHistory::read(&run)?;
        let best = history.best_exact();
        Ok(Self {
            run,
            state: history.state(),
            step: history.step(),
            total_steps: history.total_steps(),
            best_exact_accuracy: best.map(|b| b.1),
            best_step: best.map(|b| b.0),
            age: SystemTime::now().duration_since(history.changed).unwrap_or_default().as_secs_f64(),
        })
    }
}

/// A run's metrics file.
#[derive(Clone, Debug)]
pub struct RunHistory {
    /// The run's folder.
    pub folder: PathBuf,
    /// The lines without a step together, later keys winning: configuration, versions, and who wrote.
    pub about: Map<String, Value>,
    /// `train/<metric>`.
    pub training: Series,
    /// `<set>/<metric>`.
    pub evaluations: Series,
    /// When the file was last written to.
    pub changed: SystemTime,
}

impl RunHistory {
    /// Reads `metrics.jsonl` of a run folder, or the file itself. A last line without its end, as a running or killed
    /// process leaves, is passed over; one that is not a JSON object as well, with a warning.
    ///
    /// # Errors
    /// No such file; one that names more metrics than a run has, by its line.
    pub fn read(run: &Path) -> Result<Self> {
        let path = if run.is_dir() { run.join(METRICS_FILE) } else { run.to_path_buf() };
        if !path.is_file() {
            bail!("{}: not a run: there is no {METRICS_FILE}", run.display());
        }
        let folder = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        let changed = fs::metadata(&path).and_then(|m| m.modified());
        let changed = changed.with_context(|| format!("{}: cannot read", path.display()))?;
        let mut history =
            Self { folder, about: Map::new(), training: Series::default(), evaluations: Series::default(), changed };
        let mut lines = Lines::open(&path, LONGEST_LINE)?;
        while let Some(line) = lines.next_value()? {
            history.add(line);
            let names = history.training.names.len() + history.evaluations.names.len();
            ensure!(
                names <= MOST_NAMES,
                "{}:{}: more than {MOST_NAMES} metrics: no run writes so many",
                path.display(),
                lines.number()
            );
        }
        Ok(history)
    }

    fn add(&mut self, line: Map<String, Value>) {
        match line.get("step").and_then(Value::as_i64) {
            None => self.about.extend(line),
            Some(step) if line.keys().any(|key| key.starts_with(TRAIN_PREFIX)) => self.training.add(step, line),
            Some(step) => self.evaluations.add(step, line),
        }
    }

    /// Whether its process is at work, told by the lock that it holds.
    pub fn state(&self) -> RunState {
        let checkpoint = self.folder.join(format!("step_{}", self.step()));
        let saved = checkpoint.exists();
        // Not by the step: the batches of all passes may be fewer than the steps that the schedule counts.
        let passes = self.about.get("passes").and_then(Value::as_i64);
        let done = passes.is_some_and(|all| TrainingState::read(&checkpoint).is_ok_and(|state| state.passes >= all));
        match (is_running(&self.folder), saved, done) {
            (true, ..) => RunState::Running,
            (_, true, true) => RunState::Finished,
            (_, true, false) => RunState::Stopped,
            (_, false, _) => RunState::Dead,
        }
    }

    /// The run under `root` that was written to last.
    ///
    /// # Errors
    /// Those of [`find_runs`] and [`RunHistory::read`]; no run.
    pub fn newest(root: &Path) -> Result<Self> {
        let histories = find_runs(root)?.iter().map(|run| Self::read(run)).collect::<Result<Vec<_>>>()?;
        let newest = histories.into_iter().max_by_key(|history| history.changed);
        newest.with_context(|| format!("{}: there is no run", root.display()))
    }

    /// Its folder without what leads to it.
    pub fn name(&self) -> String {
        let full = self.folder.canonicalize().unwrap_or_else(|_| self.folder.clone());
        full.file_name().map_or_else(|| self.folder.display().to_string(), |n| n.to_string_lossy().into_owned())
    }

    /// Steps of the whole plan; none where the run does not say, as older ones.
    pub fn total_steps(&self) -> Option<i64> {
        self.about.get("total_steps").and_then(Value::as_i64)
    }

    /// Whether no step was logged yet.
    pub fn is_empty(&self) -> bool {
        self.training.is_empty() && self.evaluations.is_empty()
    }

    /// The last step that was logged.
    pub fn step(&self) -> i64 {
        self.training.last_step().unwrap_or(0)
    }

    /// Best exact accuracy of an evaluation, and its step: of [`RunHistory::set`], by the weights or by their average.
    pub fn best_exact(&self) -> Option<(i64, f64)> {
        let set = self.set()?;
        let of = |name: SetName| self.evaluations.of(&name.key(Metric::ExactAccuracy.name()));
        let both = of(SetName::raw(&set)).into_iter().chain(of(SetName::averaged(&set)));
        both.reduce(|best, next| if next.1 > best.1 { next } else { best })
    }

    /// The set that is looked at first: the one named `all`, else the first.
    pub fn set(&self) -> Option<String> {
        let of = |key: &String| {
            let set = SetName::parse(key.strip_suffix(Metric::ExactAccuracy.name())?.strip_suffix('/')?);
            (!set.averaged).then_some(set.set)
        };
        let sets = || self.evaluations.names().iter().filter_map(of);
        sets().find(|set| *set == "all").or_else(|| sets().next())
    }
}

/// Run folders in `root` and below it, at most four levels deep, in the order of their names.
///
/// # Errors
/// A folder that cannot be read; `root` is none.
pub fn find_runs(root: &Path) -> Result<Vec<PathBuf>> {
    fn visit(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
        if folder.join(METRICS_FILE).is_file() {
            found.push(folder.to_path_buf());
            return Ok(());
        }
        if depth == 0 {
            return Ok(());
        }
        let list = fs::read_dir(folder).with_context(|| format!("{}: cannot read the folder", folder.display()))?;
        let mut folders = Vec::new();
        for entry in list {
            let entry = entry.with_context(|| format!("{}: cannot read the folder", folder.display()))?;
            // A link might lead round in a circle.
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                folders.push(entry.path());
            }
        }
        folders.sort();
        folders.iter().try_for_each(|f| visit(f, depth - 1, found))
    }
    ensure!(root.is_dir(), "{}: no such folder", root.display());
    let mut found = Vec::new();
    visit(root, 4, &mut found)?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(text: &str) -> Result<RunHistory> {
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join(METRICS_FILE), text)?;
        RunHistory::read(dir.path())
    }

    #[test]
    fn later_lines_of_a_step_win_and_a_torn_line_is_passed_over() {
        let read = history(concat!(
            "{\"num_params\": 5, \"pid\": 1}\n",
            "{\"step\": 1, \"time\": 1.0, \"train/lm_loss\": 4.0}\n",
            "{\"step\": 2, \"train/lm_loss\": \"NaN\"}\n",
            "{\"step\": 2, \"ema/all/exact_accuracy\": 0.5, \"all/exact_accuracy\": 0.25}\n",
            "{\"pid\": 2}\n",
            "{\"step\": 2, \"train/lm_loss\": 3.0, \"train/grad_norm\": 7}\n",
            "{\"step\": 3, \"train/lm_lo",
        ))
        .unwrap();
        assert_eq!(read.about["pid"], 2);
        assert_eq!(read.step(), 2);
        assert_eq!(read.training.of("train/lm_loss"), [(1, 4.0), (2, 3.0)]);
        assert_eq!(read.training.of("train/grad_norm"), [(2, 7.0)]);
        assert_eq!((read.set().as_deref(), read.best_exact()), (Some("all"), Some((2, 0.5))));
        assert!(read.training.of("no").is_empty());
    }

    #[test]
    fn a_name_in_every_line_takes_no_more_room_than_the_file() {
        let text = |n: usize| -> String { (0..n).map(|i| format!("{{\"step\":{i},\"a{i}\":1}}\n")).collect() };
        let read = history(&text(MOST_NAMES)).unwrap();
        let values = |series: &Series| series.columns.values().map(Vec::capacity).sum::<usize>();
        assert!(values(&read.evaluations) <= 4 * MOST_NAMES);
        assert_eq!(read.evaluations.of("a7"), [(7, 1.0)]);
        let error = history(&text(MOST_NAMES + 1)).unwrap_err().to_string();
        assert!(error.contains("metrics.jsonl:10001: more than 10000 metrics"), "{error}");
    }

    #[test]
    fn a_damaged_line_costs_itself_alone() {
        let read =
            history("{\"step\":1,\"train/lm_loss\":2}\n[1]\n{\"step\":2,\"tr\n{\"step\":3,\"train/lm_loss\":1}\n");
        assert_eq!(read.unwrap().training.of("train/lm_loss"), [(1, 2.0), (3, 1.0)]);
    }
}
