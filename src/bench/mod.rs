//! How fast the model is on this machine: training steps, inference, and the matrix-product rate to hold them against.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use ndarray::{Array1, Array2};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::TensorView;
use serde::Serialize;
use serde_json::json;
use tch::{Cuda, Device, Kind, Tensor};

use crate::{
    config::TrainConfig,
    dataset::Batch,
    dtype::Dtype,
    model::{DeviceBatch, Exploration, Model, ModelConfig, to_raw},
    runtime::{self, Backend},
    train::Trainer,
};

/// One measured line.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// `train` or `infer`.
    pub what: String,
    pub batch_size: i64,
    /// Milliseconds of a training step, or of all segments of an inference batch; the median of the timed ones.
    pub ms: f64,
    pub puzzles_per_s: f64,
    pub tflop_per_s: f64,
    /// Of the matrix-product rate measured in the same run.
    pub share_of_matmul_rate: f64,
    /// Most device memory that tensors took at once; none on the CPU.
    pub peak_memory_gib: Option<f64>,
}

/// Waits until the device has done what it was given.
pub fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

/// Rows that look like hard Sudoku to the hardware: seven cells of ten blank, the answers any digits.
pub fn sudoku_like_batch(rows: i64, config: &ModelConfig, seed: u64) -> Batch {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (rows, cells) = (rows as usize, config.dims.seq_len as usize);
    let last = config.dims.vocab_size as i32 - 1;
    let labels = Array2::from_shape_fn((rows, cells), |_| rng.random_range(2.min(last)..=last));
    let inputs = labels.mapv(|digit| if rng.random_bool(0.69) { 1 } else { digit });
    Batch { inputs, labels, puzzle_identifiers: Array1::zeros(rows) }
}

/// Floating-point operations a second of a large square matrix product in the model's dtype, on random data.
pub fn matmul_rate(device: Device, dtype: Dtype) -> f64 {
    let kind = dtype.into();
    let n: i64 = if device.is_cuda() { 8192 } else { 1024 };
    let a = Tensor::randn([n, n], (Kind::Float, device)).to_kind(kind);
    let b = Tensor::randn([n, n], (Kind::Float, device)).to_kind(kind);
    let times = time(device, if device.is_cuda() { 20 } else { 3 }, 10, || {
        let _ = a.matmul(&b);
    });
    2.0 * (n as f64).powi(3) / median(&times).as_secs_f64()
}

/// Runs `body` `warm` times, then `steps` times with a wait after each group that keeps the device busy.
fn time(device: Device, warm: usize, steps: usize, mut body: impl FnMut()) -> Vec<Duration> {
    for _ in 0..warm {
        body();
    }
    synchronize(device);
    // On a GPU a wait after every step would add the launch latency that training never sees: time groups.
    let group = if device.is_cuda() { steps.div_ceil(5).max(1) } else { 1 };
    (0..steps.div_ceil(group))
        .map(|_| {
            let start = Instant::now();
            for _ in 0..group {
                body();
            }
            synchronize(device);
            start.elapsed() / group as u32
        })
        .collect()
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}

/// How often something is done, and what its rate is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Untimed repetitions, which come first.
    pub warm: usize,
    /// Timed ones.
    pub steps: usize,
    /// Of matrix products, in FLOP/s; see [`matmul_rate`].
    pub rate: f64,
}

/// Training steps at a batch size, exactly those of `hrm train`.
pub fn train(
    config: &ModelConfig,
    hyper: &TrainConfig,
    rows: i64,
    backend: Backend,
    timing: Timing,
) -> Result<Measured> {
    let device = backend.device;
    forget_peak(device);
    let model = Model::new(config.clone(), backend, 0)?;
    let hyper = TrainConfig { global_batch_size: rows, ..hyper.clone() };
    let mut trainer = Trainer::new(model, &hyper, 1 << 40, rows);
    let batches: Vec<_> =
        (0..4).map(|seed| DeviceBatch::upload(&sudoku_like_batch(rows, config, seed), device)).collect();
    let mut failed = None;
    let times = time(device, timing.warm, timing.steps, || {
        let step = trainer.step + 1;
        let draws = Exploration::draw(0, step, 0, rows, config.halt_max_steps, device);
        failed = trainer.train_step(&batches[step as usize % batches.len()], &draws).err().or(failed.take());
    });
    if let Some(e) = failed {
        return Err(e);
    }
    let seconds = median(&times).as_secs_f64();
    let flops = config.flops_per_train_row() * rows as f64;
    Ok(measured(device, "train", rows, seconds, flops, timing.rate))
}

/// All segments of a batch, exactly those of `hrm infer`.
pub fn infer(config: &ModelConfig, rows: i64, backend: Backend, timing: Timing) -> Result<Measured> {
    let device = backend.device;
    forget_peak(device);
    let model = Model::new(config.clone(), backend, 0)?;
    let batch = DeviceBatch::upload(&sudoku_like_batch(rows, config, 1), device);
    let times = time(device, timing.warm, timing.steps, || {
        let _ = model.all_segments(&batch, |_| ());
    });
    let seconds = median(&times).as_secs_f64();
    let flops = config.flops_per_row() * rows as f64;
    Ok(measured(device, "infer", rows, seconds, flops, timing.rate))
}

fn measured(device: Device, what: &str, rows: i64, seconds: f64, flops: f64, rate: f64) -> Measured {
    Measured {
        what: what.into(),
        batch_size: rows,
        ms: seconds * 1e3,
        puzzles_per_s: rows as f64 / seconds,
        tflop_per_s: flops / seconds / 1e12,
        share_of_matmul_rate: flops / seconds / rate,
        peak_memory_gib: peak_memory(device),
    }
}

/// Records the first training step of a fresh model (with a random q head, so that its gradients are no special case)
/// as the contents of a safetensors file: `model.*` weights, `batch.*`, `draws.*`, `loss`, `grad.model.*`.
pub fn record_step(
    config: &ModelConfig,
    hyper: &TrainConfig,
    rows: i64,
    seed: u64,
    backend: Backend,
) -> Result<Vec<u8>> {
    let device = backend.device;
    let model = Model::new(config.clone(), backend, seed)?;
    let hyper = TrainConfig { global_batch_size: rows, ..hyper.clone() };
    let mut tensors = model.tensors();
    let mut trainer = Trainer::new(model, &hyper, 1 << 40, rows);
    let batch = DeviceBatch::upload(&sudoku_like_batch(rows, config, seed), device);
    let draws = Exploration::draw(seed, 1, 0, rows, config.halt_max_steps, device);
    let metrics = trainer.accumulate(&batch, &draws).metrics;
    let mut add = |name: &str, tensor: &Tensor| tensors.push((name.to_string(), to_raw(tensor)));
    add("batch.inputs", &batch.inputs);
    add("batch.labels", &batch.labels);
    add("draws.uniform", &draws.uniform);
    add("draws.min_steps", &draws.min_steps);
    add("loss", &metrics.loss);
    let params = trainer.model.params();
    for (i, spec) in params.list().iter().enumerate() {
        if let Some(grad) = params.grad_of(i) {
            add(&format!("grad.{}", spec.name), &grad);
        }
    }
    let meta = json!({
        "hidden_size": config.hidden_size, "num_heads": config.num_heads, "expansion": config.expansion,
        "H_cycles": config.h_cycles, "L_cycles": config.l_cycles,
        "H_layers": config.h_layers, "L_layers": config.l_layers,
        "halt_max_steps": config.halt_max_steps, "halt_exploration_prob": config.halt_exploration_prob,
        "rms_norm_eps": config.rms_norm_eps, "rope_theta": config.rope_theta,
        "forward_dtype": config.forward_dtype,
    });
    let views: Vec<(&str, TensorView)> = tensors
        .iter()
        .map(|(name, t)| Ok((name.as_str(), TensorView::new(t.dtype.into(), t.shape.clone(), &t.data)?)))
        .collect::<Result<_>>()?;
    let meta = HashMap::from([("hrm".to_string(), meta.to_string())]);
    Ok(safetensors::serialize(views, Some(meta))?)
}

fn peak_memory(device: Device) -> Option<f64> {
    let Device::Cuda(index) = device else { return None };
    runtime::device_memory(index).ok().map(|m| m.allocated_peak as f64 / (1u64 << 30) as f64)
}

fn forget_peak(device: Device) {
    if let Device::Cuda(index) = device {
        let _ = runtime::reset_peak_memory(index);
    }
}
