//! Matrix products through cuBLASLt with the algorithm that is fastest for the shape at hand: at a shape's first use the
//! library's candidates are timed, and a kernel of our own where there is one; the best is kept for the process.
//!
//! All matrices are row-major bf16, sums are f32. cuBLASLt thinks in columns, so each product is handed over transposed.

use std::{collections::HashMap, ffi::c_void, ptr, sync::Mutex};

use anyhow::{Result, anyhow, ensure};
use cudarc::{
    cublaslt::{result as lt, sys},
    driver::{result::event, sys as driver},
};
use log::warn;
use tch::{Device, Kind, Tensor};

use crate::runtime;

/// Candidates that are timed for a shape.
const CANDIDATES: usize = 16;
const WORKSPACE: i64 = 32 << 20;

/// One product: `d = op(a) op(b) + beta c` in cuBLASLt's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    transpose_a: bool,
    transpose_b: bool,
    m: u64,
    n: u64,
    k: u64,
    add: bool,
}

/// A handle of a library, given back when it is dropped.
macro_rules! owned {
    ($(#[$doc:meta])* $name:ident($handle:ty), $destroy:path) => {
        $(#[$doc])*
        #[derive(Debug)]
        struct $name($handle);

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: made by us and destroyed once. An error, as at the end of the process, leaves nothing to do.
                let _ = unsafe { $destroy(self.0) };
            }
        }
    };
}

owned!(Handle(sys::cublasLtHandle_t), lt::destroy_handle);
owned!(Descriptor(sys::cublasLtMatmulDesc_t), lt::destroy_matmul_desc);
owned!(Layout(sys::cublasLtMatrixLayout_t), lt::destroy_matrix_layout);
owned!(Preference(sys::cublasLtMatmulPreference_t), lt::destroy_matmul_pref);
owned!(Event(driver::CUevent), event::destroy);

/// A shape as cuBLASLt describes it.
#[derive(Debug)]
struct Problem {
    descriptor: Descriptor,
    a: Layout,
    b: Layout,
    /// Of c, too.
    d: Layout,
}

/// What a shape was decided to run with.
#[derive(Debug)]
enum Plan {
    Library { problem: Problem, algo: sys::cublasLtMatmulAlgo_t },
    Own,
}

/// A launch of a kernel of our own for the product at hand; none where it does not fit.
pub type Own<'a> = &'a dyn Fn() -> Option<()>;

/// The matrices of one product; `c` is added where there is one.
#[derive(Clone, Copy, Debug)]
struct Operands<'a> {
    a: &'a Tensor,
    b: &'a Tensor,
    c: Option<&'a Tensor>,
    d: &'a Tensor,
}

/// Matrix products on one device.
#[derive(Debug)]
pub struct Gemm {
    device: usize,
    /// Dropped first: they were made with the handle.
    plans: Mutex<HashMap<Shape, Option<Plan>>>,
    handle: Handle,
    /// Bytes that algorithms may use; one stream at a time.
    workspace: Tensor,
}

// SAFETY: the library's handles may be used from any thread, and descriptors are used with the mutex held. The workspace's
// handle is only read.
unsafe impl Send for Gemm {}
// SAFETY: as above.
unsafe impl Sync for Gemm {}

impl Gemm {
    /// # Errors
    /// libcublasLt is not there.
    pub fn new(device: usize) -> Result<Self> {
        // SAFETY: opens the library, nothing else.
        ensure!(unsafe { sys::is_culib_present() }, "libcublasLt cannot be opened");
        let handle = Handle(lt::create_handle().map_err(failed)?);
        let workspace = Tensor::empty([WORKSPACE], (Kind::Uint8, Device::Cuda(device)));
        Ok(Self { device, plans: Mutex::default(), handle, workspace })
    }

    /// `x W^T`, a linear map. `x`: `[M, K]`, `w`: `[N, K]`, `out`: `[M, N]`. False where the library has no algorithm.
    /// `own` writes `out` too, and is taken where it is faster.
    pub fn linear(&self, x: &Tensor, w: &Tensor, out: &Tensor, own: Own<'_>) -> bool {
        let ([n, k], m) = (sizes(w), sizes(x)[0]);
        let shape = Shape { transpose_a: true, transpose_b: false, m: n, n: m, k, add: false };
        self.run(shape, Operands { a: w, b: x, c: None, d: out }, own)
    }

    /// `base + d_out W`. `d_out`: `[M, N]`, `w`: `[N, K]`, `base`, `out`: `[M, K]`.
    pub fn backward_input(&self, d_out: &Tensor, w: &Tensor, base: Option<&Tensor>, out: &Tensor) -> bool {
        let ([n, k], m) = (sizes(w), sizes(d_out)[0]);
        let shape = Shape { transpose_a: false, transpose_b: false, m: k, n: m, k: n, add: base.is_some() };
        self.run(shape, Operands { a: w, b: d_out, c: base, d: out }, &|| None)
    }

    fn run(&self, shape: Shape, operands: Operands<'_>, own: Own<'_>) -> bool {
        let mut plans = self.plans.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let plan = plans.entry(shape).or_insert_with(|| match self.plan(shape, operands, own) {
            Ok(plan) => Some(plan),
            Err(e) => {
                warn!("{e:#}: torch's own matrix product instead");
                None
            }
        });
        plan.as_ref().is_some_and(|plan| match plan {
            Plan::Library { problem, algo } => self.launch(problem, algo, operands).is_ok(),
            Plan::Own => own().is_some(),
        })
    }

    fn launch(&self, problem: &Problem, algo: &sys::cublasLtMatmulAlgo_t, operands: Operands<'_>) -> Result<()> {
        let Operands { a, b, c, d } = operands;
        let stream = runtime::cuda_stream(self.device)?;
        let (alpha, beta) = (1.0f32, if c.is_some() { 1.0f32 } else { 0.0 });
        let c = c.unwrap_or(d);
        // SAFETY: every handle is alive. The layouts were made for the shape of these operands, which `Fused` has checked
        // to be contiguous bf16 on this device; the workspace has the size promised.
        let done = unsafe {
            lt::matmul(
                self.handle.0,
                problem.descriptor.0,
                ptr::from_ref(&alpha).cast(),
                ptr::from_ref(&beta).cast(),
                a.data_ptr(),
                problem.a.0,
                b.data_ptr(),
                problem.b.0,
                c.data_ptr(),
                problem.d.0,
                d.data_ptr(),
                problem.d.0,
                algo,
                self.workspace.data_ptr(),
                WORKSPACE as usize,
                stream.cast(),
            )
        };
        done.map_err(failed)
    }

    /// Times the candidates on the operands at hand (`d` is overwritten, with the product) and keeps the fastest.
    fn plan(&self, shape: Shape, operands: Operands<'_>, own: Own<'_>) -> Result<Plan> {
        let problem = Problem::new(shape)?;
        let mut best: Option<(f32, sys::cublasLtMatmulAlgo_t)> = None;
        for algo in self.candidates(&problem)? {
            let Ok(time) = self.time(|| self.launch(&problem, &algo, operands)) else { continue };
            if best.as_ref().is_none_or(|(t, _)| time < *t) {
                best = Some((time, algo));
            }
        }
        let own = self.time(|| own().ok_or_else(|| anyhow!("no kernel of our own")));
        match (best, own) {
            (None, Err(_)) => Err(anyhow!("cuBLASLt has no algorithm for {shape:?}")),
            (Some((time, algo)), own) if own.as_ref().map_or(true, |own| time <= *own) => {
                Ok(Plan::Library { problem, algo })
            }
            _ => Ok(Plan::Own),
        }
    }

    /// The library's candidates, the most promising first.
    fn candidates(&self, problem: &Problem) -> Result<Vec<sys::cublasLtMatmulAlgo_t>> {
        let preference = Preference(lt::create_matmul_pref().map_err(failed)?);
        let bytes = WORKSPACE as usize;
        let limit = sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        // SAFETY: the attribute is a size_t, which is copied.
        unsafe { lt::set_matmul_pref_attribute(preference.0, limit, ptr::from_ref(&bytes).cast(), size_of::<usize>()) }
            .map_err(failed)?;
        // SAFETY: plain C structs, for which zeros are valid; the library fills them up to `found`.
        let mut all: [sys::cublasLtMatmulHeuristicResult_t; CANDIDATES] = unsafe { std::mem::zeroed() };
        let mut found = 0;
        // SAFETY: every handle is alive, the array has the size that is told.
        unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                self.handle.0,
                problem.descriptor.0,
                problem.a.0,
                problem.b.0,
                problem.d.0,
                problem.d.0,
                preference.0,
                CANDIDATES as i32,
                all.as_mut_ptr(),
                &mut found,
            )
        }
        .result()
        .map_err(failed)?;
        Ok(all.iter().take(found as usize).map(|candidate| candidate.algo).collect())
    }

    /// Milliseconds of the fastest of a few runs.
    fn time(&self, launch: impl Fn() -> Result<()>) -> Result<f32> {
        let at = |e: cudarc::driver::DriverError| anyhow!("CUDA: {e:?}");
        let stream: driver::CUstream = runtime::cuda_stream(self.device)?.cast::<c_void>().cast();
        let flags = driver::CUevent_flags::CU_EVENT_DEFAULT;
        let (start, end) = (Event(event::create(flags).map_err(at)?), Event(event::create(flags).map_err(at)?));
        launch()?;
        let mut fastest = f32::MAX;
        for _ in 0..5 {
            // SAFETY: the events are alive until the end of this function.
            unsafe { event::record(start.0, stream) }.map_err(at)?;
            launch()?;
            // SAFETY: as above.
            let elapsed = unsafe {
                event::record(end.0, stream).map_err(at)?;
                event::synchronize(end.0).map_err(at)?;
                event::elapsed(start.0, end.0).map_err(at)?
            };
            fastest = fastest.min(elapsed);
        }
        Ok(fastest)
    }
}

impl Problem {
    fn new(shape: Shape) -> Result<Self> {
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let made = lt::create_matmul_desc(compute, sys::cudaDataType_t::CUDA_R_32F).map_err(failed)?;
        let descriptor = Descriptor(made);
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        for (attribute, transpose) in [
            (Attribute::CUBLASLT_MATMUL_DESC_TRANSA, shape.transpose_a),
            (Attribute::CUBLASLT_MATMUL_DESC_TRANSB, shape.transpose_b),
        ] {
            let value = i32::from(transpose);
            // SAFETY: the attribute is a 32-bit cublasOperation_t, which is copied: 0 for none, 1 for transposed.
            unsafe { lt::set_matmul_desc_attribute(descriptor.0, attribute, ptr::from_ref(&value).cast(), 4) }
                .map_err(failed)?;
        }
        let layout = |rows: u64, cols: u64, transpose: bool| {
            let (rows, cols) = if transpose { (cols, rows) } else { (rows, cols) };
            let made = lt::create_matrix_layout(sys::cudaDataType_t::CUDA_R_16BF, rows, cols, rows as i64);
            made.map(Layout).map_err(failed)
        };
        Ok(Self {
            a: layout(shape.m, shape.k, shape.transpose_a)?,
            b: layout(shape.k, shape.n, shape.transpose_b)?,
            d: layout(shape.m, shape.n, false)?,
            descriptor,
        })
    }
}

fn failed(e: lt::CublasError) -> anyhow::Error {
    anyhow!("cuBLASLt: {e:?}")
}

fn sizes(t: &Tensor) -> [u64; 2] {
    let (rows, cols) = t.size2().unwrap_or((0, 0));
    [rows as u64, cols as u64]
}
