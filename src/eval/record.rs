//! What is kept of every pass: the lines of a results file, where passes have numbers, and what scores are counted from.

use serde::{Deserialize, Serialize};

use super::pass::{Ending, PassId, StopRule};
use crate::{dataset::RowInfo, puzzle::Geometry};

/// One pass over one puzzle; in files `Id` is its [`PassId::number`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PassRecord<Id = PassId> {
    /// Which pass.
    pub pass: Id,
    /// How the pass stood at its stop.
    #[serde(flatten)]
    pub end: Ending,
    /// Its first halt, else the last segment; with `--compare-stops` only, as the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_halt: Option<Ending>,
    /// Its first verified answer, else the last segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_verified: Option<Ending>,
}

/// The passes of one puzzle, in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PuzzleRecord<Id = PassId> {
    /// The puzzle's place in the set.
    pub puzzle: usize,
    /// Where it is from and how hard it is, if that is known.
    #[serde(flatten)]
    pub row: Option<RowInfo>,
    /// In their order.
    pub passes: Vec<PassRecord<Id>>,
}

impl<A> PuzzleRecord<A> {
    /// The same, its passes named otherwise.
    fn renamed<B>(self, name: impl Fn(A) -> B) -> PuzzleRecord<B> {
        let Self { puzzle, row, passes } = self;
        let renamed = |PassRecord { pass, end, at_halt, at_verified }: PassRecord<A>| {
            let pass = name(pass);
            PassRecord { pass, end, at_halt, at_verified }
        };
        PuzzleRecord { puzzle, row, passes: passes.into_iter().map(renamed).collect() }
    }
}

impl PuzzleRecord<u32> {
    /// As it is in memory, where each checkpoint makes `guesses` guesses.
    pub fn identified(self, guesses: usize) -> PuzzleRecord {
        self.renamed(|number| PassId::from_number(number, guesses))
    }
}

impl PassRecord {
    /// The same, its endings compared with the puzzle's label, `[S]`.
    #[must_use]
    pub fn beside(self, geometry: Geometry, label: &[u8]) -> Self {
        let beside = |end: Ending| end.beside(geometry, label);
        Self {
            pass: self.pass,
            end: beside(self.end),
            at_halt: self.at_halt.map(beside),
            at_verified: self.at_verified.map(beside),
        }
    }

    /// How it would have ended under another rule than that of its run; none where only the run's own is known.
    pub fn under(&self, rule: StopRule, of_run: StopRule) -> Option<&Ending> {
        match rule {
            _ if rule == of_run => Some(&self.end),
            StopRule::Never => None,
            StopRule::Halt => self.at_halt.as_ref(),
            StopRule::Verified => self.at_verified.as_ref(),
        }
    }
}

impl PuzzleRecord {
    /// As files hold it, where each checkpoint makes `guesses` guesses.
    pub fn numbered(self, guesses: usize) -> PuzzleRecord<u32> {
        self.renamed(|pass| pass.number(guesses))
    }

    /// The passes that a run under `rule` has, with their endings: under [`StopRule::Verified`] none after the first
    /// verified one.
    pub fn passes_under(&self, rule: StopRule, of_run: StopRule) -> Option<Vec<(PassId, &Ending)>> {
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
