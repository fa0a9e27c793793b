//! Puzzle lists: CSV files `source,question,answer,rating`, plain or gzipped, each row checked as it is read.

use std::{
    collections::HashMap,
    io::{BufRead, Read},
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::puzzle::{Board, PuzzleKind, maze, sudoku};

pub(super) const COLUMNS: [&str; 4] = ["source", "question", "answer", "rating"];
/// No row of a puzzle list is nearly this long (bytes).
const MAX_LINE: u64 = 1 << 20;

/// Which rows of a list to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    pub kind: PuzzleKind,
    /// Keep rows rated at least this; none keeps all.
    pub min_difficulty: Option<i64>,
    /// Read only this many rows from the file's beginning, before any is left out by its rating.
    pub first_rows: Option<usize>,
}

/// Where a puzzle comes from and how hard it is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RowInfo {
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
    /// Index into `source_names`, one per puzzle.
    sources: Vec<u32>,
    source_names: Vec<String>,
}

impl PuzzleList {
    /// Reads and checks a list; `name` stands for the file in errors, which also tell the line.
    pub fn read(reader: impl BufRead, name: &str, options: &ReadOptions) -> Result<Self> {
        let mut lines = Lines { reader, name, number: 0, buffer: Vec::new() };
        let Some(first) = lines.next_fields()? else {
            bail!("{name}: the file is empty; wanted the header {} and a row per puzzle", COLUMNS.join(","));
        };
        if !is_header(&first) {
            bail!(
                "{name}:{}: found {:?} where the header {} must be (the first line is never read as a puzzle)",
                lines.number,
                shorten(&first.join(",")),
                COLUMNS.join(",")
            );
        }

        let mut list = Self {
            kind: options.kind,
            seq_len: if options.kind == PuzzleKind::Sudoku { sudoku::CELLS } else { 0 },
            questions: Vec::new(),
            answers: Vec::new(),
            ratings: Vec::new(),
            sources: Vec::new(),
            source_names: Vec::new(),
        };
        let mut known_sources = HashMap::new();
        let mut rows = 0usize;
        let mut highest = None;
        while options.first_rows.is_none_or(|limit| rows < limit) {
            let Some(fields) = lines.next_fields()? else { break };
            let at = || format!("{name}:{}", lines.number);
            let row = Row::check(&fields, options.kind, &mut list.seq_len).with_context(at)?;
            rows += 1;
            highest = highest.max(Some(row.rating));
            if options.min_difficulty.is_some_and(|min| row.rating < min) {
                continue;
            }
            list.questions.extend_from_slice(&row.question);
            list.answers.extend_from_slice(&row.answer);
            list.ratings.push(row.rating);
            let next = list.source_names.len() as u32;
            let source = *known_sources.entry(row.source).or_insert_with_key(|source: &String| {
                list.source_names.push(source.clone());
                next
            });
            list.sources.push(source);
        }

        match (list.is_empty(), highest, options.min_difficulty) {
            (true, Some(highest), Some(min)) => {
                bail!(
                    "{name}: no row is rated {min} or more (the highest of {rows} is {highest}); lower --min-difficulty"
                )
            }
            (true, _, _) => bail!("{name}: the file has a header and no rows"),
            _ => Ok(list),
        }
    }

    /// Sudoku or maze.
    pub fn kind(&self) -> PuzzleKind {
        self.kind
    }

    /// Puzzles.
    pub fn len(&self) -> usize {
        self.ratings.len()
    }

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
        RowInfo { source: self.source_names[self.sources[i] as usize].clone(), rating: self.ratings[i] }
    }

    /// Tokens of all questions and all answers. Shapes `[len, seq_len]`.
    pub(super) fn into_tokens(self) -> (Vec<u8>, Vec<u8>) {
        (self.questions, self.answers)
    }
}

/// A checked line.
struct Row {
    source: String,
    question: Vec<u8>,
    answer: Vec<u8>,
    rating: i64,
}

impl Row {
    /// `seq_len` is set by a maze list's first row and holds for the others.
    fn check(fields: &[String], kind: PuzzleKind, seq_len: &mut usize) -> Result<Self> {
        let [source, question, answer, rating] = fields else {
            bail!("{} field{}; a row is {}", fields.len(), if fields.len() == 1 { "" } else { "s" }, COLUMNS.join(","));
        };
        ensure!(!is_header(fields), "the header a second time: were files joined? Remove this line");
        let parsed = rating.trim().parse();
        let rating = parsed.map_err(|_| anyhow!("the rating is {:?}; wanted a whole number", shorten(rating)))?;
        let (question, answer) = match kind {
            PuzzleKind::Sudoku => {
                let question: Board = question.parse().context("question")?;
                let answer: Board = answer.parse().context("answer")?;
                answer.check_solves(&question).context("the answer is no solution of its question")?;
                (question.tokens().to_vec(), answer.tokens().to_vec())
            }
            PuzzleKind::Maze => {
                let side = maze::side(if *seq_len == 0 { question.chars().count() } else { *seq_len });
                let question = maze::parse(question, side).context("question")?;
                let answer = maze::parse(answer, side).context("answer")?;
                *seq_len = question.len();
                (question, answer)
            }
        };
        Ok(Self { source: source.clone(), question, answer, rating })
    }
}

fn is_header(fields: &[String]) -> bool {
    fields.len() == COLUMNS.len()
        && fields.iter().zip(COLUMNS).all(|(field, column)| field.trim().eq_ignore_ascii_case(column))
}

fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// The non-empty lines of a file, each split at its commas. No puzzle list has a line break within a field, so that a
/// line's number is exact in every error.
struct Lines<'a, R> {
    reader: R,
    name: &'a str,
    number: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<'_, R> {
    fn next_fields(&mut self) -> Result<Option<Vec<String>>> {
        loop {
            self.number += 1;
            self.buffer.clear();
            let (name, number) = (self.name, self.number);
            let read = (&mut self.reader).take(MAX_LINE).read_until(b'\n', &mut self.buffer);
            let read = read.with_context(|| format!("{name}:{number}: cannot read on (is the file whole?)"))?;
            if read == 0 {
                return Ok(None);
            }
            ensure!((read as u64) < MAX_LINE, "{name}:{number}: a line of more than {MAX_LINE} bytes is no puzzle's");
            let text =
                std::str::from_utf8(&self.buffer).ok().with_context(|| format!("{name}:{number}: not UTF-8 text"))?;
            let text = text.strip_suffix('\n').unwrap_or(text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            let text = if number == 1 { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text };
            if text.is_empty() {
                continue;
            }
            if !text.contains('"') {
                return Ok(Some(text.split(',').map(str::to_owned).collect()));
            }
            let mut csv = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
            let mut record = csv::StringRecord::new();
            csv.read_record(&mut record).with_context(|| format!("{name}:{number}: not CSV"))?;
            return Ok(Some(record.iter().map(str::to_owned).collect()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (after("source,question,answer,rating"), "list.csv:4: the header a second time"),
            (after(&format!("b,{},{A},3", &Q[1..])), "list.csv:4: question: a board has 81 cells, this one has 80"),
            (after(&format!("b,{Q},{}x,3", &A[1..])), "list.csv:4: answer: cell 81 (row 9, column 9) holds 'x'"),
            (after(&format!("b,{Q},{bad_answer},3")), "list.csv:4: the answer is no solution of its question: row 1"),
            (after(&format!("b,{Q},{Q},3")), "list.csv:4: the answer is no solution of its question: row 1, column 3"),
            (after(&format!("b,{Q},{A},hard")), "list.csv:4: the rating is \"hard\"; wanted a whole number"),
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
        assert_eq!(not_text.map_err(|e| e.to_string()), Err("list.csv:2: not UTF-8 text".into()));
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
        assert!(found.starts_with("list.csv:3: question: 9 characters; this list's mazes have 4"), "{found}");
        let found = maze("source,question,answer,rating\na,#S.G,#SoG,1\n").expect_err("a dot");
        assert!(found.starts_with("list.csv:2: question: character 3 is '.'"), "{found}");
        assert!(maze("source,question,answer,rating\na,,,1\n").is_err());
    }
}
