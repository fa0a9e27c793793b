//! A device whose memory is full: tch panics with torch's text, a command ends with a sentence.

use std::{
    any::Any,
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

use anyhow::Result;
use thiserror::Error;

/// Torch found no memory for a tensor.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct OutOfMemory(
    /// Torch's own first sentences, such as `CUDA out of memory. Tried to allocate 2.00 GiB.`
    pub String,
);

/// Runs `body`; a panic that says that memory ran out becomes [`OutOfMemory`], any other goes on.
///
/// # Errors
/// Those of `body`, and [`OutOfMemory`].
pub fn catch_out_of_memory<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    quieten();
    match panic::catch_unwind(AssertUnwindSafe(body)) {
        Ok(done) => done,
        Err(payload) => match text(&*payload).and_then(shortage) {
            Some(what) => Err(OutOfMemory(what).into()),
            None => panic::resume_unwind(payload),
        },
    }
}

/// Keeps such panics from the terminal: the error that they become is printed.
fn quieten() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if text(info.payload()).and_then(shortage).is_none() {
                usual(info);
            }
        }));
    });
}

fn text(payload: &(dyn Any + Send)) -> Option<&str> {
    payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied())
}

/// What torch says of a shortage, as far as it helps.
fn shortage(panic: &str) -> Option<String> {
    let start = ["CUDA out of memory", "DefaultCPUAllocator: can't allocate memory", "out of memory", "OUT_OF_MEMORY"]
        .iter()
        .find_map(|sign| panic.find(sign))?;
    // tch shows the text in quotes, with its newlines escaped.
    let line = panic[start..].split(['\n', '"']).next().unwrap_or_default();
    let line = line.split("\\n").next().unwrap_or_default();
    let sentences: Vec<&str> = line.split(". ").take(3).collect();
    Some(sentences.join(". ").trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    /// The form of torch's message, as tch quotes it.
    const CUDA: &str = "called `Result::unwrap()` on an `Err` value: Torch(\"CUDA out of memory. Tried to allocate 30.75 \
                        GiB. GPU 0 has a total capacity of 79.19 GiB of which 12.05 GiB is free. Including non-PyTorch \
                        memory, this process has 67.13 GiB memory in use.\\nException raised from malloc\")";

    #[test]
    fn a_full_gpu_is_an_error_with_torchs_figures() {
        let error = catch_out_of_memory::<()>(|| panic!("{CUDA}")).unwrap_err();
        let shown = &error.downcast_ref::<OutOfMemory>().unwrap().0;
        assert!(shown.starts_with("CUDA out of memory. Tried to allocate 30.75 GiB. GPU 0 has a total"), "{shown}");
        assert!(!shown.contains(['\n', '"']) && !shown.contains("raised"), "{shown}");
    }

    #[test]
    fn torch_itself_panics_so_when_the_host_is_full() {
        let impossible = || Ok(tch::Tensor::zeros([1 << 60], (tch::Kind::Float, tch::Device::Cpu)));
        let error = catch_out_of_memory(impossible).unwrap_err();
        assert!(error.downcast_ref::<OutOfMemory>().is_some(), "{error:#}");
    }

    #[test]
    fn other_errors_and_panics_pass() {
        assert_eq!(catch_out_of_memory(|| Ok(3)).unwrap(), 3);
        assert_eq!(catch_out_of_memory::<()>(|| bail!("no")).unwrap_err().to_string(), "no");
        let other = panic::catch_unwind(|| catch_out_of_memory::<()>(|| panic!("a bug")));
        assert_eq!(text(&*other.unwrap_err()), Some("a bug"));
    }
}
