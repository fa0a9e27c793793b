//! Matrix products through cuBLASLt with the algorithm that is fastest for the shape at hand: at a shape's first use the
//! library's candidates are timed, and the best is kept for the process.
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

/// What a shape was decided to run with.
#[derive(Debug)]
struct Plan {
    desc: sys::cublasLtMatmulDesc_t,
    a: sys::cublasLtMatrixLayout_t,
    b: sys::cublasLtMatrixLayout_t,
    d: sys::cublasLtMatrixLayout_t,
    algo: sys::cublasLtMatmulAlgo_t,
}

#[derive(Debug)]
pub struct Gemm {
    device: usize,
    handle: sys::cublasLtHandle_t,
    /// Bytes that algorithms may use; one stream at a time.
    workspace: Tensor,
    plans: Mutex<HashMap<Shape, Option<Plan>>>,
}

// SAFETY: handles of the library, guarded by the mutex; it is thread-safe itself.
unsafe impl Send for Gemm {}
unsafe impl Sync for Gemm {}

impl Gemm {
    /// # Errors
    /// libcublasLt is not there.
    pub fn new(device: usize) -> Result<Self> {
        // SAFETY: opens the library, nothing else.
        ensure!(unsafe { sys::is_culib_present() }, "libcublasLt cannot be opened");
        let handle = lt::create_handle().map_err(|e| anyhow!("cuBLASLt: {e:?}"))?;
        let workspace = Tensor::empty([WORKSPACE], (Kind::Uint8, Device::Cuda(device)));
        Ok(Self { device, handle, workspace, plans: Mutex::default() })
    }

    /// `x W^T`, a linear map. `x`: `[M, K]`, `w`: `[N, K]`, `out`: `[M, N]`. False where the library has no algorithm.
    pub fn linear(&self, x: &Tensor, w: &Tensor, out: &Tensor) -> bool {
        let ([n, k], m) = (sizes(w), sizes(x)[0]);
        let shape = Shape { transpose_a: true, transpose_b: false, m: n, n: m, k, add: false };
        self.run(shape, w, x, None, out)
    }

    /// `base + d_out W`. `d_out`: `[M, N]`, `w`: `[N, K]`, `base`, `out`: `[M, K]`.
    pub fn backward_input(&self, d_out: &Tensor, w: &Tensor, base: Option<&Tensor>, out: &Tensor) -> bool {
        let ([n, k], m) = (sizes(w), sizes(d_out)[0]);
        let shape = Shape { transpose_a: false, transpose_b: false, m: k, n: m, k: n, add: base.is_some() };
        self.run(shape, w, d_out, base, out)
    }

    fn run(&self, shape: Shape, a: &Tensor, b: &Tensor, c: Option<&Tensor>, d: &Tensor) -> bool {
        let mut plans = self.plans.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let plan = plans.entry(shape).or_insert_with(|| match self.plan(shape, a, b, c, d) {
            Ok(plan) => Some(plan),
            Err(e) => {
                warn!("{e:#}: torch's own matrix product instead");
                None
            }
        });
        plan.as_ref().is_some_and(|plan| self.launch(plan, a, b, c, d).is_ok())
    }

    fn launch(&self, plan: &Plan, a: &Tensor, b: &Tensor, c: Option<&Tensor>, d: &Tensor) -> Result<()> {
        let stream = runtime::cuda_stream(self.device)?;
        let (alpha, beta) = (1.0f32, if c.is_some() { 1.0f32 } else { 0.0 });
        let c = c.unwrap_or(d);
        // SAFETY: layouts, sizes and dtypes were derived from these tensors' shapes; the workspace has the size promised.
        let done = unsafe {
            lt::matmul(
                self.handle,
                plan.desc,
                ptr::from_ref(&alpha).cast(),
                ptr::from_ref(&beta).cast(),
                a.data_ptr(),
                plan.a,
                b.data_ptr(),
                plan.b,
                c.data_ptr(),
                plan.d,
                d.data_ptr(),
                plan.d,
                &plan.algo,
                self.workspace.data_ptr(),
                WORKSPACE as usize,
                stream.cast(),
            )
        };
        done.map_err(|e| anyhow!("cuBLASLt: {e:?}"))
    }

    /// Times the candidates on the tensors at hand (`d` is overwritten, with the product) and keeps the fastest.
    fn plan(&self, shape: Shape, a: &Tensor, b: &Tensor, c: Option<&Tensor>, d: &Tensor) -> Result<Plan> {
        let at = |e: lt::CublasError| anyhow!("cuBLASLt: {e:?}");
        let bf16 = sys::cudaDataType_t::CUDA_R_16BF;
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let desc = lt::create_matmul_desc(compute, sys::cudaDataType_t::CUDA_R_32F).map_err(at)?;
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        for (attribute, transpose) in [
            (Attribute::CUBLASLT_MATMUL_DESC_TRANSA, shape.transpose_a),
            (Attribute::CUBLASLT_MATMUL_DESC_TRANSB, shape.transpose_b),
        ] {
            let value = i32::from(transpose);
            // SAFETY: the attribute is a 32-bit cublasOperation_t: 0 for none, 1 for transposed.
            unsafe { lt::set_matmul_desc_attribute(desc, attribute, ptr::from_ref(&value).cast(), 4) }.map_err(at)?;
        }
        let layout = |rows: u64, cols: u64, transpose: bool| {
            let (rows, cols) = if transpose { (cols, rows) } else { (rows, cols) };
            lt::create_matrix_layout(bf16, rows, cols, rows as i64).map_err(at)
        };
        let la = layout(shape.m, shape.k, shape.transpose_a)?;
        let lb = layout(shape.k, shape.n, shape.transpose_b)?;
        let ld = layout(shape.m, shape.n, false)?;
        let preference = lt::create_matmul_pref().map_err(at)?;
        let bytes = WORKSPACE as usize;
        let limit = sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        // SAFETY: the attribute is a size_t.
        unsafe { lt::set_matmul_pref_attribute(preference, limit, ptr::from_ref(&bytes).cast(), size_of::<usize>()) }
            .map_err(at)?;
        // SAFETY: plain C structs, filled by the library up to `found`.
        let mut all: [sys::cublasLtMatmulHeuristicResult_t; CANDIDATES] = unsafe { std::mem::zeroed() };
        let mut found = 0;
        // SAFETY: every handle is alive, the array has the size that is told.
        unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                self.handle,
                desc,
                la,
                lb,
                ld,
                ld,
                preference,
                CANDIDATES as i32,
                all.as_mut_ptr(),
                &mut found,
            )
            .result()
            .map_err(at)?;
            let _ = lt::destroy_matmul_pref(preference);
        }
        let mut best: Option<(f32, Plan)> = None;
        for candidate in all.iter().take(found as usize) {
            let plan = Plan { desc, a: la, b: lb, d: ld, algo: candidate.algo };
            let Ok(time) = self.time(&plan, a, b, c, d) else { continue };
            if best.as_ref().is_none_or(|(t, _)| time < *t) {
                best = Some((time, plan));
            }
        }
        best.map(|(_, plan)| plan).ok_or_else(|| anyhow!("cuBLASLt has no algorithm for {shape:?}"))
    }

    /// Milliseconds of the fastest of a few runs.
    fn time(&self, plan: &Plan, a: &Tensor, b: &Tensor, c: Option<&Tensor>, d: &Tensor) -> Result<f32> {
        let at = |e: cudarc::driver::DriverError| anyhow!("CUDA: {e:?}");
        let stream: driver::CUstream = runtime::cuda_stream(self.device)?.cast::<c_void>().cast();
        let flags = driver::CUevent_flags::CU_EVENT_DEFAULT;
        let (start, end) = (event::create(flags).map_err(at)?, event::create(flags).map_err(at)?);
        self.launch(plan, a, b, c, d)?;
        let mut fastest = f32::MAX;
        for _ in 0..5 {
            // SAFETY: the events are alive until the end of this function.
            unsafe {
                event::record(start, stream).map_err(at)?;
                self.launch(plan, a, b, c, d)?;
                event::record(end, stream).map_err(at)?;
                event::synchronize(end).map_err(at)?;
                fastest = fastest.min(event::elapsed(start, end).map_err(at)?);
            }
        }
        // SAFETY: made above, destroyed once.
        unsafe {
            let _ = event::destroy(start);
            let _ = event::destroy(end);
        }
        Ok(fastest)
    }
}

fn sizes(t: &Tensor) -> [u64; 2] {
    let (rows, cols) = t.size2().unwrap_or((0, 0));
    [rows as u64, cols as u64]
}
