//! What a target does with its bytes. The seeds go through the same functions in an ordinary test
//! (`tests/fuzz_seeds.rs`).
//!
//! `scripts/reliability/fuzz.py --build DIR` compiles every target into DIR as a program of its own, by a stable Rust and
//! without libtorch; `DIR/results -max_total_time=60 fuzz/seeds/results` then runs one on a machine that has no Rust.

use std::{fs, io::BufReader, io::Cursor, path::Path};

use hrm::{
    checkpoint::{MANIFEST_FILE, Manifest, safetensors_file, torch_file},
    dataset::{Dataset, PuzzleFile, PuzzleInput, PuzzleList, ReadOptions, Split},
    eval::results_file,
    journal::{self, Identity, Journal},
    puzzle::PuzzleKind,
    raw_tensor::RawTensor,
    train::{CarryLimits, METRICS_FILE, RunHistory, STATE_FILE, TrainingState},
};
use serde::{Deserialize, Serialize};

/// A list, as text or gzipped, of Sudokus or mazes. Returns whether it was read.
pub fn puzzle_list(bytes: &[u8], folder: &Path) -> bool {
    let mut read = false;
    for kind in [PuzzleKind::Sudoku, PuzzleKind::Maze] {
        let options = ReadOptions { kind, min_difficulty: None, first_rows: None };
        let path = folder.join("list");
        if bytes.starts_with(&[0x1f, 0x8b]) && fs::write(&path, bytes).is_ok() {
            read |= used(PuzzleFile::File(path.clone()).read(&options));
        }
        let list = PuzzleList::read(BufReader::new(bytes), "list.csv", &options);
        // A build reads the same file block by block, and must find the same in it.
        if !bytes.starts_with(&[0x1f, 0x8b]) && fs::write(&path, bytes).is_ok() {
            let input = PuzzleInput::read(&PuzzleFile::File(path.clone()), &options, &());
            match (&list, &input) {
                (Ok(list), Ok(input)) => assert_eq!((list.len(), list.seq_len()), (input.len(), input.seq_len())),
                (list, input) => assert_eq!(list.is_ok(), input.is_ok()),
            }
        }
        read |= used(list);
    }
    read
}

/// Whether a list was read; what was read is looked at in full, because a wrong size shows only there.
fn used(list: anyhow::Result<PuzzleList>) -> bool {
    let Ok(list) = list else { return false };
    for i in 0..list.len() {
        assert_eq!(list.question(i).len(), list.seq_len());
        assert_eq!(list.answer(i).len(), list.seq_len());
        let _ = list.row(i);
    }
    true
}

const META: &str = r#"{"pad_id": 0, "ignore_label_id": 0, "blank_identifier_id": 0, "vocab_size": 6, "seq_len": 4, "num_puzzle_identifiers": 1, "total_groups": 2, "mean_puzzle_examples": 1.0, "sets": ["all"]}"#;

/// A sound dataset of two mazes of 2×2 cells, with one file replaced.
fn with_file(folder: &Path, name: &str, bytes: &[u8]) -> bool {
    let split = folder.join("train");
    let array = |descr: &str, shape: &str, data: &[u8]| {
        let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        while !(10 + text.len() + 1).is_multiple_of(64) {
            text.push(' ');
        }
        text.push('\n');
        [b"\x93NUMPY\x01\x00", &(text.len() as u16).to_le_bytes()[..], text.as_bytes(), data].concat()
    };
    let words = |values: &[i32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
    let files = [
        ("dataset.json", META.as_bytes().to_vec()),
        ("all__inputs.npy", array("|u1", "(2, 4)", &[3, 2, 4, 1, 3, 4, 1, 1])),
        ("all__labels.npy", array("|u1", "(2, 4)", &[3, 5, 4, 1, 3, 4, 1, 1])),
        ("all__puzzle_identifiers.npy", array("<i4", "(2,)", &words(&[0, 0]))),
        ("all__puzzle_indices.npy", array("<i4", "(3,)", &words(&[0, 1, 2]))),
        ("all__group_indices.npy", array("<i4", "(3,)", &words(&[0, 1, 2]))),
    ];
    let written = fs::create_dir_all(&split).is_ok()
        && files.iter().all(|(file, good)| {
            let content = if *file == name { bytes } else { good };
            fs::write(split.join(file), content).is_ok()
        })
        && (name != "all__rows.csv" || fs::write(split.join(name), bytes).is_ok());
    assert!(written, "the folder for the trial can be written");
    opened(folder)
}

/// Whether the dataset was opened; all its rows are looked at.
fn opened(folder: &Path) -> bool {
    let Ok(dataset) = Dataset::open(folder, Split::Train) else { return false };
    for set in dataset.sets() {
        let all: Vec<usize> = (0..set.len().min(64)).collect();
        let Ok(batch) = set.rows_for_loss(&all) else { panic!("rows of a set that was opened") };
        assert_eq!(batch.inputs.nrows(), all.len());
        for example in all {
            assert!(set.group_of(example) < set.groups());
        }
        let _ = set.rows();
    }
    assert!(dataset.fingerprint().is_ok());
    true
}

/// The first byte chooses the array, the rest replaces it.
pub fn array(bytes: &[u8], folder: &Path) -> bool {
    let Some((&first, rest)) = bytes.split_first() else { return false };
    let names = [
        "all__inputs.npy",
        "all__labels.npy",
        "all__puzzle_identifiers.npy",
        "all__puzzle_indices.npy",
        "all__group_indices.npy",
        "all__rows.csv",
    ];
    with_file(folder, names[usize::from(first) % names.len()], rest)
}

pub fn dataset_json(bytes: &[u8], folder: &Path) -> bool {
    with_file(folder, "dataset.json", bytes)
}

/// A results file: alone, and joined with itself.
pub fn results(bytes: &[u8], folder: &Path) -> bool {
    let path = written(folder, "results.jsonl", bytes);
    let Ok(read) = results_file::read(&path) else { return false };
    let shape = &read.run.shape;
    for (puzzle, record) in &read.records {
        assert!(read.puzzles.contains(puzzle) && record.passes.len() <= shape.passes());
    }
    if let Ok(joined) = results_file::join(&[path.clone(), path]) {
        assert_eq!((joined.records.len(), joined.puzzles), (joined.run.puzzles, 0..joined.run.puzzles));
    }
    true
}

#[derive(Serialize, Deserialize)]
struct Squares {
    what: String,
    count: u64,
}

impl Identity for Squares {
    const IS: &'static str = "a journal of squares";
}

/// A journal: read, and gone on with.
pub fn journal(bytes: &[u8], folder: &Path) -> bool {
    let path = written(folder, "journal.jsonl", bytes);
    let read = journal::read::<Squares, Vec<u32>>(&path).map(|(_, records)| records.into_values());
    let asked = Squares { what: "squares".into(), count: 3 };
    if let Ok((mut opened, found)) = Journal::<_, Vec<u32>>::open(&path, &asked, hrm::store::Existing::Resume) {
        let found = found.into_values();
        assert!(opened.append(&[vec![7]]).is_ok());
        drop(opened);
        let again = journal::read::<Squares, Vec<u32>>(&path).map(|(_, records)| records.into_values());
        assert!(again.is_ok_and(|again| again.split_last() == Some((&vec![7], found.as_slice()))));
    }
    read.is_ok()
}

/// metrics.jsonl of a run.
pub fn metrics(bytes: &[u8], folder: &Path) -> bool {
    written(folder, METRICS_FILE, bytes);
    let Ok(history) = RunHistory::read(folder) else { return false };
    for series in [&history.training, &history.evaluations] {
        for name in series.names() {
            assert!(series.of(name).is_sorted_by_key(|(step, _)| *step));
        }
    }
    let _ = (history.best_exact(), history.set(), history.step(), history.state());
    true
}

/// A manifest beside a file of three bytes. Whether the file is what the manifest says.
pub fn manifest(bytes: &[u8], folder: &Path) -> bool {
    let file = written(folder, "a", b"abc");
    written(folder, MANIFEST_FILE, bytes);
    let Ok(Some(manifest)) = Manifest::read(folder) else { return false };
    let verified = manifest.verify(folder).is_ok();
    assert!(!verified || Manifest::verify_beside(&file).is_ok());
    verified
}

/// training.json of a checkpoint.
pub fn training_state(bytes: &[u8], folder: &Path) -> bool {
    written(folder, STATE_FILE, bytes);
    TrainingState::read(folder).is_ok()
}

/// A safetensors file, as weights and as a training state. Whether it can be read.
pub fn safetensors(bytes: &[u8], folder: &Path) -> bool {
    let path = written(folder, "model.safetensors", bytes);
    safetensors_file::read(&path).is_ok_and(|tensors| looked_at(&tensors))
}

/// A file of Python's `torch.save`.
pub fn torch_file(bytes: &[u8], _folder: &Path) -> bool {
    torch_file::read_from(Cursor::new(bytes)).is_ok_and(|tensors| looked_at(&tensors))
}

fn looked_at(tensors: &[(String, RawTensor)]) -> bool {
    let limits = CarryLimits { halt_max_steps: 3, vocab_size: 11, num_puzzle_identifiers: 1 };
    for (name, tensor) in tensors {
        assert_eq!(tensor.numel() * tensor.dtype.size(), tensor.data.len());
        let _ = (tensor.check_weights(name, tensor.dtype), limits.check(name, tensor));
    }
    true
}

fn written(folder: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.join(name);
    assert!(fs::write(&path, bytes).is_ok(), "the folder for the trial can be written");
    path
}
