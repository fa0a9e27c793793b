//! libtorch's key-value store, through which the processes find one another.

use std::{
    ffi::{CStr, CString, c_char, c_void},
    io::{self, Write},
    net::{TcpStream, ToSocketAddrs},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail};

use super::{PATIENCE, milliseconds, text};
use crate::runtime::{ShimError, shim::check};

unsafe extern "C" {
    fn hrm_store_open(host: *const c_char, port: *mut u16, server: i32, timeout_ms: i64, out: *mut *mut c_void) -> i32;
    fn hrm_store_prefix(store: *mut c_void, prefix: *const c_char, out: *mut *mut c_void) -> i32;
    fn hrm_store_free(store: *mut c_void);
    fn hrm_store_set(store: *mut c_void, key: *const c_char, value: *const c_char) -> i32;
    fn hrm_store_check(store: *mut c_void, key: *const c_char, out: *mut i32) -> i32;
    fn hrm_store_get(store: *mut c_void, key: *const c_char, out: *mut c_char, room: u64) -> i32;
}

/// libtorch's key-value store over TCP.
#[derive(Debug)]
pub struct Store(pub(super) *mut c_void);

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named() {
        let (_store, port) = Store::serve(0).unwrap();
        let error = Store::serve(port).unwrap_err().to_string();
        assert!(error.contains(&format!("port {port} on this host is in use")), "{error}");
    }
}
