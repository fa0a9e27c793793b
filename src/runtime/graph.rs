//! CUDA graphs: a sequence of launches recorded once and replayed with one call.
//!
//! The C++ behind it is a plugin of its own (see graph_plugin.cpp): it needs libtorch's CUDA half, which is opened at run
//! time or not at all.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    sync::OnceLock,
};

use anyhow::{Result, anyhow};
use log::warn;

use super::plugin;

static PLUGIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/graph_plugin.so"));

type OnGraph = unsafe extern "C" fn(*mut c_void) -> c_int;

#[derive(Debug)]
struct Plugin {
    error: unsafe extern "C" fn() -> *const c_char,
    new: unsafe extern "C" fn(c_int, *mut *mut c_void) -> c_int,
    enter: OnGraph,
    leave: OnGraph,
    begin: OnGraph,
    end: OnGraph,
    replay: OnGraph,
    free: unsafe extern "C" fn(*mut c_void),
}

impl Plugin {
    fn open() -> Result<Self> {
        let library = plugin::open(PLUGIN, "CUDA graphs")?;
        // SAFETY: the types are those of graph_plugin.cpp.
        let plugin = unsafe {
            Self {
                error: *library.get(b"hrm_graph_error")?,
                new: *library.get(b"hrm_graph_new")?,
                enter: *library.get(b"hrm_graph_enter")?,
                leave: *library.get(b"hrm_graph_leave")?,
                begin: *library.get(b"hrm_graph_begin")?,
                end: *library.get(b"hrm_graph_end")?,
                replay: *library.get(b"hrm_graph_replay")?,
                free: *library.get(b"hrm_graph_free")?,
            }
        };
        std::mem::forget(library);
        Ok(plugin)
    }

    fn get() -> Result<&'static Self> {
        static OPENED: OnceLock<Result<Plugin, String>> = OnceLock::new();
        OPENED.get_or_init(|| Self::open().map_err(|e| format!("{e:#}"))).as_ref().map_err(|e| anyhow!("{e}"))
    }

    fn check(&self, status: c_int) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: a NUL-terminated string of this thread.
        let text = unsafe { CStr::from_ptr((self.error)()) }.to_string_lossy();
        Err(anyhow!("CUDA graph: {}", text.lines().next().unwrap_or("no message")))
    }
}

/// A recorded sequence of launches with the memory that it uses.
#[derive(Debug)]
pub struct CudaGraph {
    plugin: &'static Plugin,
    handle: *mut c_void,
}

// SAFETY: the graph is only used through &mut self or replayed, which the CUDA runtime allows from any thread.
unsafe impl Send for CudaGraph {}

impl CudaGraph {
    /// Runs `body` once on a stream of its own (libraries set themselves up then, and its effects are real), then records
    /// a second run of it, which has no effects until it is replayed.
    ///
    /// While it is recorded, `body` must not wait for the device (no copy to the host), and everything that outlives the
    /// recording must lie in tensors made before it: memory allocated inside belongs to the graph.
    ///
    /// # Errors
    /// No plugin, or whatever CUDA refuses to record.
    pub fn record(device: usize, mut body: impl FnMut()) -> Result<Self> {
        let plugin = Plugin::get()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the pointer is valid; the handle is freed by drop.
        plugin.check(unsafe { (plugin.new)(c_int::try_from(device)?, &mut handle) })?;
        let graph = Self { plugin, handle };
        graph.call(plugin.enter)?;
        body();
        let recorded = graph.call(plugin.begin).and_then(|()| {
            body();
            graph.call(plugin.end)
        });
        graph.call(plugin.leave)?;
        recorded?;
        Ok(graph)
    }

    /// Launches what was recorded on the current stream.
    pub fn replay(&self) -> Result<()> {
        self.call(self.plugin.replay)
    }

    fn call(&self, what: OnGraph) -> Result<()> {
        // SAFETY: the handle is alive.
        self.plugin.check(unsafe { what(self.handle) })
    }
}

/// Work that is recorded once and then replayed, where that is possible.
#[derive(Debug, Default)]
pub enum Recorded<T> {
    #[default]
    NotYet,
    Graph(Box<T>),
    Impossible,
}

impl<T> Recorded<T> {
    /// What came of recording it; a failure is warned of.
    pub fn of(recorded: Result<T>) -> Self {
        match recorded {
            Ok(graph) => Self::Graph(Box::new(graph)),
            Err(e) => {
                warn!("{e:#}: continuing without a CUDA graph");
                Self::Impossible
            }
        }
    }

    pub fn graph(&self) -> Option<&T> {
        match self {
            Self::Graph(graph) => Some(graph),
            Self::NotYet | Self::Impossible => None,
        }
    }
}

impl Drop for CudaGraph {
    fn drop(&mut self) {
        // SAFETY: made by hrm_graph_new, freed once.
        unsafe { (self.plugin.free)(self.handle) };
    }
}
