//! What is wrong with puzzles, and which of them are equivalent.
//!
//! Two Sudokus are equivalent if a symmetry of Sudoku takes one to the other, two mazes if one is the other turned or
//! mirrored. A test puzzle that is equivalent to a training puzzle has leaked: a model may know its answer.

use anyhow::{Result, ensure};
use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Dataset, Progress, PuzzleList};
use crate::{
    outcome::Interrupted,
    puzzle::{
        Board, Canonical, Geometry, PuzzleKind, shortest_path,
        solve::{Solutions, solve},
    },
};

/// Boards that one task checks.
const BOARDS_PER_TASK: usize = 256;
/// Examples shown of each kind of finding.
pub const SHOWN: usize = 10;

/// Stands for a puzzle and all that are equivalent to it: 128 bits of the SHA-256 of its canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(u128);

impl Key {
    /// The key of [`Geometry::canonical`].
    pub(super) fn of(geometry: Geometry, question: &[u8], answer: &[u8]) -> Self {
        Self::of_bytes(&geometry.canonical(question, answer))
    }

    pub(super) fn of_form(form: &Canonical) -> Self {
        Self::of_bytes(form.question.digits())
    }

    fn of_bytes(bytes: &[u8]) -> Self {
        let mut first = [0; 16];
        first.iter_mut().zip(Sha256::digest(bytes)).for_each(|(to, from)| *to = from);
        Self(u128::from_le_bytes(first))
    }
}

/// Boards to check, in groups: versions of one puzzle.
pub trait Boards: Sync {
    /// What the user calls them.
    fn name(&self) -> String;
    fn geometry(&self) -> Geometry;
    fn len(&self) -> usize;
    /// The group of a board; groups come one after the other.
    fn group(&self, board: usize) -> usize;
    /// Tokens of question and answer.
    ///
    /// # Errors
    /// Boards in a file that was changed or cannot be read.
    fn tokens(&self, board: usize) -> Result<(Vec<u8>, Vec<u8>)>;
}

/// A list whose rows are one group each.
pub struct ListBoards<'a> {
    pub name: String,
    pub list: &'a PuzzleList,
}

impl Boards for ListBoards<'_> {
    fn name(&self) -> String {
        self.name.clone()
    }
    fn geometry(&self) -> Geometry {
        self.list.geometry()
    }
    fn len(&self) -> usize {
        self.list.len()
    }
    fn group(&self, board: usize) -> usize {
        board
    }
    fn tokens(&self, board: usize) -> Result<(Vec<u8>, Vec<u8>)> {
        Ok((self.list.question(board).to_vec(), self.list.answer(board).to_vec()))
    }
}

/// One split of a dataset folder; the sets one after the other.
pub struct DatasetBoards<'a> {
    pub dataset: &'a Dataset,
    pub geometry: Geometry,
}

impl DatasetBoards<'_> {
    /// The set of a board, the board's place in it, and the groups before it.
    fn place(&self, mut board: usize) -> Option<(&super::DatasetSet, usize, usize)> {
        let mut groups = 0;
        for set in self.dataset.sets() {
            if board < set.len() {
                return Some((set, board, groups));
            }
            board -= set.len();
            groups += set.groups();
        }
        None
    }
}

impl Boards for DatasetBoards<'_> {
    fn name(&self) -> String {
        let folder = self.dataset.root().map_or_else(|| "bundled".to_owned(), |root| root.display().to_string());
        format!("{folder}/{}", self.dataset.split())
    }
    fn geometry(&self) -> Geometry {
        self.geometry
    }
    fn len(&self) -> usize {
        self.dataset.len()
    }
    fn group(&self, board: usize) -> usize {
        self.place(board).map_or(0, |(set, board, before)| before + set.group_of(board))
    }
    fn tokens(&self, board: usize) -> Result<(Vec<u8>, Vec<u8>)> {
        self.place(board).map_or_else(|| Ok(Default::default()), |(set, board, _)| set.tokens(board))
    }
}

/// What was found of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub count: usize,
    /// The first few, as rows from 0 on with the reason.
    pub examples: Vec<String>,
}

impl Finding {
    fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < SHOWN {
            self.examples.push(example());
        }
    }
}

/// What was found in one list or split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BoardsReport {
    pub name: String,
    pub boards: usize,
    pub groups: usize,
    /// The answer is no solution of its question (for a maze: no shortest path), or the question is no board.
    pub wrong_answers: Finding,
    /// The question has another solution (for a maze: another path as short), or the solver gave up.
    pub several_solutions: Finding,
    /// Groups with a board that is equivalent to one of an earlier group.
    pub duplicates: Finding,
}

/// What was found between training and test puzzles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leakage {
    pub train: String,
    pub test: String,
    /// Test boards that are equivalent to a training board.
    pub test_boards: Finding,
    /// Groups that these belong to.
    pub test_groups: usize,
}

/// All findings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Of the puzzles; none where it is unknown.
    #[serde(skip)]
    pub kind: Option<PuzzleKind>,
    pub checked: Vec<BoardsReport>,
    pub leakage: Option<Leakage>,
}

impl CheckReport {
    /// # Errors
    /// Anything that is wrong, counted. Another solution is nothing wrong where [`PuzzleKind::has_one_solution`] says so.
    pub fn check_clean(&self) -> Result<()> {
        let sum = |count: fn(&BoardsReport) -> usize| self.checked.iter().map(count).sum::<usize>();
        let [wrong, several, duplicates] =
            [sum(|r| r.wrong_answers.count), sum(|r| r.several_solutions.count), sum(|r| r.duplicates.count)];
        let leaked = self.leakage.as_ref().map_or(0, |leakage| leakage.test_boards.count);
        let faults = if self.kind.is_some_and(PuzzleKind::has_one_solution) { several } else { 0 };
        ensure!(
            wrong + faults + duplicates + leaked == 0,
            "{wrong} wrong answers, {several} with several solutions, {duplicates} duplicates, {leaked} leaked test boards"
        );
        Ok(())
    }
}

/// A board's key and group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    key: Key,
    group: u32,
    board: u32,
}

/// Checks `train` and, where there is one, `test`, and looks for test boards among the training boards.
///
/// Takes 24 bytes for each board. Runs on the current rayon pool.
///
/// # Errors
/// A cancelled run.
pub fn check(train: &dyn Boards, test: Option<&dyn Boards>, progress: &dyn Progress) -> Result<CheckReport> {
    progress.start("checking", (train.len() + test.map_or(0, |test| test.len())) as u64, "boards");
    let kind = train.geometry().kind();
    let (train_report, train_places) = check_boards(train, progress)?;
    let Some(test) = test else { return Ok(CheckReport { kind, checked: vec![train_report], leakage: None }) };
    let (test_report, test_places) = check_boards(test, progress)?;

    let mut boards: Vec<(u32, u32, u32)> = Vec::new();
    let mut known = train_places.iter().peekable();
    for place in &test_places {
        while known.next_if(|known| known.key < place.key).is_some() {}
        if let Some(known) = known.peek().filter(|known| known.key == place.key) {
            boards.push((place.board, place.group, known.board));
        }
    }
    boards.sort_unstable();
    let mut leaked = Finding::default();
    for (board, _, known) in &boards {
        leaked.add(|| format!("row {board} is training row {known}"));
    }
    let mut groups: Vec<u32> = boards.iter().map(|&(_, group, _)| group).collect();
    groups.dedup();
    let leakage = Leakage { train: train.name(), test: test.name(), test_boards: leaked, test_groups: groups.len() };
    Ok(CheckReport { kind, checked: vec![train_report, test_report], leakage: Some(leakage) })
}

/// One board's faults, in words, and its key.
struct Verdict {
    wrong: Option<String>,
    several: Option<&'static str>,
    place: Place,
}

/// The report, and where each board is, sorted by key.
fn check_boards(boards: &dyn Boards, progress: &dyn Progress) -> Result<(BoardsReport, Vec<Place>)> {
    let mut report = BoardsReport {
        name: boards.name(),
        boards: boards.len(),
        groups: 0,
        wrong_answers: Finding::default(),
        several_solutions: Finding::default(),
        duplicates: Finding::default(),
    };
    let mut places = Vec::with_capacity(boards.len());
    // Rounds keep the verdicts in memory few.
    for first in (0..boards.len()).step_by(64 * BOARDS_PER_TASK) {
        ensure!(!progress.cancelled(), Interrupted("stopped before the end"));
        let range = first..boards.len().min(first + 64 * BOARDS_PER_TASK);
        let verdicts: Vec<Verdict> = range
            .into_par_iter()
            .with_min_len(BOARDS_PER_TASK / 8)
            .map(|board| {
                let (question, answer) = boards.tokens(board)?;
                let verdict = judge(boards.geometry(), &question, &answer);
                let place = Place {
                    key: Key::of(boards.geometry(), &question, &answer),
                    group: boards.group(board) as u32,
                    board: board as u32,
                };
                Ok(Verdict { wrong: verdict.0, several: verdict.1, place })
            })
            .collect::<Result<_>>()?;
        progress.advance(verdicts.len() as u64);
        for Verdict { wrong, several, place } in verdicts {
            if let Some(why) = wrong {
                report.wrong_answers.add(|| format!("row {}: {why}", place.board));
            }
            if let Some(why) = several {
                report.several_solutions.add(|| format!("row {}: {why}", place.board));
            }
            report.groups = report.groups.max(place.group as usize + 1);
            places.push(place);
        }
    }
    places.par_sort_unstable();
    let mut doubles: Vec<(u32, u32, u32)> = Vec::new();
    for run in places.chunk_by(|a, b| a.key == b.key) {
        let first = run[0];
        for group in run.chunk_by(|a, b| a.group == b.group).skip(1) {
            doubles.push((group[0].group, group[0].board, first.board));
        }
    }
    doubles.sort_unstable();
    doubles.dedup_by_key(|double| double.0);
    for (_, board, first) in doubles {
        report.duplicates.add(|| format!("row {board} is row {first}"));
    }
    Ok((report, places))
}

/// Why the answer is wrong, and why it is not the only one, which is not looked for in Sudokus other than 9×9.
fn judge(geometry: Geometry, question: &[u8], answer: &[u8]) -> (Option<String>, Option<&'static str>) {
    match geometry {
        Geometry::SUDOKU => {
            let boards = || -> Result<Board> {
                let question = Board::from_tokens(question)?;
                Board::from_tokens(answer)?.check_solves(&question)?;
                Ok(question)
            };
            match boards() {
                Err(e) => (Some(e.to_string()), None),
                Ok(question) => match solve(&question) {
                    Solutions::One(_) => (None, None),
                    Solutions::Unknown => (None, Some("the solver gave up")),
                    Solutions::Several | Solutions::None => (None, Some("it has another solution")),
                },
            }
        }
        Geometry::Maze { width, .. } => match shortest_path::check_solves(question, answer, width) {
            Err(e) => (Some(e.to_string()), None),
            Ok(found) => (None, found.several.then_some("another path is as short")),
        },
        _ => (geometry.check(question, answer).err().map(|fault| fault.to_string()), None),
    }
}
