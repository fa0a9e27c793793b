//! Our C++ that needs libtorch's CUDA half: shared objects of their own with open symbols, embedded into the program and
//! opened when they are first wanted, so that the program itself needs no CUDA library.

use std::io::Write;

use anyhow::{Context, Result, anyhow, ensure};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::libtorch;

/// Opens an embedded shared object; `what` names it in errors. It stays open for good.
///
/// # Errors
/// It was not built, libtorch's CUDA half does not open, or the loader refuses the plugin.
pub(super) fn open(bytes: &[u8], what: &str) -> Result<Library> {
    ensure!(!bytes.is_empty(), "this program was built without NVIDIA's headers, so without {what}");
    libtorch::open_cuda().map_err(|e| anyhow!("{} cannot be opened: {}", e.library, e.message))?;
    let mut file = tempfile::Builder::new().prefix("hrm-plugin").suffix(".so").tempfile()?;
    file.write_all(bytes).with_context(|| format!("cannot unpack the plugin for {what} into the temporary folder"))?;
    // SAFETY: our own plugin; its constructors only fill tables.
    unsafe { Library::open(Some(file.path()), RTLD_NOW | RTLD_LOCAL) }
        .map_err(|e| anyhow!("the plugin for {what} cannot be opened: {}", libtorch::loader_message(&e)))
}
