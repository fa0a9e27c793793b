//! The NVIDIA driver asked directly: what GPUs there are, whether or not libtorch can use them.

use std::{
    env,
    ffi::{CStr, c_char, c_int},
    path::Path,
    process::{Command, Stdio},
    sync::OnceLock,
};

use libloading::os::unix::Library;

use super::libtorch::loader_message;

/// A GPU as the driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    pub name: String,
    /// e.g. `9.0`.
    pub compute_capability: String,
    pub multiprocessors: i32,
    /// Bytes.
    pub memory_total: u64,
}

/// The driver's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// The newest CUDA that the driver serves, e.g. `13.0`.
    pub cuda_version: String,
    pub gpus: Vec<Gpu>,
}

/// What shows that an NVIDIA GPU (or at least its driver) is in this machine; none where nothing does.
pub fn sign_of_gpu() -> Option<String> {
    for path in ["/dev/nvidia0", "/proc/driver/nvidia/version"] {
        if Path::new(path).exists() {
            return Some(path.to_owned());
        }
    }
    let listed = Command::new("nvidia-smi").arg("-L").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let first = String::from_utf8_lossy(&listed.stdout).lines().next().unwrap_or_default().trim().to_owned();
    (listed.status.success() && first.starts_with("GPU ")).then(|| format!("nvidia-smi lists {first}"))
}

/// Whether the user hides every GPU from CUDA programs.
pub fn hidden_by_user() -> bool {
    env::var("CUDA_VISIBLE_DEVICES").is_ok_and(|v| matches!(v.trim(), "" | "-1" | "none" | "NoDevFiles"))
}

/// Asks the CUDA driver for its devices, in CUDA's numbering; once in a process.
///
/// # Errors
/// libcuda.so.1 does not open, or the driver refuses; the text says which.
pub fn query() -> Result<&'static Driver, &'static str> {
    static ANSWER: OnceLock<Result<Driver, String>> = OnceLock::new();
    ANSWER.get_or_init(ask).as_ref().map_err(String::as_str)
}

fn ask() -> Result<Driver, String> {
    // SAFETY: the NVIDIA driver's own library; its initialisers have no preconditions.
    let library = unsafe { Library::new("libcuda.so.1") }.map_err(|e| loader_message(&e))?;
    let cuda = Calls { library };
    let init = cuda.function::<unsafe extern "C" fn(u32) -> c_int>("cuInit")?;
    // SAFETY: the signature that cuda.h gives; the flags must be 0.
    cuda.check("cuInit", unsafe { init(0) })?;
    let mut version = 0;
    cuda.out("cuDriverGetVersion", &mut version)?;
    let mut count = 0;
    cuda.out("cuDeviceGetCount", &mut count)?;
    let gpus = (0..count).map(|n| cuda.gpu(n)).collect::<Result<_, _>>()?;
    let driver = Driver { cuda_version: format!("{}.{}", version / 1000, version % 1000 / 10), gpus };
    // The driver keeps threads of its own once it is initialised: its code must stay mapped.
    std::mem::forget(cuda);
    Ok(driver)
}

struct Calls {
    library: Library,
}

impl Calls {
    fn function<F: Copy>(&self, name: &str) -> Result<F, String> {
        // SAFETY: every call names the signature that cuda.h gives to this function.
        unsafe { self.library.get::<F>(name.as_bytes()) }.map(|f| *f).map_err(|e| loader_message(&e))
    }

    fn check(&self, name: &str, status: c_int) -> Result<(), String> {
        if status == 0 {
            return Ok(());
        }
        type GetErrorString = unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int;
        let mut text: *const c_char = std::ptr::null();
        // SAFETY: the driver stores a static string or NULL.
        let known = self
            .function::<GetErrorString>("cuGetErrorString")
            .is_ok_and(|f| unsafe { f(status, &mut text) } == 0 && !text.is_null());
        // SAFETY: the call stored a static string.
        let text = if known { unsafe { CStr::from_ptr(text) }.to_string_lossy() } else { "unknown error".into() };
        Err(format!("{name} failed with {status} ({text})"))
    }

    /// Calls that store one int.
    fn out(&self, name: &str, value: &mut c_int) -> Result<(), String> {
        let call = self.function::<unsafe extern "C" fn(*mut c_int) -> c_int>(name)?;
        // SAFETY: the pointer is valid for the call.
        self.check(name, unsafe { call(value) })
    }

    fn gpu(&self, number: c_int) -> Result<Gpu, String> {
        let get = self.function::<unsafe extern "C" fn(*mut c_int, c_int) -> c_int>("cuDeviceGet")?;
        let name_of = self.function::<unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int>("cuDeviceGetName")?;
        let memory_of = self.function::<unsafe extern "C" fn(*mut usize, c_int) -> c_int>("cuDeviceTotalMem_v2")?;
        let attribute_of =
            self.function::<unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int>("cuDeviceGetAttribute")?;
        let mut device = 0;
        let mut name = [0 as c_char; 256];
        let mut memory = 0;
        // SAFETY: all pointers are valid for their calls, and the name's length goes with it.
        unsafe {
            self.check("cuDeviceGet", get(&mut device, number))?;
            self.check("cuDeviceGetName", name_of(name.as_mut_ptr(), 255, device))?;
            self.check("cuDeviceTotalMem", memory_of(&mut memory, device))?;
        }
        let attribute = |which: c_int| -> Result<c_int, String> {
            let mut value = 0;
            // SAFETY: the pointer is valid for the call.
            self.check("cuDeviceGetAttribute", unsafe { attribute_of(&mut value, which, device) })?;
            Ok(value)
        };
        // Numbers of cuda.h's CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT and ..._COMPUTE_CAPABILITY_{MAJOR,MINOR}.
        const MULTIPROCESSORS: c_int = 16;
        const MAJOR: c_int = 75;
        const MINOR: c_int = 76;
        Ok(Gpu {
            // SAFETY: the last byte stays 0.
            name: unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned(),
            compute_capability: format!("{}.{}", attribute(MAJOR)?, attribute(MINOR)?),
            multiprocessors: attribute(MULTIPROCESSORS)?,
            memory_total: memory as u64,
        })
    }
}
