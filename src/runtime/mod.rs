//! libtorch at run time: which one it is, opening its CUDA half, choosing the device.

mod device;

use std::{ffi::CStr, sync::OnceLock};

pub use device::DeviceChoice;

unsafe extern "C" {
    fn hrm_torch_version() -> *const std::ffi::c_char;
}

/// The version of the libtorch headers that this binary was compiled with, e.g. `2.11.0`.
pub fn torch_version() -> &'static str {
    // SAFETY: a static C string without side effects.
    unsafe { CStr::from_ptr(hrm_torch_version()) }.to_str().unwrap_or("unknown")
}

/// `0.1.0 (libtorch 2.11.0)`.
pub fn long_version() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| format!("{} (libtorch {})", env!("CARGO_PKG_VERSION"), torch_version()))
}
