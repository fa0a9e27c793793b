//! What is kept of every pass: the lines of a results file, and what scores are counted from.

use serde::{Deserialize, Serialize};

use super::engine::{Ending, FinishedPass, StopRule};
use crate::{dataset::RowInfo, puzzle::Geometry};

/// How a pass stood at a certain segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndRecord {
    /// In the puzzle's own frame: digits and `.` for a blank, or a maze's characters; `?` is padding.
    pub answer: String,
    pub segments: u32,
    /// q_halt > q_continue
    pub halted: bool,
    /// Right by the puzzle's rules; no label was looked at.
    pub verified: bool,
    /// q_halt − q_continue
    pub margin: f32,
    /// Every cell equals the label.
    pub exact: bool,
    /// Cells that equal the label, givens included.
    pub cells: u32,
}

/// One pass over one puzzle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PassRecord {
    /// Checkpoint × permutations + permutation.
    pub pass: u32,
    #[serde(flatten)]
    pub end: EndRecord,
    /// Its first halt, else the last segment; with `--compare-stops` only, as the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_halt: Option<EndRecord>,
    /// Its first verified answer, else the last segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_verified: Option<EndRecord>,
}

/// The passes of one puzzle, in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PuzzleRecord {
    /// The puzzle's place in the set.
    pub puzzle: usize,
    /// Where it is from and how hard it is, if that is known.
    #[serde(flatten)]
    pub row: Option<RowInfo>,
    pub passes: Vec<PassRecord>,
}

impl EndRecord {
    fn new(end: &Ending, geometry: Geometry, label: &[u8]) -> Self {
        let cells = end.answer.iter().zip(label).filter(|(a, b)| a == b).count();
        Self {
            answer: geometry.text(&end.answer),
            segments: end.segments,
            halted: end.halted,
            verified: end.verified,
            // JSON has no other numbers.
            margin: if end.margin.is_nan() { f32::MIN } else { end.margin.clamp(f32::MIN, f32::MAX) },
            exact: cells == label.len(),
            cells: cells as u32,
        }
    }
}

impl PassRecord {
    /// A finished pass beside the puzzle's label, `[S]`.
    pub fn new(pass: &FinishedPass, geometry: Geometry, label: &[u8]) -> Self {
        let record = |end: &Ending| EndRecord::new(end, geometry, label);
        Self {
            pass: pass.pass,
            end: record(&pass.end),
            at_halt: pass.others.as_ref().map(|o| record(&o.halt)),
            at_verified: pass.others.as_ref().map(|o| record(&o.verified)),
        }
    }

    /// How it would have ended under another rule than that of its run; none where only the run's own is known.
    pub fn under(&self, rule: StopRule, of_run: StopRule) -> Option<&EndRecord> {
        match rule {
            _ if rule == of_run => Some(&self.end),
            StopRule::Never => None,
            StopRule::Halt => self.at_halt.as_ref(),
            StopRule::Verified => self.at_verified.as_ref(),
        }
    }
}

impl PuzzleRecord {
    /// The passes that a run under `rule` has, with their endings: under [`StopRule::Verified`] none after the first
    /// verified one.
    pub fn passes_under(&self, rule: StopRule, of_run: StopRule) -> Option<Vec<(u32, &EndRecord)>> {
        let mut all = Vec::with_capacity(self.passes.len());
        for pass in &self.passes {
            let end = pass.under(rule, of_run)?;
            all.push((pass.pass, end));
            if rule == StopRule::Verified && end.verified {
                break;
            }
        }
        Some(all)
    }

    /// Whether no pass is missing of `all` that the rule wants.
    pub fn is_complete(&self, all: usize, rule: StopRule) -> bool {
        self.passes.len() == all || rule == StopRule::Verified && self.passes.iter().any(|p| p.end.verified)
    }
}
