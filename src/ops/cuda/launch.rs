//! Modules, functions and launches through the CUDA driver, on torch's context and current stream.

use std::{
    ffi::{CStr, c_void},
    marker::PhantomData,
    sync::Arc,
};

use anyhow::{Result, anyhow};
use cudarc::driver::{result, sys};
use tch::{Kind, Tensor};

use super::Sizes;
use crate::runtime;

/// What decides which code a device gets.
#[derive(Clone, Copy, Debug)]
pub struct Chip {
    /// Compute capability.
    pub major: i32,
    pub minor: i32,
    /// Largest shared memory of a block, in bytes.
    pub shared_memory: i64,
    /// Streaming multiprocessors.
    pub processors: i64,
}

impl Chip {
    /// The chip of a device, whose context becomes current on this thread.
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
// SAFETY: as above.
unsafe impl Sync for Code {}

impl Drop for Code {
    fn drop(&mut self) {
        // SAFETY: loaded by Module::load and unloaded once. At the end of the process the driver may be gone: then it
        // returns an error, which nobody needs.
        let _ = unsafe { result::module::unload(self.0) };
    }
}

/// A compiled file of kernels on a device.
#[derive(Debug)]
pub struct Module {
    code: Arc<Code>,
    name: String,
    device: usize,
}

impl Module {
    /// Loads machine code onto a device, whose context is current.
    pub fn load(cubin: &[u8], name: &str, device: usize) -> Result<Self> {
        // SAFETY: the image is machine code from NVRTC, copied by the driver.
        let code = unsafe { result::module::load_data(cubin.as_ptr().cast()) }
            .map_err(|e| anyhow!("the driver does not load {name}: {e:?}"))?;
        Ok(Self { code: Arc::new(Code(code)), name: name.into(), device })
    }

    /// The kernel with the parameters `P`, which uses `shared_memory` bytes of dynamic shared memory.
    pub fn kernel<P: Parameters>(&self, shared_memory: i64) -> Result<Kernel<P>> {
        let at = |e: result::DriverError| anyhow!("{}, {}: {e:?}", self.name, P::NAME.to_string_lossy());
        // SAFETY: the module is alive, and stays so with the kernel.
        let function = unsafe { result::module::get_function(self.code.0, P::NAME.to_owned()) }.map_err(at)?;
        let shared = i32::try_from(shared_memory)?;
        if shared > 48 << 10 {
            let which = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: as above.
            unsafe { result::function::set_function_attribute(function, which, shared) }.map_err(at)?;
        }
        let device = self.device;
        Ok(Kernel { function, shared: shared as u32, device, _code: Arc::clone(&self.code), parameters: PhantomData })
    }
}

/// Blocks, and threads in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    pub blocks: i64,
    pub threads: i64,
}

/// How the copy engine of Hopper finds the tiles of a matrix: the driver's own 128 bytes.
#[derive(Clone, Copy, Debug)]
pub struct TensorMap(sys::CUtensorMap);

impl TensorMap {
    /// Boxes of a bf16 array whose parts of 128 bytes lie swizzled in shared memory. `dims` and `parts` (of a box) in elements,
    /// the innermost first; `strides` of all but the innermost in bytes. None where the driver refuses.
    pub fn new(address: u64, dims: &[u64], strides: &[u64], parts: &[u32]) -> Option<Self> {
        let ones = vec![1u32; dims.len()];
        let mut map = std::mem::MaybeUninit::uninit();
        if strides.len() + 1 != dims.len() || parts.len() != dims.len() {
            return None;
        }
        // SAFETY: the arrays have the lengths that the rank says; the call encodes the address and does not follow it.
        unsafe {
            sys::cuTensorMapEncodeTiled(
                map.as_mut_ptr(),
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                dims.len() as u32,
                address as *mut c_void,
                dims.as_ptr(),
                strides.as_ptr(),
                parts.as_ptr(),
                ones.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
            .result()
            .ok()?;
            Some(Self(map.assume_init()))
        }
    }
}

/// What a kernel takes for one parameter.
#[derive(Clone, Copy, Debug)]
pub enum Argument {
    /// A pointer or a number, in the low bytes.
    Word(u64),
    Map(TensorMap),
}

/// The parameters of one kernel.
///
/// # Safety
/// - `arguments` are those of the kernel `NAME`, in the order and of the types of its source
/// - launched with `grid`, the kernel, compiled for these sizes, touches no memory but what the parameters borrow
pub unsafe trait Parameters {
    const NAME: &'static CStr;

    fn arguments(&self) -> Vec<Argument>;

    /// The geometry of the launch; none where the lengths do not fit together.
    fn grid(&self, sizes: &Sizes) -> Option<Grid>;
}

/// A kernel, ready to launch.
#[derive(Debug)]
pub struct Kernel<P> {
    function: sys::CUfunction,
    shared: u32,
    device: usize,
    _code: Arc<Code>,
    parameters: PhantomData<P>,
}

// SAFETY: a driver handle, usable from any thread; of P there is the type alone.
unsafe impl<P> Send for Kernel<P> {}
// SAFETY: as above.
unsafe impl<P> Sync for Kernel<P> {}

impl<P: Parameters> Kernel<P> {
    /// Launches on torch's current stream of the kernel's device, whose memory the parameters borrow. `sizes`: those that the
    /// kernel was compiled for. None, and nothing launched, where the parameters do not fit together. A launch that the
    /// driver refuses is a fault of ours, not of the user's input: it panics with the driver's words.
    pub fn launch(&self, sizes: &Sizes, parameters: P) -> Option<()> {
        let Grid { blocks, threads } = parameters.grid(sizes)?;
        if blocks == 0 {
            return Some(());
        }
        let stream = runtime::cuda_stream(self.device).unwrap_or_else(|e| panic!("torch's current stream: {e}"));
        let mut arguments = parameters.arguments();
        let pointer = |argument: &mut Argument| -> *mut c_void {
            match argument {
                Argument::Word(word) => std::ptr::from_mut(word).cast(),
                Argument::Map(map) => std::ptr::from_mut(&mut map.0).cast(),
            }
        };
        let mut pointers: Vec<*mut c_void> = arguments.iter_mut().map(pointer).collect();
        let grid = u32::try_from(blocks).unwrap_or_else(|_| panic!("{blocks} blocks are more than a grid holds"));
        // SAFETY: the arguments and the geometry are the kernel's by the contract of `Parameters`. What they borrow is alive
        // now, and later too: torch's allocator reuses memory in the order of this stream.
        let launched = unsafe {
            let size = (threads as u32, 1, 1);
            result::launch_kernel(self.function, (grid, 1, 1), size, self.shared, stream.cast(), &mut pointers)
        };
        if let Err(e) = launched {
            panic!("CUDA refuses a launch of {blocks} blocks of {threads} threads: {e:?}");
        }
        Some(())
    }
}
