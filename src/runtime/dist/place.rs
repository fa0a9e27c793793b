//! Which of the processes this one is, from the variables that torchrun sets.

use std::{env, net::IpAddr, time::Duration};

use anyhow::{Context, Result, anyhow, bail, ensure};

/// Seconds to wait for a peer, at the start and in a collective: this variable, else [`PEER_TIMEOUT`].
pub const PEER_TIMEOUT_VARIABLE: &str = "HRM_PEER_TIMEOUT";

/// As long as torch waits in NCCL's collectives.
pub const PEER_TIMEOUT: Duration = Duration::from_secs(600);

/// Where the processes of our launcher find their store, see [`super::SharedStore`].
pub const STORE_VARIABLE: &str = "HRM_STORE";

/// This process's place among its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub rank: usize,
    /// Number of processes.
    pub world: usize,
    /// Among the processes of this host.
    pub local_rank: usize,
    pub local_world: usize,
    /// The store that a launcher on this host shares with its processes alone.
    pub shared_store: Option<String>,
    /// Whether all processes are known to be on this host.
    pub one_host: bool,
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
            get(name).map(|v| v.parse().map_err(|_| anyhow!("{name}={v} is not a number: {LAUNCH}"))).transpose()
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
        let locals = number("LOCAL_WORLD_SIZE")?;
        let local_world = locals.unwrap_or(world).max(1);
        let local_rank = number("LOCAL_RANK")?.unwrap_or(rank % local_world);
        let port = get("MASTER_PORT")
            .map(|port| port.parse().map_err(|_| anyhow!("MASTER_PORT={port} is not a port number")))
            .transpose()?;
        let kept = |v: String| v == "1" || v.eq_ignore_ascii_case("true");
        Ok(Some(Self {
            rank,
            world,
            local_rank,
            local_world,
            shared_store: get(STORE_VARIABLE),
            one_host: locals == Some(world) || get("MASTER_ADDR").is_some_and(|host| is_loopback(&host)),
            host: get("MASTER_ADDR"),
            port,
            store_kept: get("TORCHELASTIC_USE_AGENT_STORE").is_some_and(kept),
            attempt: get("TORCHELASTIC_RESTART_COUNT").unwrap_or_else(|| "0".into()),
            timeout: peer_timeout(get(PEER_TIMEOUT_VARIABLE).as_deref())?,
        }))
    }

    /// Host and port of the store.
    ///
    /// # Errors
    /// The variable that is not set.
    pub(super) fn store_at(&self) -> Result<(&str, u16)> {
        let port = self.port.with_context(|| format!("MASTER_PORT is not set: {LAUNCH}"))?;
        let host = self.host.as_deref().with_context(|| format!("MASTER_ADDR is not set: {LAUNCH}"))?;
        Ok((host, port))
    }

    pub(super) fn names(&self) -> String {
        format!("rank {} of {}", self.rank, self.world)
    }
}

/// Whether a host's name means the host itself, wherever it is looked up. What only resolves to a loopback address does
/// not: on Debian the host's own name does so on that host.
pub fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
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
        assert!(!found.one_host && found.shared_store.is_none());
        assert_eq!(place(&[]).unwrap(), None);
        assert_eq!(place(&[("RANK", "0"), ("WORLD_SIZE", "1")]).unwrap(), None);
    }

    #[test]
    fn one_host_is_what_is_known_to_be_one() {
        let ranks = [("RANK", "0"), ("WORLD_SIZE", "2")];
        let with = |more: &[(&str, &str)]| place(&[&ranks, more].concat()).unwrap().unwrap().one_host;
        assert!(with(&[("LOCAL_WORLD_SIZE", "2"), ("MASTER_ADDR", "node0")]));
        assert!(with(&[("MASTER_ADDR", "localhost")]) && with(&[("MASTER_ADDR", "::1")]));
        // Some launchers do not tell how many processes of a host there are.
        assert!(!with(&[("MASTER_ADDR", "node0")]) && !with(&[("LOCAL_WORLD_SIZE", "1"), ("MASTER_ADDR", "node0")]));
    }

    #[test]
    fn what_is_wrong_with_the_variables_is_named() {
        let error = |variables: &[(&str, &str)]| place(variables).unwrap_err().to_string();
        assert!(error(&[("RANK", "0")]).contains("WORLD_SIZE is not"));
        assert!(error(&[("RANK", "x"), ("WORLD_SIZE", "2")]).contains("RANK=x"));
        assert!(error(&[("RANK", "2"), ("WORLD_SIZE", "2")]).contains("RANK=2 with WORLD_SIZE=2"));
        let apart = place(&[("RANK", "1"), ("WORLD_SIZE", "2")]).unwrap().unwrap();
        assert_eq!((apart.rank, apart.world, apart.local_rank), (1, 2, 1));
        let alone = apart.store_at().unwrap_err().to_string();
        assert!(alone.contains("MASTER_PORT is not set"), "{alone}");
        let alone = Place { port: Some(1), ..apart }.store_at().unwrap_err().to_string();
        assert!(alone.contains("MASTER_ADDR is not set"), "{alone}");
        let port = [("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_PORT", "70000")];
        assert!(error(&port).contains("MASTER_PORT=70000"));
        for wrong in ["0", "-1", "soon", "nan"] {
            assert!(peer_timeout(Some(wrong)).unwrap_err().to_string().contains(wrong));
        }
        assert_eq!(peer_timeout(Some("0.5")).unwrap(), Duration::from_millis(500));
    }
}
