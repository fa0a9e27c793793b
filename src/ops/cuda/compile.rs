//! NVRTC: from a kernel's source to machine code, cached under `$XDG_CACHE_HOME/hrm/kernels` (or `~/.cache`).
//!
//! A cache file is named after a hash of source, options and compiler version, and is put in place by a rename, so that
//! any number of processes can share the folder.

use std::{
    env,
    ffi::{CStr, CString},
    fs,
    path::PathBuf,
};

use anyhow::{Result, anyhow, bail, ensure};
use cudarc::nvrtc::{result, sys};
use sha2::{Digest, Sha256};

use crate::checkpoint::store;

/// Whether NVRTC can be called.
pub fn check() -> Result<()> {
    // SAFETY: opens the library, nothing else.
    ensure!(unsafe { sys::is_culib_present() }, "libnvrtc cannot be opened");
    Ok(())
}

/// Machine code of a kernel file (common.cuh in front) for an architecture such as `sm_90a`.
pub fn cubin(name: &str, source: &str, defines: &[String], architecture: &str) -> Result<Vec<u8>> {
    let source = format!("{}\n{source}", include_str!("kernels/common.cuh"));
    let mut options = vec![
        format!("--gpu-architecture={architecture}"),
        "--std=c++17".into(),
        "-default-device".into(),
        "-lineinfo".into(),
    ];
    options.extend(defines.iter().cloned());
    let file = cache_folder().map(|folder| {
        let mut hash = Sha256::new();
        hash.update(&source);
        hash.update(options.join(" "));
        hash.update(version());
        let digest: String = hash.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect();
        folder.join(format!("{name}-{digest}.cubin"))
    });
    if let Some(code) = file.as_ref().and_then(|f| fs::read(f).ok()).filter(|code| code.starts_with(b"\x7fELF")) {
        return Ok(code);
    }
    let code = compile(name, &source, &options)?;
    if let Some(file) = file {
        // A cache that cannot be written costs the next start a second, nothing more.
        let folder = file.parent().map(PathBuf::from).unwrap_or_default();
        let _ = fs::create_dir_all(folder).map_err(anyhow::Error::from).and_then(|()| store::write_bytes(&file, &code));
    }
    Ok(code)
}

fn cache_folder() -> Option<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = base.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))?;
    Some(base.join("hrm").join("kernels"))
}

fn version() -> String {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: two valid pointers.
    unsafe { sys::nvrtcVersion(&mut major, &mut minor) };
    format!("{major}.{minor}")
}

/// An NVRTC program that is destroyed with the value.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by create_program and destroyed once.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

fn compile(name: &str, source: &str, options: &[String]) -> Result<Vec<u8>> {
    let source = CString::new(source)?;
    let c_name = CString::new(format!("{name}.cu"))?;
    let program =
        Program(result::create_program(&source, Some(&c_name)).map_err(|e| anyhow!("NVRTC refuses {name}.cu: {e:?}"))?);
    // SAFETY: the program is alive.
    if let Err(e) = unsafe { result::compile_program(program.0, options) } {
        // SAFETY: as above.
        let log = unsafe { result::get_program_log(program.0) }.unwrap_or_default();
        let log: Vec<u8> = log.iter().map(|&c| c as u8).collect();
        let log = CStr::from_bytes_until_nul(&log).unwrap_or_default().to_string_lossy().into_owned();
        bail!("NVRTC cannot compile {name}.cu ({e:?}): {}", log.trim());
    }
    let mut size = 0;
    let at = |e| anyhow!("{name}.cu has no machine code: {e:?}");
    // SAFETY: the program is compiled and alive.
    unsafe { sys::nvrtcGetCUBINSize(program.0, &mut size) }.result().map_err(at)?;
    let mut code = vec![0u8; size];
    // SAFETY: as above; the buffer has the size that NVRTC told.
    unsafe { sys::nvrtcGetCUBIN(program.0, code.as_mut_ptr().cast()) }.result().map_err(at)?;
    Ok(code)
}
