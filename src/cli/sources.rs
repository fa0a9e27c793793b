//! Which checkpoint and which puzzles a command works on: what the user named, else a default, said in a line.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{
    ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};

use super::ui::{Ui, warn};
use crate::{
    analysis::{identity::DataIdentity, runs::Item},
    checkpoint::{Checkpoint, Loaded, Weights, resolve_or_default},
    dataset::{BUNDLED_TEST_ROWS, Dataset, DatasetSet, Split},
    dtype::Dtype,
    puzzle::{Geometry, PuzzleKind, maze},
    say,
};

/// What `--dtype` takes: bf16 or f32.
pub fn compute_dtype() -> impl TypedValueParser<Value = Dtype> {
    let names = [Dtype::Bf16, Dtype::F32].map(Dtype::short_name);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Dtype>())
}

/// A device as `--device` spells it.
pub fn device_name(device: tch::Device) -> String {
    match device {
        tch::Device::Cpu => "cpu".to_owned(),
        tch::Device::Cuda(n) => format!("cuda:{n}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// Which weights a command loads.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct WeightsArg {
    /// Weights of the last step, or their moving average; auto: the average where the checkpoint has one
    #[arg(long, value_name = "auto|raw|ema", default_value = "auto", hide_possible_values = true)]
    weights: WeightsChoice,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum WeightsChoice {
    #[default]
    Auto,
    Raw,
    Ema,
}

impl From<WeightsArg> for Weights {
    fn from(arg: WeightsArg) -> Self {
        match arg.weights {
            WeightsChoice::Auto => Self::Auto,
            WeightsChoice::Raw => Self::Raw,
            WeightsChoice::Ema => Self::Ema,
        }
    }
}

/// Loads the checkpoint that `path` names; without one the newest, which is then said.
pub fn load_checkpoint(ui: &Ui, path: Option<&Path>, weights: WeightsArg) -> Result<Checkpoint> {
    Ok(load_with_origin(ui, path, weights)?.checkpoint)
}

/// [`load_checkpoint`] for every path, for none of them the newest; at least one.
pub fn load_checkpoints(ui: &Ui, paths: &[PathBuf], weights: WeightsArg) -> Result<Vec<Checkpoint>> {
    if paths.is_empty() {
        return Ok(vec![load_checkpoint(ui, None, weights)?]);
    }
    check_names(paths)?;
    paths.iter().map(|path| load_checkpoint(ui, Some(path), weights)).collect()
}

/// The weights files that `paths` name, for none of them the newest: what [`load_checkpoints`] would load.
pub fn checkpoint_files(ui: &Ui, paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let find = |path: Option<&Path>| -> Result<PathBuf> {
        let resolved = resolve_or_default(path, Path::new(""))?;
        if let Some(taken) = &resolved.taken {
            say!(ui, "checkpoint: {taken}");
        }
        Ok(resolved.weights)
    };
    check_names(paths)?;
    if paths.is_empty() { Ok(vec![find(None)?]) } else { paths.iter().map(|path| find(Some(path))).collect() }
}

fn check_names(paths: &[PathBuf]) -> Result<()> {
    ensure!(!paths.iter().any(|p| p.as_os_str().is_empty()), "--checkpoints: an empty name between commas");
    Ok(())
}

/// [`load_checkpoint`] with what lies beside the weights.
pub fn load_with_origin(ui: &Ui, path: Option<&Path>, weights: WeightsArg) -> Result<Loaded> {
    let loaded = resolve_or_default(path, Path::new(""))?.load(weights.into())?;
    if let Some(taken) = &loaded.taken {
        say!(ui, "checkpoint: {taken}");
    }
    if loaded.checkpoint.averaged {
        say!(ui, "weights: the moving average, {}", loaded.checkpoint.path.display());
    }
    for warning in &loaded.warnings {
        warn(format_args!("{warning}"));
    }
    Ok(loaded)
}

/// Test puzzles and where they come from.
#[derive(Debug)]
pub struct TestPuzzles {
    pub dataset: Dataset,
    pub geometry: Geometry,
    /// The folder, or words for the bundled rows.
    pub origin: String,
}

impl TestPuzzles {
    /// The set that upstream reads: the one named `all`, else the first.
    pub fn set(&self) -> Result<&DatasetSet> {
        let sets = self.dataset.sets();
        let set = sets.iter().find(|s| s.name() == "all").or_else(|| sets.first());
        let set = set.with_context(|| format!("{}: the test split names no set of puzzles", self.origin))?;
        ensure!(!set.is_empty(), "{}: the test split holds no puzzles", self.origin);
        if sets.len() > 1 {
            warn(format_args!("{}: {} sets; only '{}' is read", self.origin, sets.len(), set.name()));
        }
        Ok(set)
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
    pub fn rows(&self, flag: &str, rows: &[usize]) -> Result<Vec<Item>> {
        let set = self.set()?;
        let kind = self.known()?.kind().context("a known kind")?;
        if let Some(row) = rows.iter().find(|row| **row >= set.len()) {
            bail!("{flag} {row}: there are {} test puzzles in {}: give 0 to {}", set.len(), self.origin, set.len() - 1);
        }
        let stored = set.rows_as_stored(rows)?;
        let tokens =
            |row: ndarray::ArrayView1<'_, i32>| row.iter().map(|&t| u8::try_from(t)).collect::<Result<Vec<u8>, _>>();
        rows.iter()
            .zip(stored.inputs.outer_iter().zip(stored.labels.outer_iter()))
            .map(|(&index, (input, label))| Ok(Item { index, kind, tokens: tokens(input)?, solution: tokens(label)? }))
            .collect()
    }

    /// A checkpoint of another kind of puzzle is told as that, before it is told as shapes that do not fit. One that was
    /// trained on another size is warned of.
    pub fn check_kind(&self, checkpoint: &Checkpoint) -> Result<()> {
        let (wanted, cells) = (self.geometry.vocab_size(), self.geometry.cells());
        match checkpoint.vocab_size() {
            Some(found) if found != wanted => bail!(
                "{}: it knows {found} tokens, the puzzles of {} have {wanted} ({}): it was trained on another kind of \
                 puzzle; name its own data with --data-path",
                checkpoint.path.display(),
                self.origin,
                self.geometry
            ),
            _ => {}
        }
        if let Some(trained) = checkpoint.cells().filter(|&trained| trained != cells) {
            warn(format_args!(
                "{}: it was trained on puzzles of {trained} cells, those of {} have {cells}",
                checkpoint.path.display(),
                self.origin
            ));
        }
        Ok(())
    }
}

/// The test split at `data_path`; without one the checkpoint's own, if it is there, else bundled puzzles of its kind.
pub fn test_puzzles(ui: &Ui, data_path: Option<&Path>, checkpoint: &Checkpoint) -> Result<TestPuzzles> {
    let own = PathBuf::from(&checkpoint.config.data_path);
    let (dataset, origin) = match data_path {
        Some(path) => (Dataset::open(path, Split::Test)?, path.display().to_string()),
        None if own.join("test").exists() => {
            say!(ui, "puzzles: {}/test, the checkpoint's data_path (--data-path names others)", own.display());
            (Dataset::open(&own, Split::Test)?, own.display().to_string())
        }
        None => {
            let (dataset, origin) = bundled(checkpoint).with_context(|| {
                format!("{}: its data_path {} is not here", checkpoint.path.display(), own.display())
            })?;
            say!(ui, "puzzles: {origin}, as the checkpoint's data_path {} is not here", own.display());
            (dataset, origin)
        }
    };
    Ok(TestPuzzles { geometry: dataset.geometry(), dataset, origin })
}

/// The bundled test puzzles of the kind and size that a checkpoint knows, and what they are called. Weights that do not
/// tell their size are taken to fit.
fn bundled(checkpoint: &Checkpoint) -> Result<(Dataset, String)> {
    let (dataset, origin) = match checkpoint.vocab_size() {
        Some(maze::VOCAB_SIZE) => {
            let mazes = Dataset::bundled_test_mazes(checkpoint.cells())?;
            let side = usize::try_from(mazes.meta().seq_len)?.isqrt();
            let origin = format!("the {} bundled test mazes of {side}x{side} cells", mazes.len());
            (mazes, origin)
        }
        Some(n) if n != Geometry::SUDOKU.vocab_size() => bail!(
            "no bundled puzzle has the {n} tokens that it knows (Sudoku has {}, maze {}): name its puzzles with --data-path",
            Geometry::SUDOKU.vocab_size(),
            maze::VOCAB_SIZE
        ),
        _ => {
            let origin = format!("the first {BUNDLED_TEST_ROWS} bundled Sudoku-Extreme test rows");
            (Dataset::bundled_test(None)?, origin)
        }
    };
    if let Some(cells) = checkpoint.cells() {
        let bundled = usize::try_from(dataset.meta().seq_len)?;
        ensure!(
            cells == bundled,
            "the bundled puzzles of its kind have {bundled} cells, its own {cells}: name them with --data-path"
        );
    }
    Ok((dataset, origin))
}

/// The puzzle whose alphabet has that many tokens.
pub fn kind_of_vocab(vocab_size: i64) -> Result<PuzzleKind> {
    let kinds = [PuzzleKind::Sudoku, PuzzleKind::Maze];
    match kinds.into_iter().find(|k| i64::try_from(k.vocab_size()) == Ok(vocab_size)) {
        Some(kind) => Ok(kind),
        None => bail!("a vocabulary of {vocab_size} tokens"),
    }
}
