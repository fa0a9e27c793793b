//! The two recurrent modules and what surrounds them (upstream's inner model).
//!
//! A segment is `H_cycles` times: `L_cycles` updates `z_L = L(z_L, z_H + e)`, then one `z_H = H(z_H, z_L)`.
//! Only the last update of each module carries gradients (the one-step approximation); [`Model::backward`] runs them.

use std::collections::HashMap;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::{
    ModelConfig,
    convert::to_raw,
    params::{Params, fitting, truncated_normal},
    session::RecordedCell,
};
use crate::{
    config::PosEncodings,
    ops::{self, Attended, Normed, Ops, RopeTables},
    raw_tensor::RawTensor,
    runtime::Backend,
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
    config: ModelConfig,
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
    ops: Ops,
    pub(super) recorded: RecordedCell,
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
    pub fn new(config: ModelConfig, backend: impl Into<Backend>, seed: u64) -> Result<Self> {
        config.check()?;
        let backend = backend.into();
        let device = backend.device;
        tch::manual_seed(seed as i64);
        let h = config.hidden_size;
        let kind = Kind::from(config.forward_dtype);
        let params = Params::init(&config, device);
        let start = || truncated_normal(&[h], 1.0).to_kind(kind).to_device(device);
        let (h_init, l_init) = (start(), start());
        let puzzle_emb = (config.puzzle_emb_ndim > 0).then(|| {
            Tensor::zeros([config.dims.num_puzzle_identifiers, config.puzzle_emb_ndim], (Kind::Float, device))
        });
        Ok(Self::assemble(config, backend, params, h_init, l_init, puzzle_emb))
    }

    /// A model from named tensors (upstream's names, without `_orig_mod.`).
    pub fn from_tensors(
        config: ModelConfig,
        tensors: &[(String, RawTensor)],
        backend: impl Into<Backend>,
    ) -> Result<Self> {
        config.check()?;
        let backend = backend.into();
        let device = backend.device;
        let map: HashMap<&str, &RawTensor> = tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let wanted = Self::tensor_shapes(&config);
        if let Some((name, raw)) = tensors.iter().find(|(n, _)| !wanted.iter().any(|(w, _)| w == n)) {
            let cause = match config.pos_encodings {
                PosEncodings::Rope if name.contains("embed_pos") => "its config says rope, not learned positions",
                _ => "its config has fewer layers or no puzzle embedding",
            };
            anyhow::bail!(
                "the checkpoint holds {name} {:?}, which its config does not account for: {cause}",
                raw.shape
            );
        }
        let params = Params::from_raw(&config, &map, device)?;
        for (name, raw) in tensors {
            raw.check_weights(name, config.forward_dtype)?;
        }
        let kind = Kind::from(config.forward_dtype);
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
        Ok(Self::assemble(config, backend, params, h_init, l_init, puzzle_emb))
    }

    fn assemble(
        config: ModelConfig,
        backend: Backend,
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
            .then(|| RopeTables::new(config.total_seq(), config.head_dim(), config.rope_theta, backend.device));
        let ops = Ops::choose(backend, &config);
        Self {
            embed_tokens: index["embed_tokens.embedding_weight"],
            lm_head: index["lm_head.weight"],
            q_weight: index["q_head.weight"],
            q_bias: index["q_head.bias"],
            embed_pos: index.get("embed_pos.embedding_weight").copied(),
            h_level: layers("H", config.h_layers),
            l_level: layers("L", config.l_layers),
            config,
            device: backend.device,
            params,
            h_init,
            l_init,
            puzzle_emb,
            rope,
            ops,
            recorded: RecordedCell::default(),
        }
    }

    /// Sizes and switches.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Which form the operations take.
    pub fn ops(&self) -> &Ops {
        &self.ops
    }

    /// Chooses the form of the operations, for comparisons.
    pub fn set_ops(&mut self, ops: Ops) {
        self.recorded = RecordedCell::default();
        self.ops = ops;
    }

    /// Where its tensors are.
    pub fn device(&self) -> Device {
        self.device
    }

    pub(super) fn rope_tables(&self) -> Option<&RopeTables> {
        self.rope.as_ref()
    }

    /// The dense parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The dense parameters, to be changed.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    /// `[num_puzzle_identifiers, ndim]` f32, none when puzzle_emb_ndim is 0.
    pub fn puzzle_emb(&self) -> Option<&Tensor> {
        self.puzzle_emb.as_ref()
    }

    /// As [`Self::puzzle_emb`], to be changed.
    pub fn puzzle_emb_mut(&mut self) -> Option<&mut Tensor> {
        self.puzzle_emb.as_mut()
    }

    /// `[h]` each, forward dtype: where z_H and z_L start.
    pub fn initial_state(&self) -> (&Tensor, &Tensor) {
        (&self.h_init, &self.l_init)
    }

    /// Names and shapes of a checkpoint's tensors in upstream's `state_dict` order.
    pub fn tensor_shapes(config: &ModelConfig) -> Vec<(String, Vec<i64>)> {
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
        self.tensors_with(self.params.master())
    }

    /// [`Model::tensors`], the parameters taken from a flat buffer laid out as theirs, `[N]` f32.
    pub fn tensors_with(&self, flat: &Tensor) -> Vec<(String, RawTensor)> {
        let mut params: HashMap<String, RawTensor> = self.params.parts_of(flat).into_iter().collect();
        Self::tensor_shapes(&self.config)
            .into_iter()
            .filter_map(|(name, _)| {
                let raw = match name.as_str() {
                    "model.inner.H_init" => Some(to_raw(&self.h_init)),
                    "model.inner.L_init" => Some(to_raw(&self.l_init)),
                    "model.inner.puzzle_emb.weights" => self.puzzle_emb.as_ref().map(to_raw),
                    other => params.remove(other),
                };
                raw.map(|raw| (name, raw))
            })
            .collect()
    }

    /// One layer, post-norm: `x = RMS(x + Attn(x)); x = RMS(x + MLP(x))`. The one place where a layer's operations
    /// are chosen.
    ///
    /// With `keep`, attention keeps what its backward pass needs. With `first_only`, everything after attention is
    /// computed for position 0 alone.
    ///
    /// # Shapes
    /// `x`: `[B, T, h]`; the tape's `out`: `[B, T, h]`, or `[B, 1, h]` with `first_only`.
    fn layer(&self, layer: &Layer, x: &Tensor, keep: bool, first_only: bool) -> LayerTape {
        let eps = self.config.rms_norm_eps;
        let qkv = self.linear(x, layer.qkv); // [B, T, 3h]
        let attended = self.ops.attention(qkv, self.config.num_heads, self.rope.as_ref(), keep); // [B, T, h]
        let first = |t: &Tensor| if first_only { t.narrow(1, 0, 1).contiguous() } else { t.shallow_clone() };
        let projected = |branch: &Tensor, weight: usize, x: &Tensor| {
            self.ops.linear_residual_rms_norm(branch, self.params.forward(weight), x, eps)
        };
        let middle = projected(&first(&attended.out), layer.o, &first(x));
        let (gate_up, hidden) = self.ops.linear_swiglu(&middle.y, self.params.forward(layer.gate_up), keep);
        let out = projected(&hidden, layer.down, &middle.y);
        LayerTape { x: x.shallow_clone(), attended, middle, gate_up, hidden, out }
    }

    /// Gradients of a layer's weights; returns its input's. `dy`: `[B, T, h]`.
    fn layer_backward(&mut self, layer: &Layer, tape: &LayerTape, dy: &Tensor) -> Tensor {
        let ds = self.ops.residual_rms_norm_backward(dy, &tape.out);
        self.params.add_linear_grad(layer.down, &ds, &tape.hidden);
        let again = || self.linear(&tape.middle.y, layer.gate_up);
        let gate_up = tape.gate_up.as_ref().map_or_else(again, Tensor::shallow_clone); // [B, T, 2I]
        let d_gate_up = self.ops.linear_swiglu_backward(&ds, self.params.forward(layer.down), &gate_up);
        self.params.add_linear_grad(layer.gate_up, &d_gate_up, &tape.middle.y);
        let d_middle = self.ops.linear_backward(&d_gate_up, self.params.forward(layer.gate_up), Some(&ds));

        let ds = self.ops.residual_rms_norm_backward(&d_middle, &tape.middle);
        self.params.add_linear_grad(layer.o, &ds, &tape.attended.out);
        let d_out = self.ops.linear_backward(&ds, self.params.forward(layer.o), None); // [B, T, h]
        let d_qkv = self.ops.attention_backward(&d_out, &tape.attended, self.rope.as_ref()); // [B, T, 3h]
        self.params.add_linear_grad(layer.qkv, &d_qkv, &tape.x);
        self.ops.linear_backward(&d_qkv, self.params.forward(layer.qkv), Some(&ds))
    }

    fn linear(&self, x: &Tensor, weight: usize) -> Tensor {
        self.ops.linear(x, self.params.forward(weight))
    }

    /// One update of a module: its state with what is injected, `x`, through its layers. With `tapes`, what the
    /// backward pass needs is kept. With `first_only`, the last layer ends in position 0 alone: `[B, 1, h]`.
    fn level(&self, layers: &[Layer], x: Tensor, mut tapes: Option<&mut Vec<LayerTape>>, first_only: bool) -> Tensor {
        layers.iter().enumerate().fold(x, |x, (i, layer)| {
            let tape = self.layer(layer, &x, tapes.is_some(), first_only && i + 1 == layers.len());
            let y = tape.out.y.shallow_clone();
            if let Some(tapes) = &mut tapes {
                tapes.push(tape);
            }
            y
        })
    }

    /// The puzzle rows of a batch, `[B, ndim]` f32.
    pub(super) fn puzzle_rows(&self, identifiers: &Tensor) -> Option<Tensor> {
        self.puzzle_emb.as_ref().map(|table| table.index_select(0, identifiers))
    }

    /// `e`: tokens (and puzzle rows in front), positions added when learned, times sqrt(h). `[B, T, h]`.
    pub(super) fn input_embedding(&self, tokens: &Tensor, puzzle_rows: Option<&Tensor>) -> Tensor {
        let puzzle = puzzle_rows.map(|rows| rows.to_kind(self.config.forward_dtype.into()));
        let positions = self.embed_pos.map(|at| self.params.forward(at));
        ops::input_embedding(self.params.forward(self.embed_tokens), tokens, puzzle.as_ref(), positions)
    }

    /// One segment from `z_h`, `z_l`. With `tape`, the last update of each module is kept for [`Model::backward`].
    pub(super) fn inner(
        &self,
        z_h: &Tensor,
        z_l: &Tensor,
        e: &Tensor,
        capture: bool,
        tape: Option<&mut Tape>,
    ) -> Inner {
        let mut trace = Vec::new();
        let on_h = |z: &Tensor| {
            if capture {
                trace.push(z.shallow_clone());
            }
        };
        let (z_h, z_l) = self.cycles((z_h, z_l), e, tape, false, on_h);
        let logits = self.logits(&z_h);
        let (q_halt, q_continue) = self.q(&z_h);
        Inner { z_h, z_l, logits, q_halt, q_continue, trace }
    }

    /// q_halt and q_continue alone after one segment from `z_h`, `z_l`; `[B]` f32 each. The last layer is computed
    /// for position 0 only, which is all that the q head reads.
    pub(super) fn inner_q(&self, z_h: &Tensor, z_l: &Tensor, e: &Tensor) -> (Tensor, Tensor) {
        let (z_h, _) = self.cycles((z_h, z_l), e, None, true, |_| ());
        self.q(&z_h)
    }

    /// The H and L cycles of a segment: z_H and z_L at its end. `on_h` sees z_H after each H cycle.
    fn cycles(
        &self,
        (z_h, z_l): (&Tensor, &Tensor),
        e: &Tensor,
        mut tape: Option<&mut Tape>,
        first_only: bool,
        mut on_h: impl FnMut(&Tensor),
    ) -> (Tensor, Tensor) {
        let (mut z_h, mut z_l) = (z_h.shallow_clone(), z_l.shallow_clone());
        for h_cycle in 1..=self.config.h_cycles {
            for l_cycle in 1..=self.config.l_cycles {
                let kept = self.config.l_has_gradient(h_cycle, l_cycle);
                let tapes = tape.as_mut().filter(|_| kept).map(|t| &mut t.l_level);
                z_l = self.level(&self.l_level, self.ops.inject(&z_l, &z_h, e), tapes, false);
            }
            let kept = self.config.h_has_gradient(h_cycle);
            let tapes = tape.as_mut().filter(|_| kept).map(|t| &mut t.h_level);
            let last = h_cycle == self.config.h_cycles;
            z_h = self.level(&self.h_level, &z_h + &z_l, tapes, first_only && last);
            on_h(&z_h);
        }
        (z_h, z_l)
    }

    /// The q head at position 0: halt and continue, `[B]` f32 each.
    fn q(&self, z_h: &Tensor) -> (Tensor, Tensor) {
        let rows = z_h.size()[0];
        // A CPU multiplies one row by another method than several, whose last bit differs: a row's numbers must not
        // depend on how many stand beside it.
        let several = if rows == 1 && z_h.device() == Device::Cpu { &z_h.repeat([2, 1, 1]) } else { z_h };
        let first = several.select(1, 0);
        let q =
            first.linear(self.params.forward(self.q_weight), Some(self.params.forward(self.q_bias))).narrow(0, 0, rows);
        let q = q.to_kind(Kind::Float); // [B, 2]
        let q_continue = q.select(1, 1);
        let q_continue = if self.config.no_act_continue { q_continue.zeros_like() } else { q_continue };
        (q.select(1, 0), q_continue)
    }

    /// Gradients of every parameter from those of a taped segment's outputs, added to what [`Params`] holds.
    /// Returns the gradient of the puzzle rows, `[B, ndim]` f32.
    ///
    /// # Shapes
    /// - `z_h`: the segment's z_H, `[B, T, h]`; `tokens`: its inputs, `[B, S]`
    /// - `d_logits`: `[B, S, V]`, forward dtype
    /// - `d_q`: `[B, 2]`, f32, halt first
    pub(super) fn backward(
        &mut self,
        tape: &Tape,
        z_h: &Tensor,
        tokens: &Tensor,
        d_logits: &Tensor,
        d_q: &Tensor,
    ) -> Option<Tensor> {
        let in_front = self.config.puzzle_emb_len();
        let cells = z_h.narrow(1, in_front, z_h.size()[1] - in_front);
        self.params.add_linear_grad(self.lm_head, d_logits, &cells);
        let d_cells = d_logits.matmul(self.params.forward(self.lm_head)); // [B, S, h]
        let d_q = d_q.to_kind(self.config.forward_dtype.into());
        self.params.add_linear_grad(self.q_weight, &d_q, &z_h.select(1, 0));
        self.params.add_grad(self.q_bias, &d_q.sum_dim_intlist(&[0i64][..], false, Kind::Float));
        let mut dz = d_cells.constant_pad_nd([0, 0, in_front, 0]); // [B, T, h]
        let d_first = d_q.matmul(self.params.forward(self.q_weight)); // [B, h]
        let _ = dz.select(1, 0).g_add_(&d_first);

        for (levels, tapes) in [(self.h_level.clone(), &tape.h_level), (self.l_level.clone(), &tape.l_level)] {
            for (layer, tape) in levels.iter().zip(tapes).rev() {
                dz = self.layer_backward(layer, tape, &dz);
            }
        }
        // z_L = L(z_L, z_H + e): the module's input gradient is e's.
        let grads = ops::input_embedding_backward(
            &dz,
            tokens,
            self.config.dims.vocab_size,
            self.config.puzzle_emb_ndim,
            self.embed_pos.is_some(),
        );
        self.params.add_grad(self.embed_tokens, &grads.table);
        if let (Some(at), Some(d)) = (self.embed_pos, &grads.positions) {
            self.params.add_grad(at, d);
        }
        self.params.grads_written();
        grads.puzzle
    }

    /// `lm_head(z_H)` at the cells. `z_h`: `[B, T, h]`; result `[B, S, V]`.
    pub fn logits(&self, z_h: &Tensor) -> Tensor {
        let in_front = self.config.puzzle_emb_len();
        self.linear(&z_h.narrow(1, in_front, z_h.size()[1] - in_front), self.lm_head)
    }
}

/// What one layer's backward pass needs.
#[derive(Debug)]
struct LayerTape {
    /// `[B, T, h]`
    x: Tensor,
    attended: Attended,
    middle: Normed,
    /// `[B, T, 2I]`, where it was kept.
    gate_up: Option<Tensor>,
    /// `[B, T, I]`
    hidden: Tensor,
    out: Normed,
}

/// What a segment's backward pass needs: the last update of each module.
#[derive(Debug, Default)]
pub(super) struct Tape {
    h_level: Vec<LayerTape>,
    l_level: Vec<LayerTape>,
}

impl Tape {
    /// Attention of every layer, the H module's first: module, layer, result.
    pub(super) fn attended(&self) -> impl Iterator<Item = (char, usize, &Attended)> {
        let h_level = self.h_level.iter().enumerate().map(|(i, t)| ('H', i, &t.attended));
        h_level.chain(self.l_level.iter().enumerate().map(|(i, t)| ('L', i, &t.attended)))
    }
}
