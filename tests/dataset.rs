//! Dataset building and reading. The golden files come from upstream's own builders (numpy 2.4).

mod common;

use std::{
    collections::BTreeSet,
    fs,
    io::{BufWriter, Write},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use common::{golden, hrm, json, names, ok, sha256, snapshot::Transcript};
use hrm::{
    dataset::{
        Augmentation, BuildOptions, Dataset, DatasetSet, PuzzleFile, PuzzleInput, ReadOptions, Split, build,
        check_output_folder,
    },
    puzzle::{
        Board, DIHEDRAL_INVERSE, Geometry, PuzzleKind, SudokuShuffle, dihedral, inverse_dihedral,
        shuffle::{ShuffleDraws, ShuffleError},
    },
};
use ndarray::Array2;
use serde_json::Value;

fn numbers(value: &Value) -> Vec<i32> {
    value.as_array().into_iter().flatten().filter_map(Value::as_i64).map(|x| x as i32).collect()
}

fn bytes<const N: usize>(value: &Value) -> Result<[u8; N]> {
    let list: Vec<u8> = numbers(value).iter().map(|&x| x as u8).collect();
    list.try_into().ok().with_context(|| format!("{N} numbers"))
}

fn grid(value: &Value) -> Result<Array2<i32>> {
    let rows: Vec<Vec<i32>> = value.as_array().context("rows")?.iter().map(numbers).collect();
    Ok(Array2::from_shape_vec((rows.len(), rows[0].len()), rows.concat())?)
}

#[test]
fn sudoku_shuffles_match_upstream() -> Result<()> {
    let record = json(&golden("dataset/shuffle_sudoku.json"))?;
    let cases = record["cases"].as_array().context("cases")?;
    assert_eq!(cases.len(), 10);
    for case in cases {
        let draws = ShuffleDraws {
            digit_map: bytes(&case["digit_map"])?,
            transpose: case["transpose"].as_bool().context("transpose")?,
            row_perm: bytes(&case["row_perm"])?,
            col_perm: bytes(&case["col_perm"])?,
        };
        let shuffle = SudokuShuffle::new(&draws)?;
        for (from, to) in [("puzzle", "out_puzzle"), ("solution", "out_solution")] {
            let out = shuffle.apply(&Board::from_digits(bytes(&case[from])?)?);
            assert_eq!(out.digits(), &bytes::<81>(&case[to])?);
        }

        let broken = ShuffleDraws { row_perm: [0, 1, 3, 2, 4, 5, 6, 7, 8], ..draws.clone() };
        assert!(matches!(SudokuShuffle::new(&broken), Err(ShuffleError::Lines { axis: "row", .. })));
        let broken = ShuffleDraws { digit_map: [1, 0, 2, 3, 4, 5, 6, 7, 8, 9], ..draws };
        assert!(matches!(SudokuShuffle::new(&broken), Err(ShuffleError::DigitMap { .. })));
    }
    Ok(())
}

#[test]
fn dihedral_symmetries_match_upstream() -> Result<()> {
    let record = json(&golden("dataset/dihedral.json"))?;
    assert_eq!(numbers(&record["inverse_table"]), DIHEDRAL_INVERSE.map(|i| i as i32));
    for (input, outputs) in [("input", "outputs"), ("rect_input", "rect_outputs")] {
        let input = grid(&record[input])?;
        let cases = record[outputs].as_array().context("outputs")?;
        assert_eq!(cases.len(), 8);
        for case in cases {
            let tid = case["tid"].as_u64().context("tid")? as usize;
            let out = dihedral(input.view(), tid);
            assert_eq!(out, grid(&case["out"])?, "symmetry {tid}");
            assert_eq!(inverse_dihedral(out.view(), tid), input, "inverse of symmetry {tid}");
        }
    }
    let beyond = &record["out_of_range"];
    let input = grid(&record["input"])?;
    let tid = beyond["tid"].as_u64().context("tid")? as usize;
    assert_eq!(dihedral(input.view(), tid), grid(&beyond["out"])?);
    assert_eq!(inverse_dihedral(input.view(), tid), input);
    Ok(())
}

#[test]
fn digit_shift_and_maze_swap_match_upstream() -> Result<()> {
    let record = json(&golden("dataset/transforms.json"))?;
    let x = grid(&record["x"])?;
    let shifts = record["sudoku_cyclic_shift"].as_array().context("shifts")?;
    assert_eq!(shifts.len(), 10);
    for case in shifts {
        let perm = case["perm"].as_u64().context("perm")? as u32;
        let mut tokens = x.clone().into_raw_vec_and_offset().0;
        Geometry::SUDOKU.permute(&mut tokens, perm);
        assert_eq!(tokens, grid(&case["out"])?.into_raw_vec_and_offset().0, "perm {perm}");
        Geometry::SUDOKU.permute(&mut tokens, 9 - perm % 9);
        assert_eq!(tokens, x.clone().into_raw_vec_and_offset().0, "perm {perm} undone");
    }
    let y = grid(&record["y"])?;
    let swaps = record["maze_swap"].as_array().context("swaps")?;
    assert_eq!(swaps.len(), 3);
    for case in swaps {
        let mut tokens = y.clone().into_raw_vec_and_offset().0;
        Geometry::maze(30).permute(&mut tokens, case["perm"].as_u64().context("perm")? as u32);
        assert_eq!(tokens, grid(&case["out"])?.into_raw_vec_and_offset().0);
    }
    Ok(())
}

/// Every file of `wanted` is in `built` with the same bytes, and `built` has nothing else but our sidecars.
fn assert_same_folders(built: &Path, wanted: &Path) -> Result<()> {
    assert_eq!(names(built)?, ["identifiers.json", "test", "train"]);
    assert_eq!(fs::read(built.join("identifiers.json"))?, fs::read(wanted.join("identifiers.json"))?);
    for split in ["train", "test"] {
        let (built, wanted) = (built.join(split), wanted.join(split));
        let mut expected = names(&wanted)?;
        expected.push("all__rows.csv".into());
        expected.sort();
        assert_eq!(names(&built)?, expected);
        for name in names(&wanted)? {
            assert!(fs::read(built.join(&name))? == fs::read(wanted.join(&name))?, "{split}/{name} differs");
        }
    }
    Ok(())
}

#[test]
fn the_plain_sudoku_dataset_is_upstreams_byte_for_byte() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let csv = golden("dataset/sudoku_csv");
    ok(hrm(temp.path()).arg("build-dataset").arg("--source").arg(&csv).args(["--output_dir", "out"]))?;
    assert_same_folders(&temp.path().join("out"), &golden("dataset/sudoku_noaug"))?;

    let sidecar = fs::read_to_string(temp.path().join("out/train/all__rows.csv"))?;
    let input = fs::read_to_string(csv.join("train.csv"))?;
    let mut expected = vec!["source,rating".to_owned()];
    for line in input.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        expected.push(format!("{},{}", fields[0], fields[3]));
    }
    assert_eq!(sidecar.lines().collect::<Vec<_>>(), expected);
    Ok(())
}

#[test]
fn maze_datasets_are_upstreams_byte_for_byte() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let csv = golden("dataset/maze_csv");
    for (flags, name) in [(&[][..], "maze_noaug"), (&["--aug"][..], "maze_aug")] {
        let mut command = hrm(temp.path());
        command.args(["build-dataset", "--dataset", "maze", "--output-dir", name, "--source"]).arg(&csv).args(flags);
        ok(&mut command)?;
        assert_same_folders(&temp.path().join(name), &golden("dataset").join(name))?;
        assert_listed(&temp.path().join(name), &json(&golden("dataset/maze.json"))?[name], &[])?;
    }
    Ok(())
}

/// Compares files with a record of their hashes (arrays) or texts (JSON); `except` is left out.
fn assert_listed(folder: &Path, record: &Value, except: &[&str]) -> Result<()> {
    let files = record.as_object().context("a list of files")?;
    assert!(files.len() > 12);
    for (name, wanted) in files.iter().filter(|(name, _)| !except.contains(&name.as_str())) {
        let found = fs::read(folder.join(name)).with_context(|| name.clone())?;
        match wanted.as_str() {
            Some(text) => assert_eq!(String::from_utf8(found)?, text, "{name}"),
            None => assert_eq!(wanted["sha256"], sha256(&found), "{name}"),
        }
    }
    Ok(())
}

/// Token arrays that chance decides; upstream's are int64 where boards were augmented.
const DRAWN: [&str; 2] = ["train/all__inputs.npy", "train/all__labels.npy"];

#[test]
fn every_recorded_sudoku_build_has_the_recorded_files() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let record = json(&golden("dataset/sudoku.json"))?;
    let min = record["min_difficulty"]["value"].as_i64().context("value")?.to_string();
    let none: &[&str] = &[];
    let builds: [(&str, &Value, &[&str], &[&str]); 5] = [
        ("noaug", &record["noaug"], &[], none),
        ("min", &record["min_difficulty"]["files"], &["--min-difficulty", &min], none),
        ("aug3", &record["aug3_hint"]["files"], &["--num-aug", "3", "--hint"], &DRAWN),
        ("aug2", &record["aug2_nohint"], &["--num-aug", "2"], &DRAWN),
        ("sub5", &record["subsample5_hint_noaug"], &["--subsample-size", "5", "--hint"], &DRAWN),
    ];
    for (name, files, flags, except) in builds {
        let mut command = hrm(temp.path());
        command.args(["build-dataset", "--output-dir", name, "--source"]).arg(golden("dataset/sudoku_csv"));
        ok(command.args(flags))?;
        assert_listed(&temp.path().join(name), files, except).with_context(|| name.to_owned())?;
    }
    Ok(())
}

fn open(folder: &Path, split: Split) -> Result<Dataset> {
    Dataset::open(folder, split)
}

struct Row {
    question: Board,
    answer: Board,
}

fn row(set: &DatasetSet, example: usize) -> Result<Row> {
    let batch = set.rows_as_stored(&[example])?;
    let board = |tokens: &Array2<i32>| Board::from_tokens(tokens.as_slice().unwrap_or_default());
    Ok(Row { question: board(&batch.inputs)?, answer: board(&batch.labels)? })
}

/// What holds for every Sudoku dataset with hints, upstream's or ours: groups of (1 + num_aug) boards, each followed by
/// its hint version. Returns the (blanks, filled) pairs seen.
fn assert_hinted(set: &DatasetSet, num_aug: usize) -> Result<BTreeSet<(usize, usize)>> {
    let rows_per_group = 2 * (1 + num_aug);
    assert_eq!(set.len(), set.groups() * rows_per_group);
    let mut seen = BTreeSet::new();
    for group in 0..set.groups() {
        let puzzles = set.puzzles_of(group);
        assert_eq!((puzzles.start, puzzles.len()), (group * rows_per_group, rows_per_group));
        let original = row(set, puzzles.start)?;
        for version in puzzles.step_by(2) {
            assert_eq!((set.group_of(version), set.puzzle_of(version)), (group, version));
            let (board, hinted) = (row(set, version)?, row(set, version + 1)?);
            board.answer.check_solves(&board.question)?;
            assert_eq!(hinted.answer, board.answer);
            hinted.answer.check_solves(&hinted.question)?;
            let kept = board.question.digits().iter().zip(hinted.question.digits());
            assert!(kept.clone().all(|(&given, &now)| given == 0 || given == now));
            let (blanks, left) = (board.question.blanks(), hinted.question.blanks());
            assert_eq!(blanks, original.question.blanks());
            if blanks < 2 {
                assert_eq!(blanks, left);
            } else {
                assert!((1..blanks).contains(&left), "{blanks} blanks, {left} left");
                seen.insert((blanks, blanks - left));
            }
        }
    }
    Ok(seen)
}

#[test]
fn upstreams_augmented_int64_dataset_is_read() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let split = temp.path().join("train");
    fs::create_dir(&split)?;
    let folder = golden("dataset/sudoku_aug1_hint_example_train");
    for name in names(&folder)? {
        fs::copy(folder.join(&name), split.join(&name))?;
    }
    let dataset = open(temp.path(), Split::Train)?;
    assert_eq!((dataset.meta().total_groups, dataset.len()), (20, 80));
    assert!(assert_hinted(&dataset.sets()[0], 1)?.len() > 20);
    assert_eq!(dataset.sets()[0].rows()?, None, "upstream writes no sidecar");
    Ok(())
}

#[test]
fn augmentation_keeps_every_invariant() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let mut command = hrm(temp.path());
    command.args(["build-dataset", "--output-dir", "out", "--num-aug", "40", "--hint", "--source"]);
    ok(command.arg(golden("dataset/sudoku_csv")))?;
    let dataset = open(&temp.path().join("out"), Split::Train)?;
    let set = &dataset.sets()[0];
    let seen = assert_hinted(set, 40)?;
    assert!(seen.len() > 300, "only {} different (blanks, filled) pairs", seen.len());

    let plain = open(&golden("dataset/sudoku_noaug"), Split::Train)?;
    let mut distinct = BTreeSet::new();
    for group in 0..set.groups() {
        let first = set.puzzles_of(group).start;
        let (ours, original) = (row(set, first)?, row(&plain.sets()[0], group)?);
        assert_eq!((ours.question, ours.answer), (original.question, original.answer));
        for version in set.puzzles_of(group).step_by(2) {
            distinct.insert(row(set, version)?.answer.to_string());
        }
    }
    assert_eq!(distinct.len(), set.groups() * 41, "two shuffles out of 1.2e12 coincide");
    assert_eq!(set.rows()?.map(|rows| rows.len()), Some(20));
    Ok(())
}

#[test]
fn a_board_with_one_blank_gets_an_unchanged_copy() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let answer = "534678912672195348198342567859761423426853791713924856961537284287419635345286179";
    let text = format!("source,question,answer,rating\nx,.{},{answer},0\n", &answer[1..]);
    fs::write(temp.path().join("one.csv"), text)?;
    let flags = ["build-dataset", "--source", "one.csv", "--hint", "--num-aug", "1", "--output-dir", "out"];
    ok(hrm(temp.path()).args(flags))?;
    let dataset = open(&temp.path().join("out"), Split::Train)?;
    let set = &dataset.sets()[0];
    assert_eq!(set.len(), 4);
    assert_eq!(row(set, 0)?.question, row(set, 1)?.question);
    assert_eq!(row(set, 2)?.question, row(set, 3)?.question);
    assert_hinted(set, 1)?;
    Ok(())
}

/// All files of a dataset in one hash.
fn folder_hash(folder: &Path) -> Result<String> {
    let mut all = Vec::new();
    for split in ["train", "test"] {
        for name in names(&folder.join(split))? {
            all.extend(fs::read(folder.join(split).join(name))?);
        }
    }
    Ok(sha256(&all))
}

#[test]
fn a_seed_decides_the_build_and_threads_do_not() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let build = |name: &str, flags: &[&str]| -> Result<String> {
        let mut command = hrm(temp.path());
        command.args(["build-dataset", "--output-dir", name, "--num-aug", "60", "--hint", "--subsample-size", "300"]);
        ok(command.args(flags))?;
        folder_hash(&temp.path().join(name))
    };
    let base = build("a", &["--threads", "1"])?;
    assert_eq!(base, build("b", &["--threads", "4"])?);
    assert_eq!(base, build("c", &["--threads", "3", "--seed", "0"])?);
    assert_ne!(base, build("d", &["--seed", "1"])?);
    Ok(())
}

/// Each board is drawn by seed, puzzle and version alone.
#[test]
fn a_seed_decides_each_board_whatever_else_is_built() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let boards = |name: &str, flags: &[&str]| -> Result<BTreeSet<Vec<i32>>> {
        let mut command = hrm(temp.path());
        command.args(["build-dataset", "--output-dir", name, "--num-aug", "4", "--hint", "--source"]);
        ok(command.arg(golden("dataset/sudoku_csv")).args(flags))?;
        let dataset = open(&temp.path().join(name), Split::Train)?;
        let set = &dataset.sets()[0];
        let batch = set.rows_as_stored(&(0..set.len()).collect::<Vec<_>>())?;
        Ok(batch.inputs.rows().into_iter().map(|row| row.to_vec()).collect())
    };
    let all = boards("all", &[])?;
    assert!(boards("some", &["--subsample-size", "5"])?.is_subset(&all));
    let other = boards("other", &["--seed", "1"])?;
    // The 20 original boards are the same under every seed, and hardly anything else is.
    let shared = other.intersection(&all).count();
    assert!((20..25).contains(&shared), "{shared} boards in common");
    Ok(())
}

#[test]
fn a_bare_build_takes_the_defaults_and_says_so() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let mut said = Transcript::new(temp.path());
    said.ok(hrm(temp.path()).args(["build-dataset", "--hint", "--json", "report.json"]))?;
    let report = json(&temp.path().join("report.json"))?;
    assert_eq!((&report["train"]["boards"], &report["test"]["boards"]), (&2000.into(), &2000.into()));
    let root = temp.path().join("data/sudoku-extreme-full-hint");
    let test = open(&root, Split::Test)?;
    assert_eq!((test.len(), open(&root, Split::Train)?.meta().total_groups), (2000, 1000));

    let bundled = Dataset::bundled_test(None)?;
    assert_eq!(bundled.fingerprint()?, test.fingerprint()?, "the bundled rows are the built test set");
    assert_eq!(bundled.sets()[0].rows()?, test.sets()[0].rows()?);

    let all = said.ok(hrm(temp.path()).args(["build-dataset", "--test-rows", "all", "--json", "-"]))?;
    let report: Value = serde_json::from_str(&all.stdout)?;
    assert_eq!(report["test"]["boards"], 10_000);
    said.matches("a_bare_build_takes_the_defaults_and_says_so");
    Ok(())
}

#[test]
fn a_subsample_is_distinct_puzzles_of_the_list() -> Result<()> {
    let temp = tempfile::tempdir()?;
    ok(hrm(temp.path()).args(["build-dataset", "--output-dir", "all"]))?;
    ok(hrm(temp.path()).args(["build-dataset", "--output-dir", "some", "--subsample-size", "100"]))?;
    let questions = |name: &str| -> Result<Vec<String>> {
        let dataset = open(&temp.path().join(name), Split::Train)?;
        let set = &dataset.sets()[0];
        (0..set.len()).map(|i| Ok(row(set, i)?.question.to_string())).collect()
    };
    let (all, some) = (questions("all")?, questions("some")?);
    let places: Vec<usize> = some.iter().filter_map(|q| all.iter().position(|other| other == q)).collect();
    assert_eq!(places.len(), 100);
    assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), 100);
    assert!(!places.is_sorted(), "the order is the order drawn");
    Ok(())
}

/// Upstream's int64 array of a board list and our uint8 array of it are the same data.
#[test]
fn fingerprints_name_the_content() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let copy = |name: &str| -> Result<std::path::PathBuf> {
        let root = temp.path().join(name);
        fs::create_dir_all(root.join("train"))?;
        for file in names(&golden("dataset/sudoku_noaug/train"))? {
            fs::copy(golden("dataset/sudoku_noaug/train").join(&file), root.join("train").join(&file))?;
        }
        Ok(root)
    };
    let original = open(&golden("dataset/sudoku_noaug"), Split::Train)?.fingerprint()?;
    assert!(original.len() == 64 && original.chars().all(|c| c.is_ascii_hexdigit()));

    let wide = copy("wide")?;
    let inputs: Array2<u8> = ndarray_npy::read_npy(wide.join("train/all__inputs.npy"))?;
    ndarray_npy::write_npy(wide.join("train/all__inputs.npy"), &inputs.mapv(i64::from))?;
    assert_eq!(open(&wide, Split::Train)?.fingerprint()?, original);

    let other = copy("other")?;
    let mut inputs = inputs;
    inputs[[3, 5]] = if inputs[[3, 5]] == 2 { 3 } else { 2 };
    ndarray_npy::write_npy(other.join("train/all__inputs.npy"), &inputs)?;
    assert_ne!(open(&other, Split::Train)?.fingerprint()?, original);
    Ok(())
}

#[test]
fn damaged_datasets_are_refused_with_a_reason() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let source = golden("dataset/sudoku_noaug/train");
    let meta = fs::read_to_string(source.join("dataset.json"))?;
    let mut said = Transcript::new(temp.path());
    let mut case = |name: &str, change: &dyn Fn(&Path) -> Result<()>| -> Result<()> {
        let root = temp.path().join(name);
        fs::create_dir_all(root.join("train"))?;
        for file in names(&source)? {
            fs::copy(source.join(&file), root.join("train").join(&file))?;
        }
        change(&root.join("train"))?;
        said.add(name, &open(&root, Split::Train).map(|_| ()).map_err(|e| format!("{e:#}")).expect_err(name));
        Ok(())
    };
    let edit = |from: &str, to: &str| {
        let text = meta.replace(from, to);
        assert_ne!(text, meta);
        move |folder: &Path| Ok(fs::write(folder.join("dataset.json"), &text)?)
    };
    let vector = |file: &'static str, values: Vec<i32>| {
        move |folder: &Path| Ok(ndarray_npy::write_npy(folder.join(file), &ndarray::Array1::from(values.clone()))?)
    };
    case("seq-len", &edit("\"seq_len\": 81", "\"seq_len\": 80"))?;
    case("groups", &edit("\"total_groups\": 20", "\"total_groups\": 21"))?;
    case("vocab", &edit("\"vocab_size\": 11", "\"vocab_size\": 5"))?;
    case("vocab-0", &edit("\"vocab_size\": 11", "\"vocab_size\": 0"))?;
    case("vocab-big", &edit("\"vocab_size\": 11", "\"vocab_size\": 99999999999"))?;
    case("set-name", &edit("[\"all\"]", "[\"../../etc/all\"]"))?;
    case("set-missing", &edit("[\"all\"]", "[\"other\"]"))?;
    case("no-json", &edit("{", "["))?;
    case("indices", &vector("all__puzzle_indices.npy", [vec![0, 2, 1], (3..21).collect()].concat()))?;
    case("indices-end", &vector("all__puzzle_indices.npy", (0..20).collect()))?;
    case("indices-start", &vector("all__group_indices.npy", (1..=21).collect()))?;
    case("indices-negative", &vector("all__group_indices.npy", vec![0, -5, 20]))?;
    case("indices-none", &vector("all__group_indices.npy", vec![]))?;
    case("identifiers", &vector("all__puzzle_identifiers.npy", vec![7; 20]))?;
    case("identifiers-short", &vector("all__puzzle_identifiers.npy", vec![0; 3]))?;
    case("rows", &|folder| Ok(ndarray_npy::write_npy(folder.join("all__labels.npy"), &Array2::<u8>::ones((19, 81)))?))?;
    case("flat", &|folder| {
        Ok(ndarray_npy::write_npy(folder.join("all__labels.npy"), &ndarray::Array1::<u8>::ones(20 * 81))?)
    })?;
    case("floats", &|folder| {
        Ok(ndarray_npy::write_npy(folder.join("all__labels.npy"), &Array2::<f32>::ones((20, 81)))?)
    })?;
    case("cut", &|folder| {
        let bytes = fs::read(folder.join("all__inputs.npy"))?;
        Ok(fs::write(folder.join("all__inputs.npy"), &bytes[..bytes.len() / 2])?)
    })?;
    said.matches("damaged_datasets_are_refused_with_a_reason");
    Ok(())
}

#[test]
fn a_missing_dataset_names_the_command_that_builds_it() {
    let error = open(Path::new("nowhere/sudoku-hint"), Split::Train).map(|_| ()).expect_err("missing").to_string();
    let mut said = Transcript::default();
    said.add("nowhere/sudoku-hint", &error);
    said.matches("a_missing_dataset_names_the_command_that_builds_it");
}

#[test]
fn a_sidecar_of_another_dataset_is_noticed() -> Result<()> {
    let temp = tempfile::tempdir()?;
    ok(hrm(temp.path()).args(["build-dataset", "--output-dir", "out"]))?;
    fs::write(temp.path().join("out/test/all__rows.csv"), "source,rating\na,1\n")?;
    let error = open(&temp.path().join("out"), Split::Test)?.sets()[0].rows().expect_err("one line").to_string();
    let mut said = Transcript::new(temp.path());
    said.add("a sidecar of one row", &error);
    said.matches("a_sidecar_of_another_dataset_is_noticed");
    Ok(())
}

/// A list that repeats the golden rows, in other digits each time.
fn write_long_list(path: &Path, rows: usize) -> Result<()> {
    let text = fs::read_to_string(golden("dataset/sudoku_csv/train.csv"))?;
    let mut file = BufWriter::new(fs::File::create(path)?);
    for (i, line) in text.lines().take(1).chain(text.lines().skip(1).cycle()).take(rows + 1).enumerate() {
        let shift = (i / 100) as u8;
        let digit = |byte: u8| if byte == b'.' { byte } else { (byte - b'1' + shift % 9) % 9 + b'1' };
        let mut line = line.as_bytes().to_vec();
        if i > 0 {
            let first = line.iter().position(|&byte| byte == b',').context("a comma")? + 1;
            line[first..first + 163].iter_mut().filter(|byte| **byte != b',').for_each(|byte| *byte = digit(*byte));
        }
        line.push(b'\n');
        file.write_all(&line)?;
    }
    Ok(file.flush()?)
}

/// The most memory that a command held, in KiB. What the kernel tells at its end counts the memory of the test that
/// started it; so it is asked while it runs.
fn peak_memory(command: &mut Command) -> Result<u64> {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait()?.is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let told = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak = peak.max(told.unwrap_or(0));
        thread::sleep(Duration::from_millis(1));
    }
    ensure!(child.wait()?.success(), "{command:?} failed");
    ensure!(peak > 0, "the kernel tells no peak");
    Ok(peak)
}

/// Ten times the puzzles, the same memory; as they were held in memory, the longer list would take 45 MB more.
#[test]
fn memory_does_not_grow_with_the_list() -> Result<()> {
    let temp = tempfile::tempdir()?;
    write_long_list(&temp.path().join("short.csv"), 30_000)?;
    write_long_list(&temp.path().join("long.csv"), 300_000)?;
    for more in [&["--hint"][..], &["--subsample-size", "500", "--num-aug", "50"]] {
        let peak = |list: &str| {
            let command = &mut hrm(temp.path());
            command.args(["build-dataset", "--threads", "2", "--force", "--output-dir", "out", "--source", list]);
            peak_memory(command.args(more))
        };
        let (short, long) = (peak("short.csv")?, peak("long.csv")?);
        assert!(long < short + 12_000, "{more:?}: {short} KiB of 30,000 rows, {long} KiB of 300,000");
    }
    Ok(())
}

/// A list of several blocks gives the same whether it is read twice or comes through a pipe, and whatever is kept of it.
#[test]
fn a_pipe_builds_what_its_file_does() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let list = temp.path().join("list.csv");
    write_long_list(&list, 20_000)?;
    for more in [&["--hint"][..], &["--subsample-size", "900", "--num-aug", "2", "--min-difficulty", "10"]] {
        let command = |source: &str| {
            let mut command = hrm(temp.path());
            command.args(["build-dataset", "--force", "--output-dir", "out", "--source", source]).args(more);
            command
        };
        ok(&mut command("list.csv"))?;
        let wanted = folder_hash(&temp.path().join("out"))?;
        let mut child = command("/dev/stdin").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        child.stdin.take().context("a pipe")?.write_all(&fs::read(&list)?)?;
        assert!(child.wait()?.success());
        assert_eq!(folder_hash(&temp.path().join("out"))?, wanted, "{more:?}");
        ok(command("/dev/stdin").stdin(fs::File::open(&list)?))?;
        assert_eq!(folder_hash(&temp.path().join("out"))?, wanted, "{more:?}");
    }
    let sidecar = fs::read_to_string(temp.path().join("out/train/all__rows.csv"))?;
    assert_eq!(sidecar.lines().count(), 901);
    Ok(())
}

/// A file that is another one when it is read for the second time.
#[test]
fn a_list_that_changes_during_the_build_is_noticed() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let (list, out) = (temp.path().join("list.csv"), temp.path().join("out"));
    write_long_list(&list, 20_000)?;
    let good = fs::read_to_string(&list)?;
    let lines: Vec<&str> = good.lines().collect();
    let last = good.trim_end().rfind(',').context("a rating")?;
    let changes = [
        ("a row less", lines[..20_000].join("\n")),
        ("a row more", format!("{good}{}\n", lines[1])),
        ("another order", [&lines[..100], &[lines[101], lines[100]], &lines[102..]].concat().join("\n")),
        ("another rating", format!("{},77\n", &good[..last])),
        ("a bad row", good.replacen(lines[15_000], "a,b,c,1", 1)),
        ("nothing", String::new()),
    ];
    let file = PuzzleFile::File(list.clone());
    let reading = ReadOptions { kind: PuzzleKind::Sudoku, min_difficulty: None, first_rows: None };
    let test = PuzzleInput::read(&PuzzleFile::Bundled(Split::Test), &reading, &())?;
    let mut said = Transcript::new(temp.path());
    for subsample_size in [None, Some(300)] {
        let options = BuildOptions { augmentation: Augmentation::default(), subsample_size, seed: 0 };
        let built = |changed: Option<&str>| -> Result<()> {
            fs::write(&list, &good)?;
            let train = PuzzleInput::read(&file, &reading, &())?;
            match changed {
                Some("") => fs::remove_file(&list)?,
                Some(text) => fs::write(&list, text)?,
                None => {}
            }
            build(&train, &test, &options, &check_output_folder(&out, true)?, &()).map(drop)
        };
        built(None)?;
        let before = folder_hash(&out)?;
        for (what, text) in &changes {
            let error = built(Some(text)).err().with_context(|| what.to_string())?;
            said.add(what, &format!("{error:#}"));
            assert_eq!(folder_hash(&out)?, before, "{what}: what stood there stays");
        }
        let there = if list.exists() { vec!["list.csv", "out"] } else { vec!["out"] };
        assert_eq!(names(temp.path())?, there);
    }
    said.matches("a_list_that_changes_during_the_build_is_noticed");
    Ok(())
}
