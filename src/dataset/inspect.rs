//! What a dataset holds: counts, ratings and sources, sizes.

use std::{collections::BTreeMap, path::Path, time::Instant};

use anyhow::Result;
use serde::Serialize;

use super::{Dataset, DatasetMeta, DatasetSet, RowInfo, Split};
use crate::puzzle::Geometry;

/// What one split of a dataset holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitInspection {
    pub split: Split,
    pub meta: DatasetMeta,
    /// In JSON the kind alone, null where it is unknown.
    pub kind: Geometry,
    pub boards: usize,
    pub puzzles: usize,
    pub groups: usize,
    pub boards_per_group: f64,
    /// Bytes of the arrays that stay in the file and are read as they are looked at.
    pub mapped_bytes: u64,
    /// Bytes of the arrays that were read into memory.
    pub read_bytes: u64,
    /// Seconds to open and check the split.
    pub open_seconds: f64,
    pub fingerprint: Option<String>,
    pub ratings: Option<Ratings>,
    /// Boards by their number of cells of [`Geometry::counted`].
    pub cells: BTreeMap<usize, usize>,
}

/// Ratings and sources of the groups' original puzzles.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratings {
    pub least: i64,
    pub median: i64,
    pub mean: f64,
    pub greatest: i64,
    /// Groups by rating.
    pub histogram: BTreeMap<i64, usize>,
    /// Groups by source.
    pub sources: BTreeMap<String, usize>,
}

/// Opens the splits of a dataset folder and counts what they hold.
///
/// # Errors
/// Those of [`Dataset::open`], and of reading the splits.
pub fn inspect(root: &Path, fingerprint: bool) -> Result<Vec<(Dataset, SplitInspection)>> {
    let present = |split: &Split| root.join(split.name()).exists();
    let mut splits: Vec<Split> = [Split::Train, Split::Test].into_iter().filter(present).collect();
    if splits.is_empty() {
        splits.push(Split::Train); // to fail with the error that tells how to build it
    }
    let open = |split| {
        let begin = Instant::now();
        let dataset = Dataset::open(root, split)?;
        let inspection = SplitInspection::of(&dataset, begin.elapsed().as_secs_f64(), fingerprint)?;
        Ok((dataset, inspection))
    };
    splits.into_iter().map(open).collect()
}

impl SplitInspection {
    /// Counts everything; `open_seconds` is what opening the split took.
    ///
    /// # Errors
    /// A sidecar of rows that cannot be read.
    pub fn of(dataset: &Dataset, open_seconds: f64, fingerprint: bool) -> Result<Self> {
        let meta = dataset.meta().clone();
        let kind = dataset.geometry();
        let sum = |count: fn(&DatasetSet) -> usize| dataset.sets().iter().map(count).sum::<usize>();
        let mut cells = BTreeMap::new();
        if let Some((_, other)) = kind.counted() {
            for set in dataset.sets() {
                for (others, boards) in set.count_inputs(other)? {
                    *cells.entry(set.seq_len() - others).or_default() += boards;
                }
            }
        }
        let (boards, groups) = (dataset.len(), sum(DatasetSet::groups));
        Ok(Self {
            split: dataset.split(),
            kind,
            boards,
            puzzles: sum(DatasetSet::puzzles),
            groups,
            boards_per_group: boards as f64 / groups.max(1) as f64,
            mapped_bytes: dataset.sets().iter().map(|set| set.memory().in_files).sum(),
            read_bytes: dataset.sets().iter().map(|set| set.memory().read).sum(),
            open_seconds,
            fingerprint: if fingerprint { Some(dataset.fingerprint()?) } else { None },
            ratings: Ratings::of(dataset)?,
            cells,
            meta,
        })
    }
}

impl Ratings {
    /// None where no set has its sidecar.
    fn of(dataset: &Dataset) -> Result<Option<Self>> {
        let mut histogram: BTreeMap<i64, usize> = BTreeMap::new();
        let mut sources: BTreeMap<String, usize> = BTreeMap::new();
        let (mut count, mut sum) = (0, 0.0);
        for set in dataset.sets() {
            set.each_row(|RowInfo { source, rating }| {
                *histogram.entry(rating).or_default() += 1;
                match sources.get_mut(&source) {
                    Some(n) => *n += 1,
                    None => drop(sources.insert(source, 1)),
                }
                count += 1;
                sum += rating as f64;
            })?;
        }
        let mut before = 0;
        let middle = histogram.iter().find(|&(_, n)| {
            before += n;
            before > count / 2
        });
        let (Some((&least, _)), Some((&median, _)), Some((&greatest, _))) =
            (histogram.first_key_value(), middle, histogram.last_key_value())
        else {
            return Ok(None);
        };
        Ok(Some(Self { least, median, mean: sum / count as f64, greatest, histogram, sources }))
    }
}
