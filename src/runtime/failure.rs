//! What libtorch throws, as errors: tch panics with torch's text, a command ends with a sentence.

use std::{
    any::Any,
    env,
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    sync::{Mutex, Once, PoisonError},
};

use anyhow::Result;
use thiserror::Error;

use super::ShimError;

/// There is no memory for a tensor.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct OutOfMemory(
    /// Torch's own first sentences, such as `CUDA out of memory. Tried to allocate 2.00 GiB.`
    pub String,
);

/// The program contradicted itself.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("a bug in hrm, please report it with the command: {what}{place}")]
pub struct Bug {
    /// The panic's message.
    pub what: String,
    /// ` (FILE:LINE)`, where known.
    pub place: String,
}

/// Where the last panic of this process began; a thread's panic may end another one.
static PLACE: Mutex<String> = Mutex::new(String::new());

/// Runs `body`; what libtorch throws in it, and any other panic, becomes an error and prints nothing. With RUST_BACKTRACE
/// set, panics that are not libtorch's are printed as usual too.
///
/// # Errors
/// Those of `body`; [`OutOfMemory`]; [`ShimError`] for what else libtorch says; [`Bug`].
pub fn catch_panics<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        let traced = env::var_os("RUST_BACKTRACE").is_some_and(|v| v != "0");
        panic::set_hook(Box::new(move |info| {
            remember(info);
            if traced && text(info.payload()).and_then(of_torch).is_none() {
                usual(info);
            }
        }));
    });
    panic::catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        let text = text(&*payload).unwrap_or("unknown").to_owned();
        Err(match of_torch(&text) {
            Some(Thrown::Shortage(what)) => OutOfMemory(what).into(),
            Some(Thrown::Other(what)) => ShimError(what).into(),
            None => Bug { what: text, place: PLACE.lock().unwrap_or_else(PoisonError::into_inner).clone() }.into(),
        })
    })
}

fn remember(info: &PanicHookInfo<'_>) {
    let place = info.location().map_or_else(String::new, |at| format!(" ({}:{})", at.file(), at.line()));
    *PLACE.lock().unwrap_or_else(PoisonError::into_inner) = place;
}

fn text(payload: &(dyn Any + Send)) -> Option<&str> {
    payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied())
}

/// What libtorch threw.
enum Thrown {
    Shortage(String),
    Other(String),
}

/// Torch's words in a panic of tch, as far as they help; none where the panic is another one.
fn of_torch(panic: &str) -> Option<Thrown> {
    const SHORTAGES: [&str; 6] = [
        "CUDA out of memory",
        "DefaultCPUAllocator: can't allocate memory",
        "out of memory",
        "OUT_OF_MEMORY",
        "std::bad_alloc",
        "Storage size calculation overflowed",
    ];
    if let Some(start) = SHORTAGES.iter().find_map(|sign| panic.find(sign)) {
        let sentences: Vec<&str> = first_line(&panic[start..]).split(". ").take(3).collect();
        return Some(Thrown::Shortage(sentences.join(". ").trim_end_matches('.').to_owned()));
    }
    // tch unwraps its results: the panic shows the error's variant with its text in quotes.
    const VARIANTS: [&str; 5] = ["Torch(\"", "Convert(\"", "Kind(\"", "Shape(\"", "FileFormat(\""];
    let unwrapped = panic.strip_prefix("called `Result::unwrap()` on an `Err` value: ")?;
    let said = VARIANTS.iter().find_map(|variant| unwrapped.strip_prefix(variant))?;
    Some(Thrown::Other(first_line(said).trim_end_matches("\")").to_owned()))
}

/// The first line of a text in which tch may have escaped the newlines.
fn first_line(text: &str) -> &str {
    let line = text.split(['\n', '"']).next().unwrap_or_default();
    line.split("\\n").next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use anyhow::bail;
    use tch::{Device, Kind, Tensor};

    use super::*;

    /// The form of torch's message, as tch quotes it.
    const CUDA: &str = "called `Result::unwrap()` on an `Err` value: Torch(\"CUDA out of memory. Tried to allocate 30.75 \
                        GiB. GPU 0 has a total capacity of 79.19 GiB of which 12.05 GiB is free. Including non-PyTorch \
                        memory, this process has 67.13 GiB memory in use.\\nException raised from malloc\")";

    #[test]
    fn a_full_gpu_is_an_error_with_torchs_figures() {
        let error = catch_panics::<()>(|| panic!("{CUDA}")).unwrap_err();
        let shown = &error.downcast_ref::<OutOfMemory>().unwrap().0;
        assert!(shown.starts_with("CUDA out of memory. Tried to allocate 30.75 GiB. GPU 0 has a total"), "{shown}");
        assert!(!shown.contains(['\n', '"']) && !shown.contains("raised"), "{shown}");
    }

    #[test]
    fn torch_itself_panics_so_when_the_host_is_full() {
        for size in [1 << 60, 1 << 44] {
            let impossible = || Ok(Tensor::zeros([size, 1 << 16], (Kind::Float, Device::Cpu)));
            let error = catch_panics(impossible).unwrap_err();
            assert!(error.downcast_ref::<OutOfMemory>().is_some(), "{error:#}");
        }
    }

    #[test]
    fn whatever_else_torch_throws_is_its_first_line() {
        let error = catch_panics(|| Ok(Tensor::from_slice(&[1.0f32, 2.0]).view([3]))).unwrap_err();
        assert_eq!(error.to_string(), "libtorch: shape '[3]' is invalid for input of size 2");
        assert!(error.downcast_ref::<ShimError>().is_some());
        let odd = || Ok(Tensor::from_slice(&[1.0f32]).matmul(&Tensor::from_slice(&[1i64, 2])));
        let error = catch_panics(odd).unwrap_err().to_string();
        assert!(error.starts_with("libtorch: ") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn other_panics_are_bugs_with_their_place_and_errors_pass() {
        assert_eq!(catch_panics(|| Ok(3)).unwrap(), 3);
        assert_eq!(catch_panics::<()>(|| bail!("no")).unwrap_err().to_string(), "no");
        let error = catch_panics::<()>(|| {
            let thread = thread::spawn(|| panic!("it broke"));
            thread.join().unwrap_or_else(|payload| panic::resume_unwind(payload));
            Ok(())
        });
        assert_eq!(error.unwrap_err().downcast_ref::<Bug>().unwrap().what, "it broke");
    }
}
