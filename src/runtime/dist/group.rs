//! The collectives of a job's processes: Gloo's on the host, NCCL's on GPUs.

use std::{
    env,
    ffi::{CStr, c_char, c_int, c_void},
    io::{self, Write},
    net::TcpStream,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tch::{Device, Kind, Tensor};
use thiserror::Error;

use super::{PATIENCE, PEER_TIMEOUT_VARIABLE, Place, Reach, STOPPED_WAITING, Store, milliseconds, text};
use crate::{
    outcome::Interrupted,
    runtime::{ShimError, long_version, plugin, shim::check},
    signals::asked_to_stop,
};

/// How often the store is looked at.
const TICK: Duration = Duration::from_millis(20);

/// How much longer NCCL may wait: it ends the process, so whoever can name the lost peer goes first.
const NCCL_MARGIN: Duration = Duration::from_secs(15);

static NCCL_PLUGIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/nccl_plugin.so"));

unsafe extern "C" {
    fn hrm_gloo_new(store: *mut c_void, options: *const GlooOptions, out: *mut *mut c_void) -> i32;
    fn hrm_backend_close(backend: *mut c_void);
    fn hrm_all_reduce(backend: *mut c_void, tensor: *mut c_void, work: *mut *mut c_void) -> i32;
    fn hrm_broadcast(backend: *mut c_void, tensor: *mut c_void, root: i64) -> i32;
    fn hrm_all_gather(backend: *mut c_void, out: *mut c_void, input: *mut c_void) -> i32;
    fn hrm_work_wait(work: *mut c_void) -> i32;
    fn hrm_work_free(work: *mut c_void);
}

/// The shim's `HrmGlooOptions`. Null where there is no host or no interface.
#[repr(C)]
struct GlooOptions {
    rank: i32,
    world: i32,
    timeout_ms: i64,
    host: *const c_char,
    interface: *const c_char,
}

/// A collective that failed: a peer ended, or did not answer in time.
#[derive(Clone, Debug, Error)]
#[error("rank {rank} of {world} lost its peers in {what}: {why}")]
pub struct PeerLost {
    pub rank: usize,
    pub world: usize,
    pub what: &'static str,
    pub why: String,
}

/// A c10d backend. Never freed unless closed: to take one down, peers must be there that take down theirs.
#[derive(Debug)]
struct Backend(*mut c_void);

impl Backend {
    fn close(self) {
        // SAFETY: made by us, closed once.
        unsafe { hrm_backend_close(self.0) };
    }
}

type NcclNew = unsafe extern "C" fn(*mut c_void, i32, i32, i64, i32, *mut *mut c_void) -> c_int;

#[derive(Debug)]
struct NcclPlugin {
    error: unsafe extern "C" fn() -> *const c_char,
    new: NcclNew,
}

impl NcclPlugin {
    fn get() -> Result<&'static Self> {
        static OPENED: OnceLock<Result<NcclPlugin, String>> = OnceLock::new();
        let open = || -> Result<NcclPlugin> {
            let library = plugin::open(NCCL_PLUGIN, "NCCL")?;
            // SAFETY: the types are those of nccl_plugin.cpp.
            let plugin =
                unsafe { Self { error: *library.get(b"hrm_nccl_error")?, new: *library.get(b"hrm_nccl_new")? } };
            std::mem::forget(library);
            Ok(plugin)
        };
        OPENED.get_or_init(|| open().map_err(|e| format!("{e:#}"))).as_ref().map_err(|e| anyhow!("{e}"))
    }
}

/// All processes of a job. Sums are over all of them.
///
/// Calls are collective: every rank makes the same ones in the same order, with tensors of the same shape and dtype. On
/// the CPU they return when they are done, on a GPU when they are queued on the current stream.
#[derive(Debug)]
pub struct Group {
    place: Place,
    nccl: Option<Backend>,
    gloo: Backend,
    store: Store,
}

// SAFETY: c10d's backends may be used from any thread, by one at a time.
unsafe impl Send for Group {}

impl Group {
    /// Meets the peers. `device` is where this rank computes: on a GPU, NCCL is set up beside Gloo. Ranks that are known to
    /// be on one host talk over its loopback interface alone.
    ///
    /// # Errors
    /// No word of where the store is; a peer that does not come in time, or is of another version, named; a store that
    /// cannot be opened or reached; NCCL's own errors.
    pub fn join(place: Place, device: Device) -> Result<Self> {
        let start = Instant::now();
        let store = open_store(&place)?.prefixed(&format!("hrm/{}/", place.attempt))?;
        await_all(&store, &place, device, start)?;
        let (rank, world) = (i32::try_from(place.rank)?, i32::try_from(place.world)?);
        let timeout = milliseconds(place.timeout);
        let of = |name: &str| store.prefixed(&format!("{name}/"));

        let interface = env::var("GLOO_SOCKET_IFNAME").ok().filter(|v| !v.is_empty());
        let interface = interface.map(|v| text(&v)).transpose()?;
        let here = own_address(&place).map(|address| text(&address)).transpose()?;
        let mut gloo = std::ptr::null_mut();
        // SAFETY: live strings or null; the store outlives the backend.
        let made = check(unsafe {
            let pointer = |s: Option<&CStr>| s.map_or(std::ptr::null(), CStr::as_ptr);
            let (host, interface) = (pointer(here.as_deref()), pointer(interface.as_deref()));
            let options = GlooOptions { rank, world, timeout_ms: timeout, host, interface };
            hrm_gloo_new(of("gloo")?.0, &options, &mut gloo)
        });
        made.map_err(|e| anyhow!("{}: Gloo cannot connect to its peers: {}", place.names(), e.0))?;
        let gloo = Backend(gloo);

        let nccl = match device {
            Device::Cuda(index) => {
                let plugin = NcclPlugin::get()?;
                let timeout = milliseconds(place.timeout + NCCL_MARGIN);
                let mut nccl = std::ptr::null_mut();
                // SAFETY: as above; the plugin's backend is of the same class.
                let status =
                    unsafe { (plugin.new)(of("nccl")?.0, rank, world, timeout, i32::try_from(index)?, &mut nccl) };
                if status != 0 {
                    // SAFETY: a NUL-terminated string of this thread.
                    let why = unsafe { CStr::from_ptr((plugin.error)()) }.to_string_lossy();
                    bail!("{}: NCCL does not start: {}", place.names(), why.lines().next().unwrap_or_default());
                }
                Some(Backend(nccl))
            }
            _ => None,
        };
        let group = Self { place, nccl, gloo, store };
        // NCCL connects at the first use; what is wrong with it shall come out here.
        group.all_reduce(&Tensor::zeros([1], (Kind::Float, device)))?;
        group.barrier()?;
        Ok(group)
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    pub fn rank(&self) -> usize {
        self.place.rank
    }

    pub fn world(&self) -> usize {
        self.place.world
    }

    /// Adds up the ranks' tensors, in place on every rank. Contiguous; f32, f64, bf16 or int64.
    pub fn all_reduce(&self, tensor: &Tensor) -> Result<()> {
        let backend = self.backend(tensor)?;
        // SAFETY: live pointers; the callee works on the tensor's memory until it returns or, on a GPU, in the stream.
        let done = check(unsafe { hrm_all_reduce(backend, raw(tensor), std::ptr::null_mut()) });
        self.checked("an all-reduce", done)
    }

    /// Begins [`Group::all_reduce`] and lets the caller compute on. Until [`Pending::wait`], the tensor is not to be
    /// touched.
    pub fn start_all_reduce(&self, tensor: &Tensor) -> Result<Pending<'_>> {
        let backend = self.backend(tensor)?;
        let mut work = std::ptr::null_mut();
        // SAFETY: as above; the work holds the tensor.
        let done = check(unsafe { hrm_all_reduce(backend, raw(tensor), &mut work) });
        self.checked("an all-reduce", done)?;
        Ok(Pending { group: self, work })
    }

    /// Makes every rank's tensor that of `root`, in place. Contiguous.
    pub fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<()> {
        let bytes = bytes_of(tensor);
        let backend = self.backend(&bytes)?;
        // SAFETY: live pointers.
        let done = check(unsafe { hrm_broadcast(backend, raw(&bytes), i64::try_from(root)?) });
        self.checked("a broadcast", done)
    }

    /// Every rank's tensor on every rank, in the order of the ranks.
    ///
    /// # Shapes
    /// `tensor`: `[...]`, contiguous, any dtype; the result: `[world, ...]`.
    pub fn all_gather(&self, tensor: &Tensor) -> Result<Tensor> {
        let mut shape = vec![i64::try_from(self.place.world)?];
        shape.extend(tensor.size());
        let out = Tensor::empty(&shape, (tensor.kind(), tensor.device()));
        let (from, to) = (bytes_of(tensor), bytes_of(&out));
        let backend = self.backend(&from)?;
        // SAFETY: live pointers of matching sizes.
        let done = check(unsafe { hrm_all_gather(backend, raw(&to), raw(&from)) });
        self.checked("an all-gather", done)?;
        Ok(out)
    }

    /// Waits until every rank is here.
    pub fn barrier(&self) -> Result<()> {
        self.any(false).map(drop)
    }

    /// Whether the flag is set on any rank.
    pub fn any(&self, flag: bool) -> Result<bool> {
        let sum = Tensor::from_slice(&[i64::from(flag)]);
        self.all_reduce(&sum)?;
        Ok(sum.int64_value(&[0]) > 0)
    }

    /// Takes the connections down, when all ranks have come here. A group that is only dropped leaves them to the end of
    /// the process: its peers may be gone.
    pub fn leave(self) -> Result<()> {
        self.barrier()?;
        let Self { nccl, gloo, .. } = self;
        nccl.into_iter().chain([gloo]).for_each(Backend::close);
        Ok(())
    }

    fn backend(&self, tensor: &Tensor) -> Result<*mut c_void> {
        ensure!(tensor.is_contiguous(), "a collective on a tensor that is not contiguous");
        match (tensor.device(), &self.nccl) {
            (Device::Cpu, _) => Ok(self.gloo.0),
            (Device::Cuda(_), Some(nccl)) => Ok(nccl.0),
            (other, _) => bail!("a collective on {other:?}, for which no backend was set up"),
        }
    }

    fn checked(&self, what: &'static str, done: Result<(), ShimError>) -> Result<()> {
        done.map_err(|e| {
            // Gloo begins with the file and line of its sources.
            let why = e.0.rsplit_once("] ").filter(|(before, _)| before.starts_with('[')).map_or(&*e.0, |(_, why)| why);
            let Place { rank, world, timeout, .. } = self.place;
            let silent = if why.contains("imed out") { self.silent_peers() } else { Vec::new() };
            let why = match silent.is_empty() {
                true => why.to_owned(),
                false => format!("rank {} did not answer for {} s", list(&silent), timeout.as_secs_f64()),
            };
            PeerLost { rank, world, what, why }.into()
        })
    }

    /// The ranks that do not say in the store that they have lost somebody, as all others do at about the same time.
    fn silent_peers(&self) -> Vec<usize> {
        let start = Instant::now();
        let mut silent: Vec<usize> = (0..self.place.world).collect();
        let mine = self.store.set(&format!("lost/{}", self.place.rank), "1");
        while mine.is_ok() && !silent.is_empty() && start.elapsed() < self.place.timeout.min(PATIENCE) {
            silent.retain(|rank| !matches!(self.store.get(&format!("lost/{rank}")), Ok(Some(_))));
            thread::sleep(TICK);
        }
        if mine.is_ok() { silent } else { Vec::new() }
    }
}

/// An all-reduce under way.
#[derive(Debug)]
#[must_use = "the tensor is in use until `wait`"]
pub struct Pending<'a> {
    group: &'a Group,
    work: *mut c_void,
}

impl Pending<'_> {
    /// On the CPU waits for the sum, on a GPU lets the current stream wait for it.
    pub fn wait(self) -> Result<()> {
        // SAFETY: the work is alive.
        let done = check(unsafe { hrm_work_wait(self.work) });
        self.group.checked("an all-reduce", done)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        // SAFETY: made by us, freed once.
        unsafe { hrm_work_free(self.work) };
    }
}

fn raw(tensor: &Tensor) -> *mut c_void {
    tensor.as_ptr().cast_mut().cast()
}

/// The same memory as bytes: copying collectives then take every dtype.
fn bytes_of(tensor: &Tensor) -> Tensor {
    tensor.view([-1]).view_dtype(Kind::Uint8)
}

fn open_store(place: &Place) -> Result<Store> {
    if let Some(path) = &place.shared_store {
        return Store::shared(path, place.timeout);
    }
    let (host, port) = place.store_at()?;
    let reach = if place.one_host { Reach::Loopback } else { Reach::Everywhere };
    if place.rank == 0 && !place.store_kept {
        return Ok(Store::serve(reach, port)?.0);
    }
    // Where rank 0 opens it, and nowhere else; another launcher's may be anywhere.
    let host = if reach == Reach::Loopback && !place.store_kept { "127.0.0.1" } else { host };
    Store::connect(host, port, place.timeout).with_context(|| place.names())
}

/// The address of this host on the way to the store: its own name may lead anywhere, on Debian to 127.0.1.1.
fn own_address(place: &Place) -> Option<String> {
    if place.one_host {
        return Some("127.0.0.1".into());
    }
    let address = TcpStream::connect(place.store_at().ok()?).ok()?.local_addr().ok()?.ip();
    // One spelling for all ranks of a host.
    Some(if address.is_loopback() { "127.0.0.1".into() } else { address.to_string() })
}

fn list(ranks: &[usize]) -> String {
    ranks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Tells the peers that this rank is here and what it is, and waits until all are and are the same.
fn await_all(store: &Store, place: &Place, device: Device, start: Instant) -> Result<()> {
    let on = if device.is_cuda() { "a GPU" } else { "the CPU" };
    store.set(&format!("here/{}", place.rank), &format!("hrm {} on {on}", long_version()))?;
    let mut told = false;
    loop {
        let mut missing = Vec::new();
        let mut first: Option<String> = None;
        for rank in 0..place.world {
            match (store.get(&format!("here/{rank}"))?, &first) {
                (None, _) => missing.push(rank),
                (Some(it), None) if rank == 0 => first = Some(it),
                (Some(it), Some(first)) if it != *first => bail!("rank {rank} is {it}, rank 0 is {first}"),
                _ => {}
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        ensure!(!asked_to_stop(), Interrupted(STOPPED_WAITING));
        let list = list(&missing);
        if start.elapsed() >= place.timeout {
            let all = match (&place.host, place.port) {
                (Some(host), Some(port)) => {
                    format!("start all {} processes with MASTER_ADDR={host} MASTER_PORT={port}", place.world)
                }
                _ => format!("start all {} processes", place.world),
            };
            bail!(
                "{}: rank {list} still missing after {} s: {all}, or wait longer with {PEER_TIMEOUT_VARIABLE} (seconds)",
                place.names(),
                place.timeout.as_secs_f64(),
            );
        }
        if place.rank == 0 && !told && start.elapsed() >= PATIENCE {
            told = true;
            let _ = writeln!(io::stderr().lock(), "waiting for rank {list} of {}", place.world);
        }
        thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// The place of a rank among threads of this process.
    fn here(rank: usize, world: usize, port: u16) -> Place {
        Place {
            rank,
            world,
            local_rank: rank,
            local_world: world,
            shared_store: None,
            one_host: true,
            host: Some("127.0.0.1".into()),
            port: Some(port),
            store_kept: true,
            attempt: "0".into(),
            timeout: Duration::from_secs(20),
        }
    }

    /// Rank and port of a test's child process. A rank has a process of its own here too: c10d's recorder of collectives is
    /// one to a process, and ranks that are threads race on it.
    const AS_RANK: &str = "HRM_TEST_RANK";

    /// What the environment asks this child for, if it is one.
    fn child() -> Option<(usize, u16)> {
        let text = env::var(AS_RANK).ok()?;
        let (rank, port) = text.split_once(' ')?;
        Some((rank.parse().ok()?, port.parse().ok()?))
    }

    /// What a child prints at the end of its test: one that ran no test prints nothing.
    fn arrived(rank: usize) {
        println!("rank {rank} arrived");
    }

    /// Runs a test of this file once for each rank, in processes of their own, and waits for all of them.
    fn as_processes(test: &str, world: usize, port: u16) {
        let start = |rank: usize| {
            let mut command = Command::new(env::current_exe().unwrap());
            command.args(["--exact", &format!("runtime::dist::group::tests::{test}"), "--nocapture"]);
            command.env(AS_RANK, format!("{rank} {port}")).stdout(Stdio::piped()).spawn().unwrap()
        };
        let ranks: Vec<_> = (0..world).map(start).collect();
        for (rank, child) in ranks.into_iter().enumerate() {
            let output = child.wait_with_output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains(&format!("rank {rank} arrived")), "{rank}: {text}");
        }
    }

    const COLLECTIVE_RANKS: usize = 3;

    #[test]
    fn a_rank_of_the_collectives() {
        let Some((rank, port)) = child() else { return };
        let group = Group::join(here(rank, COLLECTIVE_RANKS, port), Device::Cpu).unwrap();
        for kind in [Kind::Float, Kind::Double, Kind::BFloat16, Kind::Int64] {
            let mine = Tensor::from_slice(&[1i64, 10, 100]).to_kind(kind) * (rank as i64 + 1);
            group.all_reduce(&mine).unwrap();
            assert_eq!(Vec::<f64>::try_from(mine.to_kind(Kind::Double)).unwrap(), [6.0, 60.0, 600.0], "{kind:?}");
        }
        let mine = Tensor::from_slice(&[rank as f32, 0.5]);
        let pending = group.start_all_reduce(&mine).unwrap();
        pending.wait().unwrap();
        assert_eq!(Vec::<f32>::try_from(&mine).unwrap(), [3.0, 1.5]);
        for kind in [Kind::Float, Kind::BFloat16, Kind::Int, Kind::Bool] {
            let mine = Tensor::from_slice(&[rank as i64, 1]).to_kind(kind);
            let all = group.all_gather(&mine).unwrap();
            assert_eq!((all.kind(), all.size()), (kind, vec![3, 2]));
            let wanted = Tensor::from_slice(&[0i64, 1, 1, 1, 2, 1]).to_kind(kind).view([3, 2]);
            assert!(all.equal(&wanted), "{kind:?}");
            group.broadcast(&mine, 2).unwrap();
            assert!(mine.equal(&Tensor::from_slice(&[2i64, 1]).to_kind(kind)), "{kind:?}");
        }
        assert!(group.any(rank == 1).unwrap());
        assert!(!group.any(false).unwrap());
        assert!(group.all_reduce(&Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)).tr()).is_err());
        group.leave().unwrap();
        arrived(rank);
    }

    #[test]
    fn collectives_on_every_dtype_that_training_uses() {
        let (_store, port) = Store::serve(Reach::Loopback, 0).unwrap();
        as_processes("a_rank_of_the_collectives", COLLECTIVE_RANKS, port);
    }

    #[test]
    fn a_peer_that_never_comes_is_named() {
        let (_store, port) = Store::serve(Reach::Loopback, 0).unwrap();
        let place = Place { timeout: Duration::from_millis(300), ..here(0, 3, port) };
        let error = Group::join(place, Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("rank 1, 2 still missing") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn a_store_that_nobody_keeps_is_named() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        drop(taken);
        let place = Place { timeout: Duration::from_millis(300), ..here(1, 2, port) };
        let error = format!("{:#}", Group::join(place, Device::Cpu).unwrap_err());
        assert!(error.contains(&format!("nothing listens at 127.0.0.1:{port}")) && !error.contains('\n'), "{error}");
    }

    /// Rank 1 goes away without a word; rank 0 is told so in the next collective.
    #[test]
    fn a_rank_of_a_lost_peer() {
        let Some((rank, port)) = child() else { return };
        let group = Group::join(here(rank, 2, port), Device::Cpu).unwrap();
        if rank == 1 {
            let Group { gloo, .. } = group;
            gloo.close();
            return arrived(rank);
        }
        let error = loop {
            match group.barrier() {
                Ok(()) => thread::sleep(Duration::from_millis(10)),
                Err(error) => break error,
            }
        };
        let lost = error.downcast_ref::<PeerLost>().unwrap();
        assert_eq!((lost.rank, lost.world), (0, 2));
        assert!(!error.to_string().contains('\n'), "{error}");
        arrived(rank);
    }

    #[test]
    fn a_lost_peer_is_an_error_and_no_hang() {
        let (_store, port) = Store::serve(Reach::Loopback, 0).unwrap();
        as_processes("a_rank_of_a_lost_peer", 2, port);
    }
}
