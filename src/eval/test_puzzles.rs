//! The test puzzles that checkpoints are tried on: those that were named, else those that the checkpoint was trained for.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    checkpoint::Checkpoint,
    dataset::{BUNDLED_TEST_ROWS, Dataset, DatasetSet, Split},
    puzzle::{Geometry, Puzzle, maze},
};

/// Where test puzzles come from, with everything decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestSource {
    /// The test split of a dataset folder.
    Folder(PathBuf),
    /// The first rows of the bundled Sudokus.
    Sudokus(usize),
    /// The bundled mazes of so many cells; the largest where that is none.
    Mazes(Option<usize>),
}

/// A dataset's test split.
#[derive(Clone, Debug, Serialize)]
pub struct DataIdentity {
    /// [`Dataset::fingerprint`].
    pub data_fingerprint: String,
    /// Its folder or name, for people.
    pub data: String,
}

/// The puzzles of a test split.
#[derive(Debug)]
pub struct TestPuzzles {
    pub dataset: Dataset,
    pub geometry: Geometry,
    /// The folder, or words for the bundled rows.
    pub origin: String,
    pub source: TestSource,
    /// Says in a sentence what was taken, where nothing was asked for.
    pub taken: Option<String>,
}

impl TestPuzzles {
    /// Opens what was decided.
    ///
    /// # Errors
    /// Those of [`Dataset::open`]; more bundled rows than there are.
    pub fn open(source: TestSource) -> Result<Self> {
        let (dataset, origin) = match &source {
            TestSource::Folder(path) => (Dataset::open(path, Split::Test)?, path.display().to_string()),
            TestSource::Sudokus(rows) => {
                let dataset = Dataset::bundled_test(Some(*rows))?;
                let there = dataset.sets().first().map_or(0, DatasetSet::len);
                ensure!(there == *rows, "--bundled {rows}: there are {there} bundled test rows");
                (dataset, format!("the first {there} bundled Sudoku-Extreme test rows"))
            }
            TestSource::Mazes(cells) => {
                let mazes = Dataset::bundled_test_mazes(*cells)?;
                let side = usize::try_from(mazes.meta().seq_len)?.isqrt();
                let origin = format!("the {} bundled test mazes of {side}x{side} cells", mazes.len());
                (mazes, origin)
            }
        };
        Ok(Self { geometry: dataset.geometry(), dataset, origin, source, taken: None })
    }

    /// The test split at `data_path`; without one the checkpoint's own, if it is there, else bundled puzzles of its kind.
    ///
    /// # Errors
    /// Those of [`TestPuzzles::open`]; no bundled puzzles that the checkpoint fits.
    pub fn choose(data_path: Option<&Path>, checkpoint: &Checkpoint) -> Result<Self> {
        if let Some(path) = data_path {
            return Self::open(TestSource::Folder(path.to_owned()));
        }
        let own = PathBuf::from(&checkpoint.config.data_path);
        let at = own.display().to_string();
        if own.join("test").exists() {
            let taken = Some(format!("puzzles: {at}/test, the checkpoint's data_path (--data-path names others)"));
            return Ok(Self { taken, ..Self::open(TestSource::Folder(own))? });
        }
        let puzzles = bundled(checkpoint)
            .with_context(|| format!("{}: its data_path {at} is not here", checkpoint.path.display()))?;
        let taken = Some(format!("puzzles: {}, as the checkpoint's data_path {at} is not here", puzzles.origin));
        Ok(Self { taken, ..puzzles })
    }

    /// `count` rows from `first` on, with their solutions; none counts all, and fewer where there are no more.
    ///
    /// # Errors
    /// A first row that is not there.
    pub fn rows_from(&self, first: usize, count: Option<usize>) -> Result<Vec<Puzzle>> {
        let there = self.set()?.len();
        let last = count.map_or(there, |n| first.saturating_add(n).min(there));
        // A first row that is not there is told as that.
        let rows: Vec<usize> = if first < there { (first..last).collect() } else { vec![first] };
        self.rows("--first", &rows)
    }

    /// The set that upstream reads: the one named `all`, else the first.
    pub fn set(&self) -> Result<&DatasetSet> {
        let sets = self.dataset.sets();
        let set = sets.iter().find(|s| s.name() == "all").or_else(|| sets.first());
        let set = set.with_context(|| format!("{}: the test split names no set of puzzles", self.origin))?;
        ensure!(!set.is_empty(), "{}: the test split holds no puzzles", self.origin);
        Ok(set)
    }

    /// Warns readers of [`TestPuzzles::set`] alone, where there are other sets.
    pub fn warn_of_unread_sets(&self) {
        let sets = self.dataset.sets();
        if let Some(set) = self.set().ok().filter(|_| sets.len() > 1) {
            log::warn!("{}: {} sets; only '{}' is read", self.origin, sets.len(), set.name());
        }
    }

    /// What they are, where that is known.
    ///
    /// # Errors
    /// Puzzles of an unknown kind.
    pub fn known(&self) -> Result<Geometry> {
        self.geometry.known().with_context(|| self.origin.clone())
    }

    /// Which data they are, by content and by name.
    ///
    /// # Errors
    /// Those of [`Dataset::fingerprint`].
    pub fn identity(&self) -> Result<DataIdentity> {
        Ok(DataIdentity { data_fingerprint: self.dataset.fingerprint()?, data: self.origin.clone() })
    }

    /// These rows, with their solutions.
    ///
    /// # Errors
    /// A row that is not there, told as one of `flag`'s.
    pub fn rows(&self, flag: &str, rows: &[usize]) -> Result<Vec<Puzzle>> {
        let set = self.set()?;
        let geometry = self.known()?;
        if let Some(row) = rows.iter().find(|row| **row >= set.len()) {
            bail!("{flag} {row}: there are {} test puzzles in {}: give 0 to {}", set.len(), self.origin, set.len() - 1);
        }
        let stored = set.rows_as_stored(rows)?;
        let tokens =
            |row: ndarray::ArrayView1<'_, i32>| row.iter().map(|&t| u8::try_from(t)).collect::<Result<Vec<u8>, _>>();
        rows.iter()
            .zip(stored.inputs.outer_iter().zip(stored.labels.outer_iter()))
            .map(|(&index, (input, label))| {
                Ok(Puzzle::new(geometry, tokens(input)?, Some(tokens(label)?))?.numbered(index))
            })
            .collect()
    }

    /// [`check_fits`] for these puzzles.
    ///
    /// # Errors
    /// A checkpoint of another kind of puzzle.
    pub fn check_kind(&self, checkpoint: &Checkpoint) -> Result<()> {
        check_fits(checkpoint, self.geometry, &self.origin)
    }
}

/// A checkpoint of another kind of puzzle is told as that, before it is told as shapes that do not fit. Warns where it was
/// trained on another size.
///
/// # Errors
/// A checkpoint of another kind of puzzle than those of `origin`.
pub fn check_fits(checkpoint: &Checkpoint, geometry: Geometry, origin: &str) -> Result<()> {
    let (wanted, cells) = (geometry.vocab_size(), geometry.cells());
    let path = checkpoint.path.display();
    if let Some(found) = checkpoint.vocab_size().filter(|&found| found != wanted) {
        bail!(
            "{path}: its vocabulary has {found} tokens, the puzzles of {origin} have {wanted} ({geometry}): it was trained on another \
             kind of puzzle; name its own data with --data-path"
        );
    }
    if let Some(trained) = checkpoint.cells().filter(|&trained| trained != cells) {
        log::warn!("{path}: it was trained on puzzles of {trained} cells, those of {origin} have {cells}");
    }
    Ok(())
}

/// The bundled test puzzles of the kind and size that a checkpoint knows. Weights that do not tell their size are taken to
/// fit.
fn bundled(checkpoint: &Checkpoint) -> Result<TestPuzzles> {
    let source = match checkpoint.vocab_size() {
        Some(maze::VOCAB_SIZE) => TestSource::Mazes(checkpoint.cells()),
        Some(n) if n != Geometry::SUDOKU.vocab_size() => bail!(
            "no bundled puzzle has the {n} tokens that it knows (Sudoku has {}, maze {}): name its puzzles with --data-path",
            Geometry::SUDOKU.vocab_size(),
            maze::VOCAB_SIZE
        ),
        _ => TestSource::Sudokus(BUNDLED_TEST_ROWS),
    };
    let puzzles = TestPuzzles::open(source)?;
    if let Some(cells) = checkpoint.cells() {
        let bundled = usize::try_from(puzzles.dataset.meta().seq_len)?;
        ensure!(
            cells == bundled,
            "the bundled puzzles of its kind have {bundled} cells, its own {cells}: name them with --data-path"
        );
    }
    Ok(puzzles)
}
