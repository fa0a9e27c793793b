//! Signals, processes, sockets, memory, and what a terminal is shown.

use std::{
    collections::HashSet,
    fs,
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hrm::checkpoint::safetensors_file;
use serde_json::{Value, json};

use crate::common::{
    self, at_start, fails, hrm, names, ok,
    processes::{alive, at_work, children, port, signal, wait_for},
    training::{bench, train, trained},
};

/// A run that goes on until it is disturbed.
const ENDLESS: &str = "checkpoint_path=run epochs=4000000 eval_interval=4000000";

fn piped(command: &mut Command) -> Result<Child> {
    Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// The end of a process that was disturbed, with all that it said.
fn end_of(child: Child) -> Result<(Option<i32>, String)> {
    let output = child.wait_with_output()?;
    Ok((output.status.code(), said(&output)))
}

/// An endless run on two processes, at work: its launcher and its ranks.
fn two_ranks(folder: &Path, more: &str) -> Result<(Child, Vec<u32>)> {
    let launcher = piped(&mut train(folder, &format!("{ENDLESS} --nproc-per-node 2 {more}")))?;
    wait_for("the first lines", || at_work(folder))?;
    let ranks = children(launcher.id())?;
    ensure!(ranks.len() == 2, "{ranks:?}");
    Ok((launcher, ranks))
}

/// The ranks of an endless run that another program starts, at work.
fn started_by_hand(folder: &Path, more: [&str; 2]) -> Result<[Child; 2]> {
    let port = port()?.to_string();
    let start = |rank: usize| {
        let mut command = train(folder, &format!("{ENDLESS} {}", more[rank]));
        command.envs([("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", &port)]);
        piped(command.env("RANK", rank.to_string()))
    };
    Ok([start(0)?, start(1)?])
}

/// Addresses at which a process listens.
fn listening(pid: u32) -> Result<Vec<SocketAddr>> {
    let mut inodes = HashSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let Ok(link) = fs::read_link(entry.path()) else { continue };
        let link = link.to_string_lossy().into_owned();
        inodes.extend(link.strip_prefix("socket:[").and_then(|l| l.strip_suffix(']')).map(str::to_owned));
    }
    let mut found = Vec::new();
    for (table, wide) in [("tcp", false), ("tcp6", true)] {
        for line in fs::read_to_string(format!("/proc/net/{table}"))?.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // 0A is LISTEN.
            if fields[3] != "0A" || !inodes.contains(fields[9]) {
                continue;
            }
            let (address, port) = fields[1].split_once(':').context("an address")?;
            let port = u16::from_str_radix(port, 16)?;
            let local = !wide && u32::from_str_radix(address, 16)?.swap_bytes() >> 24 == 127;
            let address = if local { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
            found.push((address, port).into());
        }
    }
    Ok(found)
}

/// Connections that say nonsense, some of it in the form of torch's store; they stay open.
fn strangers(at: SocketAddr) -> Result<Vec<TcpStream>> {
    let mut open = Vec::new();
    for kind in 0..40u8 {
        let mut stream = TcpStream::connect(at)?;
        let mut words = match kind % 4 {
            0 => vec![kind.wrapping_mul(37); 3000],
            1 => u64::from(kind / 4).to_le_bytes().repeat(8),
            2 => (1u64 << 62).to_le_bytes().repeat(8),
            _ => [&[0][..], &0x3C85_F7CE_u32.to_le_bytes(), &[kind / 4], &(1u64 << 62).to_le_bytes()].concat(),
        };
        words.extend(*b"x");
        // The other side may have closed it already.
        let _ = stream.write_all(&words);
        open.push(stream);
    }
    Ok(open)
}

fn lines_of(run: &Path) -> usize {
    fs::read(run.join("metrics.jsonl")).map_or(0, |text| text.iter().filter(|&&byte| byte == b'\n').count())
}

#[test]
fn on_one_host_every_socket_is_on_loopback_and_strangers_disturb_nobody() -> Result<()> {
    let folder = bench()?;
    let run = folder.path().join("run");
    let (launcher, ranks) = two_ranks(folder.path(), "")?;
    assert!(listening(launcher.id())?.is_empty(), "the launched processes' store is no socket");
    let sockets: Vec<SocketAddr> = [listening(ranks[0])?, listening(ranks[1])?].concat();
    assert!(!sockets.is_empty() && sockets.iter().all(|at| at.ip().is_loopback()), "{sockets:?}");
    let open: Vec<_> = sockets.into_iter().map(strangers).collect::<Result<_>>()?;
    let before = lines_of(&run);
    wait_for("the run to go on", || Ok(lines_of(&run) > before + 50))?;
    signal(launcher.id(), libc::SIGTERM);
    let (code, text) = end_of(launcher)?;
    assert_eq!(code, Some(130), "{text}");
    assert!(text.contains("stopped at step"), "{text}");
    drop(open);

    fs::remove_dir_all(run)?;
    let ranks = started_by_hand(folder.path(), ["", ""])?;
    wait_for("the first lines", || at_work(folder.path()))?;
    let sockets: Vec<SocketAddr> = [listening(ranks[0].id())?, listening(ranks[1].id())?].concat();
    assert!(sockets.len() >= 3 && sockets.iter().all(|at| at.ip().is_loopback()), "{sockets:?}");
    signal(ranks[0].id(), libc::SIGTERM);
    for rank in ranks {
        let (code, text) = end_of(rank)?;
        assert_eq!(code, Some(130), "{text}");
    }
    Ok(())
}

#[test]
fn a_suspended_rank_of_a_training_is_named_within_the_peer_timeout() -> Result<()> {
    let folder = bench()?;
    for victim in [0, 1] {
        let (launcher, ranks) = two_ranks(folder.path(), "--peer-timeout 1")?;
        signal(ranks[victim], libc::SIGSTOP);
        let (code, text) = end_of(launcher)?;
        assert_eq!(code, Some(1), "{text}");
        let wanted =
            format!("error: rank {victim} was suspended and did not answer for 1 s: all 2 processes were stopped");
        assert!(text.contains(&wanted), "{text}");
        assert!(ranks.iter().all(|&pid| !alive(pid)));
        fs::remove_dir_all(folder.path().join("run"))?;
    }
    // Where nobody watches over the ranks, the others find out.
    let [first, mut second] = started_by_hand(folder.path(), ["--peer-timeout 1"; 2])?;
    wait_for("the first lines", || at_work(folder.path()))?;
    signal(second.id(), libc::SIGSTOP);
    let (code, text) = end_of(first)?;
    second.kill()?;
    second.wait()?;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("rank 1 did not answer for 1 s"), "{text}");
    Ok(())
}

#[test]
fn a_suspended_rank_of_an_evaluation_is_named_within_the_peer_timeout() -> Result<()> {
    let folder = trained()?;
    let infer = |more: &str| {
        let mut command = hrm(folder.path());
        command.args("infer --checkpoint run --data-path data --threads 1 --device cpu --batch-size 1".split(' '));
        command.args(["--peer-timeout", "1"]).args(more.split_whitespace());
        command
    };
    let launcher = piped(&mut infer("--segments 100000 --output r.jsonl --nproc-per-node 2"))?;
    wait_for("the second part", || Ok(folder.path().join("r.shard-2-of-2.jsonl").exists()))?;
    let ranks = children(launcher.id())?;
    signal(ranks[1], libc::SIGSTOP);
    let (code, text) = end_of(launcher)?;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("error: rank 1 was suspended and did not answer for 1 s"), "{text}");
    assert!(ranks.iter().all(|&pid| !alive(pid)));

    // Where nobody watches over the ranks, rank 0 finds out, when it is done with its own part.
    let rank = |number: &str, more: &str| {
        let mut command = infer(&format!("--output s.jsonl {more}"));
        piped(command.env("RANK", number).env("WORLD_SIZE", "2").env("LOCAL_RANK", number))
    };
    let mut second = rank("1", "--segments 100000")?;
    wait_for("the second part", || Ok(folder.path().join("s.shard-2-of-2.jsonl").exists()))?;
    signal(second.id(), libc::SIGSTOP);
    let (code, text) = end_of(rank("0", "--segments 1 --resume")?)?;
    second.kill()?;
    second.wait()?;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("rank 1 of 2 gave no sign of life for 1 s"), "{text}");
    Ok(())
}

/// A batch system warns with SIGUSR1 and ends with SIGTERM: the checkpoint that the first one asked for is written.
#[test]
fn a_signal_of_another_intent_does_not_cut_off_what_the_first_began() -> Result<()> {
    let folder = bench()?;
    let run = folder.path().join("run");
    for more in ["", "--nproc-per-node 2"] {
        for signals in [[libc::SIGUSR1, libc::SIGTERM], [libc::SIGUSR1; 2], [libc::SIGTERM, libc::SIGINT]] {
            let child = piped(&mut train(folder.path(), &format!("{ENDLESS} {more}")))?;
            wait_for("the first lines", || at_work(folder.path()))?;
            signals.iter().for_each(|&number| signal(child.id(), number));
            let (code, text) = end_of(child)?;
            assert_eq!(code, Some(130), "{more} {signals:?}: {text}");
            assert!(text.contains("stopped at step"), "{more} {signals:?}: {text}");
            assert!(names(&run)?.contains(&"latest".to_owned()));
            fs::remove_dir_all(&run)?;
        }
    }
    Ok(())
}

#[test]
fn the_same_signal_again_ends_all_processes_at_once() -> Result<()> {
    let folder = bench()?;
    let run = folder.path().join("run");
    // A step takes seconds.
    let large = "arch.hidden_size=512 arch.num_heads=8 arch.H_layers=4 arch.L_layers=4 global_batch_size=64";
    for number in [libc::SIGINT, libc::SIGTERM] {
        let launcher = piped(&mut train(folder.path(), &format!("{ENDLESS} {large} --nproc-per-node 2")))?;
        wait_for("the run's file", || Ok(run.join("metrics.jsonl").exists()))?;
        let ranks = children(launcher.id())?;
        signal(launcher.id(), number);
        signal(launcher.id(), number);
        // Two that come together may be one: until it ends, one more does no harm.
        let mut launcher = launcher;
        let ended = wait_for("the end", || {
            signal(launcher.id(), number);
            Ok(launcher.try_wait()?.is_some())
        });
        ended?;
        let (code, text) = end_of(launcher)?;
        assert_eq!(code, Some(130), "{text}");
        assert!(ranks.iter().all(|&pid| !alive(pid)));
        assert!(!names(&run)?.iter().any(|name| name.starts_with("step_")), "{text}");
        fs::remove_dir_all(&run)?;
    }
    Ok(())
}

/// Where there is no place to stop at, an interrupt ends the command: with the same exit code.
#[test]
fn interrupted_is_130_everywhere() -> Result<()> {
    let folder = trained()?;
    let commands: [&[&str]; 3] = [
        &["bench", "train", "--steps", "100000", "--batch-size", "1"],
        &["bench", "infer", "--steps", "100000", "--batch-size", "1"],
        &["solve", "--checkpoint", "run", "--segments", "100000", "--passes", "9", PUZZLE],
    ];
    let numbers = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1];
    for (words, number) in commands.iter().cycle().zip(numbers) {
        let mut command = hrm(folder.path());
        at_start(&mut command, libc::SIGHUP, libc::SIG_DFL);
        let mut child = piped(command.args(*words).args(["--device", "cpu", "--threads", "1"]))?;
        let pid = child.id();
        common::until(&mut child, || format!("{words:?}"), || common::catches(pid, number))?;
        signal(pid, number);
        let (code, text) = end_of(child)?;
        assert_eq!(code, Some(130), "{words:?} {number}: {text}");
    }
    Ok(())
}

const PUZZLE: &str = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79";

#[test]
fn an_interrupt_ends_the_wait_for_a_peer() -> Result<()> {
    let folder = bench()?;
    let mut command = train(folder.path(), ENDLESS);
    let port = port()?.to_string();
    command.envs([("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", &port)]);
    let child = piped(&mut command)?;
    wait_for("its store", || Ok(!listening(child.id())?.is_empty()))?;
    signal(child.id(), libc::SIGINT);
    let (code, text) = end_of(child)?;
    assert_eq!(code, Some(130), "{text}");
    assert!(text.contains("stopped while it waited for its peers"), "{text}");
    assert!(!folder.path().join("run").exists(), "nothing was begun");
    Ok(())
}

#[test]
fn ranks_that_differ_are_named_before_the_first_step() -> Result<()> {
    let folder = trained()?;
    // The same training puzzles with one test puzzle less.
    let other = "build-dataset --output-dir other --subsample-size 64 --hint --test-rows 19 --threads 1";
    ok(hrm(folder.path()).args(other.split(' ')))?;
    // Another seed's weights under the same configuration.
    let seeded = "checkpoint_path=seeded seed=1 epochs=4 eval_interval=4";
    ok(&mut train(folder.path(), seeded))?;
    for (run, from) in [("one", "run"), ("two", "seeded")] {
        let more = format!("checkpoint_path={run} init_from={from} epochs=4 eval_interval=4");
        ok(&mut train(folder.path(), &more))?;
    }
    let differ = [
        ("", "data_path=other", "the test data in other differ"),
        ("", "lr=1e-4", "lr was 0.002, is 0.0001"),
        ("--resume one", "--resume two", "two/step_16 is another checkpoint"),
        ("--resume one --force", "--resume one", "--force was given to one of them"),
    ];
    for (first, second, wanted) in differ {
        let more = if first.contains("--resume") {
            "epochs=4 eval_interval=4 checkpoint_path=one"
        } else {
            "checkpoint_path=new"
        };
        let [first, second] =
            started_by_hand(folder.path(), [&format!("{more} {first}"), &format!("{more} {second}")])?;
        let ((code, text), (other, _)) = (end_of(first)?, end_of(second)?);
        assert_eq!((code, other), (Some(1), Some(1)), "{text}");
        assert!(
            text.contains("error: rank 1 was started for a different run than rank 0") && text.contains(wanted),
            "{text}"
        );
    }
    Ok(())
}

/// One line that says what to do, from every command, where memory runs out.
#[test]
fn a_shortage_of_memory_is_one_line() -> Result<()> {
    let folder = trained()?;
    let of_run = "--checkpoint run --data-path data";
    let commands = [
        "infer --checkpoint run --bundled 10000 --batch-size 1048576 --permutes 9".into(),
        format!("eval {of_run} --batch-size 1048576"),
        format!("viz landscape {of_run} --grid -99..99 --batch-size 1048576 --output-dir l"),
        format!("viz flow {of_run} --grid -99..99 --batch-size 1048576 --output-dir f"),
        "bench infer arch.hidden_size=64 arch.num_heads=4 --batch-size 1048576".into(),
        "bench train arch.hidden_size=64 arch.num_heads=4 --batch-size 1048576".into(),
    ];
    for words in commands {
        let mut command = hrm(folder.path());
        command.args(words.split_whitespace()).args(["--device", "cpu", "--threads", "1"]);
        let mut limited = Command::new("bash");
        limited.args(["-c", "ulimit -v 1500000; exec \"$@\"", "bash"]).arg(command.get_program());
        let output = limited.args(command.get_args()).current_dir(folder.path()).output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{words}: {text}");
        let line = text.strip_prefix("error: ").with_context(|| format!("{words}: {text}"))?;
        assert!(line.lines().count() == 1 && line.contains("give a smaller --batch-size"), "{words}: {text}");
    }
    Ok(())
}

/// What Rust asks for is no other matter.
#[test]
fn no_memory_for_a_file_is_one_line_too() -> Result<()> {
    let folder = bench()?;
    let text = format!("source,question,answer,rating\n{}", "x".repeat(200 << 20));
    fs::write(folder.path().join("list.csv"), text)?;
    let mut limited = Command::new("bash");
    limited.args(["-c", "ulimit -v 600000; exec \"$@\"", "bash", env!("CARGO_BIN_EXE_hrm")]);
    limited.args(["dataset", "check", "list.csv", "--threads", "1"]);
    let output = limited.current_dir(folder.path()).output()?;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "{}", said(&output));
    Ok(())
}

#[test]
fn work_without_end_is_refused_or_announced() -> Result<()> {
    let folder = trained()?;
    let cpu = ["--device", "cpu", "--threads", "1"];
    let refused = [
        ("bench train --steps 4294967295", "1..=100000"),
        ("bench infer --warm 4294967295", "0..=100000"),
        ("bench infer arch.H_cycles=1000000", "arch.H_cycles=1000000: must be an integer from 1 to 10000"),
        ("train data_path=data arch.L_cycles=1000000", "arch.L_cycles=1000000: must be an integer from 1 to 10000"),
        ("train data_path=data arch.halt_max_steps=1000000", "arch.halt_max_steps=1000000: must be"),
        ("infer --checkpoint run --segments 1000000", "1..=100000"),
        ("eval --checkpoint run --segments 1000000", "1..=100000"),
        ("analyze segments --checkpoint run --segments 1000000", "1..=100000"),
        ("analyze attention --checkpoint run --data-path data --segment 1000000", "segments count from 1 to 100000"),
        ("trace --checkpoint run --segments 1000000", "1..=100000"),
        ("report --checkpoint run --segments 1000000", "1..=100000"),
        ("viz flow --checkpoint run --segments 1000000", "1..="),
    ];
    for (words, wanted) in refused {
        let text = fails(hrm(folder.path()).args(words.split_whitespace()).args(cpu))?;
        assert!(text.contains(wanted), "{words}: {text}");
    }
    let text =
        fails(hrm(folder.path()).args(["solve", "--checkpoint", "run", "--segments", "1000000", PUZZLE]).args(cpu))?;
    assert!(text.contains("1..=100000"), "{text}");

    // What a checkpoint's configuration says is held to the same.
    let config = folder.path().join("run/step_32/all_config.yaml");
    let yaml = fs::read_to_string(&config)?.replace("H_cycles: 2", "H_cycles: 1000000");
    ok(Command::new("cp").args(["-r", "run/step_32/model.safetensors", "."]).current_dir(folder.path()))?;
    fs::write(folder.path().join("all_config.yaml"), yaml)?;
    let text = fails(hrm(folder.path()).args(["solve", "--checkpoint", "model.safetensors", PUZZLE]).args(cpu))?;
    assert!(text.contains("H_cycles=1000000: must be an integer from 1 to 10000"), "{text}");

    let announced = [
        "bench train --steps 100000",
        "infer --checkpoint run --segments 100000 --permutes 9",
        "eval --checkpoint run --data-path data --segments 100000",
        "analyze segments --checkpoint run --data-path data --segments 65536",
        "viz flow --checkpoint run --data-path data --segments 4096 --settle 4 --grid -50..50",
    ];
    for (k, words) in announced.into_iter().enumerate() {
        let path = folder.path().join(format!("said-{k}"));
        let mut command = hrm(folder.path());
        command.args(words.split_whitespace()).args(cpu).stdout(fs::File::create(&path)?).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let text = || fs::read_to_string(&path).unwrap_or_default();
        common::until(&mut child, text, || text().contains("all of it takes at least"))?;
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}

/// A run's name may look like one of our own.
#[test]
fn a_run_of_any_name_goes_on() -> Result<()> {
    let folder = bench()?;
    let part = "epochs=4 eval_interval=2 project_name=P";
    for name in ["step_one", "step_100", "latest", "model.safetensors", "checkpoint", ".step_5.part", "it's $HOME"] {
        let named = format!("run_name={name}");
        let run = format!("checkpoints/P/{name}");
        ok(train(folder.path(), &format!("{part} max_minutes=0.00001")).arg(&named))?;
        let output = ok(train(folder.path(), &format!("{part} max_minutes=0.00001 --resume auto")).arg(&named))?;
        assert!(output.stdout.contains("going on    from step"), "{name}: {}", output.stdout);
        let mut command = hrm(folder.path());
        command.args(["train", "--resume", &run, "max_minutes=null", "--device", "cpu", "--threads", "1"]);
        let output = ok(&mut command)?;
        assert!(output.stdout.contains("done: 16 steps"), "{name}: {}", output.stdout);
        ok(hrm(folder.path()).args(["checkpoint", "inspect", &run]))?;
        let listed = ok(hrm(folder.path()).args(["runs", "checkpoints", "--json", "-"]))?;
        assert!(serde_json::from_str::<Value>(&listed.stdout)?.to_string().contains(&run), "{}", listed.stdout);
        // Without a name the newest run is taken, but for hidden folders.
        if !name.starts_with('.') {
            let taken = ok(hrm(folder.path()).args(["checkpoint", "inspect"]))?;
            assert!((taken.stdout + &taken.stderr).contains(&run), "{name}");
        }
        fs::remove_dir_all(folder.path().join("checkpoints"))?;
    }
    Ok(())
}

/// The commands that are printed can be pasted, whatever the folder is called.
#[test]
fn printed_commands_can_be_pasted() -> Result<()> {
    let folder = bench()?;
    let run = "it's \"my\" $HOME\n`run`\u{1b}[2J";
    let output = ok(train(folder.path(), "max_minutes=0.00001").arg(format!("checkpoint_path={run}")))?;
    let line = output.stdout.lines().find_map(|line| line.strip_prefix("go on:      hrm ")).context("a command")?;
    let paste = |line: &str| {
        let line = format!("\"$0\" {line} --device cpu --threads 1");
        let mut command = Command::new("bash");
        command.args(["-c", &line, env!("CARGO_BIN_EXE_hrm")]).current_dir(folder.path());
        command
    };
    let output = ok(&mut paste(line))?;
    assert!(output.stdout.contains("going on    from step"), "{}", output.stdout);
    let line = output.stdout.lines().find_map(|line| line.strip_prefix("try it:     hrm ")).context("a command")?;
    ok(&mut paste(&format!("{line} --data-path data")))?;

    let text = fails(&mut train(folder.path(), "data_path=no/where's"))?;
    let built = text.split("hrm build-dataset ").nth(1).context("a command")?;
    let built = built.split(['`', ';', ')']).next().unwrap_or_default().trim();
    ok(&mut paste(&format!("build-dataset {built} --subsample-size 8 --test-rows 8")))?;
    ok(&mut train(folder.path(), "data_path=no/where's checkpoint_path=there --dry-run global_batch_size=4"))?;
    Ok(())
}

const ESCAPES: &str = "\u{1b}]0;PWN\u{7}\u{9b}2J\u{202e}\r";

/// Runs a command; what it shows has no character that a terminal would act on, but quotes what it was given.
fn shows_no_controls(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    let text = said(&output);
    let found = text.chars().find(|&c| hrm::escape::is_control(c) && !matches!(c, '\n' | '\t'));
    assert!(found.is_none(), "{command:?}: {found:?} in {text:?}");
    assert!(text.contains("PWN") || text.contains("\\u{1b}"), "{command:?}: {text}");
    Ok(())
}

#[test]
fn control_characters_of_files_are_escaped_before_a_terminal_sees_them() -> Result<()> {
    let folder = trained()?;
    let at = |name: &str| folder.path().join(name);
    let show = |words: &[&str]| shows_no_controls(hrm(folder.path()).args(words).args(["--device", "cpu"]));

    // A tensor's name, meta.json and a configuration's path; as text, as JSON, and in the error of a model that does not fit.
    fs::create_dir(at("odd"))?;
    let mut tensors = safetensors_file::read(&at("run/step_32/model.safetensors"))?;
    tensors[0].0 = ESCAPES.to_owned();
    safetensors_file::write(&at("odd/model.safetensors"), hrm::store::Existing::Replace, &tensors)?;
    let yaml = fs::read_to_string(at("run/all_config.yaml"))?;
    let escaped = "data_path: \"a\\e]0;PWN\\a\\x9b2J\"";
    fs::write(at("odd/all_config.yaml"), yaml.replace("data_path: data", escaped))?;
    fs::write(
        at("odd/meta.json"),
        json!({"hrm_version": ESCAPES, "command_line": [ESCAPES], "x": ESCAPES}).to_string(),
    )?;
    show(&["checkpoint", "inspect", "odd"])?;
    show(&["checkpoint", "inspect", "odd", "--json", "-"])?;
    show(&["solve", "--checkpoint", "odd", PUZZLE])?;

    // Lists of puzzles, datasets, results and metrics.
    fs::write(at("list.csv"), format!("source,question,answer,rating\nx,{ESCAPES},{ESCAPES},1\n"))?;
    show(&["build-dataset", "--source", "list.csv", "--output-dir", "new"])?;
    show(&["dataset", "check", "list.csv"])?;
    fs::write(at("puzzle.txt"), ESCAPES)?;
    show(&["solve", "--checkpoint", "run", "--file", "puzzle.txt"])?;
    fs::write(at("r.jsonl"), format!("{{\"{}\": 1}}\n", ESCAPES.escape_default()))?;
    fs::create_dir_all(at("runs").join(ESCAPES))?;
    fs::write(at("runs").join(ESCAPES).join("metrics.jsonl"), "{}\n{\"step\": 1, \"train/lm_loss\": 1.0}\n")?;
    show(&["runs", "runs"])?;
    show(&["runs", "runs", "--json", "-"])?;
    fs::write(at("runs").join(ESCAPES).join("metrics.jsonl"), "[\n{}\n")?;
    show(&["runs", "runs"])?;
    fs::write(at("bad.yaml"), format!("{}: 1\n", "\"a\\e]0;PWN\\a\""))?;
    show(&["train", "--config", "bad.yaml"])?;
    // Names that are no file's.
    show(&["checkpoint", "inspect", ESCAPES])?;
    show(&["infer", "--merge", ESCAPES])?;
    show(&["checkpoint", "inspect", "odd", "x\u{9b}PWN"])?;
    show(&["train", &format!("{ESCAPES}=1")])?;
    Ok(())
}

/// The time that a suspended process may take to be named is not the suspended process's own.
#[test]
fn a_rank_that_goes_on_in_time_is_not_lost() -> Result<()> {
    let folder = bench()?;
    let run = folder.path().join("run");
    let (launcher, ranks) = two_ranks(folder.path(), "--peer-timeout 60")?;
    signal(ranks[1], libc::SIGSTOP);
    wait_for("the rank to be suspended", || {
        Ok(fs::read_to_string(format!("/proc/{}/stat", ranks[1]))?.contains(") T "))
    })?;
    signal(ranks[1], libc::SIGCONT);
    let (before, since) = (lines_of(&run), Instant::now());
    wait_for("the run to go on", || Ok(lines_of(&run) > before + 20))?;
    assert!(since.elapsed() < Duration::from_secs(60));
    signal(launcher.id(), libc::SIGINT);
    assert_eq!(end_of(launcher)?.0, Some(130));
    Ok(())
}
