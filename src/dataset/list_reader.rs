//! Reading puzzle lists, CSV files `source,question,answer,rating`, block by block: a list of any length takes the memory
//! of some blocks. Each row is checked.

use std::io::BufRead;

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use rayon::prelude::*;

use super::PuzzleList;
use crate::{
    input::{LineEnd, read_line},
    puzzle::{Board, PuzzleKind, sudoku},
};

/// Which rows of a list to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// The kind of the list's puzzles.
    pub kind: PuzzleKind,
    /// Keep rows rated at least this; none keeps all.
    pub min_difficulty: Option<i64>,
    /// Read only this many rows from the file's beginning, before any is left out by its rating.
    pub first_rows: Option<usize>,
}

impl PuzzleList {
    /// Reads and checks a list; `name` stands for the file in errors, which also tell the line.
    pub fn read(reader: impl BufRead + Send, name: &str, options: &ReadOptions) -> Result<Self> {
        let mut reader = ListReader::new(reader, name, options)?;
        let mut list = Self::empty(options.kind);
        while let Some(block) = reader.next_block()? {
            list.append(&block);
        }
        Ok(list)
    }
}

pub(super) const COLUMNS: [&str; 4] = ["source", "question", "answer", "rating"];
/// No row of a puzzle list is nearly this long (bytes).
const MAX_LINE: usize = 1 << 20;
/// A block ends with the line that brings it to so many bytes: some thousand Sudokus.
const BLOCK: usize = 1 << 20;
/// Lines that one task checks.
const LINES_PER_TASK: usize = 256;

/// Reads a list from its beginning to its end.
///
/// On a thread of a rayon pool, the pool checks a block's rows while the next block is read; elsewhere all is done by the
/// calling thread, with the same result.
pub(super) struct ListReader<R> {
    lines: Lines<R>,
    name: String,
    options: ReadOptions,
    /// Cells of a puzzle; 0 before the first maze, which sets it for the others.
    seq_len: usize,
    /// Rows checked so far, those left out by their rating included.
    rows: usize,
    kept: usize,
    highest: Option<i64>,
    digest: u32,
    /// None once the list has ended.
    ahead: Option<RawBlock>,
}

impl<R: BufRead + Send> ListReader<R> {
    /// Reads the header; `name` stands for the file in errors, which also tell the line.
    pub(super) fn new(reader: R, name: &str, options: &ReadOptions) -> Result<Self> {
        let mut lines = Lines { reader, number: 0, left: 1 };
        let header = lines.block(name);
        let Some(line) = header.lines.first() else {
            header.end.unwrap_or(Ok(()))?;
            bail!("{name}: the file is empty; expected the header {} and a row per puzzle", COLUMNS.join(","));
        };
        with_fields(line.text(&header.text), |fields| {
            ensure!(
                is_header(fields),
                "{name}:{}: found {:?} where the header {} must be (the first line is never read as a puzzle)",
                line.number,
                shorten(&fields.join(",")),
                COLUMNS.join(",")
            );
            Ok(())
        })
        .unwrap_or_else(|e| Err(e.context(format!("{name}:{}", line.number))))?;
        lines.left = options.first_rows.unwrap_or(usize::MAX);
        let ahead = Some(lines.block(name));
        Ok(Self {
            lines,
            name: name.to_owned(),
            options: *options,
            seq_len: if options.kind == PuzzleKind::Sudoku { sudoku::CELLS } else { 0 },
            rows: 0,
            kept: 0,
            highest: None,
            digest: 0,
            ahead,
        })
    }

    /// The rows of the next block that are kept, maybe none of them; none at the list's end.
    ///
    /// # Errors
    /// The first bad row, or what ails the file; at the end, a list of which nothing is kept.
    pub(super) fn next_block(&mut self) -> Result<Option<PuzzleList>> {
        let Some(raw) = self.ahead.take() else { return Ok(None) };
        let check = |lines: &[Line], seq_len| check_lines(&raw.text, lines, &self.name, &self.options, seq_len);
        if self.seq_len == 0 {
            let first = check(&raw.lines[..raw.lines.len().min(1)], 0);
            first.failed.map_or(Ok(()), Err)?;
            self.seq_len = first.seq_len;
        }
        let seq_len = self.seq_len;
        let (parts, next) = if rayon::current_thread_index().is_some() {
            let check_all = || raw.lines.par_chunks(LINES_PER_TASK).map(|lines| check(lines, seq_len)).collect();
            let (name, lines) = (&self.name, &mut self.lines);
            rayon::join(check_all, || raw.end.is_none().then(|| lines.block(name)))
        } else {
            (vec![check(&raw.lines, seq_len)], raw.end.is_none().then(|| self.lines.block(&self.name)))
        };
        self.digest = crc32c::crc32c_append(self.digest, &raw.text);
        let mut list = PuzzleList::empty(self.options.kind);
        for part in parts {
            part.failed.map_or(Ok(()), Err)?;
            self.highest = self.highest.max(part.highest);
            list.append(&part.list);
        }
        self.rows += raw.lines.len();
        self.kept += list.len();
        self.ahead = next;
        if let Some(end) = raw.end {
            end?;
            self.check_end()?;
        }
        Ok(Some(list))
    }

    fn check_end(&self) -> Result<()> {
        let name = &self.name;
        match (self.kept, self.highest, self.options.min_difficulty) {
            (0, Some(highest), Some(min)) => bail!(
                "{name}: no row is rated {min} or more (the highest of {} is {highest}); lower --min-difficulty",
                self.rows
            ),
            (0, _, _) => bail!("{name}: the file has a header and no rows"),
            _ => Ok(()),
        }
    }

    /// Cells of a puzzle, once a block was read.
    pub(super) fn seq_len(&self) -> usize {
        self.seq_len
    }

    /// Tells apart what was read so far from other rows.
    pub(super) fn digest(&self) -> u32 {
        self.digest
    }
}

/// The non-empty lines of a file. No puzzle list has a line break within a field, so that a line's number is exact in
/// every error.
struct Lines<R> {
    reader: R,
    /// Lines read so far, empty ones included.
    number: u64,
    /// Non-empty lines that may still be read.
    left: usize,
}

/// Some lines as they stand in the file.
struct RawBlock {
    text: Vec<u8>,
    lines: Vec<Line>,
    /// Why no line follows: the file's end, or what went wrong.
    end: Option<Result<()>>,
}

/// Where a line stands in its block, without its end.
struct Line {
    number: u64,
    start: usize,
    end: usize,
}

impl Line {
    fn text<'a>(&self, block: &'a [u8]) -> &'a [u8] {
        &block[self.start..self.end]
    }
}

impl<R: BufRead> Lines<R> {
    fn block(&mut self, name: &str) -> RawBlock {
        let mut block = RawBlock { text: Vec::new(), lines: Vec::new(), end: None };
        while block.text.len() < BLOCK && block.end.is_none() {
            block.end = self.line(name, &mut block).transpose();
        }
        block
    }

    /// Adds the next line, if it is not empty; Some is the end.
    fn line(&mut self, name: &str, block: &mut RawBlock) -> Result<Option<()>> {
        if self.left == 0 {
            return Ok(Some(()));
        }
        self.number += 1;
        let (number, start) = (self.number, block.text.len());
        let read = read_line(&mut self.reader, MAX_LINE, &mut block.text);
        let (end, read) =
            read.with_context(|| format!("{name}:{number}: cannot be read further (is the file complete?)"))?;
        if read == 0 {
            return Ok(Some(()));
        }
        let fits = end != LineEnd::TooLong && read <= MAX_LINE as u64;
        ensure!(fits, "{name}:{number}: a line of more than {MAX_LINE} bytes is too long for a puzzle");
        let line = &block.text[start..];
        let bare = line.strip_suffix(b"\n").unwrap_or(line);
        let bare = bare.strip_suffix(b"\r").unwrap_or(bare);
        let end = start + bare.len();
        let start = if number == 1 && bare.starts_with("\u{feff}".as_bytes()) { start + 3 } else { start };
        if start == end {
            block.text.truncate(start);
        } else {
            block.lines.push(Line { number, start, end });
            self.left -= 1;
        }
        Ok(None)
    }
}

/// Rows checked one after the other, up to the first bad one.
struct Checked {
    list: PuzzleList,
    /// The highest rating, of rows left out too.
    highest: Option<i64>,
    seq_len: usize,
    failed: Option<Error>,
}

fn check_lines(text: &[u8], lines: &[Line], name: &str, options: &ReadOptions, seq_len: usize) -> Checked {
    let mut checked = Checked { list: PuzzleList::empty(options.kind), highest: None, seq_len, failed: None };
    for line in lines {
        let done = with_fields(line.text(text), |fields| checked.row(fields, options)).and_then(|row| row);
        if let Err(e) = done {
            checked.failed = Some(e.context(format!("{name}:{}", line.number)));
            break;
        }
    }
    checked
}

impl Checked {
    fn row(&mut self, fields: &[&str], options: &ReadOptions) -> Result<()> {
        let &[source, question, answer, rating] = fields else {
            bail!("{} field{}; a row is {}", fields.len(), if fields.len() == 1 { "" } else { "s" }, COLUMNS.join(","));
        };
        ensure!(!is_header(fields), "the header occurs a second time (were files joined?): remove this line");
        let parsed = rating.trim().parse();
        let rating = parsed.map_err(|_| anyhow!("the rating is {:?}; expected a whole number", shorten(rating)))?;
        self.highest = self.highest.max(Some(rating));
        let kept = options.min_difficulty.is_none_or(|min| rating >= min);
        match options.kind {
            PuzzleKind::Sudoku => {
                let question: Board = question.parse().context("question")?;
                let answer: Board = answer.parse().context("answer")?;
                answer.check_solves(&question).context("the answer does not solve the question")?;
                if kept {
                    self.list.push(&question.tokens(), &answer.tokens(), source, rating);
                }
            }
            PuzzleKind::Maze => {
                let cells = if self.seq_len == 0 { question.chars().count() } else { self.seq_len };
                let geometry = options.kind.square(cells).filter(|_| cells > 0);
                let geometry =
                    geometry.with_context(|| format!("question: {cells} characters do not form a square maze"))?;
                let question = geometry.parse(question).context("question")?;
                let answer = geometry.parse(answer).context("answer")?;
                self.seq_len = question.len();
                if kept {
                    self.list.push(&question, &answer, source, rating);
                }
            }
        }
        Ok(())
    }
}

/// Splits a line at its commas, those within quotes left alone.
fn with_fields<T>(line: &[u8], act: impl FnOnce(&[&str]) -> T) -> Result<T> {
    let text = std::str::from_utf8(line).map_err(|_| anyhow!("not UTF-8 text"))?;
    if !text.contains('"') {
        let mut fields = [""; COLUMNS.len()];
        let mut count = 0;
        for field in text.split(',') {
            let Some(place) = fields.get_mut(count) else { return Ok(act(&text.split(',').collect::<Vec<_>>())) };
            *place = field;
            count += 1;
        }
        return Ok(act(&fields[..count]));
    }
    let mut csv = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut record = csv::StringRecord::new();
    csv.read_record(&mut record).context("not CSV")?;
    Ok(act(&record.iter().collect::<Vec<_>>()))
}

fn is_header(fields: &[&str]) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    const Q: &str = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79";
    const A: &str = "534678912672195348198342567859761423426853791713924856961537284287419635345286179";

    /// Some blocks of rows, each with a rating and a source of its own.
    fn long_list() -> String {
        let row = |i: usize| format!("source {},{Q},{A},{i}\n", i % 700);
        format!("{}\n{}", COLUMNS.join(","), (0..15_000).map(row).collect::<String>())
    }

    fn blocks(text: &str, options: &ReadOptions) -> Result<Vec<PuzzleList>, String> {
        let read = || -> Result<Vec<PuzzleList>> {
            let mut reader = ListReader::new(text.as_bytes(), "list.csv", options)?;
            let mut blocks = Vec::new();
            while let Some(block) = reader.next_block()? {
                blocks.push(block);
            }
            Ok(blocks)
        };
        read().map_err(|e| format!("{e:#}"))
    }

    /// Alone and on the threads of a pool, which must give the same.
    fn read(text: &str, options: &ReadOptions) -> Result<PuzzleList, String> {
        let alone = blocks(text, options);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a pool");
        assert_eq!(alone, pool.install(|| blocks(text, options)));
        alone.map(|blocks| {
            assert!(blocks.iter().all(|block| block.len() < 7000), "no block holds the list");
            blocks.iter().fold(PuzzleList::empty(options.kind), |mut list, block| {
                list.append(block);
                list
            })
        })
    }

    const SUDOKU: ReadOptions = ReadOptions { kind: PuzzleKind::Sudoku, min_difficulty: None, first_rows: None };

    #[test]
    fn blocks_together_are_the_list() {
        let text = long_list();
        let list = read(&text, &SUDOKU).expect("good");
        assert_eq!(list, PuzzleList::read(text.as_bytes(), "list.csv", &SUDOKU).expect("good"));
        assert_eq!((list.len(), list.seq_len()), (15_000, 81));
        for i in [0, 5_000, 14_999] {
            assert_eq!((list.row(i).source, list.row(i).rating), (format!("source {}", i % 700), i as i64));
        }
        let some = ReadOptions { min_difficulty: Some(9_000), first_rows: Some(10_000), ..SUDOKU };
        let list = read(&text, &some).expect("good");
        assert_eq!((list.len(), list.row(0).rating, list.row(999).rating), (1_000, 9_000, 9_999));
    }

    #[test]
    fn the_first_fault_of_the_file_is_told() {
        let mut lines: Vec<String> = long_list().lines().map(str::to_owned).collect();
        lines[12_001] = "x".repeat(1 << 20);
        lines[12_000] = format!("a,{Q},{A},hard");
        lines[11_990] = format!("a,{A},{Q},1");
        let text = lines.join("\n");
        let found = read(&text, &SUDOKU).expect_err("bad rows");
        assert!(found.starts_with("list.csv:11991: the answer does not solve"), "{found}");
        let before = ReadOptions { first_rows: Some(11_989), ..SUDOKU };
        assert_eq!(read(&text, &before).map(|list| list.len()), Ok(11_989), "what follows is not looked at");
        lines[11_990] = lines[11_989].clone();
        let found = read(&lines.join("\n"), &SUDOKU).expect_err("bad rows");
        assert!(found.starts_with("list.csv:12001: the rating is \"hard\""), "{found}");
        lines[12_000] = lines[11_989].clone();
        let found = read(&lines.join("\n"), &SUDOKU).expect_err("a long line");
        assert!(found.starts_with("list.csv:12002: a line of more than"), "{found}");
        let none = ReadOptions { min_difficulty: Some(15_000), ..SUDOKU };
        let found = read(&long_list(), &none).expect_err("none is left");
        assert!(found.contains("no row is rated 15000 or more (the highest of 15000 is 14999)"), "{found}");
    }
}
