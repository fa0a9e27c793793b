//! Links the executable to the libtorch that torch-sys was built with, and compiles our C++ shim.
use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

fn main() -> ExitCode {
    for name in ["LIBTORCH", "LIBTORCH_USE_PYTORCH"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    match libtorch() {
        Ok(root) => {
            compile(&root);
            compile_plugin(&root, "graph_plugin");
            compile_plugin(&root, "nccl_plugin");
            ExitCode::SUCCESS
        }
        Err(text) => {
            println!("cargo::error={text}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of libtorch, found the way torch-sys finds it.
fn libtorch() -> Result<PathBuf, String> {
    let root = if env::var_os("LIBTORCH_USE_PYTORCH").is_some() {
        let python = if env::var_os("VIRTUAL_ENV").is_some() { "python" } else { "python3" };
        let program = "import os, torch; print(os.path.dirname(torch.__file__))";
        let output = Command::new(python).args(["-c", program]).output().map_err(|e| format!("{python}: {e}"))?;
        PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
    } else {
        env::var_os("LIBTORCH").map(PathBuf::from).ok_or("LIBTORCH is not set: run `make build`, which sees to it")?
    };
    if root.join("include/torch/headeronly/version.h").is_file() {
        // Its libraries may appear where there was nothing at the last build.
        println!("cargo:rerun-if-changed={}", root.join("include/torch/headeronly/version.h").display());
        return Ok(root);
    }
    Err(format!("no libtorch 2.11 in {}: run `make setup` first (or `make build`, which does both)", root.display()))
}

fn compile(root: &Path) {
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", root.join("lib").display());
    for source in ["shim.cpp", "dist.cpp", "guarded.h", "stubs"] {
        println!("cargo:rerun-if-changed=src/runtime/{source}");
    }
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .files(["src/runtime/shim.cpp", "src/runtime/dist.cpp"])
        .include("src/runtime/stubs")
        .include(root.join("include"))
        .include(root.join("include/torch/csrc/api/include"))
        .flag_if_supported("-Wno-unused-parameter")
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .compile("hrm_shim");
}

/// A plugin for libtorch's CUDA half, embedded into the library. It needs NVIDIA's headers, not its libraries; where
/// they are missing the embedded file is empty, and the program works without what the plugin is for.
fn compile_plugin(root: &Path, name: &str) {
    let source = format!("src/runtime/{name}.cpp");
    println!("cargo:rerun-if-changed={source}");
    let plugin = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join(format!("{name}.so"));
    let candidates = [root.join("../nvidia/cu13/include"), PathBuf::from("/usr/local/cuda/include")];
    let has_headers = |d: &&PathBuf| d.join("cuda_runtime_api.h").is_file() && d.join("crt/host_defines.h").is_file();
    let built = candidates.iter().find(has_headers).is_some_and(|cuda| {
        let mut command = cc::Build::new().cpp(true).get_compiler().to_command();
        command.args(["-std=c++17", "-O1", "-fPIC", "-shared", "-w", "-o"]).arg(&plugin).arg(source);
        // The stubs come first: NVIDIA's real headers would want more of theirs.
        let ours = PathBuf::from("src/runtime/stubs");
        for include in [&ours, &root.join("include"), &root.join("include/torch/csrc/api/include"), cuda] {
            command.arg("-I").arg(include);
        }
        command.status().is_ok_and(|s| s.success())
    });
    if !built && let Err(e) = std::fs::write(&plugin, b"") {
        println!("cargo::error={}: {e}", plugin.display());
    }
}
