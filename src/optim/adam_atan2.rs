//! Adam-atan2 (PyPI adam-atan2 0.0.3, its CUDA kernel), per element in f32, t the 1-based step:
//!
//! 1. `p <- p (1 - lr wd)`
//! 2. `m <- m + (1 - b1)(g - m)`, `v <- v + (1 - b2)(g^2 - v)`
//! 3. `p <- p - lr / (1 - b1^t) * atan2(m, sqrt(v) / sqrt(1 - b2^t))`
//!
//! m's bias correction multiplies outside the atan2, v's stands inside. There is no epsilon and no scale constant, so
//! a gradient near zero gives a full-size, sign-like update.

use tch::{Tensor, no_grad};

use crate::ops::{FlatState, Ops};

/// The constants of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Decoupled weight decay; each step takes lr × weight_decay of a parameter off.
    pub weight_decay: f64,
}

/// What changes from step to step, computed in f64.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamScalars {
    /// `1 - lr wd`
    pub keep: f64,
    /// `sqrt(1 - b2^t)`
    pub root: f64,
    /// `lr / (1 - b1^t)`
    pub rate: f64,
}

/// State for one buffer of parameters.
#[derive(Debug)]
pub struct AdamAtan2 {
    config: AdamConfig,
    /// First and second moment, f32, shaped as the parameters.
    pub m: Tensor,
    /// Second moment.
    pub v: Tensor,
    /// Steps done.
    pub steps: u64,
}

impl AdamAtan2 {
    /// Zero moments for parameters like `params` (f32).
    pub fn new(params: &Tensor, config: AdamConfig) -> Self {
        Self { config, m: params.zeros_like(), v: params.zeros_like(), steps: 0 }
    }

    /// Begins the next step: counts it and gives its scalars.
    pub fn begin_step(&mut self, lr: f64) -> AdamScalars {
        self.steps += 1;
        let AdamConfig { beta1, beta2, weight_decay } = self.config;
        let t = self.steps as f64;
        AdamScalars {
            keep: 1.0 - lr * weight_decay,
            root: (1.0 - beta2.powf(t)).sqrt(),
            rate: lr / (1.0 - beta1.powf(t)),
        }
    }

    /// One step on `params` in place. `grad`: same shape, f32; it is used as scratch memory and lost.
    pub fn step(&mut self, params: &Tensor, grad: Tensor, lr: f64) {
        let scalars = self.begin_step(lr);
        self.update(params, grad, scalars);
    }

    /// The arithmetic of a step that was begun, in its plain form.
    pub fn update(&mut self, params: &Tensor, mut grad: Tensor, scalars: AdamScalars) {
        let mut params = params.shallow_clone();
        no_grad(|| {
            let _ = params.g_mul_scalar_(scalars.keep);
            let _ = self.m.lerp_(&grad, 1.0 - self.config.beta1);
            let _ = grad.square_();
            let _ = self.v.lerp_(&grad, 1.0 - self.config.beta2);
            let denom = self.v.sqrt().g_div_scalar_(scalars.root);
            let mut update = self.m.atan2(&denom);
            let _ = params.g_sub_(&update.g_mul_scalar_(scalars.rate));
        });
    }

    /// The arithmetic of a step that was begun, in one kernel, which writes the weights' copy in the forward dtype too.
    /// False, and nothing done, where there is no such kernel.
    ///
    /// # Shapes
    /// `params` f32, `grad` and `copy` bf16, flat, of one length; `scalars`: keep, root and rate, f32, on the device.
    pub fn update_fused(&self, ops: &Ops, params: &Tensor, grad: &Tensor, copy: &Tensor, scalars: &Tensor) -> bool {
        let weights = (1.0 - self.config.beta1, 1.0 - self.config.beta2);
        let state = FlatState { master: params, m: &self.m, v: &self.v, grad, copy };
        ops.fused().and_then(|f| f.adam_atan2(&state, scalars, weights)).is_some()
    }
}
