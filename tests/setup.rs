//! scripts/setup_libtorch.py: what it says, in one line, where something is missing or wrong. Nothing here uses a
//! network: pip is pointed at a closed port.

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

struct Bench {
    dir: tempfile::TempDir,
}

/// An own folder for each test, on the disk that the project lies on (a set-up asks for room first).
fn bench() -> Bench {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    fs::create_dir(dir.path().join("bin")).expect("folder");
    Bench { dir }
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn dest(&self) -> PathBuf {
        self.path("libtorch")
    }

    /// The script under `python`, with the machine's compilers and a package index that nobody serves.
    fn script(&self, python: &Path) -> Command {
        let mut command = Command::new(python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/setup_libtorch.py"));
        command.arg("--dest").arg(self.dest()).stdin(Stdio::null());
        let swayed =
            ["LIBTORCH", "LIBTORCH_USE_PYTORCH", "TORCH_PYTHON", "CXX", "VIRTUAL_ENV", "http_proxy", "https_proxy"];
        for name in swayed.into_iter().chain(["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy", "PIP_NO_INDEX"]) {
            command.env_remove(name);
        }
        command.env("CARGO", env!("CARGO")).env("PIP_INDEX_URL", "http://127.0.0.1:9/simple").env("PIP_FIND_LINKS", "");
        command.env("PIP_EXTRA_INDEX_URL", "").env("PIP_CONFIG_FILE", "/dev/null");
        command
    }

    /// A folder that looks like a libtorch of `version`.
    fn libtorch(&self, at: &str, version: &str) -> PathBuf {
        let root = self.path(at);
        let library = if cfg!(target_os = "macos") { "lib/libtorch_cpu.dylib" } else { "lib/libtorch_cpu.so" };
        for (file, text) in [
            ("include/torch/headeronly/version.h", ""),
            (library, ""),
            ("version.py", &*format!("__version__ = '{version}'\n")),
        ] {
            let path = root.join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
            fs::write(path, text).expect("written");
        }
        root
    }

    fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
        path
    }

    fn path_with_programs(&self) -> String {
        format!("{}:{}", self.path("bin").display(), env::var("PATH").unwrap_or_default())
    }
}

/// The interpreter itself: what stands in PATH may be a wrapper that needs a PATH of its own.
fn python() -> PathBuf {
    let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().expect("python3");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Failed with one line on standard error that holds all `words`.
#[track_caller]
fn assert_fails(output: &Output, words: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "one line: {said}");
    assert!(said.starts_with("setup: "), "{said}");
    for word in words {
        assert!(said.contains(word), "'{word}' is missing: {said}");
    }
}

fn output(command: &mut Command) -> Output {
    command.output().expect("python starts")
}

#[test]
fn the_wrong_torch_in_libtorch_is_refused() {
    let b = bench();
    let old = b.libtorch("old", "2.9.1+cpu");
    assert_fails(&output(b.script(&python()).env("LIBTORCH", &old)), &["2.9.1", "2.11.0", "make setup"]);
    assert_fails(&output(b.script(&python()).env("LIBTORCH", b.path("none"))), &["no such folder", "make setup"]);
    assert_fails(&output(b.script(&python()).env("LIBTORCH", "some/folder")), &["not absolute"]);
    fs::remove_dir_all(old.join("lib")).expect("removed");
    assert_fails(&output(b.script(&python()).env("LIBTORCH", &old)), &["libtorch_cpu", "is missing"]);
    assert!(!b.dest().exists());
}

#[test]
fn an_exported_libtorch_of_the_right_version_is_used_as_it_is() {
    let b = bench();
    let right = b.libtorch("right", "2.11.0+cu130");
    let done = output(b.script(&python()).env("LIBTORCH", &right));
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(text(&done.stdout).contains("LIBTORCH="));
    assert!(!b.dest().exists(), "nothing was installed");
}

#[test]
fn a_missing_or_old_compiler_is_named() {
    let b = bench();
    let none = output(b.script(&python()).env("PATH", b.path("bin")));
    assert_fails(&none, &["no C++ compiler", "c++ is not in PATH", "apt-get install g++"]);
    let named = output(b.script(&python()).env("CXX", "no-such-compiler"));
    assert_fails(&named, &["no-such-compiler"]);
    b.program("c++", "echo 'unrecognized option -std=c++17' >&2; exit 1");
    let old = output(b.script(&python()).env("PATH", b.path_with_programs()));
    assert_fails(&old, &["does not compile C++17", "unrecognized option"]);
}

#[test]
fn missing_rust_is_named() {
    let b = bench();
    let none = output(b.script(&python()).env("PATH", b.path("bin")).env_remove("CARGO"));
    assert_fails(&none, &["cargo", "install Rust"]);
    b.program("cargo", "exit 0");
    b.program("rustc", "echo 'rustc 1.70.0 (0 2023-06-01)'");
    let old = output(b.script(&python()).env("PATH", b.path_with_programs()).env_remove("CARGO"));
    assert_fails(&old, &["Rust 1.70 is too old", "rustup update"]);
}

#[test]
fn a_python_without_pip_is_named() {
    let b = bench();
    let venv = b.path("venv");
    let made = Command::new(python()).args(["-m", "venv", "--without-pip"]).arg(&venv).status().expect("python starts");
    assert!(made.success());
    assert_fails(&output(b.script(&venv.join("bin/python")).args(["--cuda", "0"])), &["has no pip", "python3-pip"]);
}

#[test]
fn no_network_is_said_and_leaves_no_half_install() {
    let b = bench();
    // What an interrupted run left, and an install whose marker was never written.
    fs::create_dir_all(b.path("libtorch.part/torch")).expect("folders");
    b.libtorch("libtorch/torch", "2.11.0+cu130");
    let done = output(b.script(&python()).args(["--cuda", "0"]));
    assert_fails(&done, &["no network", "make setup"]);
    assert!(text(&done.stdout).contains("fetching libtorch 2.11.0"), "a folder without marker does not count");
    assert!(!b.dest().join(".installed.json").exists());
}

#[test]
fn what_is_installed_whole_is_not_fetched_again() {
    let b = bench();
    b.libtorch("libtorch/torch", "2.11.0+cu130");
    let marker = r#"{"version": "2.11.0", "kind": "lean", "cuda": "0"}"#;
    fs::write(b.dest().join(".installed.json"), marker).expect("written");
    let done = output(b.script(&python()).args(["--cuda", "auto"]));
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(text(&done.stdout).contains("is in place"));
    // Of another version: fetched anew.
    fs::write(b.dest().join(".installed.json"), marker.replace("2.11.0", "2.10.0")).expect("written");
    assert_fails(&output(b.script(&python()).args(["--cuda", "0"])), &["no network"]);
}

#[test]
fn where_a_gpu_is_seen_the_size_is_said_first_and_can_be_declined() {
    let b = bench();
    b.program("nvidia-smi", "echo 'GPU 0: Pretended (UUID: 0)'");
    let seen = output(b.script(&python()).env("PATH", b.path_with_programs()));
    let said = text(&seen.stdout);
    assert!(
        said.contains("NVIDIA GPU is seen") && said.contains("4.8 GB") && said.contains("CUDA=0` declines"),
        "{said}"
    );
    let declined = output(b.script(&python()).env("PATH", b.path_with_programs()).args(["--cuda", "0"]));
    let said = text(&declined.stdout);
    assert!(!said.contains("NVIDIA") && said.contains("1.2 GB"), "{said}");
}

#[test]
fn the_torch_of_a_python_is_linked_after_a_check() {
    let b = bench();
    let site = b.libtorch("site/torch", "2.11.0+cu130");
    let fake = b.program("fakepython", &format!("echo '{}'", site.display()));
    let done = output(b.script(&python()).env("TORCH_PYTHON", &fake));
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(fs::read_link(b.dest().join("torch")).expect("a link"), site);
    // It stays in use without being named again.
    let later = output(b.script(&python()).args(["--cuda", "0"]));
    assert!(text(&later.stdout).contains("is in place (link)"), "{}", text(&later.stderr));

    let old = b.libtorch("site-old/torch", "2.8.0");
    let fake = b.program("oldpython", &format!("echo '{}'", old.display()));
    assert_fails(&output(b.script(&python()).env("TORCH_PYTHON", &fake)), &["2.8.0", "2.11.0"]);
    let bare = b.program("barepython", "echo");
    assert_fails(
        &output(b.script(&python()).env("TORCH_PYTHON", &bare)),
        &["has no torch", "pip install torch==2.11.0"],
    );
    assert_fails(&output(b.script(&python()).env("TORCH_PYTHON", "no-such-python")), &["no such program"]);
}

#[test]
fn make_without_python_says_so() {
    let b = bench();
    for tool in ["make", "sh", "bash", "awk", "grep"] {
        let found =
            env::split_paths(&env::var_os("PATH").unwrap_or_default()).map(|p| p.join(tool)).find(|p| p.is_file());
        if let Some(real) = found {
            symlink(real, b.path("bin").join(tool)).expect("a link");
        }
    }
    let done = Command::new("make")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), "setup"])
        .env("PATH", b.path("bin"))
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .output()
        .expect("make starts");
    let said = text(&done.stderr);
    assert!(!done.status.success());
    assert!(said.lines().next().is_some_and(|l| l.contains("python3 is not in PATH") && l.contains("pip")), "{said}");
}
