//! The kernels' parameters: a struct each, its fields in the order of the source. Each says which lengths fit together;
//! [`Kernel::launch`](super::launch::Kernel::launch) asks it before it launches.

use std::marker::PhantomData;

use tch::{Device, Kind, Tensor};

use super::{
    Sizes,
    launch::{Argument, Grid, Parameters, TensorMap},
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

/// The tiles of a bf16 matrix on a GPU as Hopper's copy engine takes them.
#[derive(Clone, Copy, Debug)]
pub struct Tiles<'a> {
    map: TensorMap,
    rows: i64,
    cols: i64,
    /// Rows of a tile; it has 64 columns.
    tile: i64,
    tensor: PhantomData<&'a Tensor>,
}

impl<'a> Tiles<'a> {
    /// A tensor `[..., cols]` as a matrix. None where it is no memory of kernels or the columns do not fill 16 bytes.
    pub fn new(tensor: &'a Tensor, device: usize, tile: i64) -> Option<Self> {
        let memory = Wide::<'a, Bf16>::new(tensor, device)?;
        let cols = *tensor.size().last()?;
        let rows = (cols > 0 && cols % 8 == 0 && memory.len > 0).then(|| memory.len / cols)?;
        let map = TensorMap::new(memory.address, &[cols as u64, rows as u64], &[2 * cols as u64], &[64, tile as u32])?;
        Some(Self { map, rows, cols, tile, tensor: PhantomData })
    }

    /// A gate and an up projection `[2I, cols]`, a tile of them in turns of eight rows each.
    pub fn in_turns(tensor: &'a Tensor, device: usize, tile: i64) -> Option<Self> {
        let memory = Wide::<'a, Bf16>::new(tensor, device)?;
        let (rows, cols) = tensor.size2().ok().filter(|&(rows, cols)| rows > 0 && rows % 16 == 0 && cols % 8 == 0)?;
        let (width, turns) = (cols as u64, rows as u64 / 16);
        let strides = [2 * width, rows as u64 * width, 16 * width];
        let map = TensorMap::new(memory.address, &[width, 8, 2, turns], &strides, &[64, 8, 2, tile as u32 / 16])?;
        Some(Self { map, rows, cols, tile, tensor: PhantomData })
    }
}

/// A parameter as a launch takes it.
trait Passed {
    fn argument(&self) -> Argument;
}

impl<T, const ALIGN: u64> Passed for Slice<'_, T, ALIGN> {
    fn argument(&self) -> Argument {
        Argument::Word(self.address)
    }
}

/// A null pointer for none.
impl<T, const ALIGN: u64> Passed for Option<Slice<'_, T, ALIGN>> {
    fn argument(&self) -> Argument {
        self.as_ref().map_or(Argument::Word(0), Passed::argument)
    }
}

impl Passed for Tiles<'_> {
    fn argument(&self) -> Argument {
        Argument::Map(self.map)
    }
}

impl Passed for i32 {
    fn argument(&self) -> Argument {
        Argument::Word(u64::from(*self as u32))
    }
}

impl Passed for u64 {
    fn argument(&self) -> Argument {
        Argument::Word(*self)
    }
}

impl Passed for f32 {
    fn argument(&self) -> Argument {
        Argument::Word(u64::from(self.to_bits()))
    }
}

impl Passed for f64 {
    fn argument(&self) -> Argument {
        Argument::Word(self.to_bits())
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

            fn arguments(&self) -> Vec<Argument> {
                vec![$(self.$field.argument()),+]
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

/// Persistent clusters of two blocks, no more than there is work for.
fn clusters(sizes: &Sizes, work: i64) -> Grid {
    Grid { blocks: (sizes.processors / 2).min(work) * 2, threads: 384 }
}

/// The grid of a product of `a` by the hidden width in `pairs` of 128 rows and `columns` of 128.
fn held(sizes: &Sizes, [a, b, d]: [&Tiles<'_>; 3], pairs: i32, columns: i32) -> Option<Grid> {
    let fits = a.cols == sizes.hidden && b.cols == sizes.hidden && d.rows == a.rows;
    let fits = fits && [a.tile, b.tile, d.tile] == [128, 64, 128];
    let fits = fits && i64::from(pairs) == (a.rows + 255) / 256 && i64::from(columns) == (b.rows + 127) / 128;
    fits.then(|| clusters(sizes, i64::from(pairs) * i64::from(columns)))
}

kernel! {
    /// `d = a b^T`, a's columns the hidden width.
    Linear<'a> = c"linear" {
        a: Tiles<'a>,
        b: Tiles<'a>,
        d: Tiles<'a>,
        pairs: i32,
        columns: i32,
    }
    |p, sizes| held(sizes, [&p.a, &p.b, &p.d], p.pairs, p.columns).filter(|_| p.d.cols == p.b.rows)
}

kernel! {
    /// `d = silu(gate) up` of `a b^T`; `b` in turns.
    LinearSwiglu<'a> = c"linear_swiglu" {
        a: Tiles<'a>,
        b: Tiles<'a>,
        d: Tiles<'a>,
        pairs: i32,
        columns: i32,
    }
    |p, sizes| {
        let fits = p.b.rows == 2 * sizes.inter && p.d.cols == sizes.inter;
        held(sizes, [&p.a, &p.b, &p.d], p.pairs, p.columns).filter(|_| fits)
    }
}

kernel! {
    /// [`LinearSwiglu`], and `both = a b^T`, gate first.
    LinearSwigluKept<'a> = c"linear_swiglu_kept" {
        a: Tiles<'a>,
        b: Tiles<'a>,
        d: Tiles<'a>,
        both: Tiles<'a>,
        pairs: i32,
        columns: i32,
    }
    |p, sizes| {
        let fits = p.b.rows == 2 * sizes.inter && p.d.cols == sizes.inter && p.both.cols == 2 * sizes.inter;
        let fits = fits && p.both.rows == p.a.rows && p.both.tile == 128 && sizes.inter % 64 == 0;
        held(sizes, [&p.a, &p.b, &p.d], p.pairs, p.columns).filter(|_| fits)
    }
}

kernel! {
    /// `d`, the gradient of `both` where `a b` is that of `silu(gate) up`; `b` is not transposed.
    LinearSwigluBackward<'a> = c"linear_swiglu_backward" {
        a: Tiles<'a>,
        b: Tiles<'a>,
        both: Tiles<'a>,
        d: Tiles<'a>,
        pairs: i32,
        columns: i32,
    }
    |p, sizes| {
        let fits = [&p.both, &p.d].iter().all(|t| t.rows == p.a.rows && t.cols == 2 * sizes.inter && t.tile == 128);
        let fits = fits && p.a.cols == sizes.hidden && p.a.tile == 128 && sizes.inter % 64 == 0;
        let fits = fits && p.b.rows == sizes.hidden && p.b.cols == sizes.inter && p.b.tile == 32;
        let (pairs, columns) = (i64::from(p.pairs), i64::from(p.columns));
        let fits = fits && pairs == (p.a.rows + 255) / 256 && columns == sizes.inter / 64;
        fits.then(|| clusters(sizes, pairs * columns))
    }
}

kernel! {
    /// `y = r s`, `s = x + a b^T`, `r = 1 / sqrt(mean(s^2) + eps)`, by row; `steps`: parts of 64 of a's columns.
    LinearRms<'a> = c"linear_rms" {
        a: Tiles<'a>,
        b: Tiles<'a>,
        x: Tiles<'a>,
        y: Tiles<'a>,
        r: Slice<'a, F32>,
        rows: i32,
        steps: i32,
        eps: f32,
    }
    |p, sizes| {
        let (rows, hidden) = (i64::from(p.rows), sizes.hidden);
        let fits = [&p.a, &p.x, &p.y].iter().all(|t| t.rows == rows && t.tile == 64) && p.r.len == rows;
        let fits = fits && p.b.rows == hidden && p.b.tile == hidden / 2 && p.x.cols == hidden && p.y.cols == hidden;
        let fits = fits && p.b.cols == p.a.cols && i64::from(p.steps) == (p.a.cols + 63) / 64;
        fits.then(|| clusters(sizes, (rows + 127) / 128))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;

    fn sizes(config: &ModelConfig) -> Sizes {
        Sizes::of(config, 132)
    }

    fn words(parameters: &impl Parameters) -> Vec<u64> {
        let word = |argument: &Argument| match argument {
            Argument::Word(word) => *word,
            Argument::Map(_) => panic!("a map"),
        };
        parameters.arguments().iter().map(word).collect()
    }

    /// Memory that nothing reads.
    fn memory<T, const ALIGN: u64>(len: i64) -> Slice<'static, T, ALIGN> {
        Slice { address: 0x100, len, tensor: PhantomData }
    }

    #[test]
    fn a_launch_covers_all_rows_and_refuses_memory_of_another_length() {
        let sizes = sizes(&ModelConfig::sudoku());
        let norm = |scales| {
            let values = || memory(82 * 512);
            let (x, branch, y, r) = (values(), values(), values(), memory(scales));
            RmsForward { x, branch, y, r, rows: 82, eps: 1e-5 }
        };
        assert_eq!(norm(82).grid(&sizes), Some(Grid { blocks: 11, threads: 256 }));
        assert_eq!(norm(81).grid(&sizes), None);
        assert_eq!(words(&norm(82))[3..], [0x100, 82, u64::from(1e-5f32.to_bits())]);
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
        let (rope, learned) = (sizes(&rope), sizes(&learned));
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
        assert_eq!(words(&attention(None, 2 * 8 * 82))[1..3], [0, 0], "null pointers");
    }

    #[test]
    fn the_loss_head_asks_for_every_length() {
        let sizes = sizes(&ModelConfig::sudoku());
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
