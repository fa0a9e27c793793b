//! The kernels' parameters: a struct each, its fields in the order of the source. Each says which lengths fit together;
//! [`Kernel::launch`](super::launch::Kernel::launch) asks it before it launches.

use std::marker::PhantomData;

use tch::{Device, Kind, Tensor};

use super::{
    Sizes,
    launch::{Grid, Parameters},
};

/// A type that device memory holds.
pub trait Element {
    const KIND: Kind;
}

/// Element types, by name.
#[derive(Clone, Copy, Debug)]
pub struct Bf16;
#[derive(Clone, Copy, Debug)]
pub struct F32;
#[derive(Clone, Copy, Debug)]
pub struct F64;
#[derive(Clone, Copy, Debug)]
pub struct I32;

impl Element for Bf16 {
    const KIND: Kind = Kind::BFloat16;
}
impl Element for F32 {
    const KIND: Kind = Kind::Float;
}
impl Element for F64 {
    const KIND: Kind = Kind::Double;
}
impl Element for I32 {
    const KIND: Kind = Kind::Int;
}

/// The memory of a contiguous tensor on a GPU, beginning at a multiple of `ALIGN` bytes.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a, T, const ALIGN: u64 = 1> {
    address: u64,
    /// Elements.
    len: i64,
    tensor: PhantomData<(&'a Tensor, T)>,
}

/// What a kernel reads or writes 16 bytes at a time.
pub type Wide<'a, T> = Slice<'a, T, 16>;

impl<'a, T: Element, const ALIGN: u64> Slice<'a, T, ALIGN> {
    /// None where the tensor is on another device, of another kind, not contiguous or not aligned.
    pub fn new(tensor: &'a Tensor, device: usize) -> Option<Self> {
        let here = tensor.device() == Device::Cuda(device) && tensor.kind() == T::KIND && tensor.is_contiguous();
        let address = tensor.data_ptr() as u64;
        (here && address.is_multiple_of(ALIGN)).then(|| Self {
            address,
            len: tensor.numel() as i64,
            tensor: PhantomData,
        })
    }
}

/// A parameter in the low bytes of a word, as a launch wants it.
trait Word {
    fn word(&self) -> u64;
}

impl<T, const ALIGN: u64> Word for Slice<'_, T, ALIGN> {
    fn word(&self) -> u64 {
        self.address
    }
}

/// A null pointer for none.
impl<T, const ALIGN: u64> Word for Option<Slice<'_, T, ALIGN>> {
    fn word(&self) -> u64 {
        self.as_ref().map_or(0, Word::word)
    }
}

impl Word for i32 {
    fn word(&self) -> u64 {
        u64::from(*self as u32)
    }
}

impl Word for u64 {
    fn word(&self) -> u64 {
        *self
    }
}

impl Word for f32 {
    fn word(&self) -> u64 {
        u64::from(self.to_bits())
    }
}

impl Word for f64 {
    fn word(&self) -> u64 {
        self.to_bits()
    }
}

/// Declares the parameters of a kernel, and the geometry of its launch where they fit together.
macro_rules! kernel {
    (
        $(#[$doc:meta])*
        $name:ident<$life:lifetime> = $source:literal { $($field:ident: $type:ty),+ $(,)? }
        |$this:ident, $sizes:ident| $grid:expr
    ) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<$life> {
            $(pub $field: $type,)+
        }

        // SAFETY: the fields are those of the source, in its order; the expression holds their lengths against what the
        // kernel reads and writes at these sizes.
        unsafe impl Parameters for $name<'_> {
            const NAME: &'static std::ffi::CStr = $source;

            fn words(&self) -> Vec<u64> {
                vec![$(self.$field.word()),+]
            }

            fn grid(&self, $sizes: &Sizes) -> Option<Grid> {
                let $this = self;
                $grid
            }
        }
    };
}

/// A warp for each of `rows`, where the slices hold that many rows of the hidden width, and `scales` one value a row.
fn warp_a_row(sizes: &Sizes, rows: i32, slices: [&Wide<'_, Bf16>; 3], scales: &Slice<'_, F32>) -> Option<Grid> {
    let rows = i64::from(rows);
    let fits = slices.iter().all(|s| s.len == rows * sizes.hidden) && scales.len == rows;
    fits.then_some(Grid { blocks: (rows + 7) / 8, threads: 256 })
}

/// A thread for each of `items`, where `fits`.
fn thread_an_item(items: u64, fits: bool) -> Option<Grid> {
    fits.then_some(Grid { blocks: i64::try_from(items.div_ceil(256)).ok()?, threads: 256 })
}

/// Whether there are tables of all positions exactly where the model has rope.
fn rope_fits(sizes: &Sizes, cos: Option<&Wide<'_, F32>>, sin: Option<&Wide<'_, F32>>) -> bool {
    let wanted = sizes.rope.then_some(sizes.total * sizes.head_dim);
    cos.map(|t| t.len) == wanted && sin.map(|t| t.len) == wanted
}

kernel! {
    /// `y = r s`, `s = x + branch`, `r = 1 / sqrt(mean(s^2) + eps)`, by row.
    RmsForward<'a> = c"rms_forward" {
        x: Wide<'a, Bf16>,
        branch: Wide<'a, Bf16>,
        y: Wide<'a, Bf16>,
        r: Slice<'a, F32>,
        rows: i32,
        eps: f32,
    }
    |p, sizes| warp_a_row(sizes, p.rows, [&p.x, &p.branch, &p.y], &p.r)
}

kernel! {
    /// `ds = r (dy - y mean(dy y))`, by row.
    RmsBackward<'a> = c"rms_backward" {
        dy: Wide<'a, Bf16>,
        y: Wide<'a, Bf16>,
        r: Slice<'a, F32>,
        ds: Wide<'a, Bf16>,
        rows: i32,
    }
    |p, sizes| warp_a_row(sizes, p.rows, [&p.dy, &p.y, &p.ds], &p.r)
}

kernel! {
    /// `x = z + (a + b)`; `vecs`: eight values each.
    Inject<'a> = c"inject" {
        z: Wide<'a, Bf16>,
        a: Wide<'a, Bf16>,
        b: Wide<'a, Bf16>,
        x: Wide<'a, Bf16>,
        vecs: u64,
    }
    |p, _sizes| thread_an_item(p.vecs, [&p.z, &p.a, &p.b, &p.x].iter().all(|s| s.len as u64 == 8 * p.vecs))
}

kernel! {
    /// `h = silu(gate) up`; `vecs`: eight values of `h` each.
    SwigluForward<'a> = c"swiglu_forward" {
        gate_up: Wide<'a, Bf16>,
        h: Wide<'a, Bf16>,
        vecs: u64,
    }
    |p, sizes| {
        let n = 8 * p.vecs as i64;
        thread_an_item(p.vecs, p.h.len == n && p.gate_up.len == 2 * n && n % sizes.inter == 0)
    }
}

kernel! {
    /// The gradient through [`SwigluForward`].
    SwigluBackward<'a> = c"swiglu_backward" {
        dh: Wide<'a, Bf16>,
        gate_up: Wide<'a, Bf16>,
        d_gate_up: Wide<'a, Bf16>,
        vecs: u64,
    }
    |p, sizes| {
        let n = 8 * p.vecs as i64;
        let fits = p.dh.len == n && p.gate_up.len == 2 * n && p.d_gate_up.len == 2 * n && n % sizes.inter == 0;
        thread_an_item(p.vecs, fits)
    }
}

kernel! {
    /// q and k of a packed projection turned by their positions; `items`: 16 values of `out` each.
    RopeHeads<'a> = c"rope_heads" {
        packed: Wide<'a, Bf16>,
        cos: Wide<'a, F32>,
        sin: Wide<'a, F32>,
        out: Wide<'a, Bf16>,
        items: u64,
        in_stride: i32,
        out_stride: i32,
        direction: f32,
    }
    |p, sizes| {
        let (n, width) = (16 * p.items as i64, 2 * sizes.heads * sizes.head_dim);
        let (from, to) = (i64::from(p.in_stride), i64::from(p.out_stride));
        let fits = p.out.len == n && n % width == 0 && to == width && from >= width && from % 8 == 0;
        let fits = fits && p.packed.len == n / width * from && rope_fits(sizes, Some(&p.cos), Some(&p.sin));
        thread_an_item(p.items, fits)
    }
}

kernel! {
    /// Attention of every head; `lse` is written where it is wanted.
    AttentionForward<'a> = c"attention_forward" {
        qkv: Wide<'a, Bf16>,
        cos: Option<Wide<'a, F32>>,
        sin: Option<Wide<'a, F32>>,
        out: Wide<'a, Bf16>,
        lse: Option<Slice<'a, F32>>,
        scale_log2: f32,
    }
    |p, sizes| {
        let (one, batch) = sizes.attention(p.out.len)?;
        let fits = p.qkv.len == 3 * batch * one && rope_fits(sizes, p.cos.as_ref(), p.sin.as_ref());
        let fits = fits && p.lse.as_ref().is_none_or(|lse| lse.len == batch * sizes.heads * sizes.total);
        fits.then_some(Grid { blocks: batch * sizes.heads, threads: (sizes.tiles() + 1) / 2 * 32 })
    }
}

kernel! {
    /// The gradient through [`AttentionForward`].
    AttentionBackward<'a> = c"attention_backward" {
        qkv: Wide<'a, Bf16>,
        cos: Option<Wide<'a, F32>>,
        sin: Option<Wide<'a, F32>>,
        out: Wide<'a, Bf16>,
        lse: Slice<'a, F32>,
        d_out: Wide<'a, Bf16>,
        d_qkv: Wide<'a, Bf16>,
        scale_log2: f32,
        scale: f32,
    }
    |p, sizes| {
        let (one, batch) = sizes.attention(p.out.len)?;
        let fits = p.qkv.len == 3 * batch * one && rope_fits(sizes, p.cos.as_ref(), p.sin.as_ref());
        let fits = fits && p.lse.len == batch * sizes.heads * sizes.total;
        let fits = fits && p.d_out.len == p.out.len && p.d_qkv.len == p.qkv.len;
        fits.then_some(Grid { blocks: batch * sizes.heads, threads: sizes.tiles() * 32 })
    }
}

kernel! {
    /// Loss, metrics and gradients by row; a label that is no token counts as one that is never hit.
    StablemaxHead<'a> = c"stablemax_head" {
        logits: Slice<'a, Bf16>,
        labels: Slice<'a, I32>,
        q_halt: Slice<'a, F32>,
        q_continue: Slice<'a, F32>,
        target: Option<Slice<'a, F32>>,
        steps: Slice<'a, I32>,
        d_logits: Slice<'a, Bf16>,
        d_q: Slice<'a, F32>,
        rows: Slice<'a, F64>,
        scale: f64,
    }
    |p, sizes| {
        let batch = p.steps.len;
        let tokens = batch * sizes.cells;
        let fits = p.logits.len == tokens * sizes.vocab && p.d_logits.len == p.logits.len && p.labels.len == tokens;
        let fits = fits && p.q_halt.len == batch && p.q_continue.len == batch && p.d_q.len == 2 * batch;
        let fits = fits && p.target.as_ref().is_none_or(|t| t.len == batch) && p.rows.len == 8 * batch;
        fits.then_some(Grid { blocks: batch, threads: 256 })
    }
}

kernel! {
    /// The sums over a batch's rows, and the loss.
    SumRows<'a> = c"sum_rows" {
        rows: Slice<'a, F64>,
        sums: Slice<'a, F64>,
        loss: Slice<'a, F64>,
        batch: i32,
    }
    |p, _sizes| {
        let fits = p.rows.len == 8 * i64::from(p.batch) && p.sums.len == 8 && p.loss.len == 1;
        fits.then_some(Grid { blocks: 1, threads: 256 })
    }
}

kernel! {
    /// Adam-atan2 over flat buffers; `quads`: four values each.
    AdamStep<'a> = c"adam_atan2" {
        master: Wide<'a, F32>,
        m: Wide<'a, F32>,
        v: Wide<'a, F32>,
        grad: Slice<'a, Bf16, 8>,
        copy: Slice<'a, Bf16, 8>,
        scalars: Slice<'a, F32>,
        first: f32,
        second: f32,
        quads: u64,
    }
    |p, _sizes| {
        let n = 4 * p.quads as i64;
        let fits = [p.master.len, p.m.len, p.v.len, p.grad.len, p.copy.len].iter().all(|&len| len == n);
        thread_an_item(p.quads, fits && p.scalars.len >= 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;

    /// Memory that nothing reads.
    fn memory<T, const ALIGN: u64>(len: i64) -> Slice<'static, T, ALIGN> {
        Slice { address: 0x100, len, tensor: PhantomData }
    }

    #[test]
    fn a_launch_covers_all_rows_and_refuses_memory_of_another_length() {
        let sizes = Sizes::of(&ModelConfig::sudoku());
        let norm = |scales| {
            let values = || memory(82 * 512);
            let (x, branch, y, r) = (values(), values(), values(), memory(scales));
            RmsForward { x, branch, y, r, rows: 82, eps: 1e-5 }
        };
        assert_eq!(norm(82).grid(&sizes), Some(Grid { blocks: 11, threads: 256 }));
        assert_eq!(norm(81).grid(&sizes), None);
        assert_eq!(norm(82).words()[3..], [0x100, 82, u64::from(1e-5f32.to_bits())]);
    }

    #[test]
    fn attention_takes_tables_exactly_where_the_model_has_rope() {
        let (rope, mut learned) = (ModelConfig::sudoku(), ModelConfig::sudoku());
        learned.pos_encodings = crate::config::PosEncodings::Learned;
        let attention = |tables: Option<i64>, lse| AttentionForward {
            qkv: memory(2 * 82 * 1536),
            cos: tables.map(memory),
            sin: tables.map(memory),
            out: memory(2 * 82 * 512),
            lse: Some(memory(lse)),
            scale_log2: 1.0,
        };
        let grid = Some(Grid { blocks: 16, threads: 96 });
        let (rope, learned) = (Sizes::of(&rope), Sizes::of(&learned));
        assert_eq!(attention(Some(82 * 64), 2 * 8 * 82).grid(&rope), grid);
        assert_eq!(attention(None, 2 * 8 * 82).grid(&learned), grid);
        for (tables, lse, sizes) in [
            (None, 2 * 8 * 82, &rope),
            (Some(82 * 64), 2 * 8 * 82, &learned),
            (Some(82 * 32), 2 * 8 * 82, &rope),
            (Some(82 * 64), 8 * 82, &rope),
        ] {
            assert_eq!(attention(tables, lse).grid(sizes), None, "{tables:?}, {lse}, {sizes:?}");
        }
        assert_eq!(attention(None, 2 * 8 * 82).words()[1..3], [0, 0], "null pointers");
    }

    #[test]
    fn the_loss_head_asks_for_every_length() {
        let sizes = Sizes::of(&ModelConfig::sudoku());
        let head = |labels, q, target| StablemaxHead {
            logits: memory(3 * 81 * 11),
            labels: memory(labels),
            q_halt: memory(q),
            q_continue: memory(3),
            target: Some(memory(target)),
            steps: memory(3),
            d_logits: memory(3 * 81 * 11),
            d_q: memory(6),
            rows: memory(24),
            scale: 1.0,
        };
        assert_eq!(head(3 * 81, 3, 3).grid(&sizes), Some(Grid { blocks: 3, threads: 256 }));
        assert_eq!(head(2 * 81, 3, 3).grid(&sizes), None);
        assert_eq!(head(3 * 81, 2, 3).grid(&sizes), None);
        assert_eq!(head(3 * 81, 3, 4).grid(&sizes), None);
    }

    #[test]
    fn what_is_not_on_the_gpu_is_no_memory_of_a_kernel() {
        let host = Tensor::zeros([8], (Kind::Float, Device::Cpu));
        assert!(Slice::<F32>::new(&host, 0).is_none());
    }
}
