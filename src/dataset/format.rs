//! Reading a split of a dataset folder, every size and every token checked before anything uses it.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use ndarray::{Array1, Array2};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    BUNDLED_TEST_ROWS, Batch, DatasetMeta, IGNORE_LABEL, PuzzleFile, ReadOptions, RowInfo, Split,
    npy::{NpyFile, Tokens, hash_i32},
};
use crate::{
    escape::shell_word,
    input,
    puzzle::{Geometry, PuzzleKind},
};

/// No dataset.json is nearly this long (bytes).
const MAX_META: u64 = 1 << 20;

/// A sidecar's lines are not nearly this long (bytes) on average.
const MAX_ROW: u64 = 1 << 12;

/// One split: what dataset.json says, and its sets.
#[derive(Debug)]
pub struct Dataset {
    root: Option<PathBuf>,
    split: Split,
    meta: DatasetMeta,
    geometry: Geometry,
    sets: Vec<DatasetSet>,
}

impl DatasetMeta {
    /// Reads `<root>/<split>/dataset.json`.
    ///
    /// # Errors
    /// Where the folder is missing, the error shows the command that builds it.
    pub fn read(root: &Path, split: Split) -> Result<Self> {
        let path = root.join(split.name()).join("dataset.json");
        let text = match input::read_text(&path, MAX_META) {
            Err(e) if input::is_missing(&e) => {
                bail!(
                    "{}: no dataset here ({}); build it with `{}`",
                    path.display(),
                    e.root_cause(),
                    build_command(root)
                )
            }
            text => text?,
        };
        let meta: Self = serde_json::from_str(&text)
            .with_context(|| format!("{}: not a dataset.json as upstream writes it", path.display()))?;
        meta.check().with_context(|| format!("{}", path.display()))?;
        Ok(meta)
    }

    fn check(&self) -> Result<()> {
        for (key, value) in [
            ("vocab_size", self.vocab_size),
            ("seq_len", self.seq_len),
            ("num_puzzle_identifiers", self.num_puzzle_identifiers),
        ] {
            ensure!((1..=i64::from(i32::MAX)).contains(&value), "{key} is {value}; expected 1 or more, within 32 bits");
        }
        let within = |key: &str, value: i64, bound_key: &str, bound: i64| {
            ensure!((0..bound).contains(&value), "{key} is {value}; expected 0 up to {bound_key} - 1 = {}", bound - 1);
            Ok(())
        };
        within("pad_id", self.pad_id, "vocab_size", self.vocab_size)?;
        within("blank_identifier_id", self.blank_identifier_id, "num_puzzle_identifiers", self.num_puzzle_identifiers)?;
        ensure!(self.total_groups >= 0, "total_groups is {}", self.total_groups);
        let mean = self.mean_puzzle_examples;
        ensure!(mean.is_finite() && mean >= 0.0, "mean_puzzle_examples is {mean}");
        ensure!(!self.sets.is_empty(), "sets is empty; upstream's builders write [\"all\"]");
        for set in &self.sets {
            // The name becomes part of file names.
            let plain = !set.is_empty() && set.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
            ensure!(plain && !set.starts_with('.'), "sets holds {set:?}, which is not a set's name");
        }
        Ok(())
    }
}

/// The command that builds the dataset that is missing at `root`.
fn build_command(root: &Path) -> String {
    let hint = root.file_name().is_some_and(|name| name.to_string_lossy().ends_with("-hint"));
    format!("hrm build-dataset --output-dir {}{}", shell_word(root), if hint { " --hint" } else { "" })
}

/// `dataset.json` as Python's json module writes it: one line, `", "` and `": "`.
pub(super) fn meta_json(meta: &DatasetMeta) -> Result<String> {
    struct PythonStyle;
    impl serde_json::ser::Formatter for PythonStyle {
        fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
            writer.write_all(if first { b"" } else { b", " })
        }
        fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
            writer.write_all(if first { b"" } else { b", " })
        }
        fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
            writer.write_all(b": ")
        }
    }
    let mut bytes = Vec::new();
    meta.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, PythonStyle))?;
    Ok(String::from_utf8(bytes)?)
}

impl Dataset {
    /// Opens `<root>/<split>`. Token arrays of up to 256 MiB are copied into memory; of larger ones of uint8 the rows that
    /// are wanted are read each time, and a change of the file is an error. Upstream's int64 arrays (which it writes when
    /// it augments) and int32 are taken into one byte a token.
    ///
    /// # Errors
    /// A missing folder (with the command that builds it), a damaged file, shapes that contradict dataset.json or each
    /// other, tokens outside the vocabulary, indices that do not ascend.
    pub fn open(root: &Path, split: Split) -> Result<Self> {
        let meta = DatasetMeta::read(root, split)?;
        let folder = root.join(split.name());
        let sets = meta.sets.iter().map(|name| DatasetSet::open(&folder, name, &meta)).collect::<Result<Vec<_>>>()?;
        if let [set] = sets.as_slice() {
            ensure!(
                set.groups() as i64 == meta.total_groups,
                "{}: dataset.json says {} groups, {}__group_indices.npy has {}; build the dataset again",
                folder.display(),
                meta.total_groups,
                set.name,
                set.groups()
            );
        }
        Self::of_sets(Some(root), split, meta, sets)
    }

    fn of_sets(root: Option<&Path>, split: Split, meta: DatasetMeta, sets: Vec<DatasetSet>) -> Result<Self> {
        let geometry = geometry_of(&meta, &sets)?;
        Ok(Self { root: root.map(Path::to_owned), split, meta, geometry, sets })
    }

    /// The bundled Sudoku-Extreme test rows, the first 2,000 unless `rows` says otherwise.
    pub fn bundled_test(rows: Option<usize>) -> Result<Self> {
        Self::of_list(PuzzleFile::Bundled(Split::Test), PuzzleKind::Sudoku, Some(rows.unwrap_or(BUNDLED_TEST_ROWS)))
    }

    /// The bundled test mazes: 40 of 30×30 cells, or 200 of 11×11 where that is the size wanted.
    pub fn bundled_test_mazes(cells: Option<usize>) -> Result<Self> {
        let file = match cells {
            Some(121) => PuzzleFile::BundledSmallMazes(Split::Test),
            _ => PuzzleFile::BundledMazes(Split::Test),
        };
        Self::of_list(file, PuzzleKind::Maze, None)
    }

    fn of_list(file: PuzzleFile, kind: PuzzleKind, first_rows: Option<usize>) -> Result<Self> {
        let list = file.read(&ReadOptions { kind, min_difficulty: None, first_rows })?;
        let (puzzles, seq_len) = (list.len(), list.seq_len());
        let rows = (0..puzzles).map(|i| list.row(i)).collect();
        let vocab_size = list.geometry().vocab_size();
        let (inputs, labels) = list.into_tokens();
        let meta = DatasetMeta {
            pad_id: 0,
            ignore_label_id: Some(0),
            blank_identifier_id: 0,
            vocab_size: vocab_size as i64,
            seq_len: seq_len as i64,
            num_puzzle_identifiers: 1,
            total_groups: puzzles as i64,
            mean_puzzle_examples: 1.0,
            sets: vec!["all".into()],
        };
        let ascending: Vec<i32> = (0..=puzzles as i32).collect();
        let arrays = SetArrays {
            inputs,
            labels,
            puzzle_identifiers: vec![0; puzzles],
            puzzle_indices: ascending.clone(),
            group_indices: ascending,
        };
        let mut set = DatasetSet::from_arrays("all", arrays, &meta)?;
        set.rows = RowsAt::Memory(rows);
        Self::of_sets(None, Split::Test, meta, vec![set])
    }

    /// A split put together in memory.
    pub fn from_sets(split: Split, meta: DatasetMeta, sets: Vec<(String, SetArrays)>) -> Result<Self> {
        meta.check()?;
        let named = sets.iter().map(|(name, _)| name).eq(&meta.sets);
        ensure!(named, "the sets are not those that dataset.json names: {:?}", meta.sets);
        let build = |(name, arrays): (String, SetArrays)| DatasetSet::from_arrays(&name, arrays, &meta);
        let sets = sets.into_iter().map(build).collect::<Result<Vec<_>>>()?;
        Self::of_sets(None, split, meta, sets)
    }

    /// The folder that holds the splits; none for data in memory.
    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// Train or test.
    pub fn split(&self) -> Split {
        self.split
    }

    /// What `dataset.json` says.
    pub fn meta(&self) -> &DatasetMeta {
        &self.meta
    }

    /// The sets in dataset.json's order.
    pub fn sets(&self) -> &[DatasetSet] {
        &self.sets
    }

    /// Examples of all sets.
    pub fn len(&self) -> usize {
        self.sets.iter().map(DatasetSet::len).sum()
    }

    /// Whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What its puzzles are.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// SHA-256 over dataset.json and the five arrays of each set, in lower-case hex (64 characters).
    ///
    /// Arrays count as we would write them, so that upstream's int64 dataset and ours of the same boards agree. Reads
    /// all data: about a second per gigabyte.
    pub fn fingerprint(&self) -> Result<String> {
        let mut hash = Sha256::new();
        hash.update(meta_json(&self.meta)?);
        for set in &self.sets {
            set.hash_into(&mut hash)?;
        }
        Ok(hex::encode(hash.finalize()))
    }
}

/// What the puzzles of sets are: decided here and nowhere else, by [`Geometry::of_dataset`] from the vocabulary, the length
/// of a row and a sample of rows spread over the first set.
fn geometry_of(meta: &DatasetMeta, sets: &[DatasetSet]) -> Result<Geometry> {
    const SAMPLED: usize = 64;
    let mut rows = Vec::with_capacity(SAMPLED);
    if let Some(set) = sets.first() {
        let step = set.len().div_ceil(SAMPLED).max(1);
        for example in (0..set.len()).step_by(step) {
            let (question, mut label) = set.tokens(example)?;
            // No label is 0 from here on.
            let none = |token: u8| Some(i64::from(token)) == set.ignore_label_id;
            label.iter_mut().filter(|token| none(**token)).for_each(|token| *token = 0);
            rows.push((question, label));
        }
    }
    Ok(Geometry::of_dataset(meta.vocab_size as usize, meta.seq_len as usize, &rows))
}

/// The arrays of one set, in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetArrays {
    /// `[examples, seq_len]`
    pub inputs: Vec<u8>,
    /// `[examples, seq_len]`
    pub labels: Vec<u8>,
    /// `[puzzles]`
    pub puzzle_identifiers: Vec<i32>,
    /// `[puzzles + 1]`
    pub puzzle_indices: Vec<i32>,
    /// `[groups + 1]`
    pub group_indices: Vec<i32>,
}

/// Where a set's arrays are, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// In the files, read as they are looked at.
    pub in_files: u64,
    /// In the process.
    pub read: u64,
}

/// One set of a split: groups of puzzles of examples.
#[derive(Debug)]
pub struct DatasetSet {
    name: String,
    seq_len: usize,
    examples: usize,
    ignore_label_id: Option<i64>,
    pad_id: i32,
    blank_identifier_id: i32,
    inputs: Tokens,
    labels: Tokens,
    puzzle_identifiers: Vec<i32>,
    puzzle_indices: Vec<i32>,
    group_indices: Vec<i32>,
    rows: RowsAt,
}

#[derive(Debug)]
enum RowsAt {
    File(PathBuf),
    Memory(Vec<RowInfo>),
    Nowhere,
}

impl DatasetSet {
    fn open(folder: &Path, name: &str, meta: &DatasetMeta) -> Result<Self> {
        let path = |array: &str| folder.join(format!("{name}__{array}"));
        let tokens = |array: &str| -> Result<(usize, Tokens)> {
            let path = path(array);
            let file = NpyFile::open(&path)?;
            let &[examples, seq_len] = file.shape() else {
                bail!("{}: shape {:?}; expected [examples, {}]", path.display(), file.shape(), meta.seq_len)
            };
            ensure!(
                seq_len as i64 == meta.seq_len,
                "{}: rows of {seq_len} tokens, but dataset.json says seq_len {}",
                path.display(),
                meta.seq_len
            );
            Ok((examples, file.into_tokens()?))
        };
        let vector = |array: &str| -> Result<Vec<i32>> {
            let path = path(array);
            let file = NpyFile::open(&path)?;
            ensure!(file.shape().len() == 1, "{}: shape {:?}; expected a vector", path.display(), file.shape());
            file.to_i32()
        };
        let (examples, inputs) = tokens("inputs.npy")?;
        let (labelled, labels) = tokens("labels.npy")?;
        ensure!(
            examples == labelled,
            "{}: {examples} rows in {name}__inputs.npy, {labelled} in {name}__labels.npy",
            folder.display()
        );
        let set = Self {
            name: name.to_owned(),
            seq_len: meta.seq_len as usize,
            examples,
            ignore_label_id: meta.ignore_label_id,
            pad_id: meta.pad_id as i32,
            blank_identifier_id: meta.blank_identifier_id as i32,
            inputs,
            labels,
            puzzle_identifiers: vector("puzzle_identifiers.npy")?,
            puzzle_indices: vector("puzzle_indices.npy")?,
            group_indices: vector("group_indices.npy")?,
            rows: RowsAt::File(path("rows.csv")),
        };
        set.check(meta).with_context(|| format!("{}: set '{name}'", folder.display()))?;
        Ok(set)
    }

    fn from_arrays(name: &str, arrays: SetArrays, meta: &DatasetMeta) -> Result<Self> {
        let seq_len = meta.seq_len as usize;
        let set = Self {
            name: name.to_owned(),
            seq_len,
            examples: arrays.inputs.len() / seq_len,
            ignore_label_id: meta.ignore_label_id,
            pad_id: meta.pad_id as i32,
            blank_identifier_id: meta.blank_identifier_id as i32,
            inputs: Tokens::Bytes(arrays.inputs),
            labels: Tokens::Bytes(arrays.labels),
            puzzle_identifiers: arrays.puzzle_identifiers,
            puzzle_indices: arrays.puzzle_indices,
            group_indices: arrays.group_indices,
            rows: RowsAt::Nowhere,
        };
        set.check(meta).with_context(|| format!("set '{name}'"))?;
        Ok(set)
    }

    fn check(&self, meta: &DatasetMeta) -> Result<()> {
        ensure!(self.examples > 0, "has no examples");
        for (what, tokens) in [("inputs", &self.inputs), ("labels", &self.labels)] {
            ensure!(
                Some(tokens.len()) == self.examples.checked_mul(self.seq_len),
                "{} tokens of {what}; expected {} rows of {}",
                tokens.len(),
                self.examples,
                self.seq_len
            );
        }
        for (what, tokens, except) in [("inputs", &self.inputs, None), ("labels", &self.labels, self.ignore_label_id)] {
            if let Some((at, found)) = tokens.find_outside(meta.vocab_size, except)? {
                bail!(
                    "{what} row {} holds token {found} in cell {}; dataset.json says vocab_size {}",
                    at / self.seq_len,
                    at % self.seq_len,
                    meta.vocab_size
                );
            }
        }
        let puzzles = check_offsets("puzzle_indices", &self.puzzle_indices, "examples", self.examples)?;
        check_offsets("group_indices", &self.group_indices, "puzzles", puzzles)?;
        ensure!(
            self.puzzle_identifiers.len() == puzzles,
            "puzzle_identifiers has {} entries for {puzzles} puzzles",
            self.puzzle_identifiers.len()
        );
        let beyond = |id: &&i32| !(0..meta.num_puzzle_identifiers).contains(&i64::from(**id));
        if let Some(id) = self.puzzle_identifiers.iter().find(beyond) {
            bail!("puzzle identifier {id}; dataset.json says num_puzzle_identifiers {}", meta.num_puzzle_identifiers);
        }
        Ok(())
    }

    /// As `dataset.json` lists it; `all` in what is built here.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Examples.
    pub fn len(&self) -> usize {
        self.examples
    }

    /// Whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.examples == 0
    }

    /// Tokens of an example.
    pub fn seq_len(&self) -> usize {
        self.seq_len
    }

    /// Number of puzzles; each has one example or more.
    pub fn puzzles(&self) -> usize {
        self.puzzle_identifiers.len()
    }

    /// Number of groups; each has one puzzle or more. An epoch takes one example of each.
    pub fn groups(&self) -> usize {
        self.group_indices.len().saturating_sub(1)
    }

    /// The puzzles of group `group`. Panics beyond [`Self::groups`], like the other index methods.
    pub fn puzzles_of(&self, group: usize) -> std::ops::Range<usize> {
        self.group_indices[group] as usize..self.group_indices[group + 1] as usize
    }

    /// The examples of puzzle `puzzle`.
    pub fn examples_of(&self, puzzle: usize) -> std::ops::Range<usize> {
        self.puzzle_indices[puzzle] as usize..self.puzzle_indices[puzzle + 1] as usize
    }

    /// The puzzle that an example belongs to.
    pub fn puzzle_of(&self, example: usize) -> usize {
        self.puzzle_indices.partition_point(|&start| start as usize <= example).saturating_sub(1)
    }

    /// The group that an example belongs to, which is its line in [`Self::rows`].
    pub fn group_of(&self, example: usize) -> usize {
        let puzzle = self.puzzle_of(example);
        self.group_indices.partition_point(|&start| start as usize <= puzzle).saturating_sub(1)
    }

    /// Source and rating of each group's original puzzle; none where the sidecar is missing.
    ///
    /// # Errors
    /// A sidecar that cannot be read, or that has another number of lines than there are groups.
    pub fn rows(&self) -> Result<Option<Vec<RowInfo>>> {
        let mut rows = Vec::new();
        let there = self.each_row(|row| rows.push(row))?;
        Ok(there.then_some(rows))
    }

    /// [`Self::rows`] one by one; false where the sidecar is missing.
    ///
    /// # Errors
    /// As [`Self::rows`], for another number of lines at the end.
    pub fn each_row(&self, mut act: impl FnMut(RowInfo)) -> Result<bool> {
        let path = match &self.rows {
            RowsAt::Memory(rows) => {
                rows.iter().cloned().for_each(act);
                return Ok(true);
            }
            RowsAt::File(path) if path.exists() => path,
            _ => return Ok(false),
        };
        let at = || format!("{}: not the sidecar that hrm build-dataset writes", path.display());
        let file = input::open(path)?;
        let length = file.metadata().with_context(at)?.len();
        let most = MAX_META + MAX_ROW * self.groups() as u64;
        ensure!(length <= most, "{}: {length} bytes for {} groups; remove it", path.display(), self.groups());
        let mut lines = 0;
        for row in csv::Reader::from_reader(file).deserialize() {
            act(row.with_context(at)?);
            lines += 1;
        }
        ensure!(
            lines == self.groups(),
            "{}: {lines} lines for {} groups; remove it or build the dataset again",
            path.display(),
            self.groups()
        );
        Ok(true)
    }

    /// Bytes of the arrays, by where they are.
    pub fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for tokens in [&self.inputs, &self.labels] {
            match tokens {
                Tokens::File(data) => memory.in_files += data.len() as u64,
                Tokens::Bytes(bytes) => memory.read += bytes.len() as u64,
                Tokens::Words(words) => memory.read += 4 * words.len() as u64,
            }
        }
        let vectors = [&self.puzzle_identifiers, &self.puzzle_indices, &self.group_indices];
        memory.read += vectors.iter().map(|vector| 4 * vector.len() as u64).sum::<u64>();
        memory
    }

    /// How often `token` stands in a question, with the number of examples that have it so often.
    ///
    /// # Errors
    /// As [`Self::tokens`].
    pub fn count_inputs(&self, token: u8) -> Result<BTreeMap<usize, usize>> {
        let mut counts = BTreeMap::new();
        let mut row = vec![0; self.seq_len];
        for example in 0..self.examples {
            self.inputs.copy(example * self.seq_len, &mut row)?;
            let count = row.iter().filter(|&&found| found == i32::from(token)).count();
            *counts.entry(count).or_default() += 1;
        }
        self.inputs.check_unchanged()?;
        Ok(counts)
    }

    /// One example's tokens, question and answer; 0 (padding) for what is beyond a byte.
    ///
    /// # Shapes
    /// - result: `[seq_len]` each
    ///
    /// # Errors
    /// A file that was changed since it was opened, or cannot be read.
    pub fn tokens(&self, example: usize) -> Result<(Vec<u8>, Vec<u8>)> {
        let bytes = |tokens: &Tokens| -> Result<Vec<u8>> {
            let mut wide = vec![0; self.seq_len];
            tokens.copy(example * self.seq_len, &mut wide)?;
            tokens.check_unchanged()?;
            Ok(wide.into_iter().map(|token| u8::try_from(token).unwrap_or(0)).collect())
        };
        Ok((bytes(&self.inputs)?, bytes(&self.labels)?))
    }

    /// The rows as the loader yields them: labels equal to `ignore_label_id` become [`IGNORE_LABEL`].
    ///
    /// # Shapes
    /// - examples: `[rows]`, each below [`Self::len`]
    /// - result: `[rows, seq_len]`
    pub fn rows_for_loss(&self, examples: &[usize]) -> Result<Batch> {
        self.padded_rows(examples, examples.len())
    }

    /// The rows as the files have them, labels untouched: upstream's batched inference compares all cells.
    ///
    /// # Shapes
    /// - examples: `[rows]`, each below [`Self::len`]
    /// - result: `[rows, seq_len]`
    pub fn rows_as_stored(&self, examples: &[usize]) -> Result<Batch> {
        self.gather(examples, examples.len(), None)
    }

    /// [`Self::rows_for_loss`], padded at the end to `rows` rows: inputs `pad_id`, labels [`IGNORE_LABEL`], puzzle
    /// `blank_identifier_id`.
    pub(super) fn padded_rows(&self, examples: &[usize], rows: usize) -> Result<Batch> {
        let ignored = self.ignore_label_id.and_then(|id| i32::try_from(id).ok());
        self.gather(examples, rows, ignored)
    }

    fn gather(&self, examples: &[usize], rows: usize, ignored: Option<i32>) -> Result<Batch> {
        if let Some(beyond) = examples.iter().find(|&&e| e >= self.examples) {
            bail!("example {beyond} of a set of {}", self.examples);
        }
        ensure!(examples.len() <= rows, "{} examples for {rows} rows", examples.len());
        let mut inputs = Array2::from_elem((rows, self.seq_len), self.pad_id);
        let mut labels = Array2::from_elem((rows, self.seq_len), IGNORE_LABEL);
        let mut puzzle_identifiers = Array1::from_elem(rows, self.blank_identifier_id);
        let contiguous = || anyhow!("a new array is contiguous");
        let inputs_flat = inputs.as_slice_mut().ok_or_else(contiguous)?.chunks_exact_mut(self.seq_len);
        let labels_flat = labels.as_slice_mut().ok_or_else(contiguous)?.chunks_exact_mut(self.seq_len);
        for (((&example, input), label), id) in
            examples.iter().zip(inputs_flat).zip(labels_flat).zip(&mut puzzle_identifiers)
        {
            self.inputs.copy(example * self.seq_len, input)?;
            self.labels.copy(example * self.seq_len, label)?;
            *id = self.puzzle_identifiers[self.puzzle_of(example)];
            if let Some(ignored) = ignored {
                label.iter_mut().filter(|token| **token == ignored).for_each(|token| *token = IGNORE_LABEL);
            }
        }
        self.inputs.check_unchanged()?;
        self.labels.check_unchanged()?;
        Ok(Batch { inputs, labels, puzzle_identifiers })
    }

    fn hash_into(&self, hash: &mut Sha256) -> Result<()> {
        let shape = [self.examples, self.seq_len];
        self.inputs.hash_into(&shape, hash)?;
        self.labels.hash_into(&shape, hash)?;
        for values in [&self.puzzle_identifiers, &self.puzzle_indices, &self.group_indices] {
            hash_i32(values, &[values.len()], hash);
        }
        Ok(())
    }
}

/// Checks offsets from 0 to `end` that strictly ascend; returns how many ranges they mark off.
fn check_offsets(name: &str, offsets: &[i32], of: &str, end: usize) -> Result<usize> {
    ensure!(offsets.first() == Some(&0), "{name} begins with {:?}; expected 0", offsets.first());
    if let Some(at) = offsets.windows(2).position(|pair| pair[0] >= pair[1]) {
        bail!("{name} does not ascend at entry {}: {} then {}", at + 1, offsets[at], offsets[at + 1]);
    }
    let last = offsets.last().copied().unwrap_or(0);
    ensure!(last as usize == end, "{name} ends with {last}; there are {end} {of}");
    Ok(offsets.len() - 1)
}
