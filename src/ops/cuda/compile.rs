//! NVRTC: from a kernel's source to machine code, cached under `$XDG_CACHE_HOME/hrm/kernels` (or `~/.cache`).
//!
//! A cache file is named after a hash of source, options and compiler version, and is put in place by a rename, so that
//! any number of processes can share the folder.

use std::{
    env,
    ffi::{CStr, CString},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, anyhow, bail, ensure};
use cudarc::nvrtc::{result, sys};
use sha2::{Digest, Sha256};

use crate::{
    input,
    store::{self, Existing},
};

/// No kernel is nearly this long, in bytes.
const MOST_CODE: u64 = 1 << 28;

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
    let mut hash = Sha256::new();
    hash.update(&source);
    hash.update(options.join(" "));
    hash.update(version());
    let digest = hex::encode(&hash.finalize()[..16]);
    let file = cache_folder().map(|folder| folder.join(format!("{name}-{digest}.cubin")));
    cached(file.as_deref(), || compile(name, &source, &options))
}

/// The machine code in a cache file, or `compile`'s, which is then left there for the next start.
fn cached(file: Option<&Path>, compile: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    if let Some(code) = file.and_then(|f| input::read(f, MOST_CODE).ok()).filter(|code| is_whole_elf(code)) {
        return Ok(code);
    }
    let code = compile()?;
    if let Some(file) = file {
        // A cache that cannot be written costs the next start a second, nothing more.
        let folder = file.parent().unwrap_or(Path::new("."));
        let made = fs::create_dir_all(folder).map_err(anyhow::Error::from);
        let _ = made.and_then(|()| store::write_bytes(file, Existing::Replace, &code));
    }
    Ok(code)
}

/// Whether these bytes are a 64-bit ELF file as long as its own header says: the table of sections ends it.
fn is_whole_elf(code: &[u8]) -> bool {
    let number = |at: usize, n: usize| {
        code.get(at..at + n).map(|b| b.iter().rev().fold(0u64, |sum, &byte| (sum << 8) | u64::from(byte)))
    };
    let end = |offset: u64, size: u64, count: u64| offset.checked_add(size * count);
    let ends = |offset, size, count| end(number(offset, 8)?, number(size, 2)?, number(count, 2)?);
    let wanted = ends(0x28, 0x3A, 0x3C).max(ends(0x20, 0x36, 0x38));
    code.starts_with(b"\x7fELF\x02") && wanted.is_some_and(|end| end <= code.len() as u64)
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

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// A 64-bit ELF file of a header, some code and one section header of 64 bytes at its end.
    fn elf(code: &[u8]) -> Vec<u8> {
        let mut file = vec![0u8; 64];
        file[..5].copy_from_slice(b"\x7fELF\x02");
        file.extend_from_slice(code);
        let sections = file.len() as u64;
        file[0x28..0x30].copy_from_slice(&sections.to_le_bytes());
        file[0x3A..0x3C].copy_from_slice(&64u16.to_le_bytes());
        file[0x3C..0x3E].copy_from_slice(&1u16.to_le_bytes());
        file.resize(file.len() + 64, 0);
        file
    }

    #[test]
    fn a_cache_file_is_taken_only_if_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/kernel.cubin");
        let first = elf(b"first");
        assert_eq!(cached(Some(&file), || Ok(first.clone())).unwrap(), first);
        assert_eq!(cached(Some(&file), || bail!("compiled again")).unwrap(), first);
        for cut in [0, 3, 20, 63, 64, first.len() - 1] {
            fs::write(&file, &first[..cut]).unwrap();
            let again = elf(b"again");
            assert_eq!(cached(Some(&file), || Ok(again.clone())).unwrap(), again, "cut to {cut} bytes");
        }
        assert_eq!(cached(None, || Ok(first.clone())).unwrap(), first);
        assert!(cached(None, || bail!("no compiler")).is_err());
    }

    const RACE: &str = "HRM_TEST_RACE";

    /// What a racing process says at its end: one that ran no test says nothing.
    const RACED: &str = "raced for all kernels";

    /// What each of the racing processes does; nothing where no race is on.
    #[test]
    fn racer() {
        let Some(folder) = env::var_os(RACE).map(PathBuf::from) else { return };
        for kernel in 0..40u8 {
            let wanted = elf(&vec![kernel; 200_000]);
            let file = folder.join(format!("{kernel}.cubin"));
            let found = cached(Some(&file), || Ok(wanted.clone())).unwrap();
            assert!(found == wanted, "kernel {kernel} is not what was compiled");
        }
        println!("{RACED}");
    }

    #[test]
    fn many_processes_share_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let me = env::current_exe().unwrap();
        let start = || {
            let mut command = Command::new(&me);
            command.args(["--exact", "ops::cuda::compile::tests::racer", "--nocapture"]).env(RACE, folder.path());
            command.stdout(Stdio::piped()).spawn().unwrap()
        };
        let racers: Vec<_> = (0..6).map(|_| start()).collect();
        for racer in racers {
            let ended = racer.wait_with_output().unwrap();
            assert!(ended.status.success() && String::from_utf8_lossy(&ended.stdout).contains(RACED), "{ended:?}");
        }
        let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names.len(), 40, "no temporary file is left: {names:?}");
    }
}
