//! Many processes that compute as one, through libtorch's c10d: a TCP store to find one another, Gloo for tensors on the
//! host, NCCL for tensors on a GPU.
//!
//! The processes find one another through the variables that torchrun sets (RANK, WORLD_SIZE, LOCAL_RANK,
//! LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT); `hrm train --nproc-per-node` sets the same ones. Every rank calls the
//! same collectives in the same order.

use std::{
    env,
    ffi::{CStr, CString, c_char, c_int, c_void},
    io::{self, Write},
    net::{TcpStream, ToSocketAddrs},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tch::{Device, Kind, Tensor};
use thiserror::Error;

use super::{ShimError, plugin, shim::check};

/// Seconds to wait for a peer, at the start and in a collective: this variable, else [`PEER_TIMEOUT`].
pub const PEER_TIMEOUT_VARIABLE: &str = "HRM_PEER_TIMEOUT";

/// As long as torch waits in NCCL's collectives.
pub const PEER_TIMEOUT: Duration = Duration::from_secs(600);

/// A wait longer than this is told on standard error.
const PATIENCE: Duration = Duration::from_secs(5);

static NCCL_PLUGIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/nccl_plugin.so"));

unsafe extern "C" {
    fn hrm_store_open(host: *const c_char, port: *mut u16, server: i32, timeout_ms: i64, out: *mut *mut c_void) -> i32;
    fn hrm_store_prefix(store: *mut c_void, prefix: *const c_char, out: *mut *mut c_void) -> i32;
    fn hrm_store_free(store: *mut c_void);
    fn hrm_store_set(store: *mut c_void, key: *const c_char, value: *const c_char) -> i32;
    fn hrm_store_check(store: *mut c_void, key: *const c_char, out: *mut i32) -> i32;
    fn hrm_store_get(store: *mut c_void, key: *const c_char, out: *mut c_char, room: u64) -> i32;
    fn hrm_gloo_new(
        store: *mut c_void,
        rank: i32,
        world: i32,
        timeout_ms: i64,
        host: *const c_char,
        interface: *const c_char,
        out: *mut *mut c_void,
    ) -> i32;
    fn hrm_backend_close(backend: *mut c_void);
    fn hrm_all_reduce(backend: *mut c_void, tensor: *mut c_void, work: *mut *mut c_void) -> i32;
    fn hrm_broadcast(backend: *mut c_void, tensor: *mut c_void, root: i64) -> i32;
    fn hrm_all_gather(backend: *mut c_void, out: *mut c_void, input: *mut c_void) -> i32;
    fn hrm_work_wait(work: *mut c_void) -> i32;
    fn hrm_work_free(work: *mut c_void);
}

/// This process's place among its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub rank: usize,
    /// Number of processes.
    pub world: usize,
    /// Among the processes of this host.
    pub local_rank: usize,
    pub local_world: usize,
    /// Where the store listens: only processes that talk to each other need it.
    pub host: Option<String>,
    pub port: Option<u16>,
    /// The store is there already (torchrun's agent or our launcher keeps it); else rank 0 opens it.
    pub store_kept: bool,
    /// Which start of the job this is: a restarted job must not read the keys of the one before.
    pub attempt: String,
    /// How long to wait for a peer.
    pub timeout: Duration,
}

/// What to do about variables that are missing or make no sense.
const LAUNCH: &str = "start with torchrun, or with --nproc-per-node and without these variables";

impl Place {
    /// From the environment; none where neither RANK nor WORLD_SIZE is set, and none in a world of one.
    ///
    /// # Errors
    /// A variable that is missing or makes no sense.
    pub fn from_env() -> Result<Option<Self>> {
        Self::from_variables(|name| env::var(name).ok().filter(|v| !v.is_empty()))
    }

    fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let number = |name: &str| -> Result<Option<usize>> {
            get(name).map(|v| v.parse().map_err(|_| anyhow!("{name}={v} is no number: {LAUNCH}"))).transpose()
        };
        let (rank, world) = match (number("RANK")?, number("WORLD_SIZE")?) {
            (None, None) => return Ok(None),
            (Some(rank), Some(world)) => (rank, world),
            (Some(_), None) => bail!("RANK is set and WORLD_SIZE is not: {LAUNCH}"),
            (None, Some(_)) => bail!("WORLD_SIZE is set and RANK is not: {LAUNCH}"),
        };
        ensure!(rank < world, "RANK={rank} with WORLD_SIZE={world}: ranks go from 0 to WORLD_SIZE - 1");
        ensure!(i32::try_from(world).is_ok(), "WORLD_SIZE={world} is too many");
        if world == 1 {
            return Ok(None);
        }
        let local_world = number("LOCAL_WORLD_SIZE")?.unwrap_or(world).max(1);
        let local_rank = number("LOCAL_RANK")?.unwrap_or(rank % local_world);
        let port = get("MASTER_PORT")
            .map(|port| port.parse().map_err(|_| anyhow!("MASTER_PORT={port} is no port number")))
            .transpose()?;
        let kept = |v: String| v == "1" || v.eq_ignore_ascii_case("true");
        Ok(Some(Self {
            rank,
            world,
            local_rank,
            local_world,
            host: get("MASTER_ADDR"),
            port,
            store_kept: get("TORCHELASTIC_USE_AGENT_STORE").is_some_and(kept),
            attempt: get("TORCHELASTIC_RESTART_COUNT").unwrap_or_else(|| "0".into()),
            timeout: peer_timeout(get(PEER_TIMEOUT_VARIABLE).as_deref())?,
        }))
    }

    fn store_at(&self) -> Result<(&str, u16)> {
        let port = self.port.with_context(|| format!("MASTER_PORT is not set: {LAUNCH}"))?;
        let host = self.host.as_deref().with_context(|| format!("MASTER_ADDR is not set: {LAUNCH}"))?;
        Ok((host, port))
    }

    fn names(&self) -> String {
        format!("rank {} of {}", self.rank, self.world)
    }
}

/// The time to wait for a peer, from the value of [`PEER_TIMEOUT_VARIABLE`].
///
/// # Errors
/// No positive number of seconds.
pub fn peer_timeout(value: Option<&str>) -> Result<Duration> {
    let Some(value) = value else { return Ok(PEER_TIMEOUT) };
    let seconds = value.parse().ok().filter(|&s: &f64| s > 0.0 && s <= 1e6);
    let seconds = seconds.ok_or_else(|| anyhow!("{PEER_TIMEOUT_VARIABLE}={value}: give a number of seconds"))?;
    Ok(Duration::from_secs_f64(seconds))
}

/// [`peer_timeout`] of this process's environment.
///
/// # Errors
/// As [`peer_timeout`].
pub fn peer_timeout_from_env() -> Result<Duration> {
    peer_timeout(env::var(PEER_TIMEOUT_VARIABLE).ok().filter(|v| !v.is_empty()).as_deref())
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

/// Switches NVLink multicast off in NCCL unless the user decided: where a host's fabric is not set up for it, NCCL hangs or
/// fails at its first use.
pub(super) fn settle_environment() {
    const NVLS: &str = "NCCL_NVLS_ENABLE";
    if env::var_os(NVLS).is_none() {
        // SAFETY: called at the start of the program, before it has threads that read the environment.
        unsafe { env::set_var(NVLS, "0") };
    }
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn text(value: &str) -> Result<CString> {
    CString::new(value).with_context(|| format!("{value:?} holds a zero byte"))
}

/// libtorch's key-value store over TCP.
#[derive(Debug)]
pub struct Store(*mut c_void);

// SAFETY: a TCPStore guards its connection with a lock of its own.
unsafe impl Send for Store {}

impl Store {
    /// Opens the store on this host; port 0 takes a free one. Returns the port.
    ///
    /// # Errors
    /// The port is taken.
    pub fn serve(port: u16) -> Result<(Self, u16)> {
        Self::open("127.0.0.1", port, true, Duration::from_secs(30)).map_err(|e| {
            let taken = e.0.contains("EADDRINUSE") || e.0.contains("in use") || e.0.contains("failed to listen");
            match taken {
                true => anyhow!("port {port} on this host is in use: give another --master-port (MASTER_PORT)"),
                false => anyhow!("the store for {port} does not open: {}", e.0),
            }
        })
    }

    /// Reaches the store of another process, which may come up later.
    ///
    /// # Errors
    /// Nothing listens there before the time is over.
    pub fn connect(host: &str, port: u16, timeout: Duration) -> Result<Self> {
        let start = Instant::now();
        let mut told = false;
        loop {
            // Asked first by ourselves: torch warns at every attempt that fails.
            let reached = (host, port).to_socket_addrs().and_then(|addresses| {
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                for address in addresses {
                    match TcpStream::connect_timeout(&address, Duration::from_secs(5).min(timeout)) {
                        Ok(_) => return Ok(()),
                        Err(e) => last = e,
                    }
                }
                Err(last)
            });
            let Err(e) = reached else { break };
            if start.elapsed() >= timeout {
                bail!(
                    "nobody listens at {host}:{port} after {} s ({e}): rank 0 must run on that host, and its port must \
                     be open",
                    timeout.as_secs_f64()
                );
            }
            if !told && start.elapsed() >= PATIENCE {
                told = true;
                let _ = writeln!(io::stderr().lock(), "waiting for {host}:{port} ({e})");
            }
            thread::sleep(Duration::from_millis(100));
        }
        Self::open(host, port, false, timeout)
            .map(|(store, _)| store)
            .map_err(|e| anyhow!("{host}:{port} listens, but is no store of torch's: {}", e.0))
    }

    fn open(host: &str, mut port: u16, server: bool, timeout: Duration) -> Result<(Self, u16), ShimError> {
        let host = CString::new(host).map_err(|e| ShimError(e.to_string()))?;
        let mut store = std::ptr::null_mut();
        // SAFETY: valid pointers; the store is freed by drop.
        check(unsafe {
            hrm_store_open(host.as_ptr(), &mut port, i32::from(server), milliseconds(timeout), &mut store)
        })?;
        Ok((Self(store), port))
    }

    /// The same store with a prefix before every key.
    pub fn prefixed(&self, prefix: &str) -> Result<Self> {
        let prefix = text(prefix)?;
        let mut store = std::ptr::null_mut();
        // SAFETY: both stores are alive; the new one is freed by drop.
        check(unsafe { hrm_store_prefix(self.0, prefix.as_ptr(), &mut store) })?;
        Ok(Self(store))
    }

    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        let (key, value) = (text(key)?, text(value)?);
        // SAFETY: live strings.
        Ok(check(unsafe { hrm_store_set(self.0, key.as_ptr(), value.as_ptr()) })?)
    }

    /// The value of a key, cut to 1,000 bytes; none where it is not set.
    pub fn get(&self, key: &str) -> Result<Option<String>> {
        let key = text(key)?;
        let mut there = 0;
        // SAFETY: valid pointers.
        check(unsafe { hrm_store_check(self.0, key.as_ptr(), &mut there) })?;
        if there == 0 {
            return Ok(None);
        }
        let mut room: [c_char; 1001] = [0; 1001];
        // SAFETY: the buffer has the room that is named, and is terminated by the callee.
        let value = unsafe {
            check(hrm_store_get(self.0, key.as_ptr(), room.as_mut_ptr(), room.len() as u64))?;
            CStr::from_ptr(room.as_ptr())
        };
        Ok(Some(value.to_string_lossy().into_owned()))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: made by us, freed once.
        unsafe { hrm_store_free(self.0) };
    }
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
    _store: Store,
}

// SAFETY: c10d's backends may be used from any thread, by one at a time.
unsafe impl Send for Group {}

impl Group {
    /// Meets the peers. `device` is where this rank computes: on a GPU, NCCL is set up beside Gloo.
    ///
    /// # Errors
    /// No word of where the store is; a peer that does not come in time, named; a store that cannot be opened or reached; NCCL's own errors.
    pub fn join(place: Place, device: Device) -> Result<Self> {
        let start = Instant::now();
        let (host, port) = place.store_at()?;
        let store = if place.rank == 0 && !place.store_kept {
            Store::serve(port)?.0
        } else {
            Store::connect(host, port, place.timeout).with_context(|| place.names())?
        };
        let store = store.prefixed(&format!("hrm/{}/", place.attempt))?;
        await_all(&store, &place, start)?;
        let (rank, world) = (i32::try_from(place.rank)?, i32::try_from(place.world)?);
        let timeout = milliseconds(place.timeout);
        let of = |name: &str| store.prefixed(&format!("{name}/"));

        let interface = env::var("GLOO_SOCKET_IFNAME").ok().filter(|v| !v.is_empty());
        let interface = interface.map(|v| text(&v)).transpose()?;
        let here = own_address(host, port).map(|address| text(&address)).transpose()?;
        let mut gloo = std::ptr::null_mut();
        // SAFETY: live strings or null; the store outlives the backend.
        let made = check(unsafe {
            let pointer = |s: Option<&CStr>| s.map_or(std::ptr::null(), CStr::as_ptr);
            let interface = pointer(interface.as_deref());
            hrm_gloo_new(of("gloo")?.0, rank, world, timeout, pointer(here.as_deref()), interface, &mut gloo)
        });
        made.map_err(|e| anyhow!("{}: Gloo finds no way to its peers: {}", place.names(), e.0))?;
        let gloo = Backend(gloo);

        let nccl = match device {
            Device::Cuda(index) => {
                let plugin = NcclPlugin::get()?;
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
        let group = Self { place, nccl, gloo, _store: store };
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
            let Place { rank, world, .. } = self.place;
            PeerLost { rank, world, what, why: why.to_owned() }.into()
        })
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

/// The address of this host on the way to the store: its own name may lead anywhere, on Debian to 127.0.1.1.
fn own_address(host: &str, port: u16) -> Option<String> {
    let address = TcpStream::connect((host, port)).ok()?.local_addr().ok()?.ip();
    // One spelling for all ranks of a host.
    Some(if address.is_loopback() { "127.0.0.1".into() } else { address.to_string() })
}

/// Tells the peers that this rank is here and waits until all are.
fn await_all(store: &Store, place: &Place, start: Instant) -> Result<()> {
    let (host, port) = place.store_at()?;
    store.set(&format!("here/{}", place.rank), "1")?;
    let mut missing: Vec<usize> = (0..place.world).collect();
    let mut told = false;
    loop {
        let mut absent = Vec::new();
        for rank in missing {
            if store.get(&format!("here/{rank}"))?.is_none() {
                absent.push(rank);
            }
        }
        missing = absent;
        if missing.is_empty() {
            return Ok(());
        }
        let list = missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if start.elapsed() >= place.timeout {
            bail!(
                "{}: after {} s still without rank {list}: start all {} processes with MASTER_ADDR={host} MASTER_PORT={port}, or \
                 wait longer with {PEER_TIMEOUT_VARIABLE} (seconds)",
                place.names(),
                place.timeout.as_secs_f64(),
                place.world
            );
        }
        if place.rank == 0 && !told && start.elapsed() >= PATIENCE {
            told = true;
            let _ = writeln!(io::stderr().lock(), "waiting for rank {list} of {}", place.world);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn place(variables: &[(&str, &str)]) -> Result<Option<Place>> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        Place::from_variables(|name| variables.get(name).map(|v| (*v).to_owned()))
    }

    #[test]
    fn the_place_is_what_torchrun_says() {
        let of_torchrun = [
            ("RANK", "3"),
            ("WORLD_SIZE", "4"),
            ("LOCAL_RANK", "1"),
            ("LOCAL_WORLD_SIZE", "2"),
            ("MASTER_ADDR", "node0"),
            ("MASTER_PORT", "29500"),
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
            ("TORCHELASTIC_RESTART_COUNT", "2"),
        ];
        let found = place(&of_torchrun).unwrap().unwrap();
        assert_eq!((found.rank, found.world, found.local_rank, found.local_world), (3, 4, 1, 2));
        assert_eq!((found.store_at().unwrap(), found.store_kept), (("node0", 29500), true));
        assert_eq!((found.attempt.as_str(), found.timeout), ("2", PEER_TIMEOUT));
        assert_eq!(place(&[]).unwrap(), None);
        assert_eq!(place(&[("RANK", "0"), ("WORLD_SIZE", "1")]).unwrap(), None);
    }

    #[test]
    fn what_is_wrong_with_the_variables_is_named() {
        let error = |variables: &[(&str, &str)]| place(variables).unwrap_err().to_string();
        assert!(error(&[("RANK", "0")]).contains("WORLD_SIZE is not"));
        assert!(error(&[("RANK", "x"), ("WORLD_SIZE", "2")]).contains("RANK=x"));
        assert!(error(&[("RANK", "2"), ("WORLD_SIZE", "2")]).contains("RANK=2 with WORLD_SIZE=2"));
        let apart = place(&[("RANK", "1"), ("WORLD_SIZE", "2")]).unwrap().unwrap();
        assert_eq!((apart.rank, apart.world, apart.local_rank), (1, 2, 1));
        let alone = Group::join(apart.clone(), Device::Cpu).unwrap_err().to_string();
        assert!(alone.contains("MASTER_PORT is not set"), "{alone}");
        let alone = Group::join(Place { port: Some(1), ..apart }, Device::Cpu).unwrap_err().to_string();
        assert!(alone.contains("MASTER_ADDR is not set"), "{alone}");
        let port = [("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_PORT", "70000")];
        assert!(error(&port).contains("MASTER_PORT=70000"));
        for wrong in ["0", "-1", "soon", "nan"] {
            assert!(peer_timeout(Some(wrong)).unwrap_err().to_string().contains(wrong));
        }
        assert_eq!(peer_timeout(Some("0.5")).unwrap(), Duration::from_millis(500));
    }

    /// The place of a rank among threads of this process.
    fn here(rank: usize, world: usize, port: u16) -> Place {
        Place {
            rank,
            world,
            local_rank: rank,
            local_world: world,
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

    /// Runs a test of this file once for each rank, in processes of their own, and waits for all of them.
    fn as_processes(test: &str, world: usize, port: u16) {
        let start = |rank: usize| {
            let mut command = std::process::Command::new(env::current_exe().unwrap());
            command.args(["--exact", &format!("runtime::dist::tests::{test}"), "--nocapture"]);
            command.env(AS_RANK, format!("{rank} {port}")).stdout(std::process::Stdio::null()).spawn().unwrap()
        };
        let ranks: Vec<_> = (0..world).map(start).collect();
        let ended: Vec<_> = ranks.into_iter().map(|mut rank| rank.wait().unwrap()).collect();
        assert!(ended.iter().all(|status| status.success()), "{ended:?}");
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
    }

    #[test]
    fn collectives_on_every_dtype_that_training_uses() {
        let (_store, port) = Store::serve(0).unwrap();
        as_processes("a_rank_of_the_collectives", COLLECTIVE_RANKS, port);
    }

    #[test]
    fn a_peer_that_never_comes_is_named() {
        let (_store, port) = Store::serve(0).unwrap();
        let place = Place { timeout: Duration::from_millis(300), ..here(0, 3, port) };
        let error = Group::join(place, Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("still without rank 1, 2") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn a_store_that_nobody_keeps_is_named() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        drop(taken);
        let place = Place { timeout: Duration::from_millis(300), ..here(1, 2, port) };
        let error = format!("{:#}", Group::join(place, Device::Cpu).unwrap_err());
        assert!(error.contains(&format!("nobody listens at 127.0.0.1:{port}")) && !error.contains('\n'), "{error}");
    }

    #[test]
    fn a_port_in_use_is_named() {
        let (_store, port) = Store::serve(0).unwrap();
        let error = Store::serve(port).unwrap_err().to_string();
        assert!(error.contains(&format!("port {port} on this host is in use")), "{error}");
    }

    /// Rank 1 goes away without a word; rank 0 is told so in the next collective.
    #[test]
    fn a_rank_of_a_lost_peer() {
        let Some((rank, port)) = child() else { return };
        let group = Group::join(here(rank, 2, port), Device::Cpu).unwrap();
        if rank == 1 {
            let Group { gloo, .. } = group;
            return gloo.close();
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
    }

    #[test]
    fn a_lost_peer_is_an_error_and_no_hang() {
        let (_store, port) = Store::serve(0).unwrap();
        as_processes("a_rank_of_a_lost_peer", 2, port);
    }
}
