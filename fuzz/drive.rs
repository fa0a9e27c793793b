//! What a target does with its bytes. The seeds go through the same functions in an ordinary test
//! (`tests/fuzz_seeds.rs`).

use std::{fs, io::BufReader, path::Path};

use hrm::{
    dataset::{Dataset, PuzzleFile, PuzzleInput, PuzzleList, ReadOptions, Split},
    puzzle::PuzzleKind,
};

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
