//! Where puzzles come from: the sample inside the binary, a folder, a file.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::MultiGzDecoder;

use super::{Progress, PuzzleList, ReadOptions, Split};
use crate::{input, puzzle::PuzzleKind};

/// The bundled sample lies within the binary, so that `bundled` works wherever it is run.
const TRAIN_GZ: &[u8] = include_bytes!("../../data/sudoku-extreme-train-1k.csv.gz");
const TEST_GZ: &[u8] = include_bytes!("../../data/sudoku-extreme-test-10k.csv.gz");
const MAZE_TRAIN_GZ: &[u8] = include_bytes!("../../data/maze-30x30-train-160.csv.gz");
const MAZE_TEST_GZ: &[u8] = include_bytes!("../../data/maze-30x30-test-40.csv.gz");
const SMALL_MAZE_TRAIN_GZ: &[u8] = include_bytes!("../../data/maze-11x11-train-1000.csv.gz");
const SMALL_MAZE_TEST_GZ: &[u8] = include_bytes!("../../data/maze-11x11-test-200.csv.gz");

/// What the user named as a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PuzzleSource {
    /// The sample of Sudoku-Extreme, or the mazes of 30×30 cells, that come with the program.
    Bundled,
    /// The mazes of 11×11 cells that come with the program.
    BundledSmall,
    /// A folder with train.csv and test.csv, or one file.
    Path(PathBuf),
}

impl FromStr for PuzzleSource {
    type Err = std::convert::Infallible;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Ok(match s {
            "bundled" => Self::Bundled,
            "bundled-small" => Self::BundledSmall,
            path => Self::Path(path.into()),
        })
    }
}

impl fmt::Display for PuzzleSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bundled => f.write_str("bundled"),
            Self::BundledSmall => f.write_str("bundled-small"),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

/// One puzzle list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PuzzleFile {
    /// The 1,000 training puzzles of Sudoku-Extreme's training subset, or 10,000 rows of its test set.
    Bundled(Split),
    /// 160 training mazes of 30×30 cells, or 40 test mazes, made by `hrm dataset generate`.
    BundledMazes(Split),
    /// 1,000 training mazes of 11×11 cells, or 200 test mazes, made in the same way.
    BundledSmallMazes(Split),
    /// A CSV file, gzipped or not.
    File(PathBuf),
}

impl fmt::Display for PuzzleFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bundled(Split::Train) => f.write_str("bundled sudoku-extreme-train-1k.csv"),
            Self::Bundled(Split::Test) => f.write_str("bundled sudoku-extreme-test-10k.csv"),
            Self::BundledMazes(Split::Train) => f.write_str("bundled maze-30x30-train-160.csv"),
            Self::BundledMazes(Split::Test) => f.write_str("bundled maze-30x30-test-40.csv"),
            Self::BundledSmallMazes(Split::Train) => f.write_str("bundled maze-11x11-train-1000.csv"),
            Self::BundledSmallMazes(Split::Test) => f.write_str("bundled maze-11x11-test-200.csv"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl PuzzleFile {
    /// Reads and checks the list. Gzip is recognised by content.
    pub fn read(&self, options: &ReadOptions) -> Result<PuzzleList> {
        let name = self.to_string();
        PuzzleList::read(self.open(&())?, &name, options)
    }

    /// Whether the list can be read a second time; a pipe cannot.
    pub(super) fn is_lasting(&self) -> bool {
        match self {
            Self::File(path) => path.is_file(),
            Self::Bundled(_) | Self::BundledMazes(_) | Self::BundledSmallMazes(_) => true,
        }
    }

    /// Bytes of the file; none where that is not known, or no file is read.
    pub(super) fn size(&self) -> Option<u64> {
        match self {
            Self::File(path) => path.metadata().ok().filter(|metadata| metadata.is_file()).map(|m| m.len()),
            Self::Bundled(_) | Self::BundledMazes(_) | Self::BundledSmallMazes(_) => None,
        }
    }

    /// Begins to read; `progress` advances by the file's bytes.
    pub(super) fn open<'p>(&self, progress: &'p dyn Progress) -> Result<Box<dyn BufRead + Send + 'p>> {
        let path = match self {
            Self::Bundled(Split::Train) => return Ok(gunzip(TRAIN_GZ)),
            Self::Bundled(Split::Test) => return Ok(gunzip(TEST_GZ)),
            Self::BundledMazes(Split::Train) => return Ok(gunzip(MAZE_TRAIN_GZ)),
            Self::BundledMazes(Split::Test) => return Ok(gunzip(MAZE_TEST_GZ)),
            Self::BundledSmallMazes(Split::Train) => return Ok(gunzip(SMALL_MAZE_TRAIN_GZ)),
            Self::BundledSmallMazes(Split::Test) => return Ok(gunzip(SMALL_MAZE_TEST_GZ)),
            Self::File(path) => path,
        };
        let cannot = || format!("{}: cannot read", path.display());
        let mut file = Counted { inner: input::open_stream(path)?, progress };
        let mut magic = Vec::new();
        (&mut file).take(2).read_to_end(&mut magic).with_context(cannot)?;
        let gzipped = magic == [0x1f, 0x8b];
        let whole = BufReader::with_capacity(1 << 16, Cursor::new(magic).chain(file));
        Ok(if gzipped { gunzip(whole) } else { Box::new(whole) })
    }
}

fn gunzip<'p, R: Read + Send + 'p>(reader: R) -> Box<dyn BufRead + Send + 'p> {
    Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(reader)))
}

/// Tells how many bytes were read.
struct Counted<'p, R> {
    inner: R,
    progress: &'p dyn Progress,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.progress.advance(read as u64);
        Ok(read)
    }
}

/// The lists of both splits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitFiles {
    /// List of the training puzzles.
    pub train: PuzzleFile,
    /// List of the test puzzles.
    pub test: PuzzleFile,
}

/// Finds the files behind `--source` and `--test-source`.
///
/// A folder gives its train.csv and test.csv (or .csv.gz). A file gives the training puzzles; the test puzzles are then
/// `test_source`'s, else, for Sudoku, the bundled ones. The bundled sample gives both.
pub fn resolve_sources(
    kind: PuzzleKind,
    source: &PuzzleSource,
    test_source: Option<&PuzzleSource>,
) -> Result<SplitFiles> {
    let train = find_list(kind, source, Split::Train)?;
    let test = match (test_source, source) {
        (Some(test_source), _) => find_list(kind, test_source, Split::Test)?,
        (None, PuzzleSource::Path(path)) if path.is_dir() => find_list(kind, source, Split::Test)?,
        (None, PuzzleSource::Bundled | PuzzleSource::BundledSmall) => find_list(kind, source, Split::Test)?,
        (None, _) if kind == PuzzleKind::Sudoku => PuzzleFile::Bundled(Split::Test),
        (None, _) => bail!("a file of training mazes needs test mazes of its size: name them with --test-source FILE"),
    };
    Ok(SplitFiles { train, test })
}

/// The list of one split that a source gives: a folder's, the bundled one, or a file as it is.
pub fn find_list(kind: PuzzleKind, source: &PuzzleSource, split: Split) -> Result<PuzzleFile> {
    let path = match source {
        PuzzleSource::Bundled => {
            return Ok(match kind {
                PuzzleKind::Sudoku => PuzzleFile::Bundled(split),
                PuzzleKind::Maze => PuzzleFile::BundledMazes(split),
            });
        }
        PuzzleSource::BundledSmall => {
            ensure!(kind == PuzzleKind::Maze, "bundled-small holds mazes: add --dataset maze, or name another source");
            return Ok(PuzzleFile::BundledSmallMazes(split));
        }
        PuzzleSource::Path(path) => path,
    };
    let metadata = path.metadata().with_context(|| {
        format!(
            "{}: cannot be used as a source; expected `bundled`, `bundled-small`, a folder with train.csv and test.csv, or a CSV file",
            path.display()
        )
    })?;
    if !metadata.is_dir() {
        return Ok(PuzzleFile::File(path.clone()));
    }
    in_folder(path, split).map(PuzzleFile::File)
}

fn in_folder(folder: &Path, split: Split) -> Result<PathBuf> {
    let candidates = [format!("{split}.csv"), format!("{split}.csv.gz")].map(|name| folder.join(name));
    match candidates.into_iter().find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => bail!("{}: neither {split}.csv nor {split}.csv.gz is in this folder", folder.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_sample_is_whole() -> Result<()> {
        let options = ReadOptions { kind: PuzzleKind::Sudoku, min_difficulty: None, first_rows: None };
        let train = PuzzleFile::Bundled(Split::Train).read(&options)?;
        let test = PuzzleFile::Bundled(Split::Test).read(&options)?;
        assert_eq!((train.len(), test.len()), (1_000, 10_000));
        assert_eq!(test.row(0), super::super::RowInfo { source: "01_file1".into(), rating: 26 });
        let mean = (0..test.len()).map(|i| test.row(i).rating as f64).sum::<f64>() / test.len() as f64;
        assert!((mean - 22.4463).abs() < 1e-9, "{mean}");
        Ok(())
    }

    #[test]
    fn the_bundled_mazes_are_whole() -> Result<()> {
        let options = ReadOptions { kind: PuzzleKind::Maze, min_difficulty: None, first_rows: None };
        for (source, wanted) in [("bundled", (160, 40, 900, 900)), ("bundled-small", (1000, 200, 121, 121))] {
            let source: PuzzleSource = source.parse()?;
            let files = resolve_sources(PuzzleKind::Maze, &source, None)?;
            let (train, test) = (files.train.read(&options)?, files.test.read(&options)?);
            assert_eq!((train.len(), test.len(), train.seq_len(), test.seq_len()), wanted, "{source}");
        }
        assert!(resolve_sources(PuzzleKind::Sudoku, &PuzzleSource::BundledSmall, None).is_err());
        Ok(())
    }
}
