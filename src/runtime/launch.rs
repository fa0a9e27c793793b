//! Several processes from one command: starts this program once for every rank, as torchrun does, and ends them together.
//!
//! Rank 0 has the terminal. What the others write to standard error is shown with their rank before it. The launchers of
//! several hosts meet in the store that the first of them keeps. What a launcher decided (the device, and whatever the
//! command adds) is handed to its ranks, which do not decide it again.

use std::{
    env,
    io::{self, BufReader, Read, Write},
    mem,
    num::NonZero,
    ops::Range,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    str::FromStr,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    CudaState, DeviceChoice,
    dist::{PeerLost, Place, Reach, STORE_VARIABLE, SharedStore, Store, is_loopback, peer_timeout_from_env},
};
use crate::{
    escape::printable,
    input::read_line,
    outcome::{INTERRUPTED, Interrupted},
    signals::HandedOn,
};

/// Set in the environment of the ranks that we start, to what was decided for them: their launch flags have been followed
/// already.
/// Of a rank's line no more bytes are shown.
const LONGEST_LINE: usize = 1 << 16;
const LAUNCHED: &str = "HRM_LAUNCHED";

/// torchrun's.
const DEFAULT_PORT: u16 = 29500;

/// How often children and signals are looked at, and how often the other launchers.
const TICK: Duration = Duration::from_millis(50);
const STORE_TICK: Duration = Duration::from_millis(500);

/// How long a rank that lost a peer waits before it reports that: by then its launcher, ours or torchrun, has reported
/// which rank ended first, and has ended it.
const PEER_LOST_DELAY: Duration = Duration::from_secs(5);

/// How long the first launcher keeps the store for the others after its own ranks have ended.
const STORE_GRACE: Duration = Duration::from_secs(30);

const ENDED_AT_ONCE: &str = "ended at once: what was not saved is lost";

/// What was asked for, before the environment is looked at.
#[derive(Clone, Debug, Default)]
pub struct LaunchRequest {
    /// Processes to start on this host; none leaves the start to another launcher, or is a single process.
    pub processes: Option<Processes>,
    /// Hosts [default: 1].
    pub nodes: Option<usize>,
    /// This host's number, from 0.
    pub node: Option<usize>,
    /// Name or address of host 0.
    pub host: Option<String>,
    /// A free port of host 0.
    pub port: Option<u16>,
    /// How long to wait for a peer [default: HRM_PEER_TIMEOUT, else 600 s].
    pub peer_timeout: Option<Duration>,
}

/// Processes of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processes {
    /// 1 to 1024.
    Number(usize),
    /// One for each GPU that can be used.
    Gpus,
}

impl FromStr for Processes {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match (s, s.parse()) {
            ("gpu", _) => Ok(Self::Gpus),
            (_, Ok(n @ 1..=1024)) => Ok(Self::Number(n)),
            _ => Err("give a number from 1 to 1024, or gpu".into()),
        }
    }
}

/// What this process is.
#[derive(Debug)]
pub enum Role {
    /// It does all the work.
    Single,
    /// One of several.
    Rank(Rank),
    /// It starts the ranks.
    Launcher(Launch),
}

/// One of several processes.
#[derive(Debug)]
pub struct Rank {
    pub place: Place,
    /// From our launcher; none where another one started this process.
    decided: Option<Decided>,
}

/// What a launcher decided for its ranks.
#[derive(Debug, Serialize, Deserialize)]
struct Decided {
    device: DeviceChoice,
    /// What the command adds.
    job: Value,
}

impl Role {
    /// Whether this process prints what concerns all: rank 0, or the launcher that starts it.
    pub fn reports(&self) -> bool {
        match self {
            Self::Single => true,
            Self::Rank(rank) => rank.place.rank == 0,
            Self::Launcher(launch) => launch.node == 0,
        }
    }

    /// The ranks that this process is or starts.
    pub fn ranks(&self) -> Range<usize> {
        match self {
            Self::Launcher(launch) => launch.node * launch.local_world..(launch.node + 1) * launch.local_world,
            _ => self.rank()..self.rank() + 1,
        }
    }

    /// This process's rank; 0 for a single process and a launcher.
    pub fn rank(&self) -> usize {
        match self {
            Self::Rank(rank) => rank.place.rank,
            _ => 0,
        }
    }

    /// Number of processes that share the work.
    pub fn world(&self) -> usize {
        match self {
            Self::Single => 1,
            Self::Rank(rank) => rank.place.world,
            Self::Launcher(launch) => launch.nodes * launch.local_world,
        }
    }

    /// Where this process computes, if the user chose `choice`.
    ///
    /// # Errors
    /// One GPU named for several ranks, or too few GPUs.
    pub fn device(&self, choice: DeviceChoice) -> Result<DeviceChoice> {
        match self {
            Self::Rank(rank) => rank.device(choice),
            _ => Ok(choice),
        }
    }

    /// What our launcher handed to this rank; none in any other process.
    ///
    /// # Errors
    /// A launcher of another version.
    pub fn handed_down<J: DeserializeOwned>(&self) -> Result<Option<J>> {
        let Self::Rank(Rank { decided: Some(decided), .. }) = self else { return Ok(None) };
        let job = serde_json::from_value(decided.job.clone());
        job.map(Some).with_context(|| format!("{LAUNCHED}: not written by this command's launcher"))
    }
}

/// A checked plan for a launcher.
#[derive(Debug)]
pub struct Launch {
    nodes: usize,
    node: usize,
    local_world: usize,
    host: String,
    /// 0: any.
    port: u16,
    timeout: Duration,
    /// Of the ranks.
    device: DeviceChoice,
}

impl LaunchRequest {
    /// What this process is, from the request and the environment.
    ///
    /// # Errors
    /// A request that does not fit together, or not to the environment.
    pub fn role(&self, device: DeviceChoice) -> Result<Role> {
        let decided = match env::var(LAUNCHED) {
            Ok(text) => Some(serde_json::from_str(&text).with_context(|| format!("{LAUNCHED}={text}"))?),
            Err(_) => None,
        };
        let wanted = match self.processes.filter(|_| decided.is_none()) {
            None => None,
            Some(Processes::Number(n)) => Some(n),
            Some(Processes::Gpus) => {
                let usable = CudaState::probe().usable;
                Some(usable.map_err(|why| anyhow::anyhow!("--nproc-per-node gpu: {why}"))?)
            }
        };
        match (Place::from_env()?, wanted) {
            (Some(_), Some(_)) => {
                bail!("RANK and WORLD_SIZE are set, so another launcher is in use: leave --nproc-per-node to it")
            }
            (Some(place), None) => {
                let timeout = self.peer_timeout.unwrap_or(place.timeout);
                Ok(Role::Rank(Rank { place: Place { timeout, ..place }, decided }))
            }
            (None, Some(local_world)) => {
                let mut launch = self.launch(local_world)?;
                if launch.nodes * launch.local_world == 1 {
                    return Ok(Role::Single);
                }
                launch.device = device_of_ranks(device, local_world)?;
                Ok(Role::Launcher(launch))
            }
            (None, None) => Ok(Role::Single),
        }
    }

    fn launch(&self, local_world: usize) -> Result<Launch> {
        let (nodes, node) = (self.nodes.unwrap_or(1), self.node.unwrap_or(0));
        ensure!(node < nodes, "--node-rank {node} with --nnodes {nodes}: hosts go from 0 to {}", nodes - 1);
        if nodes > 1 {
            ensure!(self.node.is_some(), "--nnodes {nodes}: say with --node-rank which of them this host is");
            ensure!(self.host.is_some(), "--nnodes {nodes}: name host 0 with --master-addr");
        }
        Ok(Launch {
            nodes,
            node,
            local_world,
            host: self.host.clone().unwrap_or_else(|| "127.0.0.1".into()),
            port: self.port.unwrap_or(if nodes > 1 { DEFAULT_PORT } else { 0 }),
            timeout: self.peer_timeout.map_or_else(peer_timeout_from_env, Ok)?,
            device: DeviceChoice::Auto,
        })
    }
}

/// What the ranks of a host compute on: a GPU each where there are any.
fn device_of_ranks(device: DeviceChoice, local_world: usize) -> Result<DeviceChoice> {
    if device == DeviceChoice::Cpu {
        return Ok(device);
    }
    match CudaState::probe().usable {
        Ok(gpus) => {
            ensure!(
                local_world <= gpus,
                "--nproc-per-node {local_world}: this machine has {gpus} usable GPU(s): give {gpus} or less, or --device \
                 cpu"
            );
            Ok(if device == DeviceChoice::Auto { DeviceChoice::Cuda(0) } else { device })
        }
        // `auto` goes on with the CPU; the ranks say why, as a single process does.
        Err(why) => {
            ensure!(device == DeviceChoice::Auto, "--device cuda: {why}");
            Ok(device)
        }
    }
}

impl Rank {
    /// `auto` and `cuda` mean the GPU of this rank's own number.
    fn device(&self, choice: DeviceChoice) -> Result<DeviceChoice> {
        let place = &self.place;
        match self.decided.as_ref().map_or(choice, |decided| decided.device) {
            DeviceChoice::Cpu => Ok(DeviceChoice::Cpu),
            DeviceChoice::Cuda(n) if n > 0 => {
                bail!(
                    "--device cuda:{n} with {} processes: each has a GPU of its own, so give --device cuda",
                    place.world
                )
            }
            choice => match CudaState::probe().usable {
                Ok(gpus) => {
                    ensure!(
                        place.local_rank < gpus,
                        "rank {} has the number {} on this host, which has {gpus} usable GPU(s): start that many \
                         processes a host, or give --device cpu",
                        place.rank,
                        place.local_rank
                    );
                    Ok(DeviceChoice::Cuda(place.local_rank))
                }
                Err(_) => Ok(choice),
            },
        }
    }
}

/// How long to wait before an error is printed: a rank that lost a peer waits to be ended, so that the peer's own end is
/// reported instead of its consequences; and rank 0 goes first, as all ranks may have met the same error.
pub fn report_delay(error: &anyhow::Error) -> Duration {
    if error.downcast_ref::<PeerLost>().is_some() {
        return PEER_LOST_DELAY;
    }
    match Place::from_env() {
        Ok(Some(place)) if place.rank > 0 => PEER_LOST_DELAY / 5,
        _ => Duration::ZERO,
    }
}

/// A rank that was started.
struct Started {
    rank: usize,
    child: Child,
    ended: Option<ExitStatus>,
    /// Since when it has been suspended.
    suspended: Option<Instant>,
    readers: Vec<JoinHandle<()>>,
}

impl Launch {
    /// Starts the ranks with this program's own arguments and waits for them. `job` is what the command decided for all of
    /// them, see [`Role::handed_down`].
    ///
    /// # Errors
    /// A rank of any host that failed, by name; all of them have ended then. [`Interrupted`] where they were asked to stop.
    pub fn run(&self, job: &impl Serialize) -> Result<()> {
        let decided = serde_json::to_string(&Decided { device: self.device, job: serde_json::to_value(job)? })?;
        let meeting = self.meet()?;
        let mut signals = HandedOn::new();
        let mut ranks = Vec::new();
        let outcome = self
            .start(&meeting, &decided, &mut ranks)
            .and_then(|()| self.watch(&mut ranks, meeting.between_hosts(), &mut signals));
        if outcome.is_err() {
            end(&mut ranks);
        }
        for reader in ranks.iter_mut().flat_map(|r| r.readers.drain(..)) {
            let _ = reader.join();
        }
        if let Some(store) = meeting.between_hosts() {
            self.sign_off(store, outcome.as_ref().err());
        }
        ensure!(!outcome?, Interrupted::TOLD);
        Ok(())
    }

    /// Opens the store that the ranks meet in, of host 0 or of this one alone.
    fn meet(&self) -> Result<Meeting> {
        if self.nodes == 1 {
            return SharedStore::new().map(Meeting::OneHost);
        }
        let (store, port) = if self.node == 0 {
            let reach = if is_loopback(&self.host) { Reach::Loopback } else { Reach::Everywhere };
            Store::serve(reach, self.port)?
        } else {
            (Store::connect(&self.host, self.port, self.timeout)?, self.port)
        };
        let store = store.prefixed("launch/")?;
        self.same_on_all_hosts(&store)?;
        Ok(Meeting::Hosts { store, port })
    }

    /// The number of ranks a host must be the same everywhere, as it decides their numbers.
    fn same_on_all_hosts(&self, store: &Store) -> Result<()> {
        let mine = format!("{} hosts with {} processes", self.nodes, self.local_world);
        if self.node == 0 {
            return store.set("form", &mine);
        }
        let start = Instant::now();
        loop {
            match store.get("form")? {
                Some(first) if first == mine => return Ok(()),
                Some(first) => bail!("host 0 was started for {first}, host {} for {mine}", self.node),
                None if start.elapsed() >= self.timeout => {
                    bail!("{}:{} is not a store of this launcher", self.host, self.port)
                }
                None => thread::sleep(TICK),
            }
        }
    }

    fn start(&self, meeting: &Meeting, decided: &str, ranks: &mut Vec<Started>) -> Result<()> {
        let program = env::current_exe().context("cannot find this program's executable")?;
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let threads = (cores / self.local_world).max(1);
        for local in 0..self.local_world {
            let rank = self.node * self.local_world + local;
            let mut command = Command::new(&program);
            command.args(env::args_os().skip(1)).stdin(Stdio::null());
            command.envs([
                ("RANK", rank.to_string()),
                ("WORLD_SIZE", (self.nodes * self.local_world).to_string()),
                ("LOCAL_RANK", local.to_string()),
                ("LOCAL_WORLD_SIZE", self.local_world.to_string()),
                (LAUNCHED, decided.to_owned()),
            ]);
            command.envs(self.store_variables(meeting));
            if env::var_os("OMP_NUM_THREADS").is_none() {
                command.env("OMP_NUM_THREADS", threads.to_string());
            }
            if rank > 0 {
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
            }
            // A group of its own: Ctrl-C reaches the launcher alone, which hands it on once.
            command.process_group(0);
            #[cfg(target_os = "linux")]
            // SAFETY: prctl is async-signal-safe. A launcher that is killed takes its ranks along.
            unsafe {
                command.pre_exec(|| {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    Ok(())
                });
            }
            let mut child =
                command.spawn().with_context(|| format!("{}: cannot start rank {rank}", program.display()))?;
            let mut readers = Vec::new();
            readers.extend(child.stdout.take().map(|s| forward(rank, s)));
            readers.extend(child.stderr.take().map(|s| forward(rank, s)));
            ranks.push(Started { rank, child, ended: None, suspended: None, readers });
        }
        Ok(())
    }

    /// Where the ranks find their store.
    fn store_variables(&self, meeting: &Meeting) -> Vec<(&'static str, String)> {
        match meeting {
            Meeting::OneHost(store) => vec![(STORE_VARIABLE, store.path())],
            Meeting::Hosts { port, .. } => vec![
                ("MASTER_ADDR", self.host.clone()),
                ("MASTER_PORT", port.to_string()),
                ("TORCHELASTIC_USE_AGENT_STORE", "True".into()),
            ],
        }
    }

    /// Waits for the ranks. Returns whether they were asked to stop before they were done.
    fn watch(&self, ranks: &mut [Started], store: Option<&Store>, signals: &mut HandedOn) -> Result<bool> {
        let mut asked_to_stop = false;
        let mut looked = Instant::now();
        loop {
            for signal in signals.pending() {
                asked_to_stop = true;
                for rank in ranks.iter().filter(|r| r.ended.is_none()) {
                    // SAFETY: a child that was not waited for keeps its number.
                    unsafe { libc::kill(rank.child.id().cast_signed(), signal) };
                }
            }
            ensure!(!signals.insists(), Interrupted(ENDED_AT_ONCE));
            let stopped = |status: &ExitStatus| status.code() == Some(INTERRUPTED.into());
            for rank in ranks.iter_mut().filter(|r| r.ended.is_none()) {
                rank.ended = rank.child.try_wait().context("cannot wait for a rank")?;
                if let Some(status) = rank.ended.filter(|s| !s.success() && !stopped(s)) {
                    bail!("{}", self.describe_failure(rank.rank, status));
                }
                rank.look_whether_suspended();
                if rank.suspended.is_some_and(|since| since.elapsed() >= self.timeout) {
                    bail!(
                        "{}",
                        self.describe(
                            rank.rank,
                            &format!("was suspended and did not answer for {} s", self.timeout.as_secs_f64())
                        )
                    );
                }
            }
            if ranks.iter().all(|r| r.ended.is_some()) {
                let any = ranks.iter().any(|r| r.ended.as_ref().is_some_and(stopped));
                return Ok(any || asked_to_stop);
            }
            if let Some(store) = store.filter(|_| looked.elapsed() >= STORE_TICK) {
                looked = Instant::now();
                match store.get("failed") {
                    Ok(None) => {}
                    Ok(Some(why)) => bail!("{why}"),
                    Err(_) => bail!("the launcher of host 0 ended: all ranks of this host were stopped"),
                }
            }
            thread::sleep(TICK);
        }
    }

    fn describe_failure(&self, rank: usize, status: ExitStatus) -> String {
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("failed with exit code {code}"),
            (_, Some(signal)) => format!("was killed by signal {signal}{}", name_of(signal)),
            _ => "ended".into(),
        };
        self.describe(rank, &how)
    }

    fn describe(&self, rank: usize, how: &str) -> String {
        let on = if self.nodes > 1 { format!(" on host {}", self.node) } else { String::new() };
        format!("rank {rank}{on} {how}: all {} processes were stopped", self.nodes * self.local_world)
    }

    /// Tells the other launchers how it went here. The first one keeps the store until they know.
    fn sign_off(&self, store: &Store, error: Option<&anyhow::Error>) {
        if let Some(error) = error {
            let _ = store.set("failed", &format!("{error:#}"));
        }
        let _ = store.set(&format!("done/{}", self.node), "1");
        let grace = if error.is_some() { STORE_GRACE / 6 } else { STORE_GRACE };
        let start = Instant::now();
        let waiting =
            |store: &Store| (1..self.nodes).any(|node| matches!(store.get(&format!("done/{node}")), Ok(None)));
        while self.node == 0 && start.elapsed() < grace && waiting(store) {
            thread::sleep(TICK);
        }
    }
}

/// Where the ranks meet.
#[derive(Debug)]
enum Meeting {
    OneHost(SharedStore),
    /// The launchers' part of the store that host 0 keeps on `port`.
    Hosts {
        store: Store,
        port: u16,
    },
}

impl Meeting {
    fn between_hosts(&self) -> Option<&Store> {
        match self {
            Self::OneHost(_) => None,
            Self::Hosts { store, .. } => Some(store),
        }
    }
}

impl Started {
    /// Notes when the process was suspended (SIGSTOP) and when it went on.
    fn look_whether_suspended(&mut self) {
        // SAFETY: plain data to be filled. Without WEXITED an end is left to `Child`.
        let what = unsafe {
            let mut info: libc::siginfo_t = mem::zeroed();
            let flags = libc::WSTOPPED | libc::WCONTINUED | libc::WNOHANG;
            if libc::waitid(libc::P_PID, self.child.id(), &mut info, flags) != 0 || info.si_pid() == 0 {
                return;
            }
            info.si_code
        };
        self.suspended = if what == libc::CLD_STOPPED { Some(Instant::now()) } else { None };
    }
}

fn name_of(signal: i32) -> String {
    signal_hook::low_level::signal_name(signal).map_or_else(String::new, |name| format!(" ({name})"))
}

/// Ends what still runs, at once: a rank whose peers are gone has nothing left to save.
fn end(ranks: &mut [Started]) {
    for rank in ranks.iter_mut().filter(|r| r.ended.is_none()) {
        let _ = rank.child.kill();
    }
    for rank in ranks.iter_mut().filter(|r| r.ended.is_none()) {
        rank.ended = rank.child.wait().ok();
    }
}

/// Copies a rank's lines to standard error with its number before them; of a very long line the beginning.
fn forward(rank: usize, stream: impl Read + Send + 'static) -> JoinHandle<()> {
    thread::spawn(move || {
        let (mut stream, mut line) = (BufReader::new(stream), Vec::new());
        while let Ok((_, 1..)) = read_line(&mut stream, LONGEST_LINE, &mut line) {
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            let _ = writeln!(io::stderr().lock(), "[rank {rank}] {}", printable(&String::from_utf8_lossy(text)));
            line.clear();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_takes_what_its_launcher_decided() {
        let place = Place {
            rank: 1,
            world: 2,
            local_rank: 1,
            local_world: 2,
            shared_store: None,
            one_host: true,
            host: None,
            port: None,
            store_kept: true,
            attempt: "0".into(),
            timeout: Duration::from_secs(1),
        };
        let handed = serde_json::to_string(&Decided { device: DeviceChoice::Cpu, job: vec!["a", "b"].into() }).unwrap();
        let decided = Some(serde_json::from_str(&handed).unwrap());
        let role = Role::Rank(Rank { place: place.clone(), decided });
        assert_eq!(role.device(DeviceChoice::Cuda(3)).unwrap(), DeviceChoice::Cpu);
        assert_eq!(role.handed_down::<Vec<String>>().unwrap().unwrap(), ["a", "b"]);
        assert!(role.handed_down::<u32>().unwrap_err().to_string().contains(LAUNCHED));
        assert!(!role.reports() && role.ranks() == (1..2) && role.world() == 2);

        // Of another launcher's rank nothing is decided.
        let role = Role::Rank(Rank { place, decided: None });
        assert_eq!(role.handed_down::<Vec<String>>().unwrap(), None);
        let shared = role.device(DeviceChoice::Cuda(3)).unwrap_err().to_string();
        assert!(shared.contains("--device cuda:3 with 2 processes"), "{shared}");
    }
}
