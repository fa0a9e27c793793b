//! The fused CUDA form of the operations: kernels compiled at run time for the chip and the model's sizes.
//!
//! Each method here has its plain form in the module above; [`super::Ops`] chooses. All take contiguous bf16 tensors of
//! one device and launch on torch's current stream.

mod compile;
mod gemm;
mod launch;

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

use self::launch::{Args, Function, Module};
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
}

impl Sizes {
    fn of(config: &ModelConfig) -> Self {
        Self {
            hidden: config.hidden_size,
            inter: config.intermediate_size(),
            heads: config.num_heads,
            head_dim: config.head_dim(),
            total: config.total_seq(),
            cells: config.dims.seq_len,
            vocab: config.dims.vocab_size,
            rope: config.pos_encodings == PosEncodings::Rope,
        }
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
    processors: i64,
    sizes: Sizes,
    norm: Option<Norm>,
    swiglu: Option<SwiGlu>,
    attention: Option<Attention>,
    rope: Option<Function>,
    loss: Option<Loss>,
    adam: Function,
    gemm: Option<gemm::Gemm>,
}

#[derive(Debug)]
struct Norm {
    forward: Function,
    backward: Function,
    inject: Function,
}

#[derive(Debug)]
struct SwiGlu {
    forward: Function,
    backward: Function,
}

#[derive(Debug)]
struct Attention {
    forward: Function,
    backward: Function,
    /// 16-position tiles; one warp each backward, one for two forward.
    tiles: i64,
}

#[derive(Debug)]
struct Loss {
    head: Function,
    sum: Function,
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
    /// Compiles (or takes from the cache) the kernels for a device.
    ///
    /// # Errors
    /// No NVRTC, a chip before compute capability 8.0, a compiler or driver error.
    pub fn new(device: usize, config: &ModelConfig) -> Result<Self> {
        let sizes = Sizes::of(config);
        let chip = launch::Chip::of(device)?;
        ensure!(chip.major >= 8, "compute capability {}.{} has no bf16 tensor cores", chip.major, chip.minor);
        let load = |source: &str, name: &str| -> Result<Module> {
            let cubin = compile::cubin(name, source, &sizes.defines(), &chip.architecture())?;
            Module::load(&cubin, name)
        };
        let norm = (sizes.hidden % 8 == 0 && sizes.hidden <= 4096)
            .then(|| -> Result<Norm> {
                let module = load(include_str!("kernels/norm.cu"), "norm")?;
                Ok(Norm {
                    forward: module.function(c"rms_forward", 0)?,
                    backward: module.function(c"rms_backward", 0)?,
                    inject: module.function(c"inject", 0)?,
                })
            })
            .transpose()?;
        let swiglu = (sizes.inter % 8 == 0)
            .then(|| -> Result<SwiGlu> {
                let module = load(include_str!("kernels/swiglu.cu"), "swiglu")?;
                Ok(SwiGlu {
                    forward: module.function(c"swiglu_forward", 0)?,
                    backward: module.function(c"swiglu_backward", 0)?,
                })
            })
            .transpose()?;
        let tiles = (sizes.total + 15) / 16;
        let (rows, stride, keys) = (tiles * 16, sizes.head_dim + 8, (sizes.total + 7) / 8);
        let forward_memory = 3 * ((tiles + 1) / 2 * 32) * stride * 2;
        let score_stride = keys * 8 + if keys % 2 == 1 { 0 } else { 8 };
        let backward_memory = 4 * rows * stride * 2 + rows * score_stride * 2 + 16 + rows * 4;
        let fits = [16, 32, 64].contains(&sizes.head_dim)
            && tiles <= 8
            && backward_memory.max(forward_memory) <= chip.shared_memory;
        let attention = fits
            .then(|| -> Result<Attention> {
                let module = load(include_str!("kernels/attention.cu"), "attention")?;
                Ok(Attention {
                    forward: module.function(c"attention_forward", forward_memory)?,
                    backward: module.function(c"attention_backward", backward_memory)?,
                    tiles,
                })
            })
            .transpose()?;
        let rope = (sizes.rope && sizes.head_dim % 16 == 0)
            .then(|| load(include_str!("kernels/rope.cu"), "rope")?.function(c"rope_heads", 0))
            .transpose()?;
        let module = load(include_str!("kernels/loss.cu"), "loss")?;
        let loss = (config.loss_type == LossType::Stablemax)
            .then(|| -> Result<Loss> {
                Ok(Loss { head: module.function(c"stablemax_head", 0)?, sum: module.function(c"sum_rows", 0)? })
            })
            .transpose()?;
        let adam = load(include_str!("kernels/adam.cu"), "adam")?.function(c"adam_atan2", 0)?;
        let gemm = match std::env::var_os("HRM_GEMM").is_some_and(|v| v == "torch") {
            true => None,
            false => gemm::Gemm::new(device).ok(),
        };
        Ok(Self { device, processors: chip.processors, sizes, norm, swiglu, attention, rope, loss, adam, gemm })
    }

    /// Streaming multiprocessors of the chip.
    pub fn processors(&self) -> i64 {
        self.processors
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

    pub fn residual_rms_norm(&self, x: &Tensor, branch: &Tensor, eps: f64) -> Option<Normed> {
        let norm = self.norm.as_ref()?;
        let h = self.sizes.hidden;
        if !(self.ok(x) && self.ok(branch) && x.size() == branch.size() && x.size().last() == Some(&h)) {
            return None;
        }
        let rows = x.numel() as i64 / h;
        let y = x.empty_like();
        let mut r_shape = x.size();
        *r_shape.last_mut()? = 1;
        let r = Tensor::empty(r_shape.as_slice(), (Kind::Float, x.device()));
        let mut args = Args::new();
        args.tensor(x).tensor(branch).tensor(&y).tensor(&r).int(rows).float(eps);
        norm.forward.launch(self.device, (rows + 7) / 8, 256, args);
        Some(Normed { y, r })
    }

    pub fn residual_rms_norm_backward(&self, dy: &Tensor, normed: &Normed) -> Option<Tensor> {
        let norm = self.norm.as_ref()?;
        if !(self.ok(dy) && self.ok(&normed.y) && dy.size() == normed.y.size()) {
            return None;
        }
        let rows = dy.numel() as i64 / self.sizes.hidden;
        let ds = dy.empty_like();
        let mut args = Args::new();
        args.tensor(dy).tensor(&normed.y).tensor(&normed.r).tensor(&ds).int(rows);
        norm.backward.launch(self.device, (rows + 7) / 8, 256, args);
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
        gemm.linear(&x.view([-1, k]), w, &out.view([-1, n])).then_some(out)
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
        let same = z.size() == a.size() && a.size() == b.size() && z.numel().is_multiple_of(8);
        if !(same && self.ok(z) && self.ok(a) && self.ok(b)) {
            return None;
        }
        let x = z.empty_like();
        let vecs = z.numel() as i64 / 8;
        let mut args = Args::new();
        args.tensor(z).tensor(a).tensor(b).tensor(&x).long(vecs);
        norm.inject.launch(self.device, (vecs + 255) / 256, 256, args);
        Some(x)
    }

    pub fn swiglu(&self, gate_up: &Tensor) -> Option<Tensor> {
        let swiglu = self.swiglu.as_ref()?;
        let (mut shape, i) = (gate_up.size(), self.sizes.inter);
        if !(self.ok(gate_up) && shape.last() == Some(&(2 * i))) {
            return None;
        }
        *shape.last_mut()? = i;
        let h = Tensor::empty(shape.as_slice(), (Kind::BFloat16, gate_up.device()));
        let vecs = h.numel() as i64 / 8;
        let mut args = Args::new();
        args.tensor(gate_up).tensor(&h).long(vecs);
        swiglu.forward.launch(self.device, (vecs + 255) / 256, 256, args);
        Some(h)
    }

    pub fn swiglu_backward(&self, dh: &Tensor, gate_up: &Tensor) -> Option<Tensor> {
        let swiglu = self.swiglu.as_ref()?;
        if !(self.ok(dh) && self.ok(gate_up) && gate_up.numel() == 2 * dh.numel()) {
            return None;
        }
        let d = gate_up.empty_like();
        let vecs = dh.numel() as i64 / 8;
        let mut args = Args::new();
        args.tensor(dh).tensor(gate_up).tensor(&d).long(vecs);
        swiglu.backward.launch(self.device, (vecs + 255) / 256, 256, args);
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
        if !(self.ok(packed) && total == s.total && width >= 2 * s.heads * s.head_dim) {
            return None;
        }
        let out = Tensor::empty([batch, total, 2 * s.heads, s.head_dim], (Kind::BFloat16, packed.device()));
        let items = out.numel() as i64 / 16;
        let mut args = Args::new();
        args.tensor(packed).tensor(&tables.cos).tensor(&tables.sin).tensor(&out).long(items);
        args.int(width).int(2 * s.heads * s.head_dim).float(if backward { -1.0 } else { 1.0 });
        rope.launch(self.device, (items + 255) / 256, 256, args);
        Some(out)
    }

    fn attention_shape(&self, qkv: &Tensor, tables: Option<&RopeTables>) -> Option<i64> {
        let s = &self.sizes;
        let (batch, total, width) = qkv.size3().ok()?;
        let fits = total == s.total && width == 3 * s.heads * s.head_dim && tables.is_some() == s.rope;
        (fits && self.ok(qkv) && batch > 0).then_some(batch)
    }

    /// `[B, T, h]`, and with `keep` the log-sum-exp `[B, n, T]` (base 2, f32) that the backward pass needs.
    pub fn attention(&self, qkv: &Tensor, tables: Option<&RopeTables>, keep: bool) -> Option<(Tensor, Option<Tensor>)> {
        let attention = self.attention.as_ref()?;
        let batch = self.attention_shape(qkv, tables)?;
        let s = &self.sizes;
        let out = Tensor::empty([batch, s.total, s.heads * s.head_dim], (Kind::BFloat16, qkv.device()));
        let lse = keep.then(|| Tensor::empty([batch, s.heads, s.total], (Kind::Float, qkv.device())));
        let mut args = Args::new();
        args.tensor(qkv);
        args.optional(tables.map(|t| &t.cos)).optional(tables.map(|t| &t.sin));
        args.tensor(&out).optional(lse.as_ref()).float(self.scale() * std::f64::consts::LOG2_E);
        attention.forward.launch(self.device, batch * s.heads, (attention.tiles + 1) / 2 * 32, args);
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
        let batch = self.attention_shape(qkv, tables)?;
        if !(self.ok(d_out) && self.ok(out)) {
            return None;
        }
        let d_qkv = qkv.empty_like();
        let mut args = Args::new();
        args.tensor(qkv);
        args.optional(tables.map(|t| &t.cos)).optional(tables.map(|t| &t.sin));
        args.tensor(out).tensor(lse).tensor(d_out).tensor(&d_qkv);
        args.float(self.scale() * std::f64::consts::LOG2_E).float(self.scale());
        attention.backward.launch(self.device, batch * self.sizes.heads, attention.tiles * 32, args);
        Some(d_qkv)
    }

    fn scale(&self) -> f64 {
        1.0 / (self.sizes.head_dim as f64).sqrt()
    }

    /// The stablemax loss head: loss, metrics and gradients in two launches.
    ///
    /// # Shapes
    /// `logits` `[B, S, V]` bf16; `labels` `[B, S]`, `steps` `[B]` int32; q and target `[B]` f32.
    pub fn stablemax_head(
        &self,
        logits: &Tensor,
        labels: &Tensor,
        q: (&Tensor, &Tensor),
        target: Option<&Tensor>,
        steps: &Tensor,
        scale: f64,
    ) -> Option<FusedLoss> {
        let loss = self.loss.as_ref()?;
        let batch = logits.size()[0];
        let shape = [batch, self.sizes.cells, self.sizes.vocab];
        if !(self.ok(logits) && logits.size() == shape && labels.kind() == Kind::Int && batch > 0) {
            return None;
        }
        let device = logits.device();
        let (labels, steps) = (labels.contiguous(), steps.to_kind(Kind::Int).contiguous());
        let (q_halt, q_continue) = (q.0.contiguous(), q.1.contiguous());
        let target = target.map(Tensor::contiguous);
        let d_logits = logits.empty_like();
        let d_q = Tensor::empty([batch, 2], (Kind::Float, device));
        let rows = Tensor::empty([batch, 8], (Kind::Double, device));
        let values = Tensor::empty([8], (Kind::Double, device));
        let total = Tensor::empty([] as [i64; 0], (Kind::Double, device));
        let mut args = Args::new();
        args.tensor(logits).tensor(&labels).tensor(&q_halt).tensor(&q_continue).optional(target.as_ref());
        args.tensor(&steps).tensor(&d_logits).tensor(&d_q).tensor(&rows).double(scale);
        loss.head.launch(self.device, batch, 256, args);
        let mut args = Args::new();
        args.tensor(&rows).tensor(&values).tensor(&total).int(batch);
        loss.sum.launch(self.device, 1, 256, args);
        Some(FusedLoss { loss: total, values, d_logits, d_q })
    }

    /// Adam-atan2 on flat buffers: `master`, `m`, `v` f32, `grad` and `copy` bf16, all `[N]`, N a multiple of 4;
    /// `scalars` f32 on the device: `1 - lr wd`, `sqrt(1 - b2^t)`, `lr / (1 - b1^t)`.
    #[expect(clippy::too_many_arguments, reason = "the kernel's parameters, one for one")]
    pub fn adam_atan2(
        &self,
        master: &Tensor,
        m: &Tensor,
        v: &Tensor,
        grad: &Tensor,
        copy: &Tensor,
        scalars: &Tensor,
        weights: (f64, f64),
    ) -> Option<()> {
        let n = master.numel() as i64;
        if !(n % 4 == 0 && self.ok(grad) && self.ok(copy) && grad.numel() == master.numel()) {
            return None;
        }
        let mut args = Args::new();
        args.tensor(master).tensor(m).tensor(v).tensor(grad).tensor(copy).tensor(scalars);
        args.float(weights.0).float(weights.1).long(n / 4);
        self.adam.launch(self.device, (n / 4 + 255) / 256, 256, args);
        Some(())
    }
}

/// Whether this process can compile kernels at all: NVRTC and the driver's library are there.
pub fn available() -> Result<()> {
    runtime::libtorch::open_nvrtc()?;
    compile::check()
}
