//! From what the user asks of a training run to its plan; and the same plan in the processes that share the run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{ResumePoint, TrainPlan};
use crate::{
    config::{self, TrainConfig},
    dtype::Dtype,
};

/// What a user asks for.
#[derive(Clone, Debug, Default)]
pub struct TrainRequest {
    /// A YAML file in upstream's layout.
    pub config_file: Option<PathBuf>,
    /// `key=value`, the later ones win.
    pub overrides: Vec<String>,
    /// In place of the configuration's.
    pub seed: Option<u64>,
    /// In place of `arch.forward_dtype`.
    pub dtype: Option<Dtype>,
    /// Where to go on from.
    pub resume: Resume,
    /// Go on in spite of changed settings or data.
    pub force: bool,
    /// Write TensorBoard's event files beside metrics.jsonl.
    pub tensorboard: bool,
}

/// Whether a run goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Resume {
    /// A new run.
    #[default]
    No,
    /// The run that the settings name, or a new one.
    Auto,
    /// A run folder, or one of its checkpoints.
    From(PathBuf),
}

/// A plan, and what was decided on the way without being asked for.
#[derive(Debug)]
pub struct PlannedRun {
    /// The plan.
    pub plan: TrainPlan,
    /// Sentences for the user.
    pub notes: Vec<String>,
}

impl TrainRequest {
    /// Makes the plan of a single process; `rng` draws the name of a run that has none.
    ///
    /// # Errors
    /// Those of [`config::resolve_over`], [`ResumePoint::find`], [`TrainPlan::new`] and [`TrainPlan::resume`].
    pub fn plan(&self, rng: &mut impl Rng) -> Result<PlannedRun> {
        let named = match &self.resume {
            Resume::From(path) => Some(ResumePoint::find(path)?.with_context(|| {
                format!("{}: there is no checkpoint to resume from; leave --resume out to start", path.display())
            })?),
            Resume::No | Resume::Auto => None,
        };
        let base = named.as_ref().map(|point| &point.config);
        let resolved = config::resolve_over(base, self.config_file.as_deref(), &self.overrides)?;
        let (mut config, mut notes) = (resolved.config, resolved.taken);
        self.set_options(&mut config)?;
        let point = match &self.resume {
            Resume::No => {
                config.fill_names(rng);
                let plan = TrainPlan { tensorboard: self.tensorboard, ..TrainPlan::new(config)? };
                return Ok(PlannedRun { plan, notes });
            }
            Resume::Auto => find_run_of(&mut config, rng)?,
            Resume::From(_) => named,
        };
        match &point {
            None => notes.push("--resume auto: nothing to resume, a new run starts".to_owned()),
            Some(point) => {
                point.warnings.iter().for_each(|warning| log::warn!("{warning}"));
                notes.push(format!("going on    from step {}, {}", point.state.step, point.folder.display()));
                // Where the run lies is the path that the user gave, not the one that it was started under.
                config.checkpoint_path = Some(point.run_dir.display().to_string());
                config.run_name = config.run_name.or_else(|| point.config.run_name.clone());
                config.project_name = config.project_name.or_else(|| point.config.project_name.clone());
            }
        }
        let plan = TrainPlan { tensorboard: self.tensorboard, ..TrainPlan::resume(config, point, self.force)? };
        Ok(PlannedRun { plan, notes })
    }

    fn set_options(&self, config: &mut TrainConfig) -> Result<()> {
        if let Some(seed) = self.seed {
            if self.overrides.iter().any(|o| o.trim_start_matches('+').starts_with("seed=")) && config.seed != seed {
                bail!("--seed {seed} and seed={} disagree: give one of them", config.seed);
            }
            config.seed = seed;
        }
        config.arch.forward_dtype = self.dtype.or(config.arch.forward_dtype);
        Ok(())
    }
}

/// The run that a configuration means: that of its name or path, else the newest of its project with the same settings.
fn find_run_of(config: &mut TrainConfig, rng: &mut impl Rng) -> Result<Option<ResumePoint>> {
    let named = config.run_name.is_some() || config.checkpoint_path.is_some();
    config.fill_names(rng);
    let run_dir = PathBuf::from(config.checkpoint_path.clone().unwrap_or_default());
    if named {
        return if run_dir.is_dir() { ResumePoint::find(&run_dir) } else { Ok(None) };
    }
    Ok(ResumePoint::beside(&run_dir, config))
}

/// A plan as its launcher hands it to the ranks: they open the same data and go on from the same checkpoint, and decide
/// nothing again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecidedRun {
    config: TrainConfig,
    /// The checkpoint to go on from.
    checkpoint: Option<PathBuf>,
    forced: bool,
    tensorboard: bool,
}

impl From<&TrainPlan> for DecidedRun {
    fn from(plan: &TrainPlan) -> Self {
        Self {
            config: plan.config.clone(),
            checkpoint: plan.resume.as_ref().map(|point| point.folder.clone()),
            forced: plan.forced,
            tensorboard: plan.tensorboard,
        }
    }
}

impl DecidedRun {
    /// The plan again.
    ///
    /// # Errors
    /// Data or a checkpoint that are no longer what they were.
    pub fn plan(self) -> Result<TrainPlan> {
        let find = |path: &PathBuf| ResumePoint::find(path)?.with_context(|| gone(path));
        let point = self.checkpoint.as_ref().map(find).transpose()?;
        Ok(TrainPlan { tensorboard: self.tensorboard, ..TrainPlan::resume(self.config, point, self.forced)? })
    }
}

fn gone(path: &Path) -> String {
    format!("{}: the checkpoint no longer exists", path.display())
}
