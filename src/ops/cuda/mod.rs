//! The fused CUDA form of the operations: kernels compiled at run time for the chip and the model's sizes.
//!
//! Each method here has its plain form in the module above; [`super::Ops`] chooses. All take contiguous bf16 tensors of
//! one device and launch on torch's current stream.

mod compile;
mod gemm;
mod kernels;
mod launch;

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

use self::{
    kernels::{
        AdamStep, AttentionBackward, AttentionForward, Bf16, Element, F32, Inject, Linear, LinearRms, LinearSwiglu,
        LinearSwigluBackward, LinearSwigluKept, RmsBackward, RmsForward, RopeHeads, Slice, StablemaxHead, SumRows,
        SwigluBackward, SwigluForward, Tiles, Wide,
    },
    launch::{Kernel, Module},
};
use super::{Normed, RopeTables};
use crate::{
    config::{LossType, ModelConfig, PosEncodings},
    runtime,
};

/// What of a model the kernels are specialised on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes {
    hidden: i64,
    inter: i64,
    heads: i64,
    head_dim: i64,
    /// T
    total: i64,
    /// S
    cells: i64,
    vocab: i64,
    rope: bool,
    /// Streaming multiprocessors of the chip.
    processors: i64,
}

impl Sizes {
    fn of(config: &ModelConfig, processors: i64) -> Self {
        Self {
            hidden: config.hidden_size,
            inter: config.intermediate_size(),
            heads: config.num_heads,
            head_dim: config.head_dim(),
            total: config.total_seq(),
            cells: config.dims.seq_len,
            vocab: config.dims.vocab_size,
            rope: config.pos_encodings == PosEncodings::Rope,
            processors,
        }
    }

    /// Parts of 64 of the hidden width.
    fn steps(&self) -> i64 {
        (self.hidden + 63) / 64
    }

    /// Shared memory of the products that hold rows, in bytes, for columns of 128 and, through SwiGLU backward, of 64; none
    /// where the hidden width is too large for it.
    fn held_memory(&self) -> Option<(i64, i64)> {
        let (steps, stages) = (self.steps(), if self.steps() > 4 { 4 } else { 8 });
        let rest = 16 * (steps + stages + 1);
        let memory = |column: i64, results: i64| steps * 16384 + stages * column * 128 + results + rest;
        (self.hidden % 8 == 0 && steps <= 8).then(|| (memory(128, 32768), memory(64, 65536)))
    }

    /// Shared memory of the product with residual and norm; none where two blocks cannot share a row.
    fn wide_memory(&self) -> Option<i64> {
        let (wide, stages) = (self.hidden / 2, if self.hidden > 256 { 3 } else { 5 });
        [128, 256, 512].contains(&self.hidden).then(|| stages * (16384 + 128 * wide + 16) + 256 * wide + 48 + 1024)
    }

    /// Attention's tiles of 16 positions: a warp for each backward, one for two forward.
    fn tiles(&self) -> i64 {
        (self.total + 15) / 16
    }

    /// Values of one puzzle in attention's result, and the puzzles in a result of `len` values.
    fn attention(&self, len: i64) -> Option<(i64, i64)> {
        let one = self.total * self.heads * self.head_dim;
        (one > 0 && len % one == 0).then_some((one, len / one))
    }

    /// Shared memory of the attention kernels, forward and backward, in bytes; none where the sizes have no such kernel.
    fn attention_memory(&self) -> Option<(i64, i64)> {
        let tiles = self.tiles();
        let (rows, stride, keys) = (tiles * 16, self.head_dim + 8, (self.total + 7) / 8);
        let forward = 3 * ((tiles + 1) / 2 * 32) * stride * 2;
        let score_stride = keys * 8 + if keys % 2 == 1 { 0 } else { 8 };
        let backward = 4 * rows * stride * 2 + rows * score_stride * 2 + 16 + rows * 4;
        ([16, 32, 64].contains(&self.head_dim) && tiles <= 8).then_some((forward, backward))
    }

    fn defines(&self) -> Vec<String> {
        let mut all: Vec<String> = [
            ("HIDDEN", self.hidden),
            ("INTER", self.inter),
            ("HEADS", self.heads),
            ("HEAD_DIM", self.head_dim),
            ("TOTAL", self.total),
            ("CELLS", self.cells),
            ("VOCAB", self.vocab),
            ("STEPS", self.steps()),
        ]
        .iter()
        .map(|(name, value)| format!("-D{name}={value}"))
        .collect();
        if self.rope {
            all.push("-DROPE".into());
        }
        all
    }
}

/// Kernels of one chip and one set of sizes. An operation whose shape has no kernel is none.
#[derive(Debug)]
pub struct Fused {
    device: usize,
    sizes: Sizes,
    norm: Option<Norm>,
    swiglu: Option<SwiGlu>,
    attention: Option<Attention>,
    rope: Option<Kernel<RopeHeads<'static>>>,
    loss: Option<Loss>,
    adam: Kernel<AdamStep<'static>>,
    gemm: Option<gemm::Gemm>,
    products: Products,
}

#[derive(Debug)]
struct Norm {
    forward: Kernel<RmsForward<'static>>,
    backward: Kernel<RmsBackward<'static>>,
    inject: Kernel<Inject<'static>>,
}

#[derive(Debug)]
struct SwiGlu {
    forward: Kernel<SwigluForward<'static>>,
    backward: Kernel<SwigluBackward<'static>>,
}

/// Products of Hopper's own kernels, where chip and sizes have them.
#[derive(Debug, Default)]
struct Products {
    linear: Option<Kernel<Linear<'static>>>,
    swiglu: Option<Kernel<LinearSwiglu<'static>>>,
    swiglu_kept: Option<Kernel<LinearSwigluKept<'static>>>,
    swiglu_backward: Option<Kernel<LinearSwigluBackward<'static>>>,
    rms: Option<Kernel<LinearRms<'static>>>,
}

impl Products {
    fn new(module: &Module, sizes: &Sizes) -> Result<Self> {
        let mut products = Self::default();
        if let Some((forward, backward)) = sizes.held_memory() {
            products.linear = Some(module.kernel(forward)?);
            products.swiglu = Some(module.kernel(forward)?);
            products.swiglu_kept = Some(module.kernel(forward)?);
            products.swiglu_backward = Some(module.kernel(backward)?);
        }
        if let Some(memory) = sizes.wide_memory() {
            products.rms = Some(module.kernel(memory)?);
        }
        Ok(products)
    }
}

#[derive(Debug)]
struct Attention {
    forward: Kernel<AttentionForward<'static>>,
    backward: Kernel<AttentionBackward<'static>>,
}

#[derive(Debug)]
struct Loss {
    head: Kernel<StablemaxHead<'static>>,
    sum: Kernel<SumRows<'static>>,
}

/// What the loss head reads.
#[derive(Clone, Copy, Debug)]
pub struct HeadInputs<'a> {
    /// `[B, S, V]`, bf16.
    pub logits: &'a Tensor,
    /// `[B, S]`, int32.
    pub labels: &'a Tensor,
    /// `[B]`, f32.
    pub q_halt: &'a Tensor,
    /// `[B]`, f32.
    pub q_continue: &'a Tensor,
    /// `[B]`, f32; in training alone.
    pub target_q_continue: Option<&'a Tensor>,
    /// `[B]`, any integer dtype.
    pub steps: &'a Tensor,
}

/// Loss head results straight from the kernels; see [`crate::model::Metrics`].
#[derive(Debug)]
pub struct FusedLoss {
    /// Scalar f64.
    pub loss: Tensor,
    /// `[8]` f64.
    pub values: Tensor,
    /// `[B, S, V]` bf16.
    pub d_logits: Tensor,
    /// `[B, 2]` f32.
    pub d_q: Tensor,
}

impl Fused {
    /// Compiles (or takes from the cache) the kernels for a device. Without `tuned_products` matrix products are left to
    /// torch.
    ///
    /// # Errors
    /// No NVRTC, a chip before compute capability 8.0, a compiler or driver error.
    pub fn new(device: usize, config: &ModelConfig, tuned_products: bool) -> Result<Self> {
        let chip = launch::Chip::of(device)?;
        let sizes = Sizes::of(config, chip.processors);
        ensure!(chip.major >= 8, "compute capability {}.{} has no bf16 tensor cores", chip.major, chip.minor);
        let load = |source: &str, name: &str| -> Result<Module> {
            let cubin = compile::cubin(name, source, &sizes.defines(), &chip.architecture())?;
            Module::load(&cubin, name, device)
        };
        let norm = (sizes.hidden % 8 == 0 && sizes.hidden <= 4096)
            .then(|| -> Result<Norm> {
                let module = load(include_str!("kernels/norm.cu"), "norm")?;
                Ok(Norm { forward: module.kernel(0)?, backward: module.kernel(0)?, inject: module.kernel(0)? })
            })
            .transpose()?;
        let swiglu = (sizes.inter % 8 == 0)
            .then(|| -> Result<SwiGlu> {
                let module = load(include_str!("kernels/swiglu.cu"), "swiglu")?;
                Ok(SwiGlu { forward: module.kernel(0)?, backward: module.kernel(0)? })
            })
            .transpose()?;
        let attention = sizes
            .attention_memory()
            .filter(|&(forward, backward)| forward.max(backward) <= chip.shared_memory)
            .map(|(forward, backward)| -> Result<Attention> {
                let module = load(include_str!("kernels/attention.cu"), "attention")?;
                Ok(Attention { forward: module.kernel(forward)?, backward: module.kernel(backward)? })
            })
            .transpose()?;
        let rope = (sizes.rope && sizes.head_dim % 16 == 0)
            .then(|| load(include_str!("kernels/rope.cu"), "rope")?.kernel(0))
            .transpose()?;
        let module = load(include_str!("kernels/loss.cu"), "loss")?;
        let loss = (config.loss_type == LossType::Stablemax)
            .then(|| -> Result<Loss> { Ok(Loss { head: module.kernel(0)?, sum: module.kernel(0)? }) })
            .transpose()?;
        let adam = load(include_str!("kernels/adam.cu"), "adam")?.kernel(0)?;
        let gemm = tuned_products.then(|| gemm::Gemm::new(device).ok()).flatten();
        let products = if tuned_products && (chip.major, chip.minor) == (9, 0) {
            let source = concat!(include_str!("kernels/hopper.cuh"), include_str!("kernels/products.cu"));
            Products::new(&load(source, "products")?, &sizes)?
        } else {
            Products::default()
        };
        Ok(Self { device, sizes, norm, swiglu, attention, rope, loss, adam, gemm, products })
    }

    /// Streaming multiprocessors of the chip.
    pub fn processors(&self) -> i64 {
        self.sizes.processors
    }

    /// Operations of these sizes that have no kernel, in words.
    pub fn missing(&self) -> Vec<&'static str> {
        [
            (self.norm.is_none(), "norm"),
            (self.swiglu.is_none(), "SwiGLU"),
            (self.attention.is_none(), "attention"),
            (self.loss.is_none(), "loss"),
        ]
        .iter()
        .filter_map(|(missing, name)| missing.then_some(*name))
        .collect()
    }

    fn ok(&self, t: &Tensor) -> bool {
        t.device() == Device::Cuda(self.device) && t.kind() == Kind::BFloat16 && t.is_contiguous()
    }

    /// The memory of a tensor, where it is what a kernel's parameter wants.
    fn memory<'a, T: Element, const ALIGN: u64>(&self, tensor: &'a Tensor) -> Option<Slice<'a, T, ALIGN>> {
        Slice::new(tensor, self.device)
    }

    /// See [`super::residual_rms_norm`].
    pub fn residual_rms_norm(&self, x: &Tensor, branch: &Tensor, eps: f64) -> Option<Normed> {
        let norm = self.norm.as_ref()?;
        let h = self.sizes.hidden;
        if !(x.size() == branch.size() && x.size().last() == Some(&h)) {
            return None;
        }
        let (sum, branch) = (self.memory(x)?, self.memory(branch)?);
        let rows = x.numel() as i64 / h;
        let y = x.empty_like();
        let mut r_shape = x.size();
        *r_shape.last_mut()? = 1;
        let r = Tensor::empty(r_shape.as_slice(), (Kind::Float, x.device()));
        let to = (self.memory(&y)?, self.memory(&r)?);
        let rows = i32::try_from(rows).ok()?;
        norm.forward.launch(&self.sizes, RmsForward { x: sum, branch, y: to.0, r: to.1, rows, eps: eps as f32 })?;
        Some(Normed { y, r })
    }

    /// See [`super::residual_rms_norm_backward`].
    pub fn residual_rms_norm_backward(&self, dy: &Tensor, normed: &Normed) -> Option<Tensor> {
        let norm = self.norm.as_ref()?;
        if dy.size() != normed.y.size() {
            return None;
        }
        let (d, y, r) = (self.memory(dy)?, self.memory(&normed.y)?, self.memory(&normed.r)?);
        let rows = i32::try_from(dy.numel() as i64 / self.sizes.hidden).ok()?;
        let ds = dy.empty_like();
        norm.backward.launch(&self.sizes, RmsBackward { dy: d, y, r, ds: self.memory(&ds)?, rows })?;
        Some(ds)
    }

    /// `x W^T` with the fastest algorithm for the shape. `x`: `[..., K]`, `w`: `[N, K]`.
    pub fn linear(&self, x: &Tensor, w: &Tensor) -> Option<Tensor> {
        let gemm = self.gemm.as_ref()?;
        let mut shape = x.size();
        let (n, k) = w.size2().ok()?;
        if !(self.ok(x) && self.ok(w) && shape.last() == Some(&k) && n % 8 == 0 && k % 8 == 0 && x.numel() > 0) {
            return None;
        }
        *shape.last_mut()? = n;
        let out = Tensor::empty(shape.as_slice(), (Kind::BFloat16, x.device()));
        let own = || {
            let (a, d) = (Tiles::new(x, self.device, 128)?, Tiles::new(&out, self.device, 128)?);
            let b = Tiles::new(w, self.device, 64)?;
            let (pairs, columns) = self.parts(x, w)?;
            self.products.linear.as_ref()?.launch(&self.sizes, Linear { a, b, d, pairs, columns })
        };
        gemm.linear(&x.view([-1, k]), w, &out.view([-1, n]), &own).then_some(out)
    }

    /// Pairs of 128 rows of `x`, `[..., K]`, and parts of 128 columns of its product with `w`, `[N, K]`.
    fn parts(&self, x: &Tensor, w: &Tensor) -> Option<(i32, i32)> {
        let (n, k) = w.size2().ok()?;
        let rows = (k > 0).then(|| x.numel() as i64 / k)?;
        Some((i32::try_from((rows + 255) / 256).ok()?, i32::try_from((n + 127) / 128).ok()?))
    }

    /// See [`super::Ops::linear_swiglu`].
    pub fn linear_swiglu(&self, x: &Tensor, w: &Tensor, keep: bool) -> Option<(Option<Tensor>, Tensor)> {
        let products = &self.products;
        let (mut shape, device) = (x.size(), x.device());
        let (pairs, columns) = self.parts(x, w)?;
        let mut made = |width: i64| {
            *shape.last_mut()? = width;
            Some(Tensor::empty(shape.as_slice(), (Kind::BFloat16, device)))
        };
        let out = made(self.sizes.inter)?;
        let (a, b) = (Tiles::new(x, self.device, 128)?, Tiles::in_turns(w, self.device, 64)?);
        let d = Tiles::new(&out, self.device, 128)?;
        if !keep {
            products.swiglu.as_ref()?.launch(&self.sizes, LinearSwiglu { a, b, d, pairs, columns })?;
            return Some((None, out));
        }
        let both = made(2 * self.sizes.inter)?;
        let tiles = Tiles::new(&both, self.device, 128)?;
        let kept = products.swiglu_kept.as_ref()?;
        kept.launch(&self.sizes, LinearSwigluKept { a, b, d, both: tiles, pairs, columns })?;
        Some((Some(both), out))
    }

    /// See [`super::Ops::linear_swiglu_backward`].
    pub fn linear_swiglu_backward(&self, d_out: &Tensor, w: &Tensor, gate_up: &Tensor) -> Option<Tensor> {
        let kernel = self.products.swiglu_backward.as_ref()?;
        let (hidden, inter) = (self.sizes.hidden, self.sizes.inter);
        let d = gate_up.empty_like();
        let parameters = LinearSwigluBackward {
            a: Tiles::new(d_out, self.device, 128)?,
            b: Tiles::new(w, self.device, 32)?,
            both: Tiles::new(gate_up, self.device, 128)?,
            d: Tiles::new(&d, self.device, 128)?,
            pairs: i32::try_from((d_out.numel() as i64 / hidden + 255) / 256).ok()?,
            columns: i32::try_from(inter / 64).ok()?,
        };
        kernel.launch(&self.sizes, parameters)?;
        Some(d)
    }

    /// See [`super::Ops::linear_residual_rms_norm`].
    pub fn linear_residual_rms_norm(&self, branch: &Tensor, w: &Tensor, x: &Tensor, eps: f64) -> Option<Normed> {
        let kernel = self.products.rms.as_ref()?;
        let y = x.empty_like();
        let mut r_shape = x.size();
        *r_shape.last_mut()? = 1;
        let r = Tensor::empty(r_shape.as_slice(), (Kind::Float, x.device()));
        let parameters = LinearRms {
            a: Tiles::new(branch, self.device, 64)?,
            b: Tiles::new(w, self.device, self.sizes.hidden / 2)?,
            x: Tiles::new(x, self.device, 64)?,
            y: Tiles::new(&y, self.device, 64)?,
            r: self.memory(&r)?,
            rows: i32::try_from(r.numel()).ok()?,
            steps: i32::try_from((branch.size().last()? + 63) / 64).ok()?,
            eps: eps as f32,
        };
        kernel.launch(&self.sizes, parameters)?;
        Some(Normed { y, r })
    }

    /// `base + d_out W` likewise. `d_out`: `[..., N]`, `w`: `[N, K]`, `base` `[..., K]`.
    pub fn linear_backward(&self, d_out: &Tensor, w: &Tensor, base: Option<&Tensor>) -> Option<Tensor> {
        let gemm = self.gemm.as_ref()?;
        let mut shape = d_out.size();
        let (n, k) = w.size2().ok()?;
        let fits = base.is_none_or(|b| self.ok(b) && b.numel() * n as usize == d_out.numel() * k as usize);
        if !(fits && self.ok(d_out) && self.ok(w) && shape.last() == Some(&n) && n % 8 == 0 && k % 8 == 0) {
            return None;
        }
        *shape.last_mut()? = k;
        let out = Tensor::empty(shape.as_slice(), (Kind::BFloat16, d_out.device()));
        let base = base.map(|b| b.view([-1, k]));
        gemm.backward_input(&d_out.view([-1, n]), w, base.as_ref(), &out.view([-1, k])).then_some(out)
    }

    /// `z + (a + b)`, rounded after each sum.
    pub fn inject(&self, z: &Tensor, a: &Tensor, b: &Tensor) -> Option<Tensor> {
        let norm = self.norm.as_ref()?;
        if !(z.size() == a.size() && a.size() == b.size() && z.numel().is_multiple_of(8)) {
            return None;
        }
        let (of_z, a, b) = (self.memory(z)?, self.memory(a)?, self.memory(b)?);
        let x = z.empty_like();
        let vecs = z.numel() as u64 / 8;
        norm.inject.launch(&self.sizes, Inject { z: of_z, a, b, x: self.memory(&x)?, vecs })?;
        Some(x)
    }

    /// See [`super::swiglu`].
    pub fn swiglu(&self, gate_up: &Tensor) -> Option<Tensor> {
        let swiglu = self.swiglu.as_ref()?;
        let (mut shape, i) = (gate_up.size(), self.sizes.inter);
        if shape.last() != Some(&(2 * i)) {
            return None;
        }
        *shape.last_mut()? = i;
        let from = self.memory(gate_up)?;
        let h = Tensor::empty(shape.as_slice(), (Kind::BFloat16, gate_up.device()));
        let vecs = h.numel() as u64 / 8;
        swiglu.forward.launch(&self.sizes, SwigluForward { gate_up: from, h: self.memory(&h)?, vecs })?;
        Some(h)
    }

    /// See [`super::swiglu_backward`].
    pub fn swiglu_backward(&self, dh: &Tensor, gate_up: &Tensor) -> Option<Tensor> {
        let swiglu = self.swiglu.as_ref()?;
        if gate_up.numel() != 2 * dh.numel() {
            return None;
        }
        let (from, of) = (self.memory(dh)?, self.memory(gate_up)?);
        let d = gate_up.empty_like();
        let vecs = dh.numel() as u64 / 8;
        let d_gate_up = self.memory(&d)?;
        swiglu.backward.launch(&self.sizes, SwigluBackward { dh: from, gate_up: of, d_gate_up, vecs })?;
        Some(d)
    }

    /// The q and k heads of a packed projection turned (or, backward, turned back): `[B, T, 2n, d]`.
    ///
    /// # Shapes
    /// `packed`: `[B, T, 3h]` or `[B, T, 2h]`, q and k first.
    pub fn rope(&self, packed: &Tensor, tables: &RopeTables, backward: bool) -> Option<Tensor> {
        let rope = self.rope.as_ref()?;
        let s = &self.sizes;
        let (batch, total, width) = packed.size3().ok()?;
        if !(total == s.total && width >= 2 * s.heads * s.head_dim) {
            return None;
        }
        let (from, cos, sin) = (self.memory(packed)?, self.memory(&tables.cos)?, self.memory(&tables.sin)?);
        let out = Tensor::empty([batch, total, 2 * s.heads, s.head_dim], (Kind::BFloat16, packed.device()));
        let parameters = RopeHeads {
            packed: from,
            cos,
            sin,
            out: self.memory(&out)?,
            items: out.numel() as u64 / 16,
            in_stride: i32::try_from(width).ok()?,
            out_stride: i32::try_from(2 * s.heads * s.head_dim).ok()?,
            direction: if backward { -1.0 } else { 1.0 },
        };
        rope.launch(s, parameters)?;
        Some(out)
    }

    /// Rows of a packed projection that attention has a kernel for.
    fn attention_rows(&self, qkv: &Tensor) -> Option<i64> {
        let s = &self.sizes;
        let (batch, total, width) = qkv.size3().ok()?;
        (total == s.total && width == 3 * s.heads * s.head_dim && batch > 0).then_some(batch)
    }

    /// `[B, T, h]`, and with `keep` the log-sum-exp `[B, n, T]` (base 2, f32) that the backward pass needs.
    pub fn attention(&self, qkv: &Tensor, tables: Option<&RopeTables>, keep: bool) -> Option<(Tensor, Option<Tensor>)> {
        let attention = self.attention.as_ref()?;
        let batch = self.attention_rows(qkv)?;
        let s = &self.sizes;
        let (from, cos, sin) = self.with_tables(qkv, tables)?;
        let out = Tensor::empty([batch, s.total, s.heads * s.head_dim], (Kind::BFloat16, qkv.device()));
        let lse = keep.then(|| Tensor::empty([batch, s.heads, s.total], (Kind::Float, qkv.device())));
        let to_lse = match &lse {
            Some(lse) => Some(self.memory(lse)?),
            None => None,
        };
        let scale_log2 = (self.scale() * std::f64::consts::LOG2_E) as f32;
        let to = self.memory(&out)?;
        attention.forward.launch(s, AttentionForward { qkv: from, cos, sin, out: to, lse: to_lse, scale_log2 })?;
        Some((out, lse))
    }

    /// Gradient of the packed projection, `[B, T, 3h]`.
    pub fn attention_backward(
        &self,
        d_out: &Tensor,
        qkv: &Tensor,
        out: &Tensor,
        lse: &Tensor,
        tables: Option<&RopeTables>,
    ) -> Option<Tensor> {
        let attention = self.attention.as_ref()?;
        self.attention_rows(qkv)?;
        let (from, cos, sin) = self.with_tables(qkv, tables)?;
        let (out, lse, d_out) = (self.memory(out)?, self.memory(lse)?, self.memory(d_out)?);
        let d = qkv.empty_like();
        let parameters = AttentionBackward {
            qkv: from,
            cos,
            sin,
            out,
            lse,
            d_out,
            d_qkv: self.memory(&d)?,
            scale_log2: (self.scale() * std::f64::consts::LOG2_E) as f32,
            scale: self.scale() as f32,
        };
        attention.backward.launch(&self.sizes, parameters)?;
        Some(d)
    }

    /// The memory of a packed projection and of the tables, exactly where the model has them.
    fn with_tables<'a>(&self, qkv: &'a Tensor, tables: Option<&'a RopeTables>) -> Option<PackedWithTables<'a>> {
        let qkv = self.memory(qkv)?;
        match tables {
            Some(tables) => Some((qkv, Some(self.memory(&tables.cos)?), Some(self.memory(&tables.sin)?))),
            None => Some((qkv, None, None)),
        }
    }

    fn scale(&self) -> f64 {
        1.0 / (self.sizes.head_dim as f64).sqrt()
    }

    /// The stablemax loss head: loss, metrics and gradients in two launches.
    ///
    /// `scale` multiplies the gradients.
    pub fn stablemax_head(&self, of: &HeadInputs<'_>, scale: f64) -> Option<FusedLoss> {
        let HeadInputs { logits, labels, q_halt, q_continue, target_q_continue, steps } = *of;
        let kernels = self.loss.as_ref()?;
        let batch = logits.size()[0];
        if !(logits.size() == [batch, self.sizes.cells, self.sizes.vocab] && batch > 0) {
            return None;
        }
        let (from, device) = (self.memory(logits)?, logits.device());
        let (labels, steps) = (labels.contiguous(), steps.to_kind(Kind::Int).contiguous());
        let (q_halt, q_continue) = (q_halt.contiguous(), q_continue.contiguous());
        let target = target_q_continue.map(Tensor::contiguous);
        let target = match &target {
            Some(target) => Some(self.memory(target)?),
            None => None,
        };
        let d_logits = logits.empty_like();
        let d_q = Tensor::empty([batch, 2], (Kind::Float, device));
        let rows = Tensor::empty([batch, 8], (Kind::Double, device));
        let values = Tensor::empty([8], (Kind::Double, device));
        let loss = Tensor::empty([] as [i64; 0], (Kind::Double, device));
        let head = StablemaxHead {
            logits: from,
            labels: self.memory(&labels)?,
            q_halt: self.memory(&q_halt)?,
            q_continue: self.memory(&q_continue)?,
            target,
            steps: self.memory(&steps)?,
            d_logits: self.memory(&d_logits)?,
            d_q: self.memory(&d_q)?,
            rows: self.memory(&rows)?,
            scale,
        };
        let sum = SumRows {
            rows: self.memory(&rows)?,
            sums: self.memory(&values)?,
            loss: self.memory(&loss)?,
            batch: i32::try_from(batch).ok()?,
        };
        kernels.head.launch(&self.sizes, head)?;
        kernels.sum.launch(&self.sizes, sum)?;
        Some(FusedLoss { loss, values, d_logits, d_q })
    }

    /// Adam-atan2 on flat buffers. None, and nothing done, where they do not fit together.
    pub fn adam_atan2(&self, state: &FlatState<'_>, scalars: &Tensor, weights: (f64, f64)) -> Option<()> {
        let n = state.master.numel() as u64;
        if !n.is_multiple_of(4) {
            return None;
        }
        let parameters = AdamStep {
            master: self.memory(state.master)?,
            m: self.memory(state.m)?,
            v: self.memory(state.v)?,
            grad: self.memory(state.grad)?,
            copy: self.memory(state.copy)?,
            scalars: self.memory(scalars)?,
            first: weights.0 as f32,
            second: weights.1 as f32,
            quads: n / 4,
        };
        self.adam.launch(&self.sizes, parameters)
    }
}

/// A packed projection with the tables of cosines and sines.
type PackedWithTables<'a> = (Wide<'a, Bf16>, Option<Wide<'a, F32>>, Option<Wide<'a, F32>>);

/// The flat buffers of an optimiser, `[N]` each, N a multiple of 4.
#[derive(Clone, Copy, Debug)]
pub struct FlatState<'a> {
    /// Parameters and both moments, f32.
    pub master: &'a Tensor,
    /// First moment.
    pub m: &'a Tensor,
    /// Second moment.
    pub v: &'a Tensor,
    /// Gradients, and the parameters' copy that the forward pass reads, bf16.
    pub grad: &'a Tensor,
    /// bf16 copy of the parameters that the forward pass reads.
    pub copy: &'a Tensor,
}

/// Whether this process can compile kernels at all: NVRTC and the driver's library are there.
pub fn available() -> Result<()> {
    runtime::libtorch::open_nvrtc()?;
    compile::check()
}
