//! Many processes from one command: starts this program once for every rank, as torchrun does, and ends them together.
//!
//! Rank 0 has the terminal. What the others write to standard error is shown with their rank before it. The launchers of
//! several hosts meet in the store that the first of them keeps.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    num::NonZero,
    ops::Range,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{self, Child, Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1},
    iterator::Signals,
};

use super::{interrupt, ui};
use crate::runtime::{
    CudaState, DeviceChoice,
    dist::{PEER_TIMEOUT_VARIABLE, PeerLost, Place, Store, peer_timeout},
};

/// Set in the environment of the ranks that we start: their launch flags have been followed already.
const LAUNCHED: &str = "HRM_LAUNCHED";

/// torchrun's.
const DEFAULT_PORT: u16 = 29500;

/// How often children and signals are looked at, and how often the other launchers.
const TICK: Duration = Duration::from_millis(50);
const STORE_TICK: Duration = Duration::from_millis(500);

/// How long a rank that lost a peer says nothing: by then its launcher, ours or torchrun, has told which one ended first,
/// and has ended it.
const HOLD_BACK: Duration = Duration::from_secs(5);

/// How long the first launcher keeps the store for the others after its own ranks have ended.
const FAREWELL: Duration = Duration::from_secs(30);

/// Flags of every command that can run as many processes.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Many processes")]
pub struct LaunchArgs {
    /// Start N processes on this host, one for each GPU, that share the work; `gpu` counts the GPUs
    #[arg(long, value_name = "N|gpu")]
    nproc_per_node: Option<Processes>,
    /// Number of hosts; the same command is started on each, with its own --node-rank [default: 1]
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=1 << 16), requires = "nproc_per_node")]
    nnodes: Option<u32>,
    /// This host's number, from 0
    #[arg(long, value_name = "R", requires = "nnodes")]
    node_rank: Option<u32>,
    /// Name or address of host 0
    #[arg(long, value_name = "HOST", requires = "nnodes")]
    master_addr: Option<String>,
    /// A free port of host 0 [default: 29500; on one host any free one]
    #[arg(long, value_name = "PORT", requires = "nproc_per_node")]
    master_port: Option<u16>,
    /// Seconds to wait for a process that does not come or does not answer [default: HRM_PEER_TIMEOUT, else 600]
    #[arg(long, value_name = "SECONDS")]
    peer_timeout: Option<String>,
}

/// `--nproc-per-node`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Processes {
    Number(usize),
    Gpus,
}

impl std::str::FromStr for Processes {
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
    Alone,
    /// One of several.
    Rank(Place),
    /// It starts the ranks.
    Launcher(Launch),
}

impl Role {
    /// Whether another process prints what this one would.
    pub fn speaks_not(&self) -> bool {
        match self {
            Self::Alone => false,
            Self::Rank(place) => place.rank > 0,
            Self::Launcher(_) => true,
        }
    }

    /// The ranks that this process is or starts.
    pub fn ranks(&self) -> Range<usize> {
        match self {
            Self::Launcher(launch) => launch.node * launch.local_world..(launch.node + 1) * launch.local_world,
            _ => self.rank()..self.rank() + 1,
        }
    }

    pub fn rank(&self) -> usize {
        match self {
            Self::Rank(place) => place.rank,
            _ => 0,
        }
    }

    /// Number of processes that share the work.
    pub fn world(&self) -> usize {
        match self {
            Self::Alone => 1,
            Self::Rank(place) => place.world,
            Self::Launcher(launch) => launch.nodes * launch.local_world,
        }
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
}

impl LaunchArgs {
    /// From the flags and the environment.
    ///
    /// # Errors
    /// Flags that do not fit together or the environment.
    pub fn role(&self, device: DeviceChoice) -> Result<Role> {
        let launched = env::var_os(LAUNCHED).is_some();
        if let Some(seconds) = &self.peer_timeout {
            peer_timeout(Some(seconds)).map_err(|_| anyhow!("--peer-timeout {seconds}: give a number of seconds"))?;
        }
        let place = Place::from_env()?.map(|place| -> Result<Place> {
            let timeout = peer_timeout(self.peer_timeout.as_deref())?;
            Ok(if self.peer_timeout.is_some() { Place { timeout, ..place } } else { place })
        });
        let wanted = match self.nproc_per_node.filter(|_| !launched) {
            None => None,
            Some(Processes::Number(n)) => Some(n),
            Some(Processes::Gpus) => {
                let state = CudaState::probe();
                Some(state.usable.map_err(|why| anyhow!("--nproc-per-node gpu: {why}"))?)
            }
        };
        match (place.transpose()?, wanted) {
            (Some(_), Some(_)) => {
                bail!("RANK and WORLD_SIZE are set, so another launcher is at work: leave --nproc-per-node to it")
            }
            (Some(place), None) => Ok(Role::Rank(place)),
            (None, Some(local_world)) => {
                let launch = self.launch(local_world)?;
                if launch.nodes * launch.local_world == 1 {
                    return Ok(Role::Alone);
                }
                check_gpus(device, local_world)?;
                Ok(Role::Launcher(launch))
            }
            (None, None) => Ok(Role::Alone),
        }
    }

    fn launch(&self, local_world: usize) -> Result<Launch> {
        let nodes = usize::try_from(self.nnodes.unwrap_or(1))?;
        let node = usize::try_from(self.node_rank.unwrap_or(0))?;
        ensure!(node < nodes, "--node-rank {node} with --nnodes {nodes}: hosts go from 0 to {}", nodes - 1);
        if nodes > 1 {
            ensure!(self.node_rank.is_some(), "--nnodes {nodes}: say with --node-rank which of them this host is");
            ensure!(self.master_addr.is_some(), "--nnodes {nodes}: name host 0 with --master-addr");
        }
        let value = self.peer_timeout.clone().or_else(|| env::var(PEER_TIMEOUT_VARIABLE).ok());
        Ok(Launch {
            nodes,
            node,
            local_world,
            host: self.master_addr.clone().unwrap_or_else(|| "127.0.0.1".into()),
            port: self.master_port.unwrap_or(if nodes > 1 { DEFAULT_PORT } else { 0 }),
            timeout: peer_timeout(value.as_deref())?,
        })
    }
}

fn check_gpus(device: DeviceChoice, local_world: usize) -> Result<()> {
    if device == DeviceChoice::Cpu {
        return Ok(());
    }
    match CudaState::probe().usable {
        Ok(gpus) => ensure!(
            local_world <= gpus,
            "--nproc-per-node {local_world}: this machine has {gpus} usable GPU(s): give {gpus} or less, or --device cpu"
        ),
        // `auto` goes on with the CPU; the ranks say why, as a single process does.
        Err(why) => ensure!(device == DeviceChoice::Auto, "--device cuda: {why}"),
    }
    Ok(())
}

/// The device for one of several processes: `auto` and `cuda` mean the GPU of its own number.
///
/// # Errors
/// One GPU named for all of them, or too few.
pub fn device_of(place: &Place, choice: DeviceChoice) -> Result<DeviceChoice> {
    match choice {
        DeviceChoice::Cpu => Ok(DeviceChoice::Cpu),
        DeviceChoice::Cuda(n) if n > 0 => {
            bail!("--device cuda:{n} with {} processes: each has a GPU of its own, so give --device cuda", place.world)
        }
        DeviceChoice::Auto | DeviceChoice::Cuda(_) => match CudaState::probe().usable {
            Ok(gpus) => {
                ensure!(
                    place.local_rank < gpus,
                    "rank {} has the number {} on this host, which has {gpus} usable GPU(s): start that many processes \
                     a host, or give --device cpu",
                    place.rank,
                    place.local_rank
                );
                Ok(DeviceChoice::Cuda(place.local_rank))
            }
            Err(_) => Ok(choice),
        },
    }
}

/// Before an error is printed: a rank that lost a peer waits to be ended, so that the peer's own end is told instead of
/// its consequences; and rank 0 goes first, as all ranks may have met the same error.
pub fn hold_back(error: &anyhow::Error) {
    if error.downcast_ref::<PeerLost>().is_some() {
        thread::sleep(HOLD_BACK);
    } else if ui::silent() && env::var_os("RANK").is_some() {
        thread::sleep(HOLD_BACK / 5);
    }
}

/// One rank that was started.
struct Rank {
    rank: usize,
    child: Child,
    ended: Option<ExitStatus>,
    readers: Vec<JoinHandle<()>>,
}

impl Launch {
    /// Starts the ranks with this program's own arguments and waits for them. Returns the exit code: 0, or that of a
    /// command which was asked to stop.
    ///
    /// # Errors
    /// A rank of any host that failed, by name; all of them have ended then.
    pub fn run(self) -> Result<i32> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1]).context("cannot listen for signals")?;
        let (store, port) = if self.node == 0 {
            Store::serve(self.port)?
        } else {
            (Store::connect(&self.host, self.port, self.timeout)?, self.port)
        };
        let store = store.prefixed("launch/")?;
        self.same_on_all_hosts(&store)?;
        let mut ranks = Vec::new();
        let outcome = self.start(port, &mut ranks).and_then(|()| self.watch(&mut ranks, &store, &mut signals));
        if outcome.is_err() {
            end(&mut ranks);
        }
        for reader in ranks.iter_mut().flat_map(|r| r.readers.drain(..)) {
            let _ = reader.join();
        }
        self.part(&store, outcome.as_ref().err());
        outcome
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
                None if start.elapsed() >= self.timeout => bail!("{}:{} is no store of ours", self.host, self.port),
                None => thread::sleep(TICK),
            }
        }
    }

    fn start(&self, port: u16, ranks: &mut Vec<Rank>) -> Result<()> {
        let program = env::current_exe().context("cannot find this program's own file")?;
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let threads = (cores / self.local_world).max(1);
        for local in 0..self.local_world {
            let rank = self.node * self.local_world + local;
            let mut command = Command::new(&program);
            command.args(env::args_os().skip(1)).stdin(Stdio::null());
            for (name, value) in [
                ("RANK", rank.to_string()),
                ("WORLD_SIZE", (self.nodes * self.local_world).to_string()),
                ("LOCAL_RANK", local.to_string()),
                ("LOCAL_WORLD_SIZE", self.local_world.to_string()),
                ("MASTER_ADDR", self.host.clone()),
                ("MASTER_PORT", port.to_string()),
                ("TORCHELASTIC_USE_AGENT_STORE", "True".into()),
                (LAUNCHED, "1".into()),
            ] {
                command.env(name, value);
            }
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
            ranks.push(Rank { rank, child, ended: None, readers });
        }
        Ok(())
    }

    fn watch(&self, ranks: &mut [Rank], store: &Store, signals: &mut Signals) -> Result<i32> {
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
            let stopped = |status: &ExitStatus| status.code() == Some(interrupt::INTERRUPTED);
            for rank in ranks.iter_mut().filter(|r| r.ended.is_none()) {
                rank.ended = rank.child.try_wait().context("cannot wait for a rank")?;
                if let Some(status) = rank.ended.filter(|s| !s.success() && !stopped(s)) {
                    bail!("{}", self.obituary(rank.rank, status));
                }
            }
            if ranks.iter().all(|r| r.ended.is_some()) {
                let any = ranks.iter().any(|r| r.ended.as_ref().is_some_and(stopped));
                return Ok(if any || asked_to_stop { interrupt::INTERRUPTED } else { 0 });
            }
            if self.nodes > 1 && looked.elapsed() >= STORE_TICK {
                looked = Instant::now();
                match store.get("failed") {
                    Ok(None) => {}
                    Ok(Some(why)) => bail!("{why}"),
                    Err(_) => bail!("the launcher of host 0 is gone: all ranks of this host were stopped"),
                }
            }
            thread::sleep(TICK);
        }
    }

    fn obituary(&self, rank: usize, status: ExitStatus) -> String {
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("failed with exit code {code}"),
            (_, Some(signal)) => format!("was killed by signal {signal}{}", name_of(signal)),
            _ => "ended".into(),
        };
        let on = if self.nodes > 1 { format!(" on host {}", self.node) } else { String::new() };
        format!("rank {rank}{on} {how}: all {} processes were stopped", self.nodes * self.local_world)
    }

    /// Tells the other launchers how it went here. The first one keeps the store until they know.
    fn part(&self, store: &Store, error: Option<&anyhow::Error>) {
        if self.nodes == 1 {
            return;
        }
        if let Some(error) = error {
            let _ = store.set("failed", &format!("{error:#}"));
        }
        let _ = store.set(&format!("done/{}", self.node), "1");
        let patience = if error.is_some() { FAREWELL / 6 } else { FAREWELL };
        let start = Instant::now();
        let waiting =
            |store: &Store| (1..self.nodes).any(|node| matches!(store.get(&format!("done/{node}")), Ok(None)));
        while self.node == 0 && start.elapsed() < patience && waiting(store) {
            thread::sleep(TICK);
        }
    }
}

fn name_of(signal: i32) -> String {
    signal_hook::low_level::signal_name(signal).map_or_else(String::new, |name| format!(" ({name})"))
}

/// Ends what still runs, at once: a rank whose peers are gone has nothing left to save.
fn end(ranks: &mut [Rank]) {
    for rank in ranks.iter_mut().filter(|r| r.ended.is_none()) {
        let _ = rank.child.kill();
    }
    for rank in ranks.iter_mut().filter(|r| r.ended.is_none()) {
        rank.ended = rank.child.wait().ok();
    }
}

/// Copies a rank's lines to standard error with its number before them.
fn forward(rank: usize, stream: impl Read + Send + 'static) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(line) = line else { return };
            let _ = writeln!(io::stderr().lock(), "[rank {rank}] {}", String::from_utf8_lossy(&line));
        }
    })
}

/// Runs the launcher to its end, and ends the process as its ranks did.
///
/// # Errors
/// Those of [`Launch::run`].
pub fn run(launch: Launch) -> Result<()> {
    match launch.run()? {
        0 => Ok(()),
        code => process::exit(code),
    }
}
