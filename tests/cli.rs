//! The command line as a user meets it: help, version, completions, manual, doctor, errors.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use clap::CommandFactory;
use serde_json::Value;

fn hrm(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hrm"));
    command.current_dir(folder).stdin(Stdio::null()).env_remove("OMP_NUM_THREADS");
    command
}

fn run(folder: &Path, args: &[&str]) -> Output {
    hrm(folder).args(args).output().expect("the binary starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn succeed(folder: &Path, args: &[&str]) -> String {
    let output = run(folder, args);
    assert!(output.status.success(), "hrm {args:?}: {}", stderr(&output));
    stdout(&output)
}

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Every path of subcommands, e.g. `["viz", "trajectory"]`; aliases and clap's own `help` left out.
fn all_commands() -> Vec<Vec<String>> {
    fn walk(command: &clap::Command, path: &[String], found: &mut Vec<Vec<String>>) {
        for sub in command.get_subcommands().filter(|c| c.get_name() != "help") {
            let path = [path, &[sub.get_name().to_owned()]].concat();
            found.push(path.clone());
            walk(sub, &path, found);
        }
    }
    let mut found = Vec::new();
    walk(&hrm::cli::Cli::command(), &[], &mut found);
    found
}

#[test]
fn help_of_every_command_says_what_it_does_and_how_to_call_it() {
    let dir = temp();
    let commands = all_commands();
    for wanted in ["build-dataset", "train", "infer", "viz", "checkpoint", "doctor", "completions", "man"] {
        assert!(commands.iter().any(|c| c == &[wanted.to_owned()]), "{wanted} is a command");
    }
    let overview = succeed(dir.path(), &["--help"]);
    for path in commands {
        let mut args: Vec<&str> = path.iter().map(String::as_str).collect();
        args.push("--help");
        let text = succeed(dir.path(), &args);
        assert!(text.contains(&format!("Usage: hrm {}", path.join(" "))), "{path:?}: {text}");
        let about = text.lines().next().unwrap_or_default();
        assert!(about.len() > 10 && !about.starts_with("Usage"), "{path:?} begins with what it does: {text}");
        assert!(text.contains("--device") && text.contains("--threads") && text.contains("--seed"), "{path:?}: {text}");
        if path.len() == 1 {
            assert!(overview.contains(about), "hrm --help lists {path:?} as: {about}");
        }
    }
}

#[test]
fn clap_finds_the_definition_sound() {
    hrm::cli::Cli::command().debug_assert();
}

#[test]
fn version_names_libtorch() {
    let dir = temp();
    let text = succeed(dir.path(), &["--version"]);
    assert_eq!(text, format!("hrm {} (libtorch 2.11.0)\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_for_the_usual_shells_know_the_commands() {
    let dir = temp();
    for (shell, sign) in [("bash", "complete -F"), ("zsh", "#compdef hrm"), ("fish", "complete -c hrm")] {
        let script = succeed(dir.path(), &["completions", shell]);
        for word in [sign, "build-dataset", "doctor"] {
            assert!(script.contains(word), "{shell}: {word} is missing");
        }
    }
    let bash = dir.path().join("hrm.bash");
    fs::write(&bash, succeed(dir.path(), &["completions", "bash"])).expect("written");
    let parsed = Command::new("bash").arg("-n").arg(&bash).status().expect("bash is there");
    assert!(parsed.success(), "bash can read its script");
}

#[test]
fn man_writes_a_page_for_every_command() {
    let dir = temp();
    let page = succeed(dir.path(), &["man"]);
    assert!(page.contains(".TH hrm 1") && page.contains("build\\-dataset"), "{page}");
    // Upstream's spelling of the flag, and a value whose underscore must stay.
    succeed(dir.path(), &["man", "--output_dir=pages_here"]);
    for path in all_commands() {
        let file = dir.path().join("pages_here").join(format!("hrm-{}.1", path.join("-")));
        assert!(file.is_file(), "{} was written", file.display());
    }
    assert!(dir.path().join("pages_here/hrm.1").is_file());
}

#[test]
fn a_broken_pipe_is_no_error() {
    let dir = temp();
    for args in [&["man"][..], &["completions", "bash"], &["doctor"], &["doctor", "--json", "-"], &["--help"]] {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let output = hrm(dir.path()).args(args).stdout(writer).output().expect("the binary starts");
        assert!(output.status.success(), "{args:?} ended with {}: {}", output.status, stderr(&output));
        assert!(!stderr(&output).contains("panicked"), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn a_reader_that_goes_away_costs_no_results() {
    let dir = temp();
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let args = ["build-dataset", "--output-dir", "d", "--json", "results.json"];
    let output = hrm(dir.path()).args(args).stdout(writer).output().expect("the binary starts");
    assert!(output.status.success(), "{}", stderr(&output));
    let results = fs::read(dir.path().join("results.json")).expect("the JSON is written all the same");
    assert_eq!(serde_json::from_slice::<Value>(&results).expect("JSON")["test"]["boards"], 2000);
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error() {
    let dir = temp();
    for args in [&["man"][..], &["completions", "bash"], &["doctor"], &["doctor", "--json", "-"]] {
        let full = fs::File::options().write(true).open("/dev/full").expect("it is there on Linux");
        let output = hrm(dir.path()).args(args).stdout(full).output().expect("the binary starts");
        assert!(!output.status.success(), "{args:?} lost its output");
        assert!(stderr(&output).contains("No space left"), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn json_that_cannot_be_written_is_refused_before_the_work() {
    let dir = temp();
    for (target, wanted) in [("", "an empty name"), (".", "this is a folder"), ("none/x.json", "no folder none")] {
        let output = run(dir.path(), &["build-dataset", "--output-dir", "d", "--json", target]);
        assert_eq!(output.status.code(), Some(2), "{target}");
        assert!(stderr(&output).contains(wanted), "{target}: {}", stderr(&output));
    }
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0, "nothing was written");
}

#[test]
fn wrong_flags_are_refused_with_a_hint() {
    let dir = temp();
    let typo = run(dir.path(), &["doctor", "--jsn", "-"]);
    assert_eq!(typo.status.code(), Some(2));
    assert!(stderr(&typo).contains("--json"), "suggests the nearest flag: {}", stderr(&typo));
    let device = run(dir.path(), &["doctor", "--device", "gpu"]);
    assert_eq!(device.status.code(), Some(2));
    assert!(stderr(&device).contains("cuda:N"), "{}", stderr(&device));
    assert_eq!(run(dir.path(), &["doctor", "--threads", "0"]).status.code(), Some(2));
    assert_eq!(run(dir.path(), &["no-such-command"]).status.code(), Some(2));
}

#[test]
fn upstreams_name_of_viz_is_accepted() {
    let dir = temp();
    assert_eq!(succeed(dir.path(), &["visualize", "--help"]), succeed(dir.path(), &["viz", "--help"]));
}

fn doctor(folder: &Path, args: &[&str]) -> Value {
    let text = succeed(folder, &[&["doctor", "--json", "-"], args].concat());
    serde_json::from_str(&text).expect("standard output is one JSON document")
}

#[test]
fn doctor_reports_on_an_empty_folder() {
    let dir = temp();
    let text = succeed(dir.path(), &["doctor", "--device", "cpu"]);
    for word in ["libtorch     2.11.0", "CPU", "memory", "CUDA", "attention    cpu bf16", "hrm build-dataset"] {
        assert!(text.contains(word), "{word} is missing: {text}");
    }
    let report = doctor(dir.path(), &[]);
    assert_eq!(report["libtorch"]["compiled"], "2.11.0");
    assert!(report["memory"]["total"].as_u64().is_some_and(|n| n > 1 << 28));
    let math = |dtype: &str| {
        let rows = report["attention"].as_array().expect("a list");
        rows.iter()
            .any(|r| r["device"] == "cpu" && r["dtype"] == dtype && r["backend"] == "math" && r["usable"] == true)
    };
    assert!(math("bf16") && math("f32"), "the plain attention always works: {report}");
    assert_eq!(report["data"]["datasets"].as_array().map(Vec::len), Some(0));
    assert_eq!(report["checkpoints"]["runs"].as_array().map(Vec::len), Some(0));
    succeed(dir.path(), &["doctor", "--json", "report.json"]);
    let written = fs::read(dir.path().join("report.json")).expect("the file was written");
    assert!(serde_json::from_slice::<Value>(&written).is_ok());
}

#[test]
fn a_trial_of_attention_leaves_the_flags_as_they_were() {
    use hrm::runtime::{SdpBackend, SdpFlags};
    let before = SdpFlags::current().expect("flags");
    let only_math = SdpFlags { flash: false, efficient: false, cudnn: false, math: true };
    only_math.apply().expect("flags");
    SdpBackend::Flash.try_on(tch::Device::Cpu, true).expect("flash attention has CPU kernels");
    SdpBackend::Cudnn.try_on(tch::Device::Cpu, false).expect_err("cuDNN has none");
    assert_eq!(SdpFlags::current().expect("flags"), only_math);
    before.apply().expect("flags");
    assert_eq!(SdpFlags::current().expect("flags"), before);
}

#[test]
fn doctor_finds_data_checkpoints_and_lfs_pointers() {
    let dir = temp();
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(path, text).expect("written");
    };
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/dataset/sudoku_noaug/train/dataset.json");
    write("data/mine/train/dataset.json", &fs::read_to_string(golden).expect("golden metadata"));
    write("data/broken/train/dataset.json", "{");
    write("checkpoints/Mine ACT-torch/run a/step_9", "weights");
    write("checkpoints/Mine ACT-torch/run a/step_10/model.safetensors", "weights");
    write(
        "checkpoint_example/Theirs/run b/example_checkpoint",
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    );
    let report = doctor(dir.path(), &[]);
    assert_eq!(report["data"]["datasets"][0]["path"], "data/mine");
    assert_eq!(report["data"]["datasets"][0]["splits"][0]["name"], "train");
    let runs = report["checkpoints"]["runs"].as_array().expect("a list");
    assert_eq!(runs[0]["weights"], serde_json::json!(["step_9", "step_10"]), "steps in order of their numbers");
    assert_eq!(runs[1]["lfs_pointers"], serde_json::json!(["example_checkpoint"]));
    let advice = report["advice"].to_string();
    assert!(advice.contains("git lfs pull --include=") && advice.contains("data/broken"), "{advice}");
}

#[test]
fn threads_come_from_the_flag_then_from_the_environment() {
    let dir = temp();
    assert_eq!(doctor(dir.path(), &["--threads", "1"])["cpu"]["threads"], 1);
    let output = hrm(dir.path())
        .args(["doctor", "--json", "-"])
        .env("OMP_NUM_THREADS", "3")
        .output()
        .expect("the binary starts");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["cpu"]["threads"], 3);
}

/// A GPU is only pretended: an nvidia-smi that lists one, on a machine whose driver does not answer.
#[test]
fn a_gpu_that_cannot_be_used_is_one_warning_that_names_the_library() {
    let dir = temp();
    let smi = dir.path().join("nvidia-smi");
    fs::write(&smi, "#!/bin/sh\necho 'GPU 0: Pretended (UUID: 0)'\n").expect("written");
    fs::set_permissions(&smi, fs::Permissions::from_mode(0o755)).expect("executable");
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap_or_default());
    let with_gpu = |args: &[&str]| {
        let mut command = hrm(dir.path());
        command.args(args).env("PATH", &path).env_remove("CUDA_VISIBLE_DEVICES").output().expect("the binary starts")
    };
    let works = hrm::runtime::CudaState::probe().usable.is_ok();
    let auto = with_gpu(&["doctor"]);
    assert!(auto.status.success(), "{}", stderr(&auto));
    let said = stderr(&auto);
    let named = with_gpu(&["doctor", "--device", "cuda"]);
    if works {
        assert_eq!(said, "");
        assert!(named.status.success());
        let high = with_gpu(&["doctor", "--device", "cuda:99"]);
        assert!(!high.status.success() && stderr(&high).contains("usable GPU"), "{}", stderr(&high));
        return;
    }
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("warning: ") && said.contains(".so") && said.contains("cannot"), "{said}");
    assert!(said.contains("make build CUDA=1") || said.contains("nvidia-smi"), "says what to do: {said}");
    assert!(!named.status.success());
    let error = stderr(&named);
    assert!(error.lines().count() == 1 && error.starts_with("error: --device cuda:0: "), "{error}");
    let hidden = hrm(dir.path())
        .args(["doctor"])
        .env("PATH", &path)
        .env("CUDA_VISIBLE_DEVICES", "")
        .output()
        .expect("the binary starts");
    assert_eq!(stderr(&hidden), "", "a user who hides the GPU wants no warning");
}
