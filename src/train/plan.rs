//! A training run, checked as a whole before anything starts: data, model, batch, number of steps, where it writes.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{BEST_FILE, LATEST_FILE, METRICS_FILE, ResumePoint, changes};
use crate::{
    checkpoint::CONFIG_FILE,
    config::TrainConfig,
    dataset::{Dataset, DatasetMeta, SamplerConfig, Split, TrainSampler},
    escape::shell_word,
    model::{Dims, ModelConfig, Params},
    optim::total_steps,
    runtime::OutOfMemory,
};

/// Everything that a run needs to know and that can be known beforehand.
#[derive(Debug)]
pub struct TrainPlan {
    /// With project_name, run_name and checkpoint_path filled in.
    pub config: TrainConfig,
    /// The model, from the configuration and the dataset.
    pub model: ModelConfig,
    /// The training split.
    pub train: Arc<Dataset>,
    /// The test split.
    pub test: Arc<Dataset>,
    /// How rows are drawn.
    pub sampler: SamplerConfig,
    /// Training steps of the whole run.
    pub total_steps: i64,
    /// Training passes, each followed by an evaluation.
    pub passes: i64,
    /// `checkpoints/<project>/<run>`.
    pub run_dir: PathBuf,
    /// Of the training split.
    pub fingerprint: String,
    /// Of the test split.
    pub test_fingerprint: String,
    /// The checkpoint to go on from.
    pub resume: Option<ResumePoint>,
    /// Go on in spite of a changed configuration or dataset.
    pub forced: bool,
    /// Write TensorBoard's event files beside metrics.jsonl.
    pub tensorboard: bool,
}

/// Numbers that follow from a plan, for the user to see first.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Derived {
    /// Training steps of the whole run.
    pub total_steps: i64,
    /// Tokens of a global batch, puzzle embedding not counted.
    pub tokens_per_step: i64,
    /// Upstream's `num_params`: without the puzzle embedding, which is a buffer there.
    pub parameters: i64,
    /// Matrix products alone.
    pub flops_per_step: f64,
}

impl TrainPlan {
    /// Opens the dataset and checks that it, the model and the hyper-parameters fit together.
    ///
    /// # Errors
    /// Whatever would make the run fail later: a missing dataset (with the command that builds it), splits that
    /// disagree, sizes that no model can have, a batch that no pass fills, a run folder that holds another run.
    pub fn new(config: TrainConfig) -> Result<Self> {
        let plan = Self::build(config)?;
        refuse_others(&plan.run_dir)?;
        let held =
            plan.run_dir.join(METRICS_FILE).exists() || ResumePoint::find(&plan.run_dir).ok().flatten().is_some();
        ensure!(
            !held,
            "{}: there is a run already; go on with it (--resume {}), give another run_name or checkpoint_path, or move \
             it away",
            plan.run_dir.display(),
            shell_word(&plan.run_dir)
        );
        Ok(plan)
    }

    /// A plan that goes on from a checkpoint, or begins anew in a folder whose run was killed before its first one.
    ///
    /// # Errors
    /// As [`TrainPlan::new`]; unless `forced`, a configuration or data that are not those of the run, by name.
    pub fn resume(config: TrainConfig, point: Option<ResumePoint>, forced: bool) -> Result<Self> {
        let mut plan = Self::build(config)?;
        if point.is_none() {
            refuse_others(&plan.run_dir)?;
        }
        if let Some(point) = &point {
            let mut changed = changes(&point.config, &plan.config);
            let state = &point.state;
            let splits = [
                ("training", Some(&state.data_fingerprint), &plan.fingerprint),
                ("test", state.test_data_fingerprint.as_ref(), &plan.test_fingerprint),
            ];
            for (split, _, _) in splits.into_iter().filter(|(_, was, is)| was.is_some_and(|was| was != *is)) {
                changed.push(format!("the {split} data in {} are not those of the run", plan.config.data_path));
            }
            ensure!(
                forced || changed.is_empty(),
                "{}: the run cannot be resumed unchanged: {}; remove that, or use --force",
                point.folder.display(),
                changed.join("; ")
            );
        }
        (plan.resume, plan.forced) = (point, forced);
        Ok(plan)
    }

    fn build(config: TrainConfig) -> Result<Self> {
        config.check()?;
        let root = Path::new(&config.data_path);
        let open = |split| Dataset::open(root, split).map(Arc::new);
        let (train, test) = (open(Split::Train)?, open(Split::Test)?);
        let dims = Dims::from(train.meta());
        let other = Dims::from(test.meta());
        ensure!(
            dims.seq_len == other.seq_len && dims.vocab_size == other.vocab_size,
            "{}: the training split has {} cells and {} tokens, the test split {} and {}: they are of different puzzles",
            root.display(),
            dims.seq_len,
            dims.vocab_size,
            other.seq_len,
            other.vocab_size
        );
        let model = ModelConfig::new(&config.arch, dims)?;
        let DatasetMeta { total_groups, mean_puzzle_examples, .. } = *train.meta();
        let steps = total_steps(config.epochs, total_groups, mean_puzzle_examples, config.global_batch_size);
        let epochs_per_pass = config.eval_interval.unwrap_or(config.epochs);
        let sampler = SamplerConfig {
            seed: config.seed,
            global_batch_size: usize::try_from(config.global_batch_size)?,
            epochs_per_pass: usize::try_from(epochs_per_pass)?,
            rank: 0,
            world: 1,
        };
        TrainSampler::new(Arc::clone(&train), sampler)?;
        ensure!(
            config.eval_save_outputs.is_empty(),
            "eval_save_outputs={:?}: saving tensors at evaluations is not supported; leave it empty",
            config.eval_save_outputs
        );
        ensure!(
            steps > 0,
            "{} epochs of {total_groups} puzzles give less than one batch of {}: raise epochs or lower global_batch_size",
            config.epochs,
            config.global_batch_size
        );
        let run_dir = PathBuf::from(config.checkpoint_path.as_deref().context("checkpoint_path is not set")?);
        check_parts(&config, &sampler)?;
        let (fingerprint, test_fingerprint) = (train.fingerprint()?, test.fingerprint()?);
        let passes = config.epochs / epochs_per_pass;
        Ok(Self {
            config,
            model,
            train,
            test,
            sampler,
            total_steps: steps,
            passes,
            run_dir,
            fingerprint,
            test_fingerprint,
            resume: None,
            forced: false,
            tensorboard: false,
        })
    }

    /// Makes it the plan of one of `world` processes.
    ///
    /// # Errors
    /// A batch that they cannot share equally, as a whole or in its `grad_accum` parts.
    pub fn share(&mut self, rank: usize, world: usize) -> Result<()> {
        (self.sampler.rank, self.sampler.world) = (rank, world);
        TrainSampler::new(Arc::clone(&self.train), self.sampler)?;
        check_parts(&self.config, &self.sampler)
    }

    /// What to do about an error of the run: where a batch does not fit into memory, a smaller one, or more parts.
    pub fn with_advice(&self, error: anyhow::Error) -> anyhow::Error {
        let Some(OutOfMemory(why)) = error.downcast_ref() else { return error };
        let rows = self.sampler.local_batch_size();
        let parts = usize::try_from(self.config.grad_accum).unwrap_or(1);
        // The next number of parts that divides the rows.
        let more = (2 * parts..=rows).find(|parts| rows.is_multiple_of(*parts));
        let advice =
            more.map_or_else(String::new, |n| format!("set grad_accum={n}, which processes them in {n} parts, or "));
        anyhow!(
            "{why}: {rows} rows a process (global_batch_size={}, grad_accum={parts}) do not fit: {advice}lower \
             global_batch_size",
            self.config.global_batch_size
        )
    }

    /// Numbers that follow from the plan.
    pub fn derived(&self) -> Derived {
        let c = &self.model;
        Derived {
            total_steps: self.total_steps,
            tokens_per_step: self.config.global_batch_size * c.dims.seq_len,
            parameters: Params::specs(c).iter().map(|s| s.numel()).sum(),
            flops_per_step: c.flops_per_train_row() * self.config.global_batch_size as f64,
        }
    }
}

/// A new run begins in no folder that holds what it would replace, unless that is of a run that was killed.
fn refuse_others(run_dir: &Path) -> Result<()> {
    let names = || fs::read_dir(run_dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let taken = |name: &OsString| {
        let bytes = name.as_encoded_bytes();
        bytes.starts_with(b"step_") || [CONFIG_FILE, LATEST_FILE, BEST_FILE].iter().any(|own| bytes == own.as_bytes())
    };
    // Looked for last: it is the first file of a run, which another process of this one may be beginning.
    if let Some(name) = names().find(taken)
        && !run_dir.join(METRICS_FILE).exists()
    {
        bail!(
            "{}: is there already, and of no run that could go on: give another run_name or checkpoint_path, or move it \
             away",
            run_dir.join(name).display()
        );
    }
    Ok(())
}

fn check_parts(config: &TrainConfig, sampler: &SamplerConfig) -> Result<()> {
    ensure!(
        sampler.local_batch_size().is_multiple_of(usize::try_from(config.grad_accum)?),
        "grad_accum={}: {} rows a process cannot be divided into that many equal parts",
        config.grad_accum,
        sampler.local_batch_size()
    );
    Ok(())
}
