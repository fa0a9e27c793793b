//! The training loop: passes over the data, each followed by an evaluation and a checkpoint.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use super::{
    Best, DeviceData, OnlineAugment, Peers, RunFolder, Sinks, Snapshot, StepReport, TrainMetrics, TrainPlan, Trainer,
    TrainingState,
};
use crate::{
    checkpoint::{CONFIG_FILE, Checkpoint, CheckpointMeta, WEIGHTS_FILE, safetensors_file},
    dataset::{SampledBatch, SamplerState, SequentialSampler, TrainSampler},
    eval::evaluate::{Evaluation, EvaluationSums},
    model::{DeviceBatch, Exploration, Model},
    runtime::Backend,
    store::{self, Existing},
};

/// What happens during a run, for whoever watches it. `step` and `evaluating` return false to ask for a stop: the run
/// then writes a checkpoint and ends.
pub trait TrainObserver {
    /// Metrics of one step; on a GPU they come in groups.
    fn step(&mut self, step: i64, metrics: &TrainMetrics) -> bool;
    /// After each test batch of an evaluation.
    fn evaluating(&mut self, batch: usize, batches: usize) -> bool;
    /// After an evaluation.
    fn evaluated(&mut self, step: i64, evaluation: &Evaluation);
    /// After a checkpoint is complete in `folder`.
    fn saved(&mut self, step: i64, folder: &Path);
    /// Something that the user should know, in a sentence.
    fn warn(&mut self, text: &str);
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct TrainSummary {
    /// The run's folder.
    pub run_dir: PathBuf,
    /// Steps done.
    pub steps: i64,
    /// Steps of the whole run.
    pub total_steps: i64,
    /// The step of the checkpoint that the run went on from.
    pub resumed_at: Option<i64>,
    /// The run stopped before its end.
    pub stopped: bool,
    /// Why, where it stopped.
    pub stopped_by: Option<StopReason>,
    /// The newest checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// The newest evaluation; that of the averaged weights under `ema/<set>`.
    pub evaluation: Option<Evaluation>,
}

/// Why a run stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The observer asked for it.
    Asked,
    /// The time limit `max_minutes` was near.
    MaxMinutes,
}

struct Run<'a> {
    plan: &'a TrainPlan,
    trainer: Trainer,
    /// The training boards on the GPU.
    data: Option<DeviceData>,
    augment: Option<OnlineAugment>,
    /// Where this process writes; none where another does.
    folder: Option<RunFolder>,
    sinks: Sinks,
    observer: &'a mut dyn TrainObserver,
    /// Steps whose metrics are still on the device.
    pending: Vec<Pending>,
    /// The checkpoint that is being written, and when that began.
    saving: Option<(i64, Instant, JoinHandle<Result<PathBuf>>)>,
    /// The newest step that this process has begun to save.
    saved_step: Option<i64>,
    stop: Option<StopReason>,
    started: Instant,
    /// How long the longest save took.
    save_time: Duration,
    passes: i64,
    best: Option<Best>,
    summary: TrainSummary,
}

struct Pending {
    step: i64,
    set: usize,
    examples: Vec<usize>,
    report: StepReport,
}

/// Runs a plan to its end, or until the observer or `max_minutes` asks for a stop; with peers, this process's part of it,
/// as [`TrainPlan::share`] has shared it. Rank 0 alone writes files.
///
/// # Errors
/// Files that cannot be read or written; a loss that is no longer finite (earlier checkpoints stay); a lost peer.
pub fn run(plan: &TrainPlan, backend: Backend, peers: Peers, observer: &mut dyn TrainObserver) -> Result<TrainSummary> {
    let started = Instant::now();
    ensure!(
        (plan.sampler.rank, plan.sampler.world) == (peers.rank(), peers.world()),
        "the plan is that of rank {} of {}, this is rank {} of {}",
        plan.sampler.rank,
        plan.sampler.world,
        peers.rank(),
        peers.world()
    );
    peers.agree_on(plan, backend.acceleration)?;
    let leads = peers.leads();
    let mut sinks = Sinks::none();
    let mut folder = None;
    if leads {
        store::create_folder(&plan.run_dir)?;
        // Held before anything in the folder is touched: another process may be at work there.
        sinks = Sinks::open(plan)?;
        folder = Some(RunFolder::open(&plan.run_dir, plan.config.keep_last)?);
    }
    let (trainer, sampler) = prepare(plan, backend, peers, observer)?;
    sinks.start(plan)?;
    if let Some(folder) = &folder {
        if let Some(point) = &plan.resume {
            for told in folder.set_aside_after(point.state.step)? {
                observer.warn(&told);
            }
            folder.settle(&point.state)?;
        }
        let config = plan.run_dir.join(CONFIG_FILE);
        store::write_bytes(&config, Existing::Replace, plan.config.to_yaml()?.as_bytes())?;
    }
    let augment = OnlineAugment::new(plan)?;
    let state = plan.resume.as_ref().map(|point| &point.state);
    let mut run = Run {
        data: if augment.is_none() { DeviceData::upload(&plan.train, backend.device)? } else { None },
        augment,
        plan,
        folder,
        sinks,
        observer,
        pending: Vec::new(),
        saving: None,
        saved_step: state.map(|s| s.step),
        stop: None,
        started,
        save_time: Duration::ZERO,
        passes: state.map_or(0, |s| s.passes),
        best: state.and_then(|s| s.best),
        summary: TrainSummary {
            run_dir: plan.run_dir.clone(),
            steps: 0,
            total_steps: plan.total_steps,
            resumed_at: state.map(|s| s.step),
            stopped: false,
            stopped_by: None,
            checkpoint: plan.resume.as_ref().map(|point| point.folder.clone()),
            evaluation: None,
        },
        trainer,
    };
    let outcome = run.all_passes(sampler).and_then(|()| {
        let finished = run.sinks.finish()?;
        run.warn(finished);
        Ok(())
    });
    // A checkpoint that was begun is finished, whatever happened since.
    let written = run.finish_save();
    outcome?;
    written?;
    run.summary.steps = run.trainer.step;
    std::mem::take(&mut run.trainer.peers).leave()?;
    Ok(run.summary)
}

/// Model, optimisers, carry and data order: fresh, or as the plan's checkpoint has them.
fn prepare(
    plan: &TrainPlan,
    backend: Backend,
    peers: Peers,
    observer: &mut dyn TrainObserver,
) -> Result<(Trainer, TrainSampler)> {
    let (mut trainer, sampler) = fresh_or_resumed(plan, backend, peers, observer)?;
    let peers = std::mem::take(&mut trainer.peers);
    peers.share(&mut trainer)?;
    trainer.peers = peers;
    Ok((trainer, sampler))
}

fn fresh_or_resumed(
    plan: &TrainPlan,
    backend: Backend,
    peers: Peers,
    observer: &mut dyn TrainObserver,
) -> Result<(Trainer, TrainSampler)> {
    let rows = i64::try_from(plan.sampler.local_batch_size())?;
    let mut sampler = TrainSampler::new(Arc::clone(&plan.train), plan.sampler)?;
    let trainer = |model| {
        let mut trainer = Trainer::new(model, &plan.config, plan.total_steps, rows);
        trainer.peers = peers;
        trainer
    };
    let Some(point) = &plan.resume else {
        let model = match &plan.config.init_from {
            None => Model::new(plan.model.clone(), backend, plan.config.seed)?,
            Some(path) => {
                let checkpoint = Checkpoint::load(path.as_ref()).context("init_from")?.checkpoint;
                Model::from_tensors(plan.model.clone(), &checkpoint.tensors, backend)
                    .with_context(|| format!("init_from: {}", checkpoint.path.display()))?
            }
        };
        return Ok((trainer(model), sampler));
    };
    let path = point.folder.join(WEIGHTS_FILE);
    let weights = safetensors_file::read(&path)?;
    let mut trainer = trainer(
        Model::from_tensors(plan.model.clone(), &weights, backend).with_context(|| path.display().to_string())?,
    );
    let carry = trainer.restore(&point.folder, &point.state)?;
    if let Err(e) = sampler.restore(point.state.sampler).and(carry) {
        ensure!(plan.forced, "{}: {e:#}", point.folder.display());
        observer.warn(&format!("{e:#}: the puzzles start over, in a new order"));
        trainer.carry = trainer.model.initial_carry(rows);
        sampler = TrainSampler::new(Arc::clone(&plan.train), plan.sampler)?;
    }
    Ok((trainer, sampler))
}

impl Run<'_> {
    fn all_passes(&mut self, mut sampler: TrainSampler) -> Result<()> {
        while self.passes < self.plan.passes {
            let before_end = self.one_pass(&mut sampler)?;
            if self.stop.is_some() {
                return self.stopped(before_end);
            }
            let Some(evaluation) = self.evaluate()? else { return self.stopped(before_end) };
            let step = self.trainer.step;
            let written = self.sinks.evaluation(step, &evaluation)?;
            self.warn(written);
            self.observer.evaluated(step, &evaluation);
            self.passes += 1;
            let exact_accuracy = evaluation.best_exact_accuracy();
            self.summary.evaluation = Some(evaluation);
            let last = self.passes == self.plan.passes;
            if self.plan.config.checkpoint_every_eval || last || self.due() {
                if self.best.is_none_or(|best| exact_accuracy > best.exact_accuracy) {
                    self.best = Some(Best { step, exact_accuracy });
                }
                self.save(sampler.state())?;
            }
        }
        if self.summary.evaluation.is_none() {
            // An earlier process evaluated last, and may have been killed before it told.
            self.summary.evaluation = self.evaluate()?;
        }
        Ok(())
    }

    /// Trains to the end of a pass or to a stop. Returns the place from which a checkpoint of the last step goes on.
    fn one_pass(&mut self, sampler: &mut TrainSampler) -> Result<SamplerState> {
        // A GPU would wait for the host at every read; a CPU has nothing to wait for.
        let read_every = if self.trainer.model.device().is_cuda() { 20 } else { 1 };
        loop {
            let place = sampler.state();
            let Some(batch) = sampler.next_batch()? else {
                self.read_metrics()?;
                return Ok(place);
            };
            if self.trainer.step >= self.plan.total_steps {
                continue;
            }
            // Not before the pass is known to go on: at its end the evaluation comes first.
            if self.due() {
                self.save(place)?;
            }
            if self.stop.is_some() {
                return Ok(place);
            }
            self.one_step(batch, sampler)?;
            if self.pending.len() >= read_every {
                self.read_metrics()?;
            }
            if self.saving.as_ref().is_some_and(|(_, _, writer)| writer.is_finished()) {
                self.finish_save()?;
            }
            if self.stop.is_some() {
                return Ok(sampler.state());
            }
        }
    }

    fn one_step(&mut self, mut batch: SampledBatch, sampler: &TrainSampler) -> Result<()> {
        let (device, step) = (self.trainer.model.device(), self.trainer.step + 1);
        let first = sampler.config().rank * sampler.config().local_batch_size();
        let whole = batch.examples.len() == sampler.config().local_batch_size();
        if let Some(augment) = &self.augment {
            augment.apply(&mut batch.batch, step, first);
        }
        let rows = match &self.data {
            Some(data) if whole => data.batch(batch.set, &batch.examples),
            _ => DeviceBatch::upload(&batch.batch, device),
        };
        let max_steps = self.plan.model.halt_max_steps;
        let (seed, first) = (self.plan.config.seed, i64::try_from(first)?);
        let draws = Exploration::draw(seed, step, first, rows.rows(), max_steps, device);
        let report = self.trainer.train_step(&rows, &draws)?;
        self.pending.push(Pending { step, set: batch.set, examples: batch.examples, report });
        Ok(())
    }

    fn read_metrics(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let stacked = Tensor::stack(&self.pending.iter().map(|p| &p.report.metrics).collect::<Vec<_>>(), 0);
        let width = stacked.size()[1] as usize;
        let stacked = stacked.to_kind(Kind::Double).to_device(Device::Cpu);
        self.trainer.peers.sum_metrics(&stacked)?;
        let values: Vec<f64> = Vec::try_from(stacked.view([-1]))?;
        let with_continue = self.plan.model.has_target_q();
        for (done, sums) in std::mem::take(&mut self.pending).into_iter().zip(values.chunks(width)) {
            let Pending { step, report, .. } = &done;
            let metrics = TrainMetrics::from_sums(sums, self.plan.config.global_batch_size, report.lr, with_continue)?;
            let written = self.sinks.step(*step, &metrics)?;
            self.warn(written);
            if let Some((name, value)) = metrics.not_finite() {
                self.sinks.flush()?;
                return Err(self.not_finite(&done, &name, value)?);
            }
            if !self.observer.step(*step, &metrics) {
                self.stop = Some(StopReason::Asked);
            }
        }
        if self.out_of_time() {
            self.stop = self.stop.or(Some(StopReason::MaxMinutes));
        }
        self.stop = self.trainer.peers.agree_to_stop(self.stop)?;
        Ok(())
    }

    /// The error for a non-finite loss, with the batch that led to it in a file.
    fn not_finite(&self, done: &Pending, name: &str, value: f64) -> Result<anyhow::Error> {
        let Pending { step, set, .. } = done;
        let examples = &self.trainer.peers.gather_examples(&done.examples)?;
        let set = self.plan.train.sets()[*set].name();
        let file = self.plan.run_dir.join(format!("not_finite_step_{step}.json"));
        let report =
            json!({ "step": step, "metric": name, "value": value.to_string(), "set": set, "examples": examples });
        let write = || {
            if self.folder.is_some() {
                store::write_bytes(&file, Existing::Replace, format!("{report}\n").as_bytes())
            } else {
                Ok(())
            }
        };
        let told = match write() {
            Ok(()) => format!("the new examples of its batch are listed in {}", file.display()),
            Err(e) => format!("the new examples of its batch were {examples:?} of set '{set}' ({e:#})"),
        };
        let shown = examples.iter().take(8).map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let what =
            self.advice(format!("step {step}: {name} is {value} (batch: examples {shown}, ... of '{set}'; {told})"));
        Ok(anyhow!("{what}. A smaller lr or a longer lr_warmup_steps may help"))
    }

    /// None when a stop came in between.
    fn evaluate(&mut self) -> Result<Option<Evaluation>> {
        let weights = 1 + usize::from(self.trainer.ema.is_some());
        let shares = self.plan.sampler;
        let test = Arc::clone(&self.plan.test);
        let sampler = SequentialSampler::new(test, shares.global_batch_size, shares.rank, shares.world)?;
        let (batches, mut done) = (sampler.batches() * weights, 0);
        let mut evaluation = Evaluation::default();
        for averaged in [false, true].into_iter().take(weights) {
            let Self { trainer, observer, plan, started, save_time, .. } = self;
            let peers = std::mem::take(&mut trainer.peers);
            let mut evaluate = |model: &Model| -> Result<std::result::Result<EvaluationSums, StopReason>> {
                let mut sums = EvaluationSums::default();
                for batch in sampler.clone() {
                    let batch = batch?;
                    sums.add(model, plan.test.sets()[batch.set].name(), &batch.batch);
                    done += 1;
                    let asked = (!observer.evaluating(done, batches)).then_some(StopReason::Asked);
                    let late = || time_is_up(plan, *started, *save_time).then_some(StopReason::MaxMinutes);
                    if let Some(reason) = peers.agree_to_stop(asked.or_else(late))? {
                        return Ok(Err(reason));
                    }
                }
                peers.sum_evaluation(&mut sums)?;
                Ok(Ok(sums))
            };
            let sums = if averaged { trainer.with_ema(&mut evaluate) } else { evaluate(&trainer.model) };
            trainer.peers = peers;
            match sums? {
                Err(reason) => {
                    self.stop = Some(reason);
                    return Ok(None);
                }
                Ok(sums) => evaluation.sets.extend(sums.finish(averaged)?.sets),
            }
        }
        Ok(Some(evaluation))
    }

    fn warn(&mut self, text: Option<String>) {
        if let Some(text) = text {
            self.observer.warn(&text);
        }
    }

    fn out_of_time(&self) -> bool {
        time_is_up(self.plan, self.started, self.save_time)
    }

    /// Whether `checkpoint_every_steps` wants a checkpoint of this step that was not begun yet.
    fn due(&self) -> bool {
        let step = self.trainer.step;
        let due = |every| step > 0 && step % every == 0;
        self.plan.config.checkpoint_every_steps.is_some_and(due) && self.saved_step != Some(step)
    }

    /// What went wrong, and what is left of the run.
    fn advice(&self, what: String) -> String {
        match &self.summary.checkpoint {
            Some(at) => format!("{what}; the last good checkpoint is {}", at.display()),
            None => format!("{what}; there is no earlier checkpoint"),
        }
    }

    fn stopped(&mut self, place: SamplerState) -> Result<()> {
        self.summary.stopped = true;
        self.summary.stopped_by = self.stop;
        self.save(place)
    }

    /// Begins to save the state after the last step, in a thread of its own: training need not wait for the disk.
    fn save(&mut self, place: SamplerState) -> Result<()> {
        let step = self.trainer.step;
        self.read_metrics()?;
        let synced = self.sinks.sync()?;
        self.warn(synced);
        if self.saved_step == Some(step) {
            return Ok(());
        }
        self.finish_save()?;
        let carry = self.trainer.peers.gather(&self.trainer.carry)?;
        self.saved_step = Some(step);
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        let began = Instant::now();
        let snapshot = Snapshot {
            config: self.plan.config.clone(),
            meta: CheckpointMeta {
                seq_len: usize::try_from(self.plan.model.dims.seq_len).ok(),
                ..CheckpointMeta::of_this_process(Some(u64::try_from(step)?), Some(self.plan.fingerprint.clone()))
            },
            state: TrainingState {
                version: TrainingState::VERSION,
                step,
                adam_steps: self.trainer.adam.steps,
                passes: self.passes,
                sampler: place,
                data_fingerprint: self.plan.fingerprint.clone(),
                test_data_fingerprint: Some(self.plan.test_fingerprint.clone()),
                best: self.best,
            },
            weights: self.trainer.model.tensors(),
            ema: self.trainer.ema.as_ref().map(|ema| self.trainer.model.tensors_with(ema)),
            training: self.trainer.state_tensors(&carry),
        };
        let writer = thread::Builder::new().name("save".into()).spawn(move || folder.write(&snapshot));
        self.saving = Some((step, began, writer.context("cannot start the thread that saves")?));
        Ok(())
    }

    /// Waits for the checkpoint that is being written, if there is one.
    fn finish_save(&mut self) -> Result<()> {
        let Some((step, began, writer)) = self.saving.take() else { return Ok(()) };
        let written = writer.join().unwrap_or_else(|_| bail!("the thread that saves panicked"));
        let folder = written.with_context(|| self.advice(format!("no checkpoint of step {step}")))?;
        self.save_time = self.save_time.max(began.elapsed());
        self.observer.saved(step, &folder);
        self.summary.checkpoint = Some(folder);
        Ok(())
    }
}

/// Whether `max_minutes` leave no more time than a save needs.
fn time_is_up(plan: &TrainPlan, started: Instant, save_time: Duration) -> bool {
    plan.config.max_minutes.is_some_and(|minutes| {
        let limit = Duration::from_secs_f64((minutes * 60.0).min(1e12));
        let margin = (save_time * 2).max((limit / 20).min(Duration::from_secs(30)));
        started.elapsed() + margin >= limit
    })
}
