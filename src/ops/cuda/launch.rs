//! Modules, functions and launches through the CUDA driver, on torch's context and current stream.

use std::{
    ffi::{CStr, c_void},
    sync::Arc,
};

use anyhow::{Result, anyhow};
use cudarc::driver::{result, sys};
use tch::{Kind, Tensor};

use crate::runtime;

/// What decides which code a device gets.
#[derive(Clone, Copy, Debug)]
pub struct Chip {
    pub major: i32,
    pub minor: i32,
    /// Largest shared memory of a block, in bytes.
    pub shared_memory: i64,
    /// Streaming multiprocessors.
    pub processors: i64,
}

impl Chip {
    pub fn of(device: usize) -> Result<Self> {
        // Torch makes its context current on this thread when it first allocates.
        let _ = Tensor::zeros([1], (Kind::Float, tch::Device::Cuda(device)));
        let at = |e: result::DriverError| anyhow!("CUDA driver: {e:?}");
        let ordinal = i32::try_from(device)?;
        let handle = result::device::get(ordinal).map_err(at)?;
        // SAFETY: the handle is the driver's own.
        let attribute = |which| unsafe { result::device::get_attribute(handle, which) }.map_err(at);
        use sys::CUdevice_attribute as A;
        Ok(Self {
            major: attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            minor: attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            processors: attribute(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.into(),
            shared_memory: attribute(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?.into(),
        })
    }

    /// `sm_90a` for Hopper, whose own instructions want the `a`; else `sm_XY`.
    pub fn architecture(&self) -> String {
        let a = if (self.major, self.minor) == (9, 0) { "a" } else { "" };
        format!("sm_{}{}{a}", self.major, self.minor)
    }
}

/// Loaded code; unloaded with the last function of it.
#[derive(Debug)]
struct Code(sys::CUmodule);

// SAFETY: a driver handle, usable from any thread.
unsafe impl Send for Code {}
unsafe impl Sync for Code {}

impl Drop for Code {
    fn drop(&mut self) {
        // SAFETY: loaded by Module::load and unloaded once. At process end the driver may be gone: the error is moot.
        let _ = unsafe { result::module::unload(self.0) };
    }
}

#[derive(Debug)]
pub struct Module {
    code: Arc<Code>,
    name: String,
}

impl Module {
    pub fn load(cubin: &[u8], name: &str) -> Result<Self> {
        // SAFETY: the image is machine code from NVRTC, copied by the driver.
        let code = unsafe { result::module::load_data(cubin.as_ptr().cast()) }
            .map_err(|e| anyhow!("the driver does not load {name}: {e:?}"))?;
        Ok(Self { code: Arc::new(Code(code)), name: name.into() })
    }

    /// A kernel that uses `shared_memory` bytes of dynamic shared memory.
    pub fn function(&self, name: &CStr, shared_memory: i64) -> Result<Function> {
        let at = |e: result::DriverError| anyhow!("{}, {}: {e:?}", self.name, name.to_string_lossy());
        // SAFETY: the module is alive, and stays so with the function.
        let function = unsafe { result::module::get_function(self.code.0, name.to_owned()) }.map_err(at)?;
        let shared = i32::try_from(shared_memory)?;
        if shared > 48 << 10 {
            let which = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: as above.
            unsafe { result::function::set_function_attribute(function, which, shared) }.map_err(at)?;
        }
        Ok(Function { function, shared: shared as u32, _code: Arc::clone(&self.code) })
    }
}

/// A kernel, ready to launch.
#[derive(Debug)]
pub struct Function {
    function: sys::CUfunction,
    shared: u32,
    _code: Arc<Code>,
}

// SAFETY: a driver handle, usable from any thread.
unsafe impl Send for Function {}
unsafe impl Sync for Function {}

impl Function {
    /// Launches `blocks` of `threads` on torch's current stream. A launch that the driver refuses is a fault of ours,
    /// not of the user's input: it panics with the driver's words.
    pub fn launch(&self, device: usize, blocks: i64, threads: i64, args: Args) {
        if blocks == 0 {
            return;
        }
        let stream = runtime::cuda_stream(device).unwrap_or_else(|e| panic!("torch's current stream: {e}"));
        let mut values = args.0;
        let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|v| std::ptr::from_mut(v).cast()).collect();
        let grid = u32::try_from(blocks).unwrap_or_else(|_| panic!("{blocks} blocks are more than a grid holds"));
        // SAFETY: arguments follow the kernel's parameter list (see the callers); tensors live on this stream's device,
        // and torch's allocator reuses their memory in stream order.
        let launched = unsafe {
            let size = (threads as u32, 1, 1);
            result::launch_kernel(self.function, (grid, 1, 1), size, self.shared, stream.cast(), &mut pointers)
        };
        if let Err(e) = launched {
            panic!("CUDA refuses a launch of {blocks} blocks of {threads} threads: {e:?}");
        }
    }
}

/// A kernel's arguments, each in the low bytes of a word.
pub struct Args(Vec<u64>);

impl Args {
    pub fn new() -> Self {
        Self(Vec::with_capacity(12))
    }

    pub fn tensor(&mut self, t: &Tensor) -> &mut Self {
        self.0.push(t.data_ptr() as u64);
        self
    }

    /// A null pointer for none.
    pub fn optional(&mut self, t: Option<&Tensor>) -> &mut Self {
        self.0.push(t.map_or(0, |t| t.data_ptr() as u64));
        self
    }

    pub fn int(&mut self, v: i64) -> &mut Self {
        self.0.push(u64::from(v as u32));
        self
    }

    pub fn long(&mut self, v: i64) -> &mut Self {
        self.0.push(v as u64);
        self
    }

    pub fn float(&mut self, v: f64) -> &mut Self {
        self.0.push(u64::from((v as f32).to_bits()));
        self
    }

    pub fn double(&mut self, v: f64) -> &mut Self {
        self.0.push(v.to_bits());
        self
    }
}
