//! The training loop: passes over the data, each followed by an evaluation and a checkpoint.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use tch::{Device, Kind, Tensor};

use super::{DeviceData, MetricsLog, StepReport, TrainMetrics, TrainPlan, Trainer};
use crate::{
    checkpoint::{CheckpointMeta, safetensors_file, store},
    dataset::{SequentialSampler, TrainSampler},
    eval::evaluate::{Evaluation, EvaluationSums},
    model::{DeviceBatch, Exploration, Model},
};

/// What happens during a run, for whoever watches it. `step` and `evaluating` return false to ask for a stop: the run
/// then writes a checkpoint and ends.
pub trait TrainObserver {
    /// Metrics of one step; on a GPU they come in groups.
    fn step(&mut self, step: i64, metrics: &TrainMetrics) -> bool;
    /// After each test batch of an evaluation.
    fn evaluating(&mut self, batch: usize, batches: usize) -> bool;
    fn evaluated(&mut self, step: i64, evaluation: &Evaluation);
    fn saved(&mut self, step: i64, folder: &Path);
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct TrainSummary {
    pub run_dir: PathBuf,
    pub steps: i64,
    pub total_steps: i64,
    /// The observer asked for a stop before the end.
    pub stopped: bool,
    /// The newest checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// The newest evaluation.
    pub evaluation: Option<Evaluation>,
}

struct Run<'a> {
    plan: &'a TrainPlan,
    trainer: Trainer,
    /// The training boards on the GPU.
    data: Option<DeviceData>,
    log: MetricsLog,
    observer: &'a mut dyn TrainObserver,
    /// Reports whose metrics are still on the device, with their steps.
    pending: Vec<(i64, StepReport)>,
    summary: TrainSummary,
}

/// Runs a plan to its end, or until the observer asks for a stop.
///
/// # Errors
/// Files that cannot be read or written; a loss that is no longer finite (earlier checkpoints stay).
pub fn run(plan: &TrainPlan, device: Device, observer: &mut dyn TrainObserver) -> Result<TrainSummary> {
    store::create_folder(&plan.run_dir)?;
    store::write_bytes(&plan.run_dir.join("all_config.yaml"), plan.config.to_yaml()?.as_bytes())?;
    let log = MetricsLog::create(&plan.run_dir, plan)?;
    let model = Model::new(plan.model.clone(), device, plan.config.seed)?;
    let rows = i64::try_from(plan.sampler.local_batch_size())?;
    let mut run = Run {
        plan,
        trainer: Trainer::new(model, &plan.config, plan.total_steps, rows),
        data: DeviceData::upload(&plan.train, device)?,
        log,
        observer,
        pending: Vec::new(),
        summary: TrainSummary {
            run_dir: plan.run_dir.clone(),
            steps: 0,
            total_steps: plan.total_steps,
            stopped: false,
            checkpoint: None,
            evaluation: None,
        },
    };
    run.all_passes()?;
    run.summary.steps = run.trainer.step;
    Ok(run.summary)
}

impl Run<'_> {
    fn all_passes(&mut self) -> Result<()> {
        let mut sampler = TrainSampler::new(Arc::clone(&self.plan.train), self.plan.sampler)?;
        for pass in 1..=self.plan.passes {
            if !self.one_pass(&mut sampler)? {
                return self.stop();
            }
            let Some(evaluation) = self.evaluate()? else { return self.stop() };
            let step = self.trainer.step;
            self.log.evaluation(step, &evaluation)?;
            self.observer.evaluated(step, &evaluation);
            self.summary.evaluation = Some(evaluation);
            if self.plan.config.checkpoint_every_eval || pass == self.plan.passes {
                self.save()?;
            }
        }
        Ok(())
    }

    /// False when the observer asked for a stop.
    fn one_pass(&mut self, sampler: &mut TrainSampler) -> Result<bool> {
        let device = self.trainer.model.device();
        // A GPU would wait for the host at every read; a CPU has nothing to wait for.
        let read_every = if device.is_cuda() { 20 } else { 1 };
        while let Some(batch) = sampler.next_batch()? {
            let step = self.trainer.step + 1;
            if step > self.plan.total_steps {
                continue;
            }
            let whole = batch.examples.len() == sampler.config().local_batch_size();
            let batch = match &self.data {
                Some(data) if whole => data.batch(batch.set, &batch.examples),
                _ => DeviceBatch::upload(&batch.batch, device),
            };
            let config = &self.plan.config;
            let first = i64::try_from(sampler.config().rank * sampler.config().local_batch_size())?;
            let max_steps = self.plan.model.halt_max_steps;
            let draws = Exploration::draw(config.seed, step, first, batch.rows(), max_steps, device);
            let report = self.trainer.train_step(&batch, &draws);
            self.pending.push((step, report));
            if self.pending.len() >= read_every && !self.read_metrics()? {
                return Ok(false);
            }
        }
        self.read_metrics()
    }

    fn read_metrics(&mut self) -> Result<bool> {
        if self.pending.is_empty() {
            return Ok(true);
        }
        let stacked = Tensor::stack(&self.pending.iter().map(|(_, r)| &r.metrics).collect::<Vec<_>>(), 0);
        let width = stacked.size()[1] as usize;
        let values: Vec<f64> = Vec::try_from(stacked.to_kind(Kind::Double).to_device(Device::Cpu).view([-1]))?;
        let mut go_on = true;
        for ((step, report), sums) in std::mem::take(&mut self.pending).into_iter().zip(values.chunks(width)) {
            let with_continue = self.plan.model.halt_max_steps > 1;
            let metrics = TrainMetrics::from_sums(sums, self.plan.config.global_batch_size, report.lr, with_continue);
            self.log.step(step, &metrics)?;
            if let Some((name, value)) = metrics.values.iter().find(|(_, v)| !v.is_finite()) {
                self.log.flush()?;
                let what = self.advice(format!("step {step}: {name} is {value}"));
                bail!("{what}. A smaller lr or a longer lr_warmup_steps may help");
            }
            go_on &= self.observer.step(step, &metrics);
        }
        Ok(go_on)
    }

    fn evaluate(&mut self) -> Result<Option<Evaluation>> {
        let sampler = SequentialSampler::new(Arc::clone(&self.plan.test), self.plan.sampler.global_batch_size, 0, 1)?;
        let batches = sampler.batches();
        let mut sums = EvaluationSums::default();
        for (i, batch) in sampler.enumerate() {
            let batch = batch?;
            let set = self.plan.test.sets()[batch.set].name().to_string();
            sums.add(&self.trainer.model, &set, &batch.batch);
            if !self.observer.evaluating(i + 1, batches) {
                return Ok(None);
            }
        }
        Ok(Some(sums.finish()))
    }

    /// What went wrong, and what is left of the run.
    fn advice(&self, what: String) -> String {
        match &self.summary.checkpoint {
            Some(at) => format!("{what}; the last good checkpoint is {}", at.display()),
            None => format!("{what}; there is no earlier checkpoint"),
        }
    }

    fn stop(&mut self) -> Result<()> {
        self.summary.stopped = true;
        self.save()
    }

    /// Writes `step_N` beside its place and renames it, so that a folder with that name is always whole.
    fn save(&mut self) -> Result<()> {
        self.log.flush()?;
        let step = self.trainer.step;
        let folder = self.plan.run_dir.join(format!("step_{step}"));
        if folder.exists() {
            return Ok(());
        }
        let part = self.plan.run_dir.join(format!(".step_{step}.part"));
        if part.exists() {
            fs::remove_dir_all(&part).with_context(|| format!("{}: cannot remove", part.display()))?;
        }
        let meta = CheckpointMeta::of_this_process(Some(u64::try_from(step)?), Some(self.plan.fingerprint.clone()));
        let tensors = self.trainer.model.tensors();
        if let Err(e) = safetensors_file::save_folder(&part, &self.plan.config, &meta, &tensors) {
            // What is half there would only take the room that was missing.
            let _ = fs::remove_dir_all(&part);
            return Err(e.context(self.advice(format!("no checkpoint of step {step}"))));
        }
        fs::rename(&part, &folder).with_context(|| format!("{}: cannot rename", folder.display()))?;
        store::sync_folder(&self.plan.run_dir)?;
        self.observer.saved(step, &folder);
        self.summary.checkpoint = Some(folder);
        Ok(())
    }
}
