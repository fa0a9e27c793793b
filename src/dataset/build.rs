//! Building a dataset folder from puzzle lists, which go by in blocks: a list of any length takes the same memory.
//!
//! Every puzzle makes one group. The group holds versions of the puzzle (the original first, then its augmentations),
//! and each version is one example, or with hints two: the board, then the board with some blanks filled in. Version `v`
//! of the list's puzzle `p` is drawn from a random stream of its own, keyed by (seed, p, v): the result depends neither
//! on the number of threads nor on which other puzzles were kept.

use std::{
    fmt,
    fs::{self, File},
    io::{BufWriter, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use rand_chacha::rand_core::RngCore;
use rayon::prelude::*;
use serde::Serialize;

use super::{
    DatasetMeta, PuzzleInput, PuzzleList, Split, format,
    npy::{NpyDtype, header},
    puzzle_list::{SourceId, Sources},
    staging::OutputFolder,
};
use crate::{
    outcome::Interrupted,
    puzzle::{PuzzleKind, SudokuShuffle, dihedral, sudoku::CELLS},
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

impl Augmentation {
    /// Whether puzzles of that kind can be multiplied so.
    pub(super) fn check(self, kind: PuzzleKind) -> Result<()> {
        match kind {
            PuzzleKind::Sudoku => ensure!(!self.dihedral, "--aug turns mazes; a Sudoku is shuffled with --num-aug N"),
            PuzzleKind::Maze => {
                ensure!(self.num_aug == 0, "--num-aug shuffles Sudokus; a maze is turned with --aug");
                ensure!(!self.hint, "--hint is for Sudoku");
            }
        }
        Ok(())
    }
}

/// What to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildOptions {
    /// How training puzzles are multiplied.
    pub augmentation: Augmentation,
    /// Keep this many training puzzles, drawn without replacement, in the order drawn. More than there are keeps all.
    pub subsample_size: Option<usize>,
    /// Of the subsample and of all shuffles.
    pub seed: u64,
}

/// Watches long work and may end it.
pub trait Progress: Sync {
    /// A piece of work begins: what it does, and how much there is of it in which unit (boards, puzzles, bytes).
    fn start(&self, _what: &'static str, _total: u64, _unit: &'static str) {}
    /// The piece of work that began last is over.
    fn done(&self) {}
    /// A sentence for the user.
    fn note(&self, _text: fmt::Arguments<'_>) {}
    /// What was done since the last call.
    fn advance(&self, _by: u64) {}
    /// True ends the work with an error; nothing is left behind.
    fn cancelled(&self) -> bool {
        false
    }

    /// # Errors
    /// `Interrupted` once the work is cancelled.
    fn check(&self) -> Result<()> {
        ensure!(!self.cancelled(), Interrupted("stopped; nothing was written"));
        Ok(())
    }
}

/// No progress bar, no end before the end.
impl Progress for () {}

/// What was built.
#[derive(Clone, Debug, Serialize)]
pub struct BuildReport {
    /// The training split.
    pub train: SplitReport,
    /// The test split.
    pub test: SplitReport,
    /// Bytes of all files.
    pub bytes: u64,
    /// Wall-clock seconds from the first board to the folder in its place; the check of the lists is not counted.
    pub seconds: f64,
}

/// One split of what was built.
#[derive(Clone, Debug, Serialize)]
pub struct SplitReport {
    /// Original puzzles, which is groups.
    pub puzzles: usize,
    /// Rows of the arrays.
    pub boards: usize,
    /// Mean of the puzzles' ratings, 0 where the list has none.
    pub mean_rating: f64,
}

/// Builds the dataset in a temporary folder beside `output` and puts it in place once it is whole.
///
/// Runs on the current rayon pool: while a block of puzzles is written, the next is read.
///
/// # Errors
/// Options that do not fit the puzzles, a list too long for upstream's 32-bit indices, a list that changed since it was
/// checked, a full disk, a cancelled build. After an error the output folder is what it was before.
pub fn build(
    train: &PuzzleInput,
    test: &PuzzleInput,
    options: &BuildOptions,
    output: &OutputFolder,
    progress: &dyn Progress,
) -> Result<BuildReport> {
    let begin = Instant::now();
    ensure!(
        (train.kind(), train.seq_len()) == (test.kind(), test.seq_len()),
        "training puzzles ({} of {} cells) and test puzzles ({} of {} cells) differ in kind or size",
        train.kind(),
        train.seq_len(),
        test.kind(),
        test.seq_len()
    );
    let train = Expansion::new(train, options)?;
    let test = Expansion::plain(test)?;
    progress.start("building", (train.boards + test.boards) as u64, "boards");

    let staging = output.stage()?;
    let write = |split: Split, expansion: &Expansion| {
        let folder = staging.path().join(split.name());
        fs::create_dir(&folder).with_context(|| format!("{}: cannot be created", folder.display()))?;
        expansion.write(&folder, progress)
    };
    let (train, train_bytes) = write(Split::Train, &train)?;
    let (test, test_bytes) = write(Split::Test, &test)?;
    let identifiers = write_file(&staging.path().join("identifiers.json"), b"[\"<blank>\"]")?;
    progress.check()?;
    output.commit(staging)?;
    let bytes = train_bytes + test_bytes + identifiers;
    Ok(BuildReport { train, test, bytes, seconds: begin.elapsed().as_secs_f64() })
}

/// Which puzzles of a list make groups, and in which order.
enum Groups {
    /// All, in the list's order.
    All,
    /// Some: list number and group of each, sorted by list number.
    Drawn(Vec<(u32, u32)>),
}

impl Groups {
    /// Those among the list's puzzles `first..first + len`.
    fn of(&self, first: usize, len: usize) -> BlockGroups<'_> {
        match self {
            Self::All => BlockGroups::All { first, len },
            Self::Drawn(drawn) => {
                let place = |puzzle: usize| drawn.partition_point(|&(drawn, _)| (drawn as usize) < puzzle);
                BlockGroups::Drawn { first, drawn: &drawn[place(first)..place(first + len)] }
            }
        }
    }
}

/// The groups that a block of puzzles makes; `first` is the list number of the block's first puzzle.
enum BlockGroups<'a> {
    All { first: usize, len: usize },
    Drawn { first: usize, drawn: &'a [(u32, u32)] },
}

impl BlockGroups<'_> {
    fn len(&self) -> usize {
        match self {
            Self::All { len, .. } => *len,
            Self::Drawn { drawn, .. } => drawn.len(),
        }
    }

    fn get(&self, i: usize) -> Group {
        match *self {
            Self::All { first, .. } => Group { row: i, puzzle: first + i, group: first + i },
            Self::Drawn { first, drawn } => {
                let (puzzle, group) = (drawn[i].0 as usize, drawn[i].1 as usize);
                Group { row: puzzle - first, puzzle, group }
            }
        }
    }
}

/// Where a group's puzzle stands.
#[derive(Clone, Copy)]
struct Group {
    /// In its block.
    row: usize,
    /// In its list.
    puzzle: usize,
    group: usize,
}

/// A puzzle list with all that is made of it.
struct Expansion<'a> {
    input: &'a PuzzleInput,
    groups: Groups,
    /// Puzzles that are kept.
    puzzles: usize,
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
    fn plain(input: &'a PuzzleInput) -> Result<Self> {
        Self::new(input, &BuildOptions { augmentation: Augmentation::default(), subsample_size: None, seed: 0 })
    }

    fn new(input: &'a PuzzleInput, options: &BuildOptions) -> Result<Self> {
        let augmentation = options.augmentation;
        augmentation.check(input.kind())?;
        let count = u32::try_from(input.len()).ok().context("more puzzles than 32 bits can count")?;
        let (groups, puzzles) = match options.subsample_size {
            Some(size) if size < input.len() => {
                let picked = distinct(&mut stream(Purpose::Subsample, options.seed, 0, 0), count, size as u32);
                let mut drawn: Vec<(u32, u32)> = picked.into_iter().zip(0..).collect();
                drawn.sort_unstable();
                (Groups::Drawn(drawn), size)
            }
            _ => (Groups::All, input.len()),
        };
        let versions = if augmentation.dihedral { 8 } else { augmentation.num_aug.saturating_add(1) };
        let rows_per_version = if augmentation.hint { 2 } else { 1 };
        // Upstream's index arrays are int32, which bounds the number of examples.
        let boards = puzzles.checked_mul(versions).and_then(|n| n.checked_mul(rows_per_version));
        let Some(boards) = boards.filter(|&n| i32::try_from(n).is_ok()) else {
            bail!(
                "{puzzles} puzzles × {versions} versions × {rows_per_version} are more examples than the format can \
                 count ({}); lower --num-aug or set --subsample-size",
                i32::MAX
            )
        };
        Ok(Self { input, groups, puzzles, augmentation, seed: options.seed, versions, rows_per_version, boards })
    }

    fn meta(&self) -> DatasetMeta {
        DatasetMeta {
            pad_id: 0,
            ignore_label_id: Some(0),
            blank_identifier_id: 0,
            vocab_size: self.input.geometry().vocab_size() as i64,
            seq_len: self.input.seq_len() as i64,
            num_puzzle_identifiers: 1,
            total_groups: self.puzzles as i64,
            // Every example counts as a puzzle of its own.
            mean_puzzle_examples: 1.0,
            sets: vec![SET.into()],
        }
    }

    /// Writes the split's files; what they hold, and their size in bytes.
    fn write(&self, folder: &Path, progress: &dyn Progress) -> Result<(SplitReport, u64)> {
        let file = |name: &str| folder.join(format!("{SET}__{name}"));
        let mut blocks = self.input.blocks()?;
        let inputs = TokenFile::create(file("inputs.npy"), self.boards, self.input.seq_len())?;
        let labels = TokenFile::create(file("labels.npy"), self.boards, self.input.seq_len())?;
        let mut sidecar = Sidecar::create(file("rows.csv"), &self.groups)?;
        let mut first = 0;
        let mut next = blocks.next()?;
        while let Some(block) = next {
            progress.check()?;
            let groups = self.groups.of(first, block.len());
            let (written, (noted, read)) = rayon::join(
                || self.write_boards(&block, &groups, &inputs, &labels, progress),
                || rayon::join(|| sidecar.add(&block, &groups), || blocks.next()),
            );
            written?;
            noted?;
            next = read?;
            first += block.len();
        }
        let (mean_rating, mut bytes) = sidecar.finish()?;
        bytes += inputs.size + labels.size;

        let boards = self.boards as i32;
        let rows_per_group = self.versions * self.rows_per_version;
        bytes += write_i32(&file("puzzle_identifiers.npy"), self.boards, std::iter::repeat_n(0, self.boards))?;
        bytes += write_i32(&file("puzzle_indices.npy"), self.boards + 1, 0..=boards)?;
        bytes += write_i32(&file("group_indices.npy"), self.puzzles + 1, (0..=boards).step_by(rows_per_group))?;
        bytes += write_file(&folder.join("dataset.json"), format::meta_json(&self.meta())?.as_bytes())?;
        Ok((SplitReport { puzzles: self.puzzles, boards: self.boards, mean_rating }, bytes))
    }

    /// Writes all boards of a block's groups, many tasks at once, each at its own place in the files.
    fn write_boards(
        &self,
        block: &PuzzleList,
        groups: &BlockGroups<'_>,
        inputs: &TokenFile,
        labels: &TokenFile,
        progress: &dyn Progress,
    ) -> Result<()> {
        let total = groups.len() * self.versions;
        let version_bytes = self.rows_per_version * self.input.seq_len();
        let task = |(questions, answers): &mut (Vec<u8>, Vec<u8>), first: usize| -> Result<()> {
            progress.check()?;
            let versions = first..total.min(first + VERSIONS_PER_TASK);
            let outputs = questions.chunks_exact_mut(version_bytes).zip(answers.chunks_exact_mut(version_bytes));
            for (version, (question, answer)) in versions.clone().zip(outputs) {
                let group = groups.get(version / self.versions);
                self.fill(block, group, version % self.versions, question, answer);
            }
            // What follows on each other in the files is written together.
            let place =
                |version: usize| groups.get(version / self.versions).group * self.versions + version % self.versions;
            let mut from = versions.start;
            while from < versions.end {
                let follows = |&to: &usize| to < versions.end && place(to) == place(from) + (to - from);
                let to = (from + 1..).take_while(follows).last().unwrap_or(from) + 1;
                let bytes = (from - first) * version_bytes..(to - first) * version_bytes;
                let offset = (place(from) * version_bytes) as u64;
                inputs.write(&questions[bytes.clone()], offset)?;
                labels.write(&answers[bytes], offset)?;
                from = to;
            }
            progress.advance((versions.len() * self.rows_per_version) as u64);
            Ok(())
        };
        let scratch = || vec![0u8; total.min(VERSIONS_PER_TASK) * version_bytes];
        (0..total.div_ceil(VERSIONS_PER_TASK))
            .into_par_iter()
            .try_for_each_init(|| (scratch(), scratch()), |buffers, i| task(buffers, i * VERSIONS_PER_TASK))
    }

    /// Writes one version of a group's puzzle, and its hint version behind it.
    ///
    /// # Shapes
    /// - question, answer: `[rows_per_version, seq_len]`
    fn fill(&self, block: &PuzzleList, group: Group, version: usize, question: &mut [u8], answer: &mut [u8]) {
        let (original_question, original_answer) = (block.question(group.row), block.answer(group.row));
        let seq_len = original_question.len();
        let mut rng = stream(Purpose::Augment, self.seed, group.puzzle as u64, version as u64);
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

/// A uint8 array that is written in any order.
struct TokenFile {
    path: PathBuf,
    file: File,
    /// Bytes before the data.
    header: u64,
    /// Bytes in all.
    size: u64,
}

impl TokenFile {
    fn create(path: PathBuf, boards: usize, seq_len: usize) -> Result<Self> {
        let header = header(NpyDtype::U8, &[boards, seq_len]);
        let mut file = File::create(&path).with_context(|| cannot_write(&path))?;
        file.write_all(&header).with_context(|| cannot_write(&path))?;
        Ok(Self { path, file, header: header.len() as u64, size: (header.len() + boards * seq_len) as u64 })
    }

    /// Writes tokens that begin `offset` bytes into the data.
    fn write(&self, tokens: &[u8], offset: u64) -> Result<()> {
        self.file.write_all_at(tokens, self.header + offset).with_context(|| cannot_write(&self.path))
    }
}

/// The file with source and rating of each group's puzzle, in the order of the groups.
struct Sidecar {
    path: PathBuf,
    csv: csv::Writer<File>,
    /// Sum over the rows written.
    ratings: f64,
    rows: usize,
    /// Where groups come in another order than their puzzles: what is to be written.
    waiting: Option<Waiting>,
}

/// Rows by group, as far as their puzzles went by.
struct Waiting {
    rows: Vec<Option<(SourceId, i64)>>,
    sources: Sources,
}

#[derive(Serialize)]
struct SidecarRow<'a> {
    source: &'a str,
    rating: i64,
}

impl Sidecar {
    fn create(path: PathBuf, groups: &Groups) -> Result<Self> {
        let csv = csv::Writer::from_writer(File::create(&path).with_context(|| cannot_write(&path))?);
        let waiting = match groups {
            Groups::All => None,
            Groups::Drawn(drawn) => Some(Waiting { rows: vec![None; drawn.len()], sources: Sources::default() }),
        };
        Ok(Self { path, csv, ratings: 0.0, rows: 0, waiting })
    }

    fn add(&mut self, block: &PuzzleList, groups: &BlockGroups<'_>) -> Result<()> {
        for Group { row, group, .. } in (0..groups.len()).map(|i| groups.get(i)) {
            let (source, rating) = (block.source(row), block.rating(row));
            match &mut self.waiting {
                Some(waiting) => waiting.rows[group] = Some((waiting.sources.id(source), rating)),
                None => self.row(source, rating)?,
            }
        }
        Ok(())
    }

    fn row(&mut self, source: &str, rating: i64) -> Result<()> {
        self.ratings += rating as f64;
        self.rows += 1;
        self.csv.serialize(SidecarRow { source, rating }).with_context(|| cannot_write(&self.path))
    }

    /// The mean rating, and the file's size in bytes.
    fn finish(mut self) -> Result<(f64, u64)> {
        if let Some(waiting) = self.waiting.take() {
            for (source, rating) in waiting.rows.into_iter().flatten() {
                self.row(waiting.sources.name(source), rating)?;
            }
        }
        let mean = self.ratings / self.rows.max(1) as f64;
        let cannot = || cannot_write(&self.path);
        let file = self.csv.into_inner().map_err(|e| e.into_error()).with_context(cannot)?;
        Ok((mean, file.metadata().with_context(cannot)?.len()))
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
    let side = tokens.len().isqrt();
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
