//! What decides the results of the long analyses: the first lines of their journals.
//!
//! Journals that were written before the data had a fingerprint tell its folder alone; there the folder is compared.

use serde::Serialize;

use super::landscape::Grid;
use crate::{
    eval::test_puzzles::DataIdentity,
    journal::{Identity, Name},
};

/// Puzzles through one checkpoint, segment by segment.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "what", rename = "runs")]
pub struct RunsIdentity {
    /// SHA-256 of the weights.
    pub weights: String,
    pub puzzles: PuzzlesIdentity,
    pub segments: usize,
    pub dtype: &'static str,
}

impl Identity for RunsIdentity {
    const IS: &'static str = "a journal of puzzles that were run";
    const NAMES: &'static [Name] = &[
        Name { within: "puzzles", key: "data", digest: "data_fingerprint" },
        // Told at first, although the runs of some puzzles are a beginning for more.
        Name { within: "puzzles", key: "count", digest: "first" },
    ];
}

/// Which puzzles are run.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum PuzzlesIdentity {
    /// Test rows. How many is left out: the results of some are those of the first of more.
    Rows {
        #[serde(flatten)]
        data: DataIdentity,
        /// The first row, from 0.
        first: usize,
    },
    /// Puzzles made from solutions of the test rows by blanking cells.
    Blanks {
        #[serde(flatten)]
        data: DataIdentity,
        /// Puzzles for each number of blanks.
        per_k: usize,
        seed: u64,
        blanks: Vec<String>,
    },
}

/// A file of traces.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "what", rename = "trace")]
pub struct TraceIdentity {
    /// SHA-256 of the weights.
    pub weights: String,
    #[serde(flatten)]
    pub data: DataIdentity,
    /// The test rows that are traced.
    pub rows: Vec<usize>,
    pub segments: usize,
    pub z_l: bool,
    pub f32: bool,
    pub dtype: &'static str,
}

impl Identity for TraceIdentity {
    const IS: &'static str = "a journal of traces";
    const NAMES: &'static [Name] = &[Name { within: "", key: "data", digest: "data_fingerprint" }];
}

/// A grid of states around one puzzle's trace.
#[derive(Clone, Debug, Serialize)]
pub struct GridIdentity {
    /// `landscape` or `flow`.
    pub what: &'static str,
    /// SHA-256 of the weights.
    pub weights: String,
    /// The puzzle's tokens.
    pub puzzle: Vec<u8>,
    pub grid: Grid,
    pub segments: usize,
    /// The segment whose z_H is the centre.
    pub centre: usize,
    pub dtype: &'static str,
}

impl Identity for GridIdentity {
    const IS: &'static str = "a journal of grid points";
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn data() -> DataIdentity {
        DataIdentity { data_fingerprint: "f".into(), data: "d".into() }
    }

    #[test]
    fn journals_of_earlier_versions_belong_to_the_same_runs() {
        let rows = RunsIdentity {
            weights: "w".into(),
            puzzles: PuzzlesIdentity::Rows { data: data(), first: 3 },
            segments: 16,
            dtype: "f32",
        };
        let old = |puzzles| json!({"what": "runs", "weights": "w", "puzzles": puzzles, "segments": 16, "dtype": "f32"});
        assert_eq!(rows.difference(old(json!({"data": "d", "first": 3}))).unwrap(), None);
        assert_eq!(rows.difference(old(json!({"data": "d", "first": 3, "count": 200}))).unwrap(), None);
        let other = rows.difference(old(json!({"data": "e", "first": 3}))).unwrap().unwrap();
        assert_eq!(other.at, "puzzles.data");

        let puzzles =
            PuzzlesIdentity::Blanks { data: data(), per_k: 5, seed: 1, blanks: vec!["0".into(), "row".into()] };
        let blanks = RunsIdentity { puzzles, ..rows };
        let old_blanks = json!({"data": "d", "per_k": 5, "seed": 1, "blanks": ["0", "row"]});
        assert_eq!(blanks.difference(old(old_blanks)).unwrap(), None);

        let trace = TraceIdentity {
            weights: "w".into(),
            data: data(),
            rows: vec![0, 3],
            segments: 16,
            z_l: true,
            f32: false,
            dtype: "bf16",
        };
        let old = json!({"what": "trace", "weights": "w", "data": "d", "rows": [0, 3], "segments": 16, "z_l": true,
            "f32": false, "dtype": "bf16"});
        assert_eq!(trace.difference(old).unwrap(), None);
    }

    #[test]
    fn a_dataset_is_known_by_its_content() {
        let asked = |fingerprint: &str, folder: &str| {
            let data = DataIdentity { data_fingerprint: fingerprint.into(), data: folder.into() };
            RunsIdentity {
                weights: "w".into(),
                puzzles: PuzzlesIdentity::Rows { data, first: 0 },
                segments: 16,
                dtype: "f32",
            }
        };
        let stored = serde_json::to_value(asked("f", "d")).unwrap();
        assert_eq!(asked("f", "moved").difference(stored.clone()).unwrap(), None);
        assert_eq!(asked("g", "d").difference(stored).unwrap().unwrap().at, "puzzles.data_fingerprint");
    }
}
