//! One training step (upstream's `train_batch`): one segment, its backward pass, both optimisers.
//!
//! The carry persists over batches, so a row works on the same puzzle for several steps. Gradients are of
//! `loss / global_batch_size`. The puzzle embedding's sign-SGD goes first, then Adam-atan2.

use anyhow::Result;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor, no_grad};

use super::Peers;
use crate::{
    config::TrainConfig,
    metrics::Metric,
    model::{Carry, DeviceBatch, Exploration, Metrics, Model, Rows, TrainSegment, loss_head, rows},
    optim::{AdamAtan2, AdamConfig, AdamScalars, CosineSchedule, sparse_sign_sgd},
    runtime::{self, CudaGraph, Recorded},
};

/// Everything that the next step depends on.
#[derive(Debug)]
pub struct Trainer {
    pub model: Model,
    pub adam: AdamAtan2,
    pub carry: Carry,
    /// Steps done.
    pub step: i64,
    /// Moving average of the parameters, flat as they are; none where `ema_decay` is 0.
    pub ema: Option<Tensor>,
    /// The processes that work on the other rows of the batch.
    pub peers: Peers,
    schedule: CosineSchedule,
    config: TrainConfig,
    recorded: Recorded<StepGraph>,
}

/// What a step leaves for the log; sums over the batch, still on the device.
#[derive(Debug)]
pub struct StepReport {
    /// A value for each of [`Metric::ALL`], `[8]` f64; with `log_grad_norm` the gradient's norm behind them, `[9]`.
    pub metrics: Tensor,
    /// The dense optimiser's learning rate.
    pub lr: f64,
}

/// The whole step as a CUDA graph, with the tensors that it reads its input from and leaves its metrics in. The carry,
/// the parameters and the moments are the trainer's own, changed in place. With peers the graph ends before the exchange
/// of gradients, and a second one begins after it.
#[derive(Debug)]
struct StepGraph {
    graph: CudaGraph,
    second: Option<SecondGraph>,
    batch: DeviceBatch,
    draws: Exploration,
    scalars: Tensor,
    metrics: Tensor,
}

/// The optimisers, with the puzzle embedding's gradient before and after the exchange.
#[derive(Debug)]
struct SecondGraph {
    graph: CudaGraph,
    local: Option<PuzzleGrad>,
    gathered: Option<PuzzleGrad>,
}

/// Eager steps before one is recorded: libraries choose their algorithms in the first.
const EAGER_STEPS: i64 = 2;

impl Trainer {
    /// A trainer for `local_rows` rows a step out of `config.global_batch_size`.
    pub fn new(mut model: Model, config: &TrainConfig, total_steps: i64, local_rows: i64) -> Self {
        model.params_mut().prepare_training();
        let adam = AdamConfig { beta1: config.beta1, beta2: config.beta2, weight_decay: config.weight_decay };
        let recorded = if model.ops().recordable() { Recorded::NotYet } else { Recorded::Impossible };
        Self {
            adam: AdamAtan2::new(model.params().master(), adam),
            carry: model.initial_carry(local_rows),
            schedule: CosineSchedule {
                warmup_steps: config.lr_warmup_steps,
                total_steps,
                min_ratio: config.lr_min_ratio,
            },
            step: 0,
            ema: (config.ema_decay > 0.0).then(|| model.params().master().copy()),
            model,
            peers: Peers::alone(),
            config: config.clone(),
            recorded,
        }
    }

    /// Launches every step one by one, for comparisons.
    pub fn forbid_graph(&mut self) {
        self.recorded = Recorded::Impossible;
    }

    /// Forward and backward pass on one batch: adds to the gradients.
    pub fn accumulate(&mut self, batch: &DeviceBatch, draws: &Exploration) -> Accumulated {
        let scale = 1.0 / self.config.global_batch_size as f64;
        accumulate(&mut self.model, &self.carry, batch, draws, scale)
    }

    /// Both optimisers on the gathered gradients, then clears them. Returns the dense learning rate.
    pub fn apply(&mut self, puzzle: Option<&PuzzleGrad>) -> f64 {
        let (scalars, lr) = self.begin_step();
        let on_device = scalars.upload(self.model.device());
        update(&mut self.model, &mut self.adam, puzzle, &on_device, Some(scalars.adam));
        self.follow();
        lr
    }

    fn follow(&mut self) {
        follow(self.ema.as_ref(), self.model.params().master(), self.config.ema_decay);
    }

    /// Runs `body` with the moving average in the weights' place; without one, with the weights as they are.
    pub fn with_ema<T>(&mut self, body: impl FnOnce(&Model) -> T) -> T {
        let Some(ema) = &self.ema else { return body(&self.model) };
        let weights = self.model.params().master().copy();
        self.model.params_mut().set_master(ema);
        let done = body(&self.model);
        self.model.params_mut().set_master(&weights);
        done
    }

    /// The whole step; on a GPU with fused kernels, from the third one on, as a CUDA graph.
    ///
    /// # Errors
    /// A peer that is gone.
    pub fn train_step(&mut self, batch: &DeviceBatch, draws: &Exploration) -> Result<StepReport> {
        if self.step >= EAGER_STEPS && !matches!(self.recorded, Recorded::Impossible) {
            let (scalars, lr) = self.begin_step();
            return Ok(StepReport { metrics: self.graph_step(batch, draws, scalars)?, lr });
        }
        let plan = self.pass_plan();
        let done = pass(&mut self.model, &self.carry, batch, draws, plan);
        self.carry = done.carry;
        let metrics = self.exchange(done.metrics)?;
        let puzzle = self.peers.gather(&done.puzzle)?;
        let lr = self.apply(puzzle.as_ref());
        Ok(StepReport { metrics, lr })
    }

    /// With peers the gradient's norm is not known before the exchange.
    fn pass_plan(&self) -> PassPlan {
        let plan = PassPlan::new(&self.config);
        PassPlan { norm: plan.norm && self.peers.are_none(), ..plan }
    }

    /// Sums the dense gradients over the ranks, and gives the metrics their norm.
    fn exchange(&self, metrics: Tensor) -> Result<Tensor> {
        if self.peers.are_none() {
            return Ok(metrics);
        }
        if let Some((_, grad, _)) = self.model.params().flat() {
            self.peers.sum_gradients(grad)?;
        }
        Ok(if self.config.log_grad_norm { with_norm(metrics, &self.model) } else { metrics })
    }

    /// Counts the step and computes what changes from step to step.
    fn begin_step(&mut self) -> (StepScalars, f64) {
        self.step += 1;
        let lr = self.schedule.lr(self.config.lr, self.step);
        let puzzle_lr = self.schedule.lr(self.config.puzzle_emb_lr, self.step);
        let puzzle_keep = 1.0 - puzzle_lr * self.config.puzzle_emb_weight_decay;
        (StepScalars { adam: self.adam.begin_step(lr), puzzle_keep, puzzle_lr }, lr)
    }

    /// A step through the graph; records it first where that was not done. Returns the metrics.
    fn graph_step(&mut self, batch: &DeviceBatch, draws: &Exploration, scalars: StepScalars) -> Result<Tensor> {
        let on_device = scalars.upload(self.model.device());
        if let Some(graph) = self.recorded.graph() {
            graph.batch.assign(batch);
            graph.draws.assign(draws);
            graph.scalars.shallow_clone().copy_(&on_device);
            graph.graph.replay()?;
            let metrics = self.exchange(graph.metrics.copy())?;
            if let Some(second) = &graph.second {
                second.exchange(&self.peers)?;
                second.graph.replay()?;
            }
            return Ok(metrics);
        }
        let Device::Cuda(device) = self.model.device() else { panic!("graphs are for GPUs") };
        let batch = batch.copy();
        let draws = draws.copy();
        let plan = self.pass_plan();
        if !self.peers.are_none() {
            return self.record_halves(device, batch, draws, on_device);
        }
        let metrics = Tensor::zeros([plan.metrics()], (Kind::Double, self.model.device()));
        let (model, adam, carry) = (&mut self.model, &mut self.adam, &self.carry);
        let (ema, decay) = (self.ema.as_ref(), self.config.ema_decay);
        let mut runs = 0;
        let graph = CudaGraph::record(device, || {
            let done = pass(model, carry, &batch, &draws, plan);
            update(model, adam, done.puzzle.as_ref(), &on_device, None);
            follow(ema, model.params().master(), decay);
            no_grad(|| {
                carry.assign(&done.carry);
                metrics.shallow_clone().copy_(&done.metrics);
            });
            runs += 1;
        });
        let values = metrics.copy();
        let scalars = on_device;
        self.recorded =
            Recorded::of(graph.map(|graph| StepGraph { graph, second: None, batch, draws, scalars, metrics }));
        assert!(runs > 0, "the step ran before it was recorded");
        Ok(values)
    }

    /// Records the step as two graphs, between which the ranks exchange their gradients, while it is done once.
    fn record_halves(
        &mut self,
        device: usize,
        batch: DeviceBatch,
        draws: Exploration,
        scalars: Tensor,
    ) -> Result<Tensor> {
        let plan = self.pass_plan();
        let metrics = Tensor::zeros([plan.metrics()], (Kind::Double, self.model.device()));
        // Sizes are known before the first pass: what outlives the recording is made outside it.
        let local = self.model.puzzle_emb().map(|table| PuzzleGrad {
            identifiers: Tensor::zeros([batch.rows()], (Kind::Int, table.device())),
            grad: Tensor::zeros([batch.rows(), table.size()[1]], (Kind::Float, table.device())),
        });
        let (model, carry) = (&mut self.model, &self.carry);
        let mut runs = 0;
        let graph = CudaGraph::record(device, || {
            // The recorded run overwrites the gradients, as every replay shall.
            model.params_mut().clear_grad();
            let done = pass(model, carry, &batch, &draws, plan);
            no_grad(|| {
                carry.assign(&done.carry);
                metrics.shallow_clone().copy_(&done.metrics);
            });
            local.assign(&done.puzzle);
            runs += 1;
        });
        assert!(runs > 0, "the step ran before it was recorded");
        let summed = self.exchange(metrics.copy())?;
        let gathered = self.peers.gather(&local)?;
        let (model, adam) = (&mut self.model, &mut self.adam);
        let (ema, decay) = (self.ema.as_ref(), self.config.ema_decay);
        let mut runs = 0;
        let second = CudaGraph::record(device, || {
            update(model, adam, gathered.as_ref(), &scalars, None);
            follow(ema, model.params().master(), decay);
            runs += 1;
        });
        assert!(runs > 0, "the step ran before it was recorded");
        self.recorded = Recorded::of(graph.and_then(|graph| {
            let second = Some(SecondGraph { graph: second?, local, gathered });
            Ok(StepGraph { graph, second, batch, draws, scalars, metrics })
        }));
        Ok(summed)
    }
}

/// The step's scalars on the host.
#[derive(Clone, Copy, Debug)]
struct StepScalars {
    adam: AdamScalars,
    /// `1 - lr wd` of the puzzle embedding.
    puzzle_keep: f64,
    puzzle_lr: f64,
}

impl StepScalars {
    /// `[5]` f32: keep, root, rate; puzzle keep, puzzle lr.
    fn upload(&self, device: Device) -> Tensor {
        let all = [self.adam.keep, self.adam.root, self.adam.rate, self.puzzle_keep, self.puzzle_lr];
        runtime::upload(&Tensor::from_slice(&all.map(|v| v as f32)), device)
    }
}

/// Forward and backward pass: device work alone.
fn accumulate(model: &mut Model, carry: &Carry, batch: &DeviceBatch, draws: &Exploration, scale: f64) -> Accumulated {
    let result = model.train_segment(carry, batch, draws);
    let loss_type = model.config().loss_type;
    let metrics = loss_head(model.ops(), loss_type, &result.segment, result.target_q_continue.as_ref(), scale);
    let puzzle_grad = model.backward_segment(&result, &metrics.grads);
    let identifiers = result.segment.carry.batch.puzzle_identifiers.shallow_clone();
    Accumulated { result, metrics, puzzle: puzzle_grad.map(|grad| PuzzleGrad { identifiers, grad }) }
}

/// The moving average after a step: `ema <- decay ema + (1 - decay) weights`.
fn follow(ema: Option<&Tensor>, weights: &Tensor, decay: f64) {
    if let Some(ema) = ema {
        let _ = no_grad(|| ema.shallow_clone().lerp_(weights, 1.0 - decay));
    }
}

/// What of the configuration a forward and backward pass depends on.
#[derive(Clone, Copy, Debug)]
struct PassPlan {
    /// Upstream: 1 / global batch size.
    scale: f64,
    parts: i64,
    norm: bool,
}

impl PassPlan {
    fn new(config: &TrainConfig) -> Self {
        let scale = 1.0 / config.global_batch_size as f64;
        Self { scale, parts: config.grad_accum, norm: config.log_grad_norm }
    }

    /// How many metrics a pass leaves.
    fn metrics(self) -> i64 {
        Metric::COUNT as i64 + i64::from(self.norm)
    }
}

/// What a step keeps of its forward and backward pass, beside the dense gradients.
struct Passed {
    carry: Carry,
    /// As in [`StepReport`].
    metrics: Tensor,
    puzzle: Option<PuzzleGrad>,
}

/// Forward and backward pass over all rows, part after part: device work alone.
fn pass(model: &mut Model, carry: &Carry, batch: &DeviceBatch, draws: &Exploration, plan: PassPlan) -> Passed {
    let mut passed = if plan.parts == 1 {
        Passed::new(accumulate(model, carry, batch, draws, plan.scale))
    } else {
        let rows = batch.rows() / plan.parts;
        let mut sum = model.params().gradient_sum();
        let parts = (0..plan.parts).map(|part| {
            let at = part * rows;
            let (carry, batch) = (carry.narrow_rows(at, rows), batch.narrow_rows(at, rows));
            let done = accumulate(model, &carry, &batch, &draws.narrow_rows(at, rows), plan.scale);
            model.params_mut().move_grad_to(&mut sum);
            Passed::new(done)
        });
        let parts: Vec<Passed> = parts.collect();
        model.params_mut().take_grad_from(&sum);
        Passed::joined(&parts)
    };
    if plan.norm {
        passed.metrics = with_norm(passed.metrics, model);
    }
    passed
}

/// Metrics with the gradient's norm behind them.
fn with_norm(metrics: Tensor, model: &Model) -> Tensor {
    let norm = model.params().grad().map_or_else(|| Tensor::from(0.0), |g| g.norm()).to_kind(Kind::Double);
    Tensor::cat(&[metrics, norm.view([1])], 0)
}

impl Passed {
    fn new(done: Accumulated) -> Self {
        Self { carry: done.result.segment.carry, metrics: done.metrics.values, puzzle: done.puzzle }
    }

    fn joined(parts: &[Self]) -> Self {
        let metrics = Tensor::stack(&parts.iter().map(|p| &p.metrics).collect::<Vec<_>>(), 0);
        Self {
            carry: Rows::joined(&parts.iter().map(|p| &p.carry).collect::<Vec<_>>()),
            metrics: metrics.sum_dim_intlist(&[0i64][..], false, Kind::Double),
            puzzle: Rows::joined(&parts.iter().map(|p| &p.puzzle).collect::<Vec<_>>()),
        }
    }
}

/// Both optimisers, the puzzle embedding's first: device work alone. `plain` are the scalars for the plain form of
/// Adam-atan2; where there are none, only the fused form may be taken.
fn update(
    model: &mut Model,
    adam: &mut AdamAtan2,
    puzzle: Option<&PuzzleGrad>,
    scalars: &Tensor,
    plain: Option<AdamScalars>,
) {
    if let (Some(puzzle), Some(table)) = (puzzle, model.puzzle_emb_mut()) {
        sparse_sign_sgd(table, &puzzle.identifiers, &puzzle.grad, &scalars.narrow(0, 3, 2));
    }
    let fused = model
        .params()
        .flat()
        .is_some_and(|(master, grad, copy)| adam.update_fused(model.ops(), master, grad, copy, scalars));
    let params = model.params_mut();
    if !fused {
        let plain = plain.unwrap_or_else(|| panic!("a recorded step needs the fused optimiser"));
        if let Some(grad) = params.grad() {
            adam.update(params.master(), grad, plain);
        }
        params.refresh();
    }
    params.clear_grad();
}

/// What a forward and backward pass leaves beside the dense gradients.
#[derive(Debug)]
pub struct Accumulated {
    pub result: TrainSegment,
    pub metrics: Metrics,
    /// None without puzzle embedding.
    pub puzzle: Option<PuzzleGrad>,
}

/// The gradient of the rows' puzzle embeddings.
#[derive(Debug)]
pub struct PuzzleGrad {
    /// Of the rows that took part. `[B]`, int32.
    pub identifiers: Tensor,
    /// `[B, ndim]`, f32.
    pub grad: Tensor,
}
rows!(PuzzleGrad { identifiers, grad });

impl SecondGraph {
    fn exchange(&self, peers: &Peers) -> Result<()> {
        self.gathered.assign(&peers.gather(&self.local)?);
        Ok(())
    }
}

impl Exploration {
    /// The draws of one step for rows `first..first + rows` of the global batch. They depend on seed, step and the
    /// row's place in the global batch alone, so that any number of processes draws the same.
    pub fn draw(seed: u64, step: i64, first: i64, rows: i64, max_steps: i64, device: tch::Device) -> Self {
        let mut uniform = Vec::with_capacity(rows as usize);
        let mut min_steps = Vec::with_capacity(rows as usize);
        for row in first..first + rows {
            let mut rng = ChaCha8Rng::seed_from_u64(seed ^ (step as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            rng.set_stream(row as u64);
            uniform.push(rng.random::<f32>());
            min_steps.push(rng.random_range(2..=max_steps.max(2)) as i32);
        }
        Self {
            uniform: runtime::upload(&Tensor::from_slice(&uniform), device),
            min_steps: runtime::upload(&Tensor::from_slice(&min_steps), device),
        }
    }
}
