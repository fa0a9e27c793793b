//! The parameters: one flat f32 buffer, its copy in the forward dtype, and one flat gradient buffer.
//!
//! A step casts the weights once (after the optimiser), not at every use; the forward pass reads views of the cast
//! copy, and the backward pass writes its products straight into views of the gradient buffer.

use std::collections::HashMap;

use anyhow::{Result, anyhow, ensure};
use tch::{Device, Kind, Tensor};

use super::{
    ModelConfig,
    convert::{to_raw, to_tensor},
};
use crate::{config::PosEncodings, dtype::Dtype, raw_tensor::RawTensor};

/// Where a parameter lies in the flat buffer and how it is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// Upstream's name, `model.inner.` included.
    pub name: String,
    /// Sizes of its dimensions.
    pub shape: Vec<i64>,
    /// First element in the flat buffer.
    pub offset: i64,
    /// Standard deviation of the truncated normal that it starts from; 0 for constants.
    pub std: f64,
}

impl ParamSpec {
    /// Number of elements.
    pub fn numel(&self) -> i64 {
        self.shape.iter().product()
    }

    /// Where the next parameter may begin. Matrix products want operands on 128-byte boundaries: on an H200 they are
    /// three times slower on a weight that follows the two elements of q_head's bias directly.
    fn end(&self) -> i64 {
        (self.offset + self.numel() + 63) / 64 * 64
    }
}

/// All trained parameters (the puzzle embedding is a buffer with an optimiser of its own).
#[derive(Debug)]
pub struct Params {
    specs: Vec<ParamSpec>,
    /// `[N]`, f32, zeros between the parameters.
    master: Tensor,
    /// `[N]`, forward dtype; shares `master`'s storage when that is f32.
    compute: Tensor,
    /// Views of `compute`, shaped.
    forward: Vec<Tensor>,
    grad: Option<Grad>,
}

/// Gradients, there once training was prepared.
#[derive(Debug)]
struct Grad {
    /// `[N]`, forward dtype.
    flat: Tensor,
    /// Views of `flat`, shaped.
    views: Vec<Tensor>,
    /// Nothing was written since the last clear: the next products overwrite.
    clear: bool,
}

impl Params {
    /// Specs of a model's parameters, in upstream's order.
    pub fn specs(config: &ModelConfig) -> Vec<ParamSpec> {
        let (h, i, v) = (config.hidden_size, config.intermediate_size(), config.dims.vocab_size);
        let by_fan_in = |fan_in: i64| 1.0 / (fan_in as f64).sqrt();
        let mut shapes: Vec<(String, Vec<i64>, f64)> = vec![
            ("embed_tokens.embedding_weight".into(), vec![v, h], by_fan_in(h)),
            ("lm_head.weight".into(), vec![v, h], by_fan_in(h)),
            ("q_head.weight".into(), vec![2, h], 0.0),
            ("q_head.bias".into(), vec![2], 0.0),
        ];
        if config.pos_encodings == PosEncodings::Learned {
            shapes.push(("embed_pos.embedding_weight".into(), vec![config.total_seq(), h], by_fan_in(h)));
        }
        for (level, layers) in [("H", config.h_layers), ("L", config.l_layers)] {
            for layer in 0..layers {
                let at = format!("{level}_level.layers.{layer}");
                shapes.push((format!("{at}.self_attn.qkv_proj.weight"), vec![3 * h, h], by_fan_in(h)));
                shapes.push((format!("{at}.self_attn.o_proj.weight"), vec![h, h], by_fan_in(h)));
                shapes.push((format!("{at}.mlp.gate_up_proj.weight"), vec![2 * i, h], by_fan_in(h)));
                shapes.push((format!("{at}.mlp.down_proj.weight"), vec![h, i], by_fan_in(i)));
            }
        }
        let mut offset = 0;
        shapes
            .into_iter()
            .map(|(name, shape, std)| {
                let spec = ParamSpec { name: format!("model.inner.{name}"), shape, offset, std };
                offset = spec.end();
                spec
            })
            .collect()
    }

    /// One flat buffer from each parameter's values, zeros in the gaps.
    fn flatten(specs: &[ParamSpec], parts: &[Tensor]) -> Tensor {
        let flat = Tensor::zeros([specs.last().map_or(0, ParamSpec::end)], (Kind::Float, Device::Cpu));
        for (spec, part) in specs.iter().zip(parts) {
            flat.narrow(0, spec.offset, spec.numel()).copy_(&part.flatten(0, -1));
        }
        flat
    }

    fn from_master(specs: Vec<ParamSpec>, master: Tensor, kind: Kind) -> Self {
        let compute = if kind == Kind::Float { master.shallow_clone() } else { master.to_kind(kind) };
        let forward = shaped(&specs, &compute);
        Self { specs, master, compute, forward, grad: None }
    }

    /// Fresh parameters from torch's CPU generator, the same on every device.
    pub fn init(config: &ModelConfig, device: Device) -> Self {
        let specs = Self::specs(config);
        let parts: Vec<Tensor> = specs
            .iter()
            .map(|spec| match spec.name.as_str() {
                "model.inner.q_head.bias" => Tensor::full(&spec.shape, -5.0, (Kind::Float, Device::Cpu)),
                _ => truncated_normal(&spec.shape, spec.std),
            })
            .collect();
        let master = Self::flatten(&specs, &parts).to_device(device);
        Self::from_master(specs, master, config.forward_dtype.into())
    }

    /// Takes every parameter out of `tensors`; the error names the first that is missing or does not fit.
    pub fn from_raw(config: &ModelConfig, tensors: &HashMap<&str, &RawTensor>, device: Device) -> Result<Self> {
        let specs = Self::specs(config);
        let parts = specs
            .iter()
            .map(|spec| Ok(fitting(tensors, &spec.name, &spec.shape)?.to_kind(Kind::Float)))
            .collect::<Result<Vec<_>>>()?;
        let master = Self::flatten(&specs, &parts).to_device(device);
        Ok(Self::from_master(specs, master, config.forward_dtype.into()))
    }

    /// In the order of the flat buffer.
    pub fn list(&self) -> &[ParamSpec] {
        &self.specs
    }

    /// Number of trained values.
    pub fn numel(&self) -> i64 {
        self.specs.iter().map(ParamSpec::numel).sum()
    }

    /// The shaped copy in the forward dtype that the forward pass reads, by position in [`Params::list`].
    pub fn forward(&self, index: usize) -> &Tensor {
        &self.forward[index]
    }

    /// `[N]` f32 master copy.
    pub fn master(&self) -> &Tensor {
        &self.master
    }

    /// A parameter in f32, by position.
    pub fn value(&self, index: usize) -> Tensor {
        let spec = &self.specs[index];
        self.master.narrow(0, spec.offset, spec.numel()).view(spec.shape.as_slice())
    }

    /// Makes room for gradients. Idempotent.
    pub fn prepare_training(&mut self) {
        if self.grad.is_none() {
            let flat = self.compute.zeros_like();
            self.grad = Some(Grad { views: shaped(&self.specs, &flat), flat, clear: true });
        }
    }

    /// Adds `d_out^T x` to the gradient of a linear weight.
    ///
    /// # Shapes
    /// `d_out`: `[..., out]`, `x`: `[..., in]`.
    pub(super) fn add_linear_grad(&mut self, index: usize, d_out: &Tensor, x: &Tensor) {
        let Some(grad) = &mut self.grad else { return };
        let flat = |t: &Tensor| t.reshape([-1, t.size().last().copied().unwrap_or(1)]);
        let (d_out, x) = (flat(d_out), flat(x));
        let view = &mut grad.views[index];
        if grad.clear {
            let _ = d_out.tr().mm_out(view, &x);
        } else {
            let _ = view.addmm_(&d_out.tr(), &x);
        }
    }

    /// Adds to a gradient. `d`: the parameter's shape.
    pub(super) fn add_grad(&mut self, index: usize, d: &Tensor) {
        let Some(grad) = &mut self.grad else { return };
        if grad.clear {
            grad.views[index].copy_(d);
        } else {
            let _ = grad.views[index].g_add_(&d.to_kind(grad.flat.kind()));
        }
    }

    /// The backward pass has reached every parameter: what comes next adds to it.
    pub(super) fn grads_written(&mut self) {
        if let Some(grad) = &mut self.grad {
            grad.clear = false;
        }
    }

    /// The gradients since the last [`Params::clear_grad`], `[N]` f32; none before [`Params::prepare_training`].
    pub fn grad(&self) -> Option<Tensor> {
        self.grad.as_ref().map(|g| g.flat.to_kind(Kind::Float))
    }

    /// Master copy, gradients and forward copy as they lie in memory, `[N]` each; the last two in the forward dtype.
    /// None before [`Params::prepare_training`].
    pub fn flat(&self) -> Option<(&Tensor, &Tensor, &Tensor)> {
        self.grad.as_ref().map(|g| (&self.master, &g.flat, &self.compute))
    }

    /// One parameter's gradient, shaped, f32.
    pub fn grad_of(&self, index: usize) -> Option<Tensor> {
        self.grad.as_ref().map(|g| g.views[index].to_kind(Kind::Float))
    }

    /// Forgets the gradients: every one of them is overwritten by the next backward pass.
    pub fn clear_grad(&mut self) {
        if let Some(grad) = &mut self.grad {
            grad.clear = true;
        }
    }

    /// A sum for gradients of several backward passes. `[N]`, f32.
    pub(crate) fn gradient_sum(&self) -> Tensor {
        self.master.zeros_like()
    }

    /// Adds the gradients to `sum` and forgets them here.
    pub(crate) fn move_grad_to(&mut self, sum: &mut Tensor) {
        if let Some(grad) = &self.grad {
            let _ = sum.g_add_(&grad.flat);
        }
        self.clear_grad();
    }

    /// Makes `sum` the gradients.
    pub(crate) fn take_grad_from(&mut self, sum: &Tensor) {
        if let Some(grad) = &mut self.grad {
            grad.flat.copy_(sum);
            grad.clear = false;
        }
    }

    /// Gives every parameter the value that it has in another flat buffer, `[N]` f32.
    pub(crate) fn set_master(&mut self, values: &Tensor) {
        tch::no_grad(|| self.master.copy_(values));
        self.refresh();
    }

    /// A flat buffer's parts under the parameters' names, copied to the host.
    pub fn parts_of(&self, flat: &Tensor) -> Vec<(String, RawTensor)> {
        let flat = flat.to_device(Device::Cpu);
        let part = |spec: &ParamSpec| flat.narrow(0, spec.offset, spec.numel()).view(spec.shape.as_slice());
        self.specs.iter().map(|spec| (spec.name.clone(), to_raw(&part(spec)))).collect()
    }

    /// The flat buffer whose parts stand in `tensors` under `prefix` and the parameters' names, on the parameters' device.
    ///
    /// # Errors
    /// A part that is missing, has another shape or is not made of finite numbers, by name.
    pub fn flat_from(&self, tensors: &HashMap<&str, &RawTensor>, prefix: &str) -> Result<Tensor> {
        let part = |spec: &ParamSpec| {
            let name = format!("{prefix}{}", spec.name);
            let tensor = fitting(tensors, &name, &spec.shape)?;
            tensors.get(name.as_str()).map_or(Ok(()), |raw| raw.check_weights(&name, Dtype::F32))?;
            Ok(tensor.to_kind(Kind::Float))
        };
        let parts = self.specs.iter().map(part).collect::<Result<Vec<_>>>()?;
        Ok(Self::flatten(&self.specs, &parts).to_device(self.master.device()))
    }

    /// Brings the forward copy up to date after `master` changed.
    pub fn refresh(&mut self) {
        if self.compute.kind() != Kind::Float {
            self.compute.copy_(&self.master);
        }
    }
}

fn shaped(specs: &[ParamSpec], flat: &Tensor) -> Vec<Tensor> {
    specs.iter().map(|spec| flat.narrow(0, spec.offset, spec.numel()).view(spec.shape.as_slice())).collect()
}

/// Normal values cut at two (uncorrected) standard deviations, widened so that `std` holds after the cut.
///
/// With `z = P(|N| < 2)` and `phi` the normal density at 2: `c = std / sqrt(1 - 4 phi / z)`,
/// value `= sqrt(2) c erfinv(u)`, `u ~ U(-erf(sqrt 2), erf(sqrt 2))`, clipped to `±2c`. CPU, f32.
pub fn truncated_normal(shape: &[i64], std: f64) -> Tensor {
    let cpu = (Kind::Float, Device::Cpu);
    if std == 0.0 {
        return Tensor::zeros(shape, cpu);
    }
    truncated_normal_of(&Tensor::empty(shape, cpu).uniform_(-ERF_SQRT2, ERF_SQRT2), std)
}

/// `erf(sqrt 2)`, the share of a normal distribution within two deviations.
pub const ERF_SQRT2: f64 = 0.954_499_736_103_641_6;

/// [`truncated_normal`] from `u ~ U(-erf(sqrt 2), erf(sqrt 2))`, any shape, any device.
pub fn truncated_normal_of(u: &Tensor, std: f64) -> Tensor {
    let sqrt2 = std::f64::consts::SQRT_2;
    let phi = (-2.0f64).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let c = std / (1.0 - 4.0 * phi / ERF_SQRT2).sqrt();
    (u.erfinv() * (sqrt2 * c)).clamp(-2.0 * c, 2.0 * c)
}

/// The named tensor, checked against the shape that the config asks for.
pub(super) fn fitting(tensors: &HashMap<&str, &RawTensor>, name: &str, shape: &[i64]) -> Result<Tensor> {
    let raw = tensors
        .get(name)
        .ok_or_else(|| anyhow!("the checkpoint has no tensor {name}: its config and its weights do not match"))?;
    let found: Vec<i64> = raw.shape.iter().map(|&n| n as i64).collect();
    ensure!(
        found == shape,
        "{name} is {found:?} in the checkpoint, but {shape:?} is needed: {}",
        likely_cause(name, &found, shape)
    );
    Ok(to_tensor(raw))
}

fn likely_cause(name: &str, found: &[i64], wanted: &[i64]) -> &'static str {
    if found.first() == wanted.first() {
        "hidden_size, num_heads, expansion or puzzle_emb_ndim in its config do not match these weights"
    } else if name.ends_with("embed_tokens.embedding_weight") || name.ends_with("lm_head.weight") {
        "the first size is the vocabulary, so the checkpoint was probably trained on another kind of puzzle \
         (Sudoku has 11 tokens, mazes 6)"
    } else if name.ends_with("puzzle_emb.weights") {
        "the first size counts puzzle identifiers, so the checkpoint was probably trained on another dataset, or \
         its puzzle_emb_ndim differs"
    } else if name.ends_with("embed_pos.embedding_weight") {
        "learned positions fix the sequence length, so the checkpoint was trained on puzzles of another size"
    } else {
        "hidden_size, num_heads, expansion or the number of layers in its config do not match these weights"
    }
}
