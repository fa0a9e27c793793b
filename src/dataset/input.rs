//! What a dataset is built from: a list that was checked from end to end and can be gone through again.

use std::{borrow::Cow, io::BufRead};

use anyhow::{Result, ensure};

use super::{Progress, PuzzleFile, PuzzleList, ReadOptions, list_reader::ListReader};
use crate::puzzle::{Geometry, PuzzleKind};

/// A shorter file is read before a progress bar would be seen (bytes).
const LONG: u64 = 1 << 24;

/// Puzzles of one split for [`super::build`]. Those of a file stay in the file.
#[derive(Clone, Debug)]
pub struct PuzzleInput {
    kind: PuzzleKind,
    seq_len: usize,
    len: usize,
    rows: Rows,
}

#[derive(Clone, Debug)]
enum Rows {
    List(PuzzleList),
    File { file: PuzzleFile, options: ReadOptions, digest: u32 },
}

impl PuzzleInput {
    /// Reads a file to its end and checks each row, on the rayon pool that the caller is in, if any. What can be read
    /// only once (a pipe) is kept in memory, any other file is not.
    ///
    /// `progress` counts the bytes of a file that is long.
    ///
    /// # Errors
    /// As [`PuzzleList::read`]; a cancelled run.
    pub fn read(file: &PuzzleFile, options: &ReadOptions, progress: &dyn Progress) -> Result<Self> {
        let name = file.to_string();
        if let Some(size) = file.size().filter(|&size| size >= LONG) {
            progress.start("checking", size, "bytes");
        }
        let mut kept = (!file.is_lasting()).then(|| PuzzleList::empty(options.kind));
        let mut reader = ListReader::new(file.open(progress)?, &name, options)?;
        let mut len = 0;
        while let Some(block) = reader.next_block()? {
            progress.check()?;
            len += block.len();
            if let Some(list) = &mut kept {
                list.append(&block);
            }
        }
        progress.done();
        let (seq_len, digest) = (reader.seq_len(), reader.digest());
        let rows = match kept {
            Some(list) => Rows::List(list),
            None => Rows::File { file: file.clone(), options: *options, digest },
        };
        Ok(Self { kind: options.kind, seq_len, len, rows })
    }

    /// Sudoku or maze.
    pub fn kind(&self) -> PuzzleKind {
        self.kind
    }

    /// The kind with the size of its puzzles.
    pub fn geometry(&self) -> Geometry {
        self.kind.square_or_unknown(self.seq_len)
    }

    /// Puzzles.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no puzzle.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Cells of a puzzle.
    pub fn seq_len(&self) -> usize {
        self.seq_len
    }

    /// Goes through the puzzles from the first on.
    pub(super) fn blocks(&self) -> Result<Blocks<'_>> {
        let from = match &self.rows {
            Rows::List(list) => Origin::List(Some(list)),
            Rows::File { file, options, digest } => {
                let name = file.to_string();
                let open = || ListReader::new(file.open(&())?, &name, options);
                let reader = open().map_err(|e| e.context(changed(&name)))?;
                Origin::File { reader: Box::new(reader), name, digest: *digest }
            }
        };
        Ok(Blocks { from, seq_len: self.seq_len, left: self.len })
    }
}

impl From<PuzzleList> for PuzzleInput {
    fn from(list: PuzzleList) -> Self {
        Self { kind: list.kind(), seq_len: list.seq_len(), len: list.len(), rows: Rows::List(list) }
    }
}

/// The puzzles of an input, some at a time.
pub(super) struct Blocks<'a> {
    from: Origin<'a>,
    seq_len: usize,
    /// Puzzles not handed out yet.
    left: usize,
}

enum Origin<'a> {
    List(Option<&'a PuzzleList>),
    File { reader: Box<ListReader<Box<dyn BufRead + Send>>>, name: String, digest: u32 },
}

impl<'a> Blocks<'a> {
    /// The next puzzles, maybe none of them; none at the end.
    ///
    /// # Errors
    /// A file that is not what it was when the input was made, found out at its end at the latest.
    pub(super) fn next(&mut self) -> Result<Option<Cow<'a, PuzzleList>>> {
        match &mut self.from {
            Origin::List(list) => Ok(list.take().map(Cow::Borrowed)),
            Origin::File { reader, name, digest } => {
                let block = reader.next_block().map_err(|e| e.context(changed(name)))?;
                let (found, cells) = block.as_ref().map_or((0, 0), |block| (block.len(), block.seq_len()));
                ensure!(found == 0 || (found <= self.left && cells == self.seq_len), changed(name));
                self.left -= found;
                ensure!(block.is_some() || (self.left == 0 && reader.digest() == *digest), changed(name));
                Ok(block.map(Cow::Owned))
            }
        }
    }
}

fn changed(name: &str) -> String {
    format!(
        "{name}: changed after it was checked (a list is read twice): run the command again while nothing changes \
         it"
    )
}
