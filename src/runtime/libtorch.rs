//! Which libtorch this process runs on, and the opening of its CUDA half.
//!
//! The executable names only libtorch's CPU libraries, so that it starts where there is no CUDA at all. Opening
//! `libtorch_cuda.so` before torch is first used registers its kernels; where it or one of NVIDIA's libraries is
//! missing, the program goes on with the CPU.

use std::{
    error::Error,
    ffi::CStr,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use crate::input;

/// Why libtorch's CUDA half could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadFailure {
    /// The library that the loader stumbled over: libtorch_cuda itself or one that it needs.
    pub library: String,
    /// The loader's own words, without the library's name where they begin with it.
    pub message: String,
}

/// The library that holds libtorch's CUDA kernels.
pub const CUDA_LIBRARY: &str = "libtorch_cuda.so";

/// Opens libtorch's CUDA half, once; later calls return the first outcome. To be called before any tensor is made:
/// torch decides at the first use whether there is CUDA.
pub fn open_cuda() -> Result<(), &'static LoadFailure> {
    static OUTCOME: OnceLock<Result<(), LoadFailure>> = OnceLock::new();
    OUTCOME
        .get_or_init(|| {
            // SAFETY: libtorch's initialisers only register kernels.
            match unsafe { Library::open(Some(CUDA_LIBRARY), RTLD_NOW | RTLD_GLOBAL) } {
                Ok(library) => {
                    std::mem::forget(library);
                    Ok(())
                }
                Err(e) => Err(LoadFailure::from_loader(&loader_message(&e))),
            }
        })
        .as_ref()
        .copied()
}

/// Opens torch's wrapper of NVRTC, which finds NVIDIA's compiler library where torch keeps it; once.
///
/// # Errors
/// The loader's words where it is missing.
pub fn open_nvrtc() -> anyhow::Result<()> {
    static OUTCOME: OnceLock<Result<(), LoadFailure>> = OnceLock::new();
    let outcome = OUTCOME.get_or_init(|| {
        // SAFETY: the library only forwards to NVRTC and the driver.
        match unsafe { Library::open(Some("libcaffe2_nvrtc.so"), RTLD_NOW | RTLD_GLOBAL) } {
            Ok(library) => {
                std::mem::forget(library);
                Ok(())
            }
            Err(e) => Err(LoadFailure::from_loader(&loader_message(&e))),
        }
    });
    outcome.as_ref().copied().map_err(|e| anyhow::anyhow!("{} cannot be opened: {}", e.library, e.message))
}

/// The dynamic loader's own words, which libloading keeps in the error's source.
pub(super) fn loader_message(error: &libloading::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

impl LoadFailure {
    /// glibc says `libcudnn.so.9: cannot open shared object file: ...`: the name stands before the first colon.
    fn from_loader(message: &str) -> Self {
        let first = message.split(':').next().unwrap_or_default().trim();
        let library = if first.contains(".so") { first } else { CUDA_LIBRARY };
        let library = Path::new(library).file_name().map_or(library.into(), |n| n.to_string_lossy());
        let reason = message.strip_prefix(&*library).map_or(message, |rest| rest.trim_start_matches([':', ' ']));
        Self { library: library.into_owned(), message: reason.to_owned() }
    }
}

/// The folder that libtorch_cpu was loaded from.
pub fn folder() -> Option<PathBuf> {
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: looks up an exported C symbol of libtorch_cpu by name, and asks which file it stands in.
    let file = unsafe {
        let symbol = libc::dlsym(libc::RTLD_DEFAULT, c"aoti_torch_device_type_cpu".as_ptr());
        if symbol.is_null() || libc::dladdr(symbol, &mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }
        CStr::from_ptr(info.dli_fname).to_string_lossy().into_owned()
    };
    let folder = Path::new(&file).parent()?;
    Some(folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf()))
}

/// The version of the libtorch that was loaded, e.g. `2.11.0+cu130`, as far as its folder tells.
pub fn loaded_version() -> Option<String> {
    let root = folder()?.parent()?.to_path_buf();
    if let Ok(text) = input::read_text(&root.join("build-version"), 1 << 16) {
        return Some(text.trim().to_owned());
    }
    let text = input::read_text(&root.join("version.py"), 1 << 16).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("__version__"))?;
    Some(line.trim_start_matches([' ', '=', '\'', '"']).trim_end_matches(['\'', '"', ' ']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_at_fault_is_taken_from_the_loaders_message() {
        let of = |m: &str| LoadFailure::from_loader(m).library;
        assert_eq!(of("libcudnn.so.9: cannot open shared object file: No such file or directory"), "libcudnn.so.9");
        assert_eq!(of("/a b/lib/libtorch_cuda.so: undefined symbol: x"), "libtorch_cuda.so");
        assert_eq!(of("no words"), "libtorch_cuda.so");
    }

    #[test]
    fn the_loaded_libtorch_is_the_one_that_was_compiled_against() {
        let _touch = tch::get_num_threads();
        let version = loaded_version().expect("libtorch's folder tells its version");
        assert_eq!(version.split('+').next(), Some(crate::runtime::torch_version()));
    }
}
