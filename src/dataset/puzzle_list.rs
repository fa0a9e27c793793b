//! Puzzle lists in memory.

use std::{collections::HashMap, sync::Arc};

use sha2::{Digest, Sha256};

use crate::puzzle::{Geometry, PuzzleKind};

/// Where a puzzle comes from and how hard it is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RowInfo {
    /// Name of the collection that it is from.
    pub source: String,
    /// For Sudoku-Extreme: guesses of the tdoku solver up to the first solution.
    pub rating: i64,
}

/// Puzzles and their solutions in tokens, in the file's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PuzzleList {
    kind: PuzzleKind,
    seq_len: usize,
    /// `[puzzles, seq_len]`
    questions: Vec<u8>,
    /// `[puzzles, seq_len]`
    answers: Vec<u8>,
    ratings: Vec<i64>,
    /// One per puzzle.
    sources: Vec<SourceId>,
    names: Sources,
}

impl PuzzleList {
    /// A list without puzzles; the first one sets the number of cells.
    pub(super) fn empty(kind: PuzzleKind) -> Self {
        Self {
            kind,
            seq_len: 0,
            questions: Vec::new(),
            answers: Vec::new(),
            ratings: Vec::new(),
            sources: Vec::new(),
            names: Sources::default(),
        }
    }

    /// Adds a puzzle of as many cells as the others.
    ///
    /// # Shapes
    /// - question, answer: `[seq_len]`
    pub(super) fn push(&mut self, question: &[u8], answer: &[u8], source: &str, rating: i64) {
        self.seq_len = question.len();
        self.questions.extend_from_slice(question);
        self.answers.extend_from_slice(answer);
        self.ratings.push(rating);
        self.sources.push(self.names.id(source));
    }

    /// Adds the puzzles of a list whose puzzles have as many cells.
    pub(super) fn append(&mut self, other: &Self) {
        self.seq_len = self.seq_len.max(other.seq_len);
        self.questions.extend_from_slice(&other.questions);
        self.answers.extend_from_slice(&other.answers);
        self.ratings.extend_from_slice(&other.ratings);
        let ids: Vec<SourceId> = other.names.names.iter().map(|name| self.names.id(name)).collect();
        self.sources.extend(other.sources.iter().map(|source| ids[source.0 as usize]));
    }

    /// Sudoku or maze.
    pub fn kind(&self) -> PuzzleKind {
        self.kind
    }

    /// The kind with the size of its puzzles; unknown for an empty list.
    pub fn geometry(&self) -> Geometry {
        self.kind.square_or_unknown(if self.is_empty() { 0 } else { self.seq_len })
    }

    /// Puzzles.
    pub fn len(&self) -> usize {
        self.ratings.len()
    }

    /// Whether there is no puzzle.
    pub fn is_empty(&self) -> bool {
        self.ratings.is_empty()
    }

    /// Cells of a puzzle.
    pub fn seq_len(&self) -> usize {
        self.seq_len
    }

    /// Tokens of the `i`-th question. Shape `[seq_len]`.
    pub fn question(&self, i: usize) -> &[u8] {
        &self.questions[i * self.seq_len..(i + 1) * self.seq_len]
    }

    /// Tokens of the `i`-th answer. Shape `[seq_len]`.
    pub fn answer(&self, i: usize) -> &[u8] {
        &self.answers[i * self.seq_len..(i + 1) * self.seq_len]
    }

    /// Source and rating of the `i`-th puzzle.
    pub fn row(&self, i: usize) -> RowInfo {
        RowInfo { source: self.source(i).to_owned(), rating: self.rating(i) }
    }

    /// Rating of the `i`-th puzzle.
    pub(super) fn rating(&self, i: usize) -> i64 {
        self.ratings[i]
    }

    /// Source of the `i`-th puzzle.
    pub(super) fn source(&self, i: usize) -> &str {
        self.names.name(self.sources[i])
    }

    /// SHA-256 over the questions and answers, the first 16 hexadecimal digits.
    pub fn digest(&self) -> String {
        let hash = Sha256::new().chain_update(&self.questions).chain_update(&self.answers).finalize();
        hex::encode(&hash[..8])
    }

    /// Tokens of all questions and all answers. Shapes `[len, seq_len]`.
    pub(super) fn into_tokens(self) -> (Vec<u8>, Vec<u8>) {
        (self.questions, self.answers)
    }
}

/// Names of sources, each kept once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sources {
    names: Vec<Arc<str>>,
    ids: HashMap<Arc<str>, SourceId>,
}

/// A name in [`Sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SourceId(u32);

impl Sources {
    /// The id of a name, which is added where it is new.
    pub(super) fn id(&mut self, name: &str) -> SourceId {
        if let Some(&id) = self.ids.get(name) {
            return id;
        }
        let (id, name) = (SourceId(self.names.len() as u32), Arc::<str>::from(name));
        self.names.push(Arc::clone(&name));
        self.ids.insert(name, id);
        id
    }

    pub(super) fn name(&self, id: SourceId) -> &str {
        &self.names[id.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::ReadOptions;

    const Q: &str = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79";
    const A: &str = "534678912672195348198342567859761423426853791713924856961537284287419635345286179";

    fn read_with(text: &str, options: ReadOptions) -> Result<PuzzleList, String> {
        PuzzleList::read(text.as_bytes(), "list.csv", &options).map_err(|e| format!("{e:#}"))
    }

    fn sudoku(text: &str) -> Result<PuzzleList, String> {
        read_with(text, ReadOptions { kind: PuzzleKind::Sudoku, min_difficulty: None, first_rows: None })
    }

    fn maze(text: &str) -> Result<PuzzleList, String> {
        read_with(text, ReadOptions { kind: PuzzleKind::Maze, min_difficulty: None, first_rows: None })
    }

    #[test]
    fn every_form_of_a_good_file_is_read() {
        let plain = sudoku(&format!("source,question,answer,rating\na,{Q},{A},3\nb,{A},{A},0\n")).expect("good");
        assert_eq!((plain.len(), plain.seq_len()), (2, 81));
        assert_eq!(plain.row(1), RowInfo { source: "b".into(), rating: 0 });
        let zeros = Q.replace('.', "0");
        for text in [
            format!("source,question,answer,rating\r\na,{Q},{A},3\r\nb,{A},{A},0"),
            format!("\u{feff}Source,Question,Answer,Rating\n\na,{zeros},{A}, 3\n\nb,{A},{A},0\n\n"),
            format!("\"source\",\"question\",answer,rating\n\"a\",{zeros},\"{A}\",3\nb,{A},{A},\"0\"\n"),
        ] {
            assert_eq!(sudoku(&text), Ok(plain.clone()));
        }
        let quoted = sudoku(&format!("source,question,answer,rating\n\"x, \"\"y\"\"\",{Q},{A},3\n")).expect("good");
        assert_eq!(quoted.row(0).source, "x, \"y\"");
    }

    #[test]
    fn errors_name_file_line_and_what_was_wanted() {
        let after = |row: &str| format!("source,question,answer,rating\na,{Q},{A},3\n\n{row}\n");
        let bad_answer = A.replacen("534", "543", 1);
        let cases = [
            (String::new(), "list.csv: the file is empty"),
            ("source,question,answer,rating\n".into(), "list.csv: the file has a header and no rows"),
            (format!("a,{Q},{A},3\n"), "list.csv:1: found \"a,53..7"),
            (after(&format!("b,{Q},{A}")), "list.csv:4: 3 fields; a row is source,question,answer,rating"),
            (after(&format!("b,{Q},{A},3,4")), "list.csv:4: 5 fields"),
            (after("b"), "list.csv:4: 1 field;"),
            (after("source,question,answer,rating"), "list.csv:4: the header occurs a second time"),
            (after(&format!("b,{},{A},3", &Q[1..])), "list.csv:4: question: a board has 81 cells, this one has 80"),
            (after(&format!("b,{Q},{}x,3", &A[1..])), "list.csv:4: answer: cell 81 (row 9, column 9) holds 'x'"),
            (after(&format!("b,{Q},{bad_answer},3")), "list.csv:4: the answer does not solve the question: row 1"),
            (after(&format!("b,{Q},{Q},3")), "list.csv:4: the answer does not solve the question: row 1, column 3"),
            (after(&format!("b,{Q},{A},hard")), "list.csv:4: the rating is \"hard\"; expected a whole number"),
            (after(&"x".repeat(1 << 20)), "list.csv:4: a line of more than 1048576 bytes"),
        ];
        for (text, wanted) in cases {
            let found = sudoku(&text).expect_err(wanted);
            assert!(found.starts_with(wanted), "found {found}\nwanted {wanted}");
        }
        let not_text = PuzzleList::read(
            &b"source,question,answer,rating\n\xff\xfe\n"[..],
            "list.csv",
            &ReadOptions { kind: PuzzleKind::Sudoku, min_difficulty: None, first_rows: None },
        );
        assert_eq!(not_text.map_err(|e| format!("{e:#}")), Err("list.csv:2: not UTF-8 text".into()));
    }

    #[test]
    fn rows_are_counted_before_they_are_rated() {
        let text = format!("source,question,answer,rating\na,{Q},{A},3\nb,{Q},{A},9\nc,{Q},{A},9\n");
        let options = ReadOptions { kind: PuzzleKind::Sudoku, min_difficulty: Some(9), first_rows: Some(2) };
        let list = read_with(&text, options).expect("one row is left");
        assert_eq!((list.len(), list.row(0).source.as_str()), (1, "b"));
        let found = read_with(&text, ReadOptions { min_difficulty: Some(10), ..options }).expect_err("none is left");
        assert!(found.contains("no row is rated 10 or more (the highest of 2 is 9)"), "{found}");
    }

    #[test]
    fn mazes_of_one_size() {
        let list = maze("source,question,answer,rating\na,#S G,#SoG,1\n").expect("good");
        assert_eq!((list.seq_len(), list.question(0), list.answer(0)), (4, &[1, 3, 2, 4][..], &[1, 3, 5, 4][..]));
        let found = maze("source,question,answer,rating\na,#S G,#SoG,1\nb,# S G####,#oSoG####,1\n").expect_err("sizes");
        assert!(found.starts_with("list.csv:3: question: 9 cells; this puzzle has 4 (2 rows of 2)"), "{found}");
        let found = maze("source,question,answer,rating\na,#S.G,#SoG,1\n").expect_err("a dot");
        assert!(found.starts_with("list.csv:2: question: cell 3 (row 2, column 1) holds \".\""), "{found}");
        assert!(maze("source,question,answer,rating\na,,,1\n").is_err());
    }
}
