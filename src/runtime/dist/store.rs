//! libtorch's key-value store, through which the processes find one another.

use std::{
    ffi::{CStr, CString, c_char, c_void},
    fs::File,
    io::{self, Write},
    net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, ToSocketAddrs},
    os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{PATIENCE, STOPPED_WAITING, milliseconds, text};
use crate::{
    outcome::Interrupted,
    runtime::{ShimError, shim::check},
    signals::asked_to_stop,
};

unsafe extern "C" {
    fn hrm_store_open(host: *const c_char, port: u16, listening: i32, timeout_ms: i64, out: *mut *mut c_void) -> i32;
    fn hrm_store_file(path: *const c_char, timeout_ms: i64, out: *mut *mut c_void) -> i32;
    fn hrm_store_prefix(store: *mut c_void, prefix: *const c_char, out: *mut *mut c_void) -> i32;
    fn hrm_store_free(store: *mut c_void);
    fn hrm_store_set(store: *mut c_void, key: *const c_char, value: *const c_char) -> i32;
    fn hrm_store_check(store: *mut c_void, key: *const c_char, out: *mut i32) -> i32;
    fn hrm_store_get(store: *mut c_void, key: *const c_char, out: *mut c_char, room: u64) -> i32;
}

/// libtorch's key-value store: over TCP, or in a file where all processes are on one host.
#[derive(Debug)]
pub struct Store(pub(super) *mut c_void);

// SAFETY: torch's stores guard their connection or file with a lock of their own.
unsafe impl Send for Store {}

/// The store of the processes that one launcher starts: memory that they inherit. It has no name, neither in the file
/// system nor in the network, so that nobody else can reach it.
#[derive(Debug)]
pub struct SharedStore(OwnedFd);

impl SharedStore {
    /// An empty one.
    ///
    /// # Errors
    /// The system has no room for it.
    pub fn new() -> Result<Self> {
        // SAFETY: a terminated name; on success a new descriptor, which is ours. It stays open in the processes started.
        let file = unsafe { libc::memfd_create(c"hrm-store".as_ptr(), 0) };
        ensure!(file >= 0, "cannot make the processes' store: {}", io::Error::last_os_error());
        // SAFETY: an open descriptor that nobody else closes.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(file) }))
    }

    /// Where a process that inherited it opens it.
    pub fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}

/// The addresses that a store may be reached at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Processes of this host.
    Loopback,
    /// Every address of this host: the other hosts may take any.
    Everywhere,
}

impl Store {
    /// Opens the store on this host; port 0 takes a free one. Returns the port.
    ///
    /// # Errors
    /// The port is taken.
    pub fn serve(reach: Reach, port: u16) -> Result<(Self, u16)> {
        let listener = match reach {
            Reach::Loopback => TcpListener::bind((Ipv4Addr::LOCALHOST, port)),
            // A host without IPv6 has the other address alone.
            Reach::Everywhere => TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
                .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))),
        };
        let listener = listener.map_err(|e| match e.kind() {
            io::ErrorKind::AddrInUse => {
                anyhow!("port {port} on this host is in use: give another --master-port (MASTER_PORT)")
            }
            _ => anyhow!("the store for port {port} does not open: {e}"),
        })?;
        let port = listener.local_addr()?.port();
        // The store owns the socket from here on.
        let store = Self::open("127.0.0.1", port, Some(listener), Duration::from_secs(30))
            .map_err(|e| anyhow!("the store for port {port} cannot be opened: {}", e.0))?;
        Ok((store, port))
    }

    /// Opens the store that a launcher shares, at [`SharedStore::path`].
    ///
    /// # Errors
    /// This process did not inherit it.
    pub fn shared(path: &str, timeout: Duration) -> Result<Self> {
        File::open(path).with_context(|| format!("{path}: this process's launcher has left no store there"))?;
        let path = text(path)?;
        let mut store = std::ptr::null_mut();
        // SAFETY: valid pointers; the store is freed by drop.
        check(unsafe { hrm_store_file(path.as_ptr(), milliseconds(timeout), &mut store) })?;
        Ok(Self(store))
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
            ensure!(!asked_to_stop(), Interrupted(STOPPED_WAITING));
            if start.elapsed() >= timeout {
                bail!(
                    "nothing listens at {host}:{port} after {} s ({e}): rank 0 must run on that host, and its port must \
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
        Self::open(host, port, None, timeout)
            .map_err(|e| anyhow!("{host}:{port} listens, but is not a torch store: {}", e.0))
    }

    fn open(host: &str, port: u16, listener: Option<TcpListener>, timeout: Duration) -> Result<Self, ShimError> {
        let host = CString::new(host).map_err(|e| ShimError(e.to_string()))?;
        let listening = listener.map_or(-1, IntoRawFd::into_raw_fd);
        let mut store = std::ptr::null_mut();
        // SAFETY: valid pointers; the store is freed by drop.
        check(unsafe { hrm_store_open(host.as_ptr(), port, listening, milliseconds(timeout), &mut store) })?;
        Ok(Self(store))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named() {
        for reach in [Reach::Loopback, Reach::Everywhere] {
            let (_store, port) = Store::serve(reach, 0).unwrap();
            let error = Store::serve(reach, port).unwrap_err().to_string();
            assert!(error.contains(&format!("port {port} on this host is in use")), "{error}");
        }
    }

    #[test]
    fn a_shared_store_is_one_for_all_that_open_it() {
        let timeout = Duration::from_secs(5);
        let shared = SharedStore::new().unwrap();
        let open = || Store::shared(&shared.path(), timeout).unwrap();
        let (one, other) = (open().prefixed("p").unwrap(), open().prefixed("p").unwrap());
        assert_eq!(other.get("a").unwrap(), None);
        one.set("a", "x").unwrap();
        assert_eq!(other.get("a").unwrap().as_deref(), Some("x"));
        let error = Store::shared("/proc/self/fd/1000000", timeout).unwrap_err().to_string();
        assert!(error.contains("left no store there"), "{error}");
    }
}
