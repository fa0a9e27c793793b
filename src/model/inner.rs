//! The two recurrent modules and what surrounds them (upstream's inner model).
//!
//! A segment is `H_cycles` times: `L_cycles` updates `z_L = L(z_L, z_H + e)`, then one `z_H = H(z_H, z_L)`.
//! Only the last update of each module carries gradients (the one-step approximation).

use std::collections::HashMap;

use anyhow::{Context, Result};
use tch::{Device, Kind, Tensor, no_grad};

use super::{
    HrmConfig,
    config::Dims,
    params::{Params, fitting, to_raw, truncated_normal},
};
use crate::{
    checkpoint::{Checkpoint, RawTensor},
    config::{Dtype, PosEncodings},
    ops::{self, RopeTables},
};

/// Positions of a layer's four weights in [`Params`].
#[derive(Clone, Copy, Debug)]
struct Layer {
    qkv: usize,
    o: usize,
    gate_up: usize,
    down: usize,
}

/// A model on a device.
#[derive(Debug)]
pub struct Model {
    config: HrmConfig,
    device: Device,
    pub(super) params: Params,
    embed_tokens: usize,
    lm_head: usize,
    q_weight: usize,
    q_bias: usize,
    embed_pos: Option<usize>,
    h_level: Vec<Layer>,
    l_level: Vec<Layer>,
    /// `[h]` each, forward dtype: the state that a row starts from.
    h_init: Tensor,
    l_init: Tensor,
    /// `[num_puzzle_identifiers, ndim]`, f32.
    puzzle_emb: Option<Tensor>,
    rope: Option<RopeTables>,
}

/// What the inner model gives for one segment.
#[derive(Debug)]
pub(super) struct Inner {
    /// `[B, T, h]`, forward dtype.
    pub z_h: Tensor,
    pub z_l: Tensor,
    /// `[B, S, V]`, forward dtype.
    pub logits: Tensor,
    /// `[B]`, f32.
    pub q_halt: Tensor,
    pub q_continue: Tensor,
    /// z_H after each H cycle, when asked for.
    pub trace: Vec<Tensor>,
}

impl Model {
    /// A fresh model; `seed` sets torch's CPU generator.
    pub fn new(config: HrmConfig, device: Device, seed: u64) -> Result<Self> {
        config.check()?;
        tch::manual_seed(seed as i64);
        let h = config.hidden_size;
        let kind = config.kind();
        let params = no_grad(|| Params::init(&config, device));
        let start = || truncated_normal(&[h], 1.0).to_kind(kind).to_device(device);
        let (h_init, l_init) = (start(), start());
        let puzzle_emb = (config.puzzle_emb_ndim > 0).then(|| {
            Tensor::zeros([config.dims.num_puzzle_identifiers, config.puzzle_emb_ndim], (Kind::Float, device))
        });
        Ok(Self::assemble(config, device, params, h_init, l_init, puzzle_emb))
    }

    /// The model of a checkpoint, for puzzles of the given sizes.
    ///
    /// `dtype` overrides `arch.forward_dtype`. A checkpoint that does not fit is refused with the tensor and both
    /// shapes.
    pub fn load(ckpt: &Checkpoint, dims: Dims, device: Device, dtype: Option<Dtype>) -> Result<Self> {
        let mut config = HrmConfig::new(&ckpt.config.arch, dims)
            .with_context(|| format!("{}: its config describes no model", ckpt.path.display()))?;
        if let Some(dtype) = dtype {
            config.forward_dtype = dtype;
        }
        Self::from_tensors(config, &ckpt.tensors, device).with_context(|| ckpt.path.display().to_string())
    }

    /// A model from named tensors (upstream's names, without `_orig_mod.`).
    pub fn from_tensors(config: HrmConfig, tensors: &[(String, RawTensor)], device: Device) -> Result<Self> {
        config.check()?;
        let map: HashMap<&str, &RawTensor> = tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let wanted = Self::tensor_shapes(&config);
        if let Some((name, raw)) = tensors.iter().find(|(n, _)| !wanted.iter().any(|(w, _)| w == n)) {
            let cause = match config.pos_encodings {
                PosEncodings::Rope if name.contains("embed_pos") => "its config says rope, not learned positions",
                _ => "its config has fewer layers or no puzzle embedding",
            };
            anyhow::bail!("the checkpoint holds {name} {:?}, which its config has no place for: {cause}", raw.shape);
        }
        let params = Params::from_raw(&config, &map, device)?;
        let kind = config.kind();
        let start = |name: &str| -> Result<Tensor> {
            Ok(fitting(&map, name, &[config.hidden_size])?.to_kind(kind).to_device(device))
        };
        let (h_init, l_init) = (start("model.inner.H_init")?, start("model.inner.L_init")?);
        let puzzle_emb = match config.puzzle_emb_ndim {
            0 => None,
            ndim => {
                let shape = [config.dims.num_puzzle_identifiers, ndim];
                let rows = fitting(&map, "model.inner.puzzle_emb.weights", &shape)?;
                Some(rows.to_kind(Kind::Float).to_device(device))
            }
        };
        Ok(Self::assemble(config, device, params, h_init, l_init, puzzle_emb))
    }

    fn assemble(
        config: HrmConfig,
        device: Device,
        params: Params,
        h_init: Tensor,
        l_init: Tensor,
        puzzle_emb: Option<Tensor>,
    ) -> Self {
        let index: HashMap<&str, usize> =
            params.list().iter().enumerate().map(|(i, s)| (s.name.trim_start_matches("model.inner."), i)).collect();
        let layers = |level: &str, count: i64| -> Vec<Layer> {
            (0..count)
                .map(|i| {
                    let at = |part: &str| index[format!("{level}_level.layers.{i}.{part}.weight").as_str()];
                    Layer {
                        qkv: at("self_attn.qkv_proj"),
                        o: at("self_attn.o_proj"),
                        gate_up: at("mlp.gate_up_proj"),
                        down: at("mlp.down_proj"),
                    }
                })
                .collect()
        };
        let rope = (config.pos_encodings == PosEncodings::Rope)
            .then(|| RopeTables::new(config.total_seq(), config.head_dim(), config.rope_theta, device));
        Self {
            embed_tokens: index["embed_tokens.embedding_weight"],
            lm_head: index["lm_head.weight"],
            q_weight: index["q_head.weight"],
            q_bias: index["q_head.bias"],
            embed_pos: index.get("embed_pos.embedding_weight").copied(),
            h_level: layers("H", config.h_layers),
            l_level: layers("L", config.l_layers),
            config,
            device,
            params,
            h_init,
            l_init,
            puzzle_emb,
            rope,
        }
    }

    pub fn config(&self) -> &HrmConfig {
        &self.config
    }

    pub fn device(&self) -> Device {
        self.device
    }

    pub fn params(&self) -> &Params {
        &self.params
    }

    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    /// `[num_puzzle_identifiers, ndim]` f32, none when puzzle_emb_ndim is 0.
    pub fn puzzle_emb(&self) -> Option<&Tensor> {
        self.puzzle_emb.as_ref()
    }

    pub fn puzzle_emb_mut(&mut self) -> Option<&mut Tensor> {
        self.puzzle_emb.as_mut()
    }

    /// `[h]` each, forward dtype: where z_H and z_L start.
    pub fn initial_state(&self) -> (&Tensor, &Tensor) {
        (&self.h_init, &self.l_init)
    }

    /// Names and shapes of a checkpoint's tensors in upstream's `state_dict` order.
    pub fn tensor_shapes(config: &HrmConfig) -> Vec<(String, Vec<i64>)> {
        let mut all: Vec<(String, Vec<i64>)> = ["H_init", "L_init"]
            .iter()
            .map(|n| (format!("model.inner.{n}"), vec![config.hidden_size]))
            .chain(Params::specs(config).into_iter().map(|s| (s.name, s.shape)))
            .collect();
        if config.puzzle_emb_ndim > 0 {
            // Upstream registers it after the heads, before the modules.
            let at = all.iter().position(|(n, _)| n.contains("_level.")).unwrap_or(all.len());
            let rows = vec![config.dims.num_puzzle_identifiers, config.puzzle_emb_ndim];
            all.insert(at, ("model.inner.puzzle_emb.weights".into(), rows));
        }
        all
    }

    /// The tensors of a checkpoint, copied to the host, in upstream's `state_dict` order: H_init and L_init in the
    /// forward dtype, everything else f32.
    pub fn tensors(&self) -> Vec<(String, RawTensor)> {
        let by_name: HashMap<&str, usize> =
            self.params.list().iter().enumerate().map(|(i, s)| (s.name.as_str(), i)).collect();
        Self::tensor_shapes(&self.config)
            .into_iter()
            .map(|(name, _)| {
                let tensor = match name.as_str() {
                    "model.inner.H_init" => self.h_init.shallow_clone(),
                    "model.inner.L_init" => self.l_init.shallow_clone(),
                    "model.inner.puzzle_emb.weights" => {
                        self.puzzle_emb.as_ref().map(Tensor::shallow_clone).unwrap_or_default()
                    }
                    other => self.params.value(by_name[other]),
                };
                let raw = to_raw(&tensor.detach());
                (name, raw)
            })
            .collect()
    }

    /// One layer, post-norm: `x = RMS(x + Attn(x)); x = RMS(x + MLP(x))`. The one place where a layer's operations
    /// are chosen.
    ///
    /// # Shapes
    /// `x` and the result: `[B, T, h]`.
    fn layer(&self, layer: &Layer, x: &Tensor) -> Tensor {
        let w = |i| self.params.leaf(i);
        let eps = self.config.rms_norm_eps;
        let qkv = x.linear(w(layer.qkv), None::<&Tensor>); // [B, T, 3h]
        let attended = ops::attention(&qkv, self.config.num_heads, self.rope.as_ref()); // [B, T, h]
        let x = ops::residual_rms_norm(x, &attended.linear(w(layer.o), None::<&Tensor>), eps);
        let hidden = ops::swiglu(&x.linear(w(layer.gate_up), None::<&Tensor>)); // [B, T, I]
        ops::residual_rms_norm(&x, &hidden.linear(w(layer.down), None::<&Tensor>), eps)
    }

    /// One update of a module: the state plus what is injected, through its layers.
    fn level(&self, layers: &[Layer], z: &Tensor, injection: &Tensor) -> Tensor {
        layers.iter().fold(z + injection, |x, layer| self.layer(layer, &x))
    }

    /// The puzzle rows of a batch, `[B, ndim]` f32, cut off from the table.
    pub(super) fn puzzle_rows(&self, identifiers: &Tensor) -> Option<Tensor> {
        self.puzzle_emb.as_ref().map(|table| table.index_select(0, identifiers))
    }

    /// `e`: tokens (and puzzle rows in front), positions added when learned, times sqrt(h). `[B, T, h]`.
    pub(super) fn input_embedding(&self, tokens: &Tensor, puzzle_rows: Option<&Tensor>) -> Tensor {
        let puzzle = puzzle_rows.map(|rows| rows.to_kind(self.config.kind()));
        let mut e = ops::input_embedding(self.params.leaf(self.embed_tokens), tokens, puzzle.as_ref());
        if let Some(at) = self.embed_pos {
            e = ops::add_learned_positions(&e, self.params.leaf(at));
        }
        e * (self.config.hidden_size as f64).sqrt()
    }

    /// One segment from `z_h`, `z_l` (no gradient enters through them). With `with_grad`, the last update of each
    /// module and the heads are recorded for the backward pass.
    pub(super) fn inner(&self, z_h: &Tensor, z_l: &Tensor, e: &Tensor, with_grad: bool, capture: bool) -> Inner {
        let (mut z_h, mut z_l) = (z_h.shallow_clone(), z_l.shallow_clone());
        let mut trace = Vec::new();
        no_grad(|| {
            for h_cycle in 1..=self.config.h_cycles {
                let last_h = h_cycle == self.config.h_cycles;
                let updates = if last_h { self.config.l_cycles - 1 } else { self.config.l_cycles };
                for _ in 0..updates {
                    z_l = self.level(&self.l_level, &z_l, &(&z_h + e));
                }
                if !last_h {
                    z_h = self.level(&self.h_level, &z_h, &z_l);
                    if capture {
                        trace.push(z_h.shallow_clone());
                    }
                }
            }
        });
        let last = || {
            let z_l = self.level(&self.l_level, &z_l, &(&z_h + e));
            let z_h = self.level(&self.h_level, &z_h, &z_l);
            let logits = self.logits(&z_h);
            let q = z_h
                .select(1, 0)
                .linear(self.params.leaf(self.q_weight), Some(self.params.leaf(self.q_bias)))
                .to_kind(Kind::Float); // [B, 2]
            (z_h, z_l, logits, q.select(1, 0), q.select(1, 1))
        };
        let (z_h, z_l, logits, q_halt, q_continue) = if with_grad { last() } else { no_grad(last) };
        if capture {
            trace.push(z_h.detach());
        }
        Inner { z_h, z_l, logits, q_halt, q_continue, trace }
    }

    /// `lm_head(z_H)` at the cells. `z_h`: `[B, T, h]`; result `[B, S, V]`.
    pub fn logits(&self, z_h: &Tensor) -> Tensor {
        let cells = z_h.narrow(1, self.config.puzzle_emb_len(), z_h.size()[1] - self.config.puzzle_emb_len());
        cells.linear(self.params.leaf(self.lm_head), None::<&Tensor>)
    }
}
