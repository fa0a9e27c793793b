//! Building a dataset folder from puzzle lists.
//!
//! Every puzzle makes one group. The group holds versions of the puzzle (the original first, then its augmentations),
//! and each version is one example, or with hints two: the board, then the board with some blanks filled in. Version `v`
//! of the list's puzzle `p` is drawn from a random stream of its own, keyed by (seed, p, v): the result depends neither
//! on the number of threads nor on which other puzzles were kept.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    os::unix::fs::FileExt,
    path::Path,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use rand_chacha::rand_core::RngCore;
use rayon::prelude::*;
use serde::Serialize;

use super::{
    DatasetMeta, PuzzleList, Split, format,
    npy::{NpyDtype, header},
    staging::OutputFolder,
};
use crate::{
    puzzle::{PuzzleKind, SudokuShuffle, dihedral, maze, sudoku::CELLS},
    rng::{Purpose, below, distinct, shuffle_front, stream},
};

/// Versions that one task writes: some hundred kilobytes, so that tasks are few and threads stay busy to the end.
const VERSIONS_PER_TASK: usize = 1024;
/// Token of a blank Sudoku cell.
const BLANK: u8 = 1;
/// The set that all of upstream's builders write.
const SET: &str = "all";

/// How training puzzles are multiplied. Test puzzles stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Augmentation {
    /// Shuffled versions of each Sudoku besides the original.
    pub num_aug: usize,
    /// Each Sudoku version is followed by a copy with a random part of its blanks filled from the solution: 1 up to all
    /// but one. A board with fewer than two blanks is followed by an unchanged copy.
    pub hint: bool,
    /// The eight symmetries of each maze.
    pub dihedral: bool,
}

/// What to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildOptions {
    pub augmentation: Augmentation,
    /// Keep this many training puzzles, drawn without replacement, in the order drawn. More than there are keeps all.
    pub subsample_size: Option<usize>,
    pub seed: u64,
}

/// Watches a build and may end it.
pub trait Progress: Sync {
    /// The number of boards to write, told once before the first.
    fn start(&self, _boards: u64) {}
    /// Boards written since the last call.
    fn advance(&self, _boards: u64) {}
    /// True ends the build with an error; nothing is left behind.
    fn cancelled(&self) -> bool {
        false
    }
}

/// No progress bar, no end before the end.
impl Progress for () {}

/// What was built.
#[derive(Clone, Debug, Serialize)]
pub struct BuildReport {
    pub train: SplitReport,
    pub test: SplitReport,
    /// Bytes of all files.
    pub bytes: u64,
    /// Wall-clock seconds from the first board to the folder in its place; reading the lists is not counted.
    pub seconds: f64,
}

/// One split of what was built.
#[derive(Clone, Debug, Serialize)]
pub struct SplitReport {
    /// Original puzzles, which is groups.
    pub puzzles: usize,
    /// Rows of the arrays.
    pub boards: usize,
    pub mean_rating: f64,
}

/// Builds the dataset in a temporary folder beside `output` and puts it in place once it is whole.
///
/// Runs on the current rayon pool.
///
/// # Errors
/// Options that do not fit the puzzles, a list too long for upstream's 32-bit indices, a full disk, a cancelled build.
/// After an error the output folder is what it was before.
pub fn build(
    train: &PuzzleList,
    test: &PuzzleList,
    options: &BuildOptions,
    output: &OutputFolder,
    progress: &dyn Progress,
) -> Result<BuildReport> {
    let begin = Instant::now();
    ensure!(
        (train.kind(), train.seq_len()) == (test.kind(), test.seq_len()),
        "training puzzles ({} of {} cells) and test puzzles ({} of {} cells) are not alike",
        train.kind(),
        train.seq_len(),
        test.kind(),
        test.seq_len()
    );
    let train = Expansion::new(train, options)?;
    let test = Expansion::plain(test)?;
    progress.start((train.boards + test.boards) as u64);

    let staging = output.stage()?;
    let mut bytes = 0;
    for (split, expansion) in [(Split::Train, &train), (Split::Test, &test)] {
        let folder = staging.path().join(split.name());
        fs::create_dir(&folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
        bytes += expansion.write(&folder, progress)?;
    }
    bytes += write_file(&staging.path().join("identifiers.json"), b"[\"<blank>\"]")?;
    ensure!(!progress.cancelled(), "stopped: nothing was written");
    staging.commit()?;
    Ok(BuildReport { train: train.report(), test: test.report(), bytes, seconds: begin.elapsed().as_secs_f64() })
}

/// A puzzle list with all that is made of it.
struct Expansion<'a> {
    list: &'a PuzzleList,
    /// The list's puzzles that are kept, in the order of the groups.
    picked: Vec<u32>,
    augmentation: Augmentation,
    seed: u64,
    /// Versions of each puzzle.
    versions: usize,
    /// Examples of each version.
    rows_per_version: usize,
    /// Examples in all.
    boards: usize,
}

impl<'a> Expansion<'a> {
    fn plain(list: &'a PuzzleList) -> Result<Self> {
        Self::new(list, &BuildOptions { augmentation: Augmentation::default(), subsample_size: None, seed: 0 })
    }

    fn new(list: &'a PuzzleList, options: &BuildOptions) -> Result<Self> {
        let augmentation = options.augmentation;
        match list.kind() {
            PuzzleKind::Sudoku => ensure!(!augmentation.dihedral, "--aug is for mazes; Sudoku takes --num-aug N"),
            PuzzleKind::Maze => {
                ensure!(augmentation.num_aug == 0, "--num-aug is for Sudoku; mazes take --aug");
                ensure!(!augmentation.hint, "--hint is for Sudoku");
            }
        }
        let count = u32::try_from(list.len()).ok().context("more puzzles than 32 bits can number")?;
        let picked = match options.subsample_size {
            Some(size) if size < list.len() => {
                distinct(&mut stream(Purpose::Subsample, options.seed, 0, 0), count, size as u32)
            }
            _ => (0..count).collect(),
        };
        let versions = if augmentation.dihedral { 8 } else { augmentation.num_aug.saturating_add(1) };
        let rows_per_version = if augmentation.hint { 2 } else { 1 };
        // Upstream's index arrays are int32, which bounds the number of examples.
        let boards = picked.len().checked_mul(versions).and_then(|n| n.checked_mul(rows_per_version));
        let Some(boards) = boards.filter(|&n| i32::try_from(n).is_ok()) else {
            bail!(
                "{} puzzles × {versions} versions × {rows_per_version} are more examples than the format can number \
                 ({}); lower --num-aug or set --subsample-size",
                picked.len(),
                i32::MAX
            )
        };
        Ok(Self { list, picked, augmentation, seed: options.seed, versions, rows_per_version, boards })
    }

    fn report(&self) -> SplitReport {
        let ratings: f64 = self.picked.iter().map(|&p| self.list.row(p as usize).rating as f64).sum();
        SplitReport {
            puzzles: self.picked.len(),
            boards: self.boards,
            mean_rating: ratings / self.picked.len().max(1) as f64,
        }
    }

    fn meta(&self) -> DatasetMeta {
        DatasetMeta {
            pad_id: 0,
            ignore_label_id: Some(0),
            blank_identifier_id: 0,
            vocab_size: self.list.kind().vocab_size() as i64,
            seq_len: self.list.seq_len() as i64,
            num_puzzle_identifiers: 1,
            total_groups: self.picked.len() as i64,
            // Every example counts as a puzzle of its own.
            mean_puzzle_examples: 1.0,
            sets: vec![SET.into()],
        }
    }

    /// Writes the split's files and returns their size in bytes.
    fn write(&self, folder: &Path, progress: &dyn Progress) -> Result<u64> {
        let file = |name: &str| folder.join(format!("{SET}__{name}"));
        let mut bytes = self.write_boards(&file("inputs.npy"), &file("labels.npy"), progress)?;
        let rows_per_group = self.versions * self.rows_per_version;
        let boards = self.boards as i32;
        bytes += write_i32(&file("puzzle_identifiers.npy"), self.boards, std::iter::repeat_n(0, self.boards))?;
        bytes += write_i32(&file("puzzle_indices.npy"), self.boards + 1, 0..=boards)?;
        bytes += write_i32(&file("group_indices.npy"), self.picked.len() + 1, (0..=boards).step_by(rows_per_group))?;
        bytes += self.write_rows(&file("rows.csv"))?;
        bytes += write_file(&folder.join("dataset.json"), format::meta_json(&self.meta())?.as_bytes())?;
        Ok(bytes)
    }

    /// The sidecar: source and rating of each group's puzzle.
    fn write_rows(&self, path: &Path) -> Result<u64> {
        let mut csv = csv::Writer::from_writer(Vec::new());
        for &puzzle in &self.picked {
            csv.serialize(self.list.row(puzzle as usize)).with_context(|| cannot_write(path))?;
        }
        let text = csv.into_inner().with_context(|| cannot_write(path))?;
        write_file(path, &text)
    }

    /// Fills both token arrays, many tasks at once, each at its own place in the files.
    fn write_boards(&self, inputs: &Path, labels: &Path, progress: &dyn Progress) -> Result<u64> {
        let seq_len = self.list.seq_len();
        let header = header(NpyDtype::U8, &[self.boards, seq_len]);
        let create = |path: &Path| -> Result<File> {
            let mut file = File::create(path).with_context(|| cannot_write(path))?;
            file.write_all(&header).with_context(|| cannot_write(path))?;
            Ok(file)
        };
        let (inputs_file, labels_file) = (create(inputs)?, create(labels)?);

        let total_versions = self.picked.len() * self.versions;
        let version_bytes = self.rows_per_version * seq_len;
        let task = |(questions, answers): &mut (Vec<u8>, Vec<u8>), first: usize| -> Result<()> {
            ensure!(!progress.cancelled(), "stopped: nothing was written");
            let versions = first..total_versions.min(first + VERSIONS_PER_TASK);
            let bytes = versions.len() * version_bytes;
            let outputs = questions.chunks_exact_mut(version_bytes).zip(answers.chunks_exact_mut(version_bytes));
            for (version, (question, answer)) in versions.clone().zip(outputs) {
                self.fill(version / self.versions, version % self.versions, question, answer);
            }
            let offset = (header.len() + first * version_bytes) as u64;
            inputs_file.write_all_at(&questions[..bytes], offset).with_context(|| cannot_write(inputs))?;
            labels_file.write_all_at(&answers[..bytes], offset).with_context(|| cannot_write(labels))?;
            progress.advance((versions.len() * self.rows_per_version) as u64);
            Ok(())
        };
        let scratch = || vec![0u8; VERSIONS_PER_TASK * version_bytes];
        (0..total_versions.div_ceil(VERSIONS_PER_TASK))
            .into_par_iter()
            .try_for_each_init(|| (scratch(), scratch()), |buffers, i| task(buffers, i * VERSIONS_PER_TASK))?;
        Ok(2 * (header.len() + total_versions * version_bytes) as u64)
    }

    /// Writes one version of a group's puzzle, and its hint version behind it.
    ///
    /// # Shapes
    /// - question, answer: `[rows_per_version, seq_len]`
    fn fill(&self, group: usize, version: usize, question: &mut [u8], answer: &mut [u8]) {
        let puzzle = self.picked[group] as usize;
        let (original_question, original_answer) = (self.list.question(puzzle), self.list.answer(puzzle));
        let seq_len = original_question.len();
        let mut rng = stream(Purpose::Augment, self.seed, puzzle as u64, version as u64);
        match (<&[u8; CELLS]>::try_from(original_question), <&[u8; CELLS]>::try_from(original_answer)) {
            (Ok(q), Ok(a)) if version > 0 && self.augmentation.num_aug > 0 => {
                let shuffle = SudokuShuffle::draw(&mut rng);
                question[..seq_len].copy_from_slice(&shuffle.apply_tokens(q));
                answer[..seq_len].copy_from_slice(&shuffle.apply_tokens(a));
            }
            _ if version > 0 => {
                turn_maze(original_question, version, &mut question[..seq_len]);
                turn_maze(original_answer, version, &mut answer[..seq_len]);
            }
            _ => {
                question[..seq_len].copy_from_slice(original_question);
                answer[..seq_len].copy_from_slice(original_answer);
            }
        }
        if self.augmentation.hint {
            question.copy_within(..seq_len, seq_len);
            answer.copy_within(..seq_len, seq_len);
            give_hints(&mut rng, &mut question[seq_len..], &answer[seq_len..]);
        }
    }
}

/// Fills a random part of a Sudoku's blanks from its solution: at least one, never all.
pub(crate) fn give_hints(rng: &mut impl RngCore, question: &mut [u8], answer: &[u8]) {
    let mut cells = [0u8; CELLS];
    let mut blanks = 0;
    for (cell, &token) in question.iter().enumerate().take(CELLS) {
        cells[blanks] = cell as u8;
        blanks += usize::from(token == BLANK);
    }
    // Upstream fails on a board with one blank; a copy keeps two rows for every board.
    if blanks < 2 {
        return;
    }
    let filled = 1 + below(rng, blanks as u32 - 1) as usize;
    shuffle_front(rng, &mut cells[..blanks], filled);
    for &cell in &cells[..filled] {
        question[usize::from(cell)] = answer[usize::from(cell)];
    }
}

/// Symmetry `tid` of a square maze.
fn turn_maze(tokens: &[u8], tid: usize, out: &mut [u8]) {
    let side = maze::side(tokens.len());
    if let Ok(grid) = ndarray::ArrayView2::from_shape((side, side), tokens) {
        out.iter_mut().zip(dihedral(grid, tid)).for_each(|(to, from)| *to = from);
    }
}

fn cannot_write(path: &Path) -> String {
    format!("{}: cannot write (is the disk full?)", path.display())
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<u64> {
    fs::write(path, bytes).with_context(|| cannot_write(path))?;
    Ok(bytes.len() as u64)
}

/// Writes a vector of int32 and returns the file's size in bytes.
fn write_i32(path: &Path, length: usize, values: impl Iterator<Item = i32>) -> Result<u64> {
    let header = header(NpyDtype::I32, &[length]);
    let write = || {
        let mut file = BufWriter::with_capacity(1 << 18, File::create(path)?);
        file.write_all(&header)?;
        for value in values {
            file.write_all(&value.to_le_bytes())?;
        }
        file.flush()
    };
    write().with_context(|| cannot_write(path))?;
    Ok((header.len() + 4 * length) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_fill_at_least_one_blank_and_never_all() {
        let answer: [u8; CELLS] = std::array::from_fn(|i| 2 + (i % 9) as u8);
        for blanks in [0usize, 1, 2, 3, 40, 81] {
            let mut question = answer;
            question[..blanks].fill(BLANK);
            let mut seen = std::collections::BTreeSet::new();
            for draw in 0..400 {
                let mut hinted = question;
                give_hints(&mut stream(Purpose::Augment, 0, draw, 0), &mut hinted, &answer);
                assert!((0..CELLS).all(|i| hinted[i] == answer[i] || (hinted[i] == BLANK && question[i] == BLANK)));
                seen.insert(hinted.iter().filter(|&&t| t == BLANK).count());
            }
            let (least, most) = (seen.first().copied(), seen.last().copied());
            match blanks {
                0 | 1 => assert_eq!((least, most), (Some(blanks), Some(blanks))),
                // Every count from one filled to one left comes up in 400 draws.
                2 | 3 | 40 => assert_eq!((least, most, seen.len()), (Some(1), Some(blanks - 1), blanks - 1)),
                _ => assert!(least >= Some(1) && most < Some(81)),
            }
        }
    }
}
