//! Safe wrappers around the C++ shim: what libtorch can do and tch does not expose.

use std::ffi::{CStr, c_char, c_void};

use thiserror::Error;

/// Text of the C++ exception that a call into libtorch ended with.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("libtorch: {0}")]
pub struct ShimError(pub String);

/// Memory of one GPU in bytes, as torch's caching allocator and the driver see it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceMemory {
    /// In tensors now.
    pub allocated: u64,
    /// Most that was in tensors since the start or the last [`reset_peak_memory`].
    pub allocated_peak: u64,
    /// Held by the allocator, in tensors or cached.
    pub reserved: u64,
    pub reserved_peak: u64,
    /// Free on the device, for every process together.
    pub free: u64,
    pub total: u64,
}

/// Which implementations of scaled dot-product attention torch may choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SdpFlags {
    /// FlashAttention.
    pub flash: bool,
    /// Memory-efficient attention.
    pub efficient: bool,
    /// cuDNN's.
    pub cudnn: bool,
    /// Plain matrix products.
    pub math: bool,
}

/// One implementation of scaled dot-product attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SdpBackend {
    /// FlashAttention.
    Flash,
    /// Memory-efficient attention.
    Efficient,
    /// cuDNN's.
    Cudnn,
    /// Plain matrix products.
    Math,
}

unsafe extern "C" {
    fn hrm_torch_version() -> *const c_char;
    fn hrm_last_error() -> *const c_char;
    fn hrm_cpu_capability(out: *mut *const c_char) -> i32;
    fn hrm_cuda_memory(device: i32, out: *mut DeviceMemory) -> i32;
    fn hrm_cuda_reset_peak(device: i32) -> i32;
    fn hrm_pin(tensor: *mut c_void, out: *mut *mut c_void) -> i32;
    fn hrm_cuda_stream(device: i32, out: *mut *mut c_void) -> i32;
    fn hrm_sdp_flags(out: *mut u32) -> i32;
    fn hrm_set_sdp_flags(flags: u32) -> i32;
    fn hrm_set_deterministic() -> i32;
    fn hrm_set_device(device: i32) -> i32;
    fn hrm_try_attention(backend: u32, device: i32, bf16: i32) -> i32;
}

pub(super) fn check(status: i32) -> Result<(), ShimError> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: a NUL-terminated string of this thread that lives until the next failing call.
    let text = unsafe { CStr::from_ptr(hrm_last_error()) }.to_string_lossy();
    Err(ShimError(text.lines().next().unwrap_or("no message").trim().to_owned()))
}

fn index(device: usize) -> Result<i32, ShimError> {
    i8::try_from(device).map(i32::from).map_err(|_| ShimError(format!("no device has the number {device}")))
}

/// The version of the libtorch headers that this binary was compiled with, e.g. `2.11.0`.
pub fn torch_version() -> &'static str {
    // SAFETY: a static C string without side effects.
    unsafe { CStr::from_ptr(hrm_torch_version()) }.to_str().unwrap_or("unknown")
}

/// The instruction set that libtorch's CPU kernels use here, e.g. `AVX512`.
pub fn cpu_capability() -> Result<&'static str, ShimError> {
    let mut text = std::ptr::null();
    // SAFETY: the pointer is valid; on success it points to a static string.
    check(unsafe { hrm_cpu_capability(&mut text) })?;
    // SAFETY: the call stored a static C string.
    Ok(unsafe { CStr::from_ptr(text) }.to_str().unwrap_or("unknown"))
}

/// Memory of the GPU `device`; starts CUDA there if nothing did before.
///
/// # Errors
/// libtorch's CUDA half is not loaded, or there is no such device.
pub fn device_memory(device: usize) -> Result<DeviceMemory, ShimError> {
    let mut memory = DeviceMemory::default();
    // SAFETY: both sides lay the struct out as six u64.
    check(unsafe { hrm_cuda_memory(index(device)?, &mut memory) })?;
    Ok(memory)
}

/// A copy of a host tensor in pinned memory. tch's own call names a device, which torch warns about each time.
///
/// # Errors
/// libtorch's CUDA half is not loaded, or no memory can be pinned.
pub fn pin(host: &tch::Tensor) -> Result<tch::Tensor, ShimError> {
    let mut pinned = std::ptr::null_mut();
    // SAFETY: a live tensor in; on success a new tensor out, owned by the caller.
    check(unsafe { hrm_pin(host.as_ptr().cast_mut().cast(), &mut pinned) })?;
    // SAFETY: the new tensor has no other owner.
    Ok(unsafe { tch::Tensor::from_ptr(pinned.cast()) })
}

/// Makes a GPU the one that this thread's CUDA calls mean where they name none, as CUDA graphs do.
///
/// # Errors
/// libtorch's CUDA half is not loaded, or there is no such device.
pub(super) fn set_device(device: usize) -> Result<(), ShimError> {
    // SAFETY: plain values.
    check(unsafe { hrm_set_device(index(device)?) })
}

/// Torch's current stream on the GPU `device`, a `cudaStream_t`; null is the default stream.
///
/// # Errors
/// libtorch's CUDA half is not loaded, or there is no such device.
pub fn cuda_stream(device: usize) -> Result<*mut c_void, ShimError> {
    let mut stream = std::ptr::null_mut();
    // SAFETY: the pointer is valid.
    check(unsafe { hrm_cuda_stream(index(device)?, &mut stream) })?;
    Ok(stream)
}

/// Makes torch choose the deterministic form of every operation that has one, in the whole process; the others warn once.
///
/// # Errors
/// A failure inside libtorch.
pub(super) fn set_deterministic() -> Result<(), ShimError> {
    // SAFETY: no arguments.
    check(unsafe { hrm_set_deterministic() })
}

/// Lets the peaks of [`device_memory`] begin at the present use.
///
/// # Errors
/// libtorch's CUDA half is not loaded, or there is no such device.
pub fn reset_peak_memory(device: usize) -> Result<(), ShimError> {
    // SAFETY: plain values.
    check(unsafe { hrm_cuda_reset_peak(index(device)?) })
}

impl SdpBackend {
    /// In torch's order of preference.
    pub const ALL: [Self; 4] = [Self::Flash, Self::Efficient, Self::Cudnn, Self::Math];

    /// As `hrm doctor` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flash => "flash",
            Self::Efficient => "memory-efficient",
            Self::Cudnn => "cudnn",
            Self::Math => "math",
        }
    }

    fn bit(self) -> u32 {
        match self {
            Self::Flash => 1,
            Self::Efficient => 2,
            Self::Cudnn => 4,
            Self::Math => 8,
        }
    }

    /// Runs one forward and backward with this backend alone at the shape of the Sudoku model,
    /// `[1, heads 8, 82, head_dim 64]`, in bfloat16 or float32. Meanwhile the other backends are switched off in the
    /// whole process, so no other thread should compute attention.
    ///
    /// # Errors
    /// Torch's reason why the backend cannot be used.
    pub fn try_on(self, device: tch::Device, bf16: bool) -> Result<(), ShimError> {
        let device = match device {
            tch::Device::Cpu => -1,
            tch::Device::Cuda(n) => index(n)?,
            other => return Err(ShimError(format!("{other:?} is not supported"))),
        };
        // SAFETY: plain values.
        check(unsafe { hrm_try_attention(self.bit(), device, i32::from(bf16)) })
    }
}

impl SdpFlags {
    /// What torch may choose from now.
    pub fn current() -> Result<Self, ShimError> {
        let mut bits = 0;
        // SAFETY: the pointer is valid.
        check(unsafe { hrm_sdp_flags(&mut bits) })?;
        let has = |b: SdpBackend| bits & b.bit() != 0;
        Ok(Self {
            flash: has(SdpBackend::Flash),
            efficient: has(SdpBackend::Efficient),
            cudnn: has(SdpBackend::Cudnn),
            math: has(SdpBackend::Math),
        })
    }

    /// Makes these the ones that torch chooses from, in the whole process.
    pub fn apply(self) -> Result<(), ShimError> {
        let bit = |on: bool, b: SdpBackend| if on { b.bit() } else { 0 };
        let bits = bit(self.flash, SdpBackend::Flash)
            | bit(self.efficient, SdpBackend::Efficient)
            | bit(self.cudnn, SdpBackend::Cudnn)
            | bit(self.math, SdpBackend::Math);
        // SAFETY: plain values.
        check(unsafe { hrm_set_sdp_flags(bits) })
    }

    /// Whether torch may choose this one.
    pub fn allows(self, backend: SdpBackend) -> bool {
        match backend {
            SdpBackend::Flash => self.flash,
            SdpBackend::Efficient => self.efficient,
            SdpBackend::Cudnn => self.cudnn,
            SdpBackend::Math => self.math,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_a_missing_device_is_an_error_and_no_crash() {
        let message = device_memory(99).expect_err("there is no GPU 99").to_string();
        assert!(message.starts_with("libtorch: "), "{message}");
        assert!(device_memory(1000).is_err());
    }
}
