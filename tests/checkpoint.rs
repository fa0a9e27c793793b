//! Checkpoints: upstream's files, ours, conversions between them, and files that want to do harm.

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    collections::HashMap,
    fs,
    io::{Cursor, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use common::snapshot::Transcript;
use hrm::{
    checkpoint::{
        Checkpoint, CheckpointMeta, Format, RawTensor, resolve, resolve_or_default, safetensors_file, torch_file,
        torch_writer,
    },
    config::TrainConfig,
    dtype::Dtype,
    store::Existing,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};
use tempfile::{TempDir, tempdir};
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

/// Remembers each thread's largest allocation, to see that hostile files cannot ask for much.
struct Watching;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn note(size: usize) {
    let _ = LARGEST.try_with(|l| l.set(l.get().max(size)));
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller keeps the contract of the same call.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller keeps the contract of the same call.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: the caller keeps the contract of the same call.
        unsafe { System.realloc(at, layout, size) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of the same call.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
const COMPILED: &str = "checkpoint/tiny ACT-torch/Model gold fish";
const PLAIN: &str = "e2e/run_b";

fn golden(path: &str) -> PathBuf {
    Path::new(GOLDEN).join(path)
}

fn hrm(args: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hrm"));
    command.arg("checkpoint");
    for arg in args {
        command.arg(arg);
    }
    command.output().unwrap()
}

fn succeeds(args: &[&dyn AsRef<std::ffi::OsStr>]) -> String {
    let output = hrm(args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn fails(args: &[&dyn AsRef<std::ffi::OsStr>]) -> String {
    let output = hrm(args);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

fn load(path: &Path) -> Checkpoint {
    Checkpoint::load(path).unwrap_or_else(|e| panic!("{e:#}")).checkpoint
}

fn by_name(tensors: &[(String, RawTensor)]) -> HashMap<&str, &RawTensor> {
    tensors.iter().map(|(n, t)| (n.as_str(), t)).collect()
}

/// A small checkpoint folder in our form.
fn save(folder: &Path, step: u64) {
    let tensors = [("model.inner.H_init".to_owned(), tensor(Dtype::F32, &[2], &[step as u8; 8]))];
    let meta = CheckpointMeta { step: Some(step), hrm_version: "0.0.1".into(), ..CheckpointMeta::default() };
    safetensors_file::save_folder(folder, Existing::Replace, &TrainConfig::default(), &meta, &tensors).unwrap();
}

fn tensor(dtype: Dtype, shape: &[usize], data: &[u8]) -> RawTensor {
    RawTensor::new(dtype, shape.to_vec(), data.to_vec()).unwrap()
}

// --- upstream's files -------------------------------------------------------------------------------------------

#[test]
fn a_compiled_models_file_loads_with_the_expected_bytes() {
    let loaded = Checkpoint::load(&golden(COMPILED)).unwrap();
    let expected = safetensors_file::read(&golden("checkpoint/step_12.expected.safetensors")).unwrap();
    assert_eq!(by_name(&loaded.checkpoint.tensors), by_name(&expected));
    let order: Vec<_> = loaded.checkpoint.tensors.iter().map(|(n, _)| n.as_str()).collect();
    let keys: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(golden("checkpoint/checkpoint.json")).unwrap()).unwrap();
    let keys = keys["prefixed"]["keys"].as_array().unwrap().iter();
    let keys: Vec<_> = keys.map(|k| k.as_str().unwrap().trim_start_matches("_orig_mod.")).collect();
    assert_eq!(order, keys, "in the file's order, without the prefix");
    assert_eq!((loaded.checkpoint.step, loaded.format), (Some(12), Format::Torch));
    assert_eq!(loaded.checkpoint.tensor("model.inner.H_init").unwrap().dtype, Dtype::Bf16);
}

#[test]
fn a_plain_models_file_loads_with_the_expected_bytes() {
    let checkpoint = load(&golden(PLAIN));
    let json: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(golden("checkpoint/checkpoint.json")).unwrap()).unwrap();
    let expected = json["unprefixed"]["expected"].as_object().unwrap();
    assert_eq!(checkpoint.tensors.len(), expected.len());
    for (name, tensor) in &checkpoint.tensors {
        let hash = hex::encode(Sha256::digest(&tensor.data));
        assert_eq!(hash, expected[name]["sha256_le_bytes"].as_str().unwrap(), "{name}");
        assert_eq!(format!("torch.{}", tensor.dtype), expected[name]["dtype"].as_str().unwrap(), "{name}");
        assert_eq!(serde_json::json!(tensor.shape), expected[name]["shape"], "{name}");
    }
    assert_eq!((checkpoint.vocab_size(), checkpoint.hidden_size()), (Some(11), Some(16)));
    assert_eq!((checkpoint.num_puzzle_identifiers(), checkpoint.cells()), (Some(1), None));
}

#[test]
fn the_written_pickle_is_the_one_that_python_writes() {
    let source = golden(PLAIN).join("step_30");
    let mut ours = Cursor::new(Vec::new());
    torch_writer::write_to(&mut ours, "step_30", &torch_file::read(&source).unwrap()).unwrap();
    let mut theirs = ZipArchive::new(fs::File::open(source).unwrap()).unwrap();
    let mut ours = ZipArchive::new(ours).unwrap();
    assert_eq!(ours.len(), theirs.len());
    for i in 0..ours.len() {
        let (mut a, mut b) = (ours.by_index(i).unwrap(), theirs.by_index(i).unwrap());
        let name = a.name().unwrap().into_owned();
        assert_eq!(name, b.name().unwrap());
        assert_eq!(a.compression(), CompressionMethod::Stored);
        assert_eq!(a.data_start().unwrap() % 64, 0, "{name} is aligned");
        let (mut x, mut y) = (Vec::new(), Vec::new());
        std::io::copy(&mut a, &mut x).unwrap();
        std::io::copy(&mut b, &mut y).unwrap();
        match name.as_str() {
            // Python's goes on with the modules' versions (`_metadata`), which nothing reads.
            "step_30/data.pkl" => assert_eq!(x[..x.len() - 1], y[..x.len() - 1]),
            "step_30/.data/serialization_id" => assert_eq!(x.len(), y.len()),
            _ => assert_eq!(x, y, "{name}"),
        }
    }
}

// --- inspect and convert ----------------------------------------------------------------------------------------

#[test]
fn round_trips_through_the_command_change_no_bit() {
    for source in [COMPILED, PLAIN] {
        let source = golden(source);
        let dir = tempdir().unwrap();
        let [ours, torch, again] = ["ours", "torch", "again"].map(|n| dir.path().join(n));
        succeeds(&[&"convert", &source, &ours, &"--to", &"safetensors"]);
        succeeds(&[&"convert", &ours, &torch, &"--to", &"torch"]);
        succeeds(&[&"convert", &torch, &again, &"--to", &"safetensors"]);
        let wanted = load(&source);
        for folder in [&ours, &torch, &again] {
            let got = load(folder);
            assert_eq!(by_name(&got.tensors), by_name(&wanted.tensors), "{}", folder.display());
            assert_eq!((got.step, &got.config), (wanted.step, &wanted.config));
            let yaml = |p: &Path| fs::read(p.join("all_config.yaml")).unwrap();
            assert_eq!(yaml(folder), yaml(&source), "the configuration stays byte for byte");
        }
        assert_eq!(load(&torch).tensors, wanted.tensors, "in upstream's order again");
        assert_eq!(
            fs::read(ours.join("model.safetensors")).unwrap(),
            fs::read(again.join("model.safetensors")).unwrap()
        );
    }
}

#[test]
fn our_files_are_read_by_the_safetensors_crate() {
    let dir = tempdir().unwrap();
    succeeds(&[&"convert", &golden(COMPILED), &dir.path(), &"--to", &"safetensors"]);
    let bytes = fs::read(dir.path().join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let wanted = load(&golden(COMPILED));
    assert_eq!(file.len(), wanted.tensors.len());
    for (name, tensor) in &wanted.tensors {
        let view = file.tensor(name).unwrap();
        assert_eq!((view.shape(), view.data()), (tensor.shape.as_slice(), tensor.data.as_slice()), "{name}");
    }
}

#[test]
fn dtype_converts_every_float_tensor() {
    let dir = tempdir().unwrap();
    let [small, wide] = ["small", "wide"].map(|n| dir.path().join(n));
    succeeds(&[&"convert", &golden(PLAIN), &small, &"--to", &"safetensors", &"--dtype", &"bf16"]);
    succeeds(&[&"convert", &small, &wide, &"--to", &"torch", &"--dtype", &"f32"]);
    let (source, small, wide) = (load(&golden(PLAIN)), load(&small), load(&wide));
    for (name, tensor) in &source.tensors {
        let (s, w) = (small.tensor(name).unwrap(), wide.tensor(name).unwrap());
        assert_eq!((s.dtype, w.dtype), (Dtype::Bf16, Dtype::F32), "{name}");
        for ((x, s), w) in tensor.data.chunks(4).zip(s.data.chunks(2)).zip(w.data.chunks(4)) {
            let [x, w] = [x, w].map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            assert_eq!(w.to_le_bytes()[2..], *s, "widening is exact");
            assert!((x - w).abs() <= x.abs() / 256.0, "{name}: {x} became {w}");
        }
    }
}

#[test]
fn convert_overwrites_only_when_forced() {
    let dir = tempdir().unwrap();
    let source = golden(PLAIN);
    succeeds(&[&"convert", &source, &dir.path(), &"--to", &"safetensors"]);
    let mut said = Transcript::new(dir.path());
    said.add("safetensors again", &fails(&[&"convert", &source, &dir.path(), &"--to", &"safetensors"]));
    succeeds(&[&"convert", &source, &dir.path(), &"--to", &"safetensors", &"--force"]);
    let torch = dir.path().join("torch");
    succeeds(&[&"convert", &source, &torch, &"--to", &"torch"]);
    said.add("torch again", &fails(&[&"convert", &source, &torch, &"--to", &"torch"]));
    said.add("another run's configuration", &fails(&[&"convert", &golden(COMPILED), &torch, &"--to", &"torch"]));
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    said.add("to a file", &fails(&[&"convert", &source, &file, &"--to", &"torch"]));
    said.matches("convert_overwrites_only_when_forced");
    let left = fs::read_dir(&torch).unwrap().count();
    assert_eq!(left, 2, "no temporary file stays behind");
}

#[test]
fn inspect_shows_config_tensors_and_step() {
    let mut said = Transcript::default();
    said.add("inspect", &succeeds(&[&"inspect", &golden(COMPILED)]));
    said.matches("inspect_shows_config_tensors_and_step");
    let json = succeeds(&[&"inspect", &golden(COMPILED), &"--json", &"-"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let buffers = 16 + 16 + 16;
    let elements: usize = load(&golden(COMPILED)).tensors.iter().map(|(_, t)| t.numel()).sum();
    assert_eq!(json["parameters"], elements - buffers);
    assert_eq!((&json["step"], &json["vocab_size"]), (&12.into(), &11.into()));
    assert_eq!(json["config"]["arch"]["hidden_size"], 16);
    assert_eq!(json["tensors"][0]["name"], "model.inner.H_init");
    assert_eq!(json["tensors"][0]["dtype"], "bfloat16");
    assert_eq!(json["tensors"][0]["bytes"], 32);
}

#[test]
fn meta_json_is_shown_and_its_unknown_keys_stay() {
    let dir = tempdir().unwrap();
    save(dir.path(), 7);
    let path = dir.path().join("meta.json");
    let text = r#"{"step": 7, "hrm_version": "9.9", "command_line": ["hrm", "train"], "ema_decay": 0.5}"#;
    fs::write(&path, text).unwrap();
    let mut said = Transcript::new(dir.path());
    said.add("inspect", &succeeds(&[&"inspect", &dir.path()]));
    fs::write(&path, "{broken").unwrap();
    let output = hrm(&[&"inspect", &dir.path()]);
    assert!(output.status.success());
    said.add("a broken one is a warning", &String::from_utf8_lossy(&output.stderr));
    said.matches("meta_json_is_shown_and_its_unknown_keys_stay");
}

// --- what a checkpoint argument may be --------------------------------------------------------------------------

fn refuses(path: &Path) -> String {
    match Checkpoint::load(path) {
        Ok(l) => panic!("{} was loaded", l.checkpoint.path.display()),
        Err(e) => format!("{e:#}"),
    }
}

/// A folder with upstream's configuration and these files, each a copy of the golden one.
fn upstream_folder(files: &[&str]) -> TempDir {
    let dir = tempdir().unwrap();
    fs::copy(golden(PLAIN).join("all_config.yaml"), dir.path().join("all_config.yaml")).unwrap();
    for file in files {
        fs::copy(golden(PLAIN).join("step_30"), dir.path().join(file)).unwrap();
    }
    dir
}

#[test]
fn a_run_folder_means_its_largest_step() {
    let dir = tempdir().unwrap();
    for step in [2, 10, 9] {
        save(&dir.path().join(format!("step_{step}")), step);
    }
    fs::create_dir(dir.path().join("step_99")).unwrap();
    let loaded = Checkpoint::load(dir.path()).unwrap();
    assert_eq!(loaded.checkpoint.step, Some(10), "a folder without weights does not count");
    assert!(loaded.taken.unwrap().contains("step_10"));
    assert_eq!(load(&dir.path().join("step_9")).step, Some(9));
    assert_eq!(load(&dir.path().join("step_2/model.safetensors")).step, Some(2));
    fs::rename(dir.path().join("step_2/all_config.yaml"), dir.path().join("all_config.yaml")).unwrap();
    assert_eq!(load(&dir.path().join("step_2")).step, Some(2), "the run folder's configuration serves as well");
}

#[test]
fn upstreams_folder_follows_upstreams_rule() {
    let step = |files: &[&str]| {
        let dir = upstream_folder(files);
        let resolved = resolve(dir.path()).unwrap();
        resolved.weights.file_name().unwrap().to_str().unwrap().to_owned()
    };
    assert_eq!(step(&["step_9", "step_10", "step_x"]), "step_10");
    assert_eq!(step(&["step_x"]), "step_x");
    assert_eq!(step(&["step_9_all_preds.0", "step_3"]), "step_3");
    assert_eq!(step(&["example_checkpoint"]), "example_checkpoint");
    assert_eq!(step(&["checkpoint"]), "checkpoint");
    assert_eq!(step(&["checkpoint", "step_0"]), "step_0");
    let dir = upstream_folder(&["example_checkpoint"]);
    assert_eq!(load(&dir.path().join("example_checkpoint")).step, None);
}

#[test]
fn the_default_is_the_newest_step_of_the_newest_run() {
    let dir = tempdir().unwrap();
    let mut said = Transcript::new(dir.path());
    said.add("none", &resolve_or_default(None, dir.path()).unwrap_err().to_string());
    let example = dir.path().join("checkpoint_example/Project ACT-torch/run");
    fs::create_dir_all(&example).unwrap();
    for file in ["all_config.yaml", "step_30"] {
        fs::copy(golden(PLAIN).join(file), example.join(file)).unwrap();
    }
    assert_eq!(resolve_or_default(None, dir.path()).unwrap().weights, example.join("step_30"));
    // Examples that are checkpoints themselves; the first by name, whatever their age.
    for name in ["B", "A"] {
        save(&dir.path().join("checkpoint_example").join(name), 1);
    }
    let found = resolve_or_default(None, dir.path()).unwrap();
    assert_eq!(found.weights, dir.path().join("checkpoint_example/A/model.safetensors"));
    let run = |name: &str| dir.path().join("checkpoints/P ACT-torch").join(name);
    let age = |weights: &Path, seconds: u64| {
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        fs::File::options().write(true).open(weights).unwrap().set_modified(time).unwrap();
    };
    for (name, step, seconds) in [("old", 900, 1_000), ("new", 5, 2_000), ("new", 20, 3_000), ("older", 7, 500)] {
        let folder = run(name).join(format!("step_{step}"));
        save(&folder, step);
        age(&folder.join("model.safetensors"), seconds);
    }
    let found = resolve_or_default(None, dir.path()).unwrap();
    assert_eq!(found.weights, run("new").join("step_20/model.safetensors"));
    assert!(found.taken.unwrap().contains("step_20"), "what was taken is said");
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 866\n", "0".repeat(64));
    fs::create_dir_all(run("newest")).unwrap();
    fs::write(run("newest").join("step_1"), pointer).unwrap();
    fs::write(run("newest").join("all_config.yaml"), "seed: 1\n").unwrap();
    let taken = resolve_or_default(None, dir.path()).unwrap().taken.unwrap();
    assert!(taken.contains("step_20"), "{taken}");
    said.add("a newer one is skipped", &taken);
    fs::remove_dir_all(run("newest")).unwrap();
    let shown = Command::new(env!("CARGO_BIN_EXE_hrm"))
        .args(["checkpoint", "inspect"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    said.add("inspect", &String::from_utf8(shown.stdout).unwrap());
    said.matches("the_default_is_the_newest_step_of_the_newest_run");
}

#[test]
fn what_is_no_checkpoint_is_refused_with_advice() {
    let dir = tempdir().unwrap();
    let mut said = Transcript::new(dir.path());
    said.add("absent", &refuses(&dir.path().join("absent")));
    said.add("an empty folder", &refuses(dir.path()));
    said.add("hf:// without a name", &refuses(Path::new("hf://someone")));
    let file = dir.path().join("notes.txt");
    fs::write(&file, "hello").unwrap();
    said.add("a text", &refuses(&file));
    fs::write(&file, b"\x80\x02\x8a\x0alold").unwrap();
    fs::write(dir.path().join("all_config.yaml"), "seed: 1\n").unwrap();
    said.add("torch's old format", &refuses(&file));
    save(&dir.path().join("project/run/step_1"), 1);
    said.add("a folder of runs", &refuses(&dir.path().join("project")));
    let alone = dir.path().join("alone");
    save(&alone.join("step_1"), 1);
    fs::remove_file(alone.join("step_1/all_config.yaml")).unwrap();
    said.add("no configuration", &refuses(&alone));
    fs::write(alone.join("all_config.yaml"), "arch: {hidden_size: 9, num_heads: 2}\n").unwrap();
    said.add("an impossible configuration", &refuses(&alone));
    said.matches("what_is_no_checkpoint_is_refused_with_advice");
}

#[test]
fn lfs_pointers_name_the_command_that_mends_them() {
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 866\n", "0".repeat(64));
    let dir = upstream_folder(&["step_1"]);
    fs::create_dir(dir.path().join(".git")).unwrap();
    let weights = dir.path().join("step_1");
    fs::write(&weights, &pointer).unwrap();
    let mut said = Transcript::new(dir.path());
    for path in [dir.path(), &weights] {
        said.add(&path.display().to_string(), &refuses(path));
    }
    fs::copy(golden(PLAIN).join("step_30"), &weights).unwrap();
    fs::write(dir.path().join("all_config.yaml"), &pointer).unwrap();
    said.add("the configuration", &refuses(dir.path()));
    let ours = dir.path().join("a folder/step_3");
    save(&ours, 3);
    fs::write(ours.join("model.safetensors"), &pointer).unwrap();
    said.add("inspect", &fails(&[&"inspect", &ours]));
    said.matches("lfs_pointers_name_the_command_that_mends_them");
}

// --- files that want to do harm ---------------------------------------------------------------------------------

/// A stored archive with right checksums.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        zip.start_file(format!("x/{name}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Assembles pickles by hand.
#[derive(Default)]
struct Asm(Vec<u8>);

impl Asm {
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
    fn text(self, s: &str) -> Self {
        let n = u32::try_from(s.len()).unwrap().to_le_bytes();
        self.raw(b"X").raw(&n).raw(s.as_bytes())
    }
    fn int(self, n: i64) -> Self {
        self.raw(b"\x8a\x08").raw(&n.to_le_bytes())
    }
    fn ints(self, items: &[i64]) -> Self {
        items.iter().fold(self.raw(b"("), |a, n| a.int(*n)).raw(b"t")
    }
    /// `name: _rebuild_tensor_v2(storage, offset, shape, stride, False, OrderedDict())`
    fn tensor(self, name: &str, storage: (&str, &str, i64), offset: i64, shape: &[i64], stride: &[i64]) -> Self {
        self.text(name)
            .raw(b"ctorch._utils\n_rebuild_tensor_v2\n((")
            .text("storage")
            .raw(format!("ctorch\n{}Storage\n", storage.0).as_bytes())
            .text(storage.1)
            .text("cpu")
            .int(storage.2)
            .raw(b"tQ")
            .int(offset)
            .ints(shape)
            .ints(stride)
            .raw(b"\x89ccollections\nOrderedDict\n)RtR")
    }
    fn dict(self) -> Vec<u8> {
        [b"\x80\x02ccollections\nOrderedDict\n)R(".as_slice(), &self.0, b"u."].concat()
    }
}

fn read(pickle: &[u8], storages: &[(&str, &[u8])]) -> Result<Vec<(String, RawTensor)>, String> {
    let mut entries = vec![("data.pkl", pickle), ("byteorder", b"little".as_slice()), ("version", b"3\n")];
    entries.extend(storages);
    torch_file::read_from(Cursor::new(archive(&entries))).map_err(|e| format!("{e:#}"))
}

#[test]
fn shared_strided_and_offset_storage_becomes_dense() {
    let bytes: Vec<u8> = (0..24u8).collect();
    let storage = ("Short", "0", 12);
    let pickle = Asm::default()
        .tensor("whole", storage, 0, &[3, 4], &[4, 1])
        .tensor("transposed", storage, 0, &[4, 3], &[1, 4])
        .tensor("column", storage, 1, &[3], &[4])
        .tensor("row", storage, 4, &[1, 4], &[7, 1])
        .tensor("scalar", storage, 11, &[], &[])
        .tensor("repeated", storage, 2, &[2, 2], &[0, 1])
        .tensor("empty", storage, 99, &[0, 4], &[4, 1])
        .tensor("flags", ("Bool", "1", 2), 0, &[2], &[1])
        .dict();
    let tensors = read(&pickle, &[("data/0", &bytes), ("data/1", &[1, 0])]).unwrap();
    let i16s = |shape: &[usize], elements: &[u8]| {
        let data: Vec<u8> = elements.iter().flat_map(|e| [2 * e, 2 * e + 1]).collect();
        tensor(Dtype::I16, shape, &data)
    };
    let wanted = [
        ("whole", i16s(&[3, 4], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])),
        ("transposed", i16s(&[4, 3], &[0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11])),
        ("column", i16s(&[3], &[1, 5, 9])),
        ("row", i16s(&[1, 4], &[4, 5, 6, 7])),
        ("scalar", i16s(&[], &[11])),
        ("repeated", i16s(&[2, 2], &[2, 3, 2, 3])),
        ("empty", i16s(&[0, 4], &[])),
        ("flags", tensor(Dtype::Bool, &[2], &[1, 0])),
    ];
    assert_eq!(tensors, wanted.map(|(n, t)| (n.to_owned(), t)));
}

#[test]
fn every_dtype_survives_the_torch_form() {
    use Dtype::*;
    let tensors: Vec<_> = [F64, F32, F16, Bf16, I64, I32, I16, I8, U8, Bool]
        .into_iter()
        .map(|d| (format!("{d}"), tensor(d, &[2, 1, 3], &vec![1; 6 * d.size()])))
        .chain([("none".into(), tensor(F32, &[0, 3], &[])), ("one".into(), tensor(I64, &[], &[7; 8]))])
        .chain((0..1100).map(|i| (format!("many.{i}"), tensor(U8, &[1, 1, 1, 1], &[i as u8]))))
        .collect();
    let mut file = Cursor::new(Vec::new());
    torch_writer::write_to(&mut file, "step_1", &tensors).unwrap();
    assert_eq!(torch_file::read_from(file).unwrap(), tensors);
    let dir = tempdir().unwrap();
    let path = dir.path().join("all.safetensors");
    safetensors_file::write(&path, Existing::Refuse, &tensors).unwrap();
    assert_eq!(by_name(&safetensors_file::read(&path).unwrap()), by_name(&tensors));
}

#[test]
fn pickles_that_ask_for_functions_are_refused_by_name() {
    let dir = upstream_folder(&[]);
    let mut said = Transcript::new(dir.path());
    for (module, name) in [
        ("posix", "system"),
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("__builtin__", "exec"),
        ("subprocess", "Popen"),
        ("torch", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("collections", "Counter"),
        ("torch", "EvilStorage"),
    ] {
        let named = format!("`{module}.{name}`");
        let global = format!("c{module}\n{name}\n");
        let call = [global.as_bytes(), &Asm::default().raw(b"(").text("touch owned").raw(b"tR.").0].concat();
        let e = read(&call, &[]).unwrap_err();
        assert!(e.contains(&named), "{e}");
        said.add(&named, &e);
        let stacked = Asm::default().raw(b"\x80\x04").text(module).text(name).raw(b"\x93(").text("x").raw(b"tR.").0;
        let e = read(&stacked, &[]).unwrap_err();
        assert!(e.contains(&named), "{e}");
    }
    let pickle = b"cposix\nsystem\n(X\x02\x00\x00\x00lstR.";
    fs::write(dir.path().join("step_1"), archive(&[("data.pkl", pickle)])).unwrap();
    said.add("inspect", &fails(&[&"inspect", &dir.path()]));
    said.matches("pickles_that_ask_for_functions_are_refused_by_name");
}

#[test]
fn pickles_with_other_opcodes_or_shapes_are_refused() {
    let float = ("Float", "0", 4);
    let storage = [("data/0", [0u8; 16])];
    let storage: Vec<(&str, &[u8])> = storage.iter().map(|(n, b)| (*n, b.as_slice())).collect();
    let one = |t: Asm| read(&t.dict(), &storage);
    let cases: Vec<(&str, Result<_, String>)> = vec![
        ("empty", read(b"", &storage)),
        ("stop", read(b".", &storage)),
        ("a list", read(b"].", &storage)),
        ("NEWOBJ", read(b"ccollections\nOrderedDict\n)\x81.", &storage)),
        ("INST", read(b"(ios\nsystem\n.", &storage)),
        ("EXT1", read(b"\x82\x01.", &storage)),
        ("persistent text", read(b"Pabc\n.", &storage)),
        ("tuple across a mark", read(b"N(\x85.", &storage)),
        ("empty memo", read(b"h\x05.", &storage)),
        ("call of text", read(b"X\x01\x00\x00\x00a)R.", &storage)),
        ("items on a tuple", read(b")NNs.", &storage)),
        ("odd items", read(b"}(Nu.", &storage)),
        ("protocol 9", read(b"\x80\x09}.", &storage)),
        ("huge text", read(b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.", &storage)),
        ("number for a tensor", one(Asm::default().text("a").int(3))),
        ("number for a name", one(Asm::default().int(3).int(3))),
        ("beyond", one(Asm::default().tensor("a", float, 1, &[4], &[1]))),
        ("huge stride", one(Asm::default().tensor("a", float, 0, &[2], &[i64::MAX]))),
        ("negative", one(Asm::default().tensor("a", float, 0, &[-1], &[1]))),
        ("negative stride", one(Asm::default().tensor("a", float, 3, &[2], &[-1]))),
        ("product", one(Asm::default().tensor("a", float, 0, &[i64::MAX, i64::MAX], &[0, 0]))),
        ("stride bomb", one(Asm::default().tensor("a", float, 0, &[1 << 40], &[0]))),
        ("lengths", one(Asm::default().tensor("a", float, 0, &[2, 2], &[1]))),
        ("rank", one(Asm::default().tensor("a", float, 0, &[1; 65], &[1; 65]))),
        ("claim", one(Asm::default().tensor("a", ("Float", "0", 1 << 40), 0, &[4], &[1]))),
        ("overflow", one(Asm::default().tensor("a", ("Float", "0", i64::MAX), 0, &[4], &[1]))),
        ("no storage", one(Asm::default().tensor("a", ("Float", "9", 4), 0, &[4], &[1]))),
        ("path", one(Asm::default().tensor("a", ("Float", "../../etc", 4), 0, &[4], &[1]))),
        ("twice", one(Asm::default().tensor("a", float, 0, &[4], &[1]).tensor("_orig_mod.a", float, 0, &[4], &[1]))),
    ];
    let mut said = Transcript::default();
    for (what, result) in cases {
        said.add(what, &result.expect_err(what));
    }
    said.matches("pickles_with_other_opcodes_or_shapes_are_refused");
}

#[test]
fn archives_that_are_not_torchs_are_refused() {
    let read = |bytes: Vec<u8>| torch_file::read_from(Cursor::new(bytes)).map_err(|e| format!("{e:#}")).unwrap_err();
    let mut said = Transcript::default();
    said.add("nothing", &read(Vec::new()));
    said.add("no pickle", &read(archive(&[("readme", b"x")])));
    said.add("big-endian", &read(archive(&[("data.pkl", b"}."), ("byteorder", b"big")])));
    let large = vec![b'N'; (4 << 20) + 1];
    said.add("a pickle of 4 MiB and a byte", &read(archive(&[("data.pkl", &large)])));
    said.matches("archives_that_are_not_torchs_are_refused");
}

/// Structures that make a recursive reader overflow its stack, and memo tricks that make a copying one explode.
#[test]
fn deep_and_repeated_structures_stay_small() {
    LARGEST.set(0);
    let n = 1 << 20;
    let deep_tuples = [b"N".to_vec(), b"\x85".repeat(n), b".".to_vec()].concat();
    let deep_marks = [b"(".repeat(n), b".".to_vec()].concat();
    let deep_dicts = [b"}".repeat(n), b".".to_vec()].concat();
    let itself = b"}q\x00X\x01\x00\x00\x00ah\x00s.".to_vec();
    // Each tuple holds the one before twice: 2^100000 leaves for whoever walks it.
    let doubling = [b"Nq\x00".to_vec(), b"h\x00h\x00\x86q\x00".repeat(100_000), b".".to_vec()].concat();
    let far_memo = b"}r\xff\xff\xff\xff.".to_vec();
    for pickle in [&deep_tuples, &deep_marks, &deep_dicts, &itself, &doubling] {
        assert!(read(pickle, &[]).is_err());
    }
    assert_eq!(read(&far_memo, &[]).unwrap(), []);
    let shared = (0..20_000)
        .fold(Asm::default().tensor("t", ("Byte", "0", 8), 0, &[8], &[1]).raw(b"r\x00\x01\x00\x00"), |a, i| {
            a.text(&i.to_string()).raw(b"j\x00\x01\x00\x00")
        });
    assert_eq!(read(&shared.dict(), &[("data/0", &[1; 8])]).unwrap().len(), 20_001);
    assert!(LARGEST.get() < 256 << 20, "{} bytes at once", LARGEST.get());
}

fn mutate(bytes: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
    for _ in 0..rng.random_range(1..=4) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..7) {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << rng.random_range(0..8),
            2 => bytes[at] = rng.random(),
            3 => bytes.insert(at, rng.random()),
            4 => {
                let end = (at + rng.random_range(1..64)).min(bytes.len());
                bytes.drain(at..end);
            }
            5 => {
                let end = (at + rng.random_range(1..9)).min(bytes.len());
                bytes[at..end].fill(if rng.random() { 0xff } else { 0x00 });
            }
            _ => {
                let end = (at + rng.random_range(1..64)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = rng.random_range(0..bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
}

/// Reads each mutation; whatever comes of it, it is no panic and no large allocation.
fn survives(what: &str, count: u64, make: impl Fn(&mut ChaCha8Rng) -> Vec<u8>) {
    LARGEST.set(0);
    let mut refused = 0;
    for seed in 0..count {
        let bytes = make(&mut ChaCha8Rng::seed_from_u64(seed));
        let len = bytes.len();
        let result = catch_unwind(AssertUnwindSafe(|| torch_file::read_from(Cursor::new(bytes))));
        match result {
            Err(_) => panic!("{what}: panic at seed {seed}"),
            Ok(Err(_)) => refused += 1,
            Ok(Ok(tensors)) => {
                let total: usize = tensors.iter().map(|(_, t)| t.data.len()).sum();
                assert!(total <= 4 * len + (1 << 20), "{what}: seed {seed} gave {total} bytes");
            }
        }
        assert!(LARGEST.get() < 8 << 20, "{what}: seed {seed} allocated {} bytes at once", LARGEST.get());
    }
    assert!(refused > count / 4, "{what}: only {refused} of {count} were refused");
}

#[test]
fn thousands_of_mutated_files_never_panic() {
    let file = fs::read(golden(COMPILED).join("step_12")).unwrap();
    survives("whole file", 2000, |rng| {
        let mut bytes = file.clone();
        mutate(&mut bytes, rng);
        bytes
    });
    // The directory at the end holds the sizes and offsets.
    survives("directory", 2000, |rng| {
        let mut bytes = file.clone();
        let mut tail = bytes.split_off(file.len() - 1800);
        mutate(&mut tail, rng);
        bytes.extend(tail);
        bytes
    });
    survives("truncated", 500, |rng| file[..rng.random_range(0..file.len())].to_vec());
}

/// The checksums catch most of what happens to a whole file, so here the pickle is mutated and packed again.
#[test]
fn thousands_of_mutated_pickles_never_panic() {
    let mut zip = ZipArchive::new(fs::File::open(golden(COMPILED).join("step_12")).unwrap()).unwrap();
    let mut entries = Vec::new();
    for i in 0..zip.len() {
        let mut entry = zip.by_index(i).unwrap();
        let mut bytes = Vec::new();
        std::io::copy(&mut entry, &mut bytes).unwrap();
        entries.push((entry.name().unwrap().trim_start_matches("step_12/").to_owned(), bytes));
    }
    survives("pickle", 3000, |rng| {
        let mut pickle = entries[0].1.clone();
        mutate(&mut pickle, rng);
        let packed: Vec<(&str, &[u8])> = entries
            .iter()
            .map(|(n, b)| (n.as_str(), if n == "data.pkl" { pickle.as_slice() } else { b.as_slice() }))
            .collect();
        archive(&packed)
    });
}

#[test]
fn damaged_safetensors_are_errors() {
    let dir = tempdir().unwrap();
    save(dir.path(), 1);
    let path = dir.path().join("model.safetensors");
    let good = fs::read(&path).unwrap();
    LARGEST.set(0);
    for len in 0..good.len() {
        fs::write(&path, &good[..len]).unwrap();
        assert!(refuses(dir.path()).contains("model.safetensors"), "cut to {len} bytes");
    }
    fs::write(&path, [good.as_slice(), b"x"].concat()).unwrap();
    assert!(refuses(dir.path()).contains("model.safetensors"), "a byte too many");
    for header in [
        r#"{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}"#,
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#,
        r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[18446744073709551615,4],"data_offsets":[0,8]}}"#,
        r#"{"a":{"dtype":"Q7","shape":[2],"data_offsets":[0,8]}}"#,
        r#"{"a":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}"#,
        "[]",
        "",
    ] {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 8]);
        fs::write(&path, bytes).unwrap();
        assert!(refuses(dir.path()).contains("model.safetensors"), "{header}");
    }
    fs::write(&path, [u64::MAX.to_le_bytes(), [0; 8]].concat()).unwrap();
    let mut said = Transcript::new(dir.path());
    said.add("a header without end", &refuses(dir.path()));
    said.matches("damaged_safetensors_are_errors");
    for seed in 0..300 {
        let mut bytes = good.clone();
        mutate(&mut bytes, &mut ChaCha8Rng::seed_from_u64(seed));
        fs::write(&path, bytes).unwrap();
        assert!(catch_unwind(|| Checkpoint::load(&path)).is_ok(), "panic at seed {seed}");
    }
    assert!(LARGEST.get() < 1 << 20, "{} bytes at once", LARGEST.get());
}
