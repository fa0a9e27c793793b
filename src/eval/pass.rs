//! A pass: one checkpoint's work on one guess of a puzzle. Which it is, when it stops, and how it stood.

use serde::{Deserialize, Serialize};

use crate::puzzle::Geometry;

/// Which pass of a puzzle: ordered by checkpoint, then by guess.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PassId {
    /// Place in the list of checkpoints, from 0.
    pub checkpoint: usize,
    /// Place in the list of guesses that every checkpoint makes, from 0.
    pub guess: usize,
}

impl PassId {
    /// Its number in files: `checkpoint * guesses + guess`, where each checkpoint makes `guesses` guesses.
    pub fn number(self, guesses: usize) -> u32 {
        (self.checkpoint * guesses + self.guess) as u32
    }

    /// All passes of a puzzle, in their order.
    pub fn all(checkpoints: usize, guesses: usize) -> impl Iterator<Item = Self> {
        (0..checkpoints).flat_map(move |checkpoint| (0..guesses).map(move |guess| Self { checkpoint, guess }))
    }

    /// The pass after this one.
    #[must_use]
    pub fn next(self, guesses: usize) -> Self {
        match self.guess + 1 {
            guess if guess < guesses => Self { guess, ..self },
            _ => Self { checkpoint: self.checkpoint + 1, guess: 0 },
        }
    }

    /// The pass with this number in files.
    pub fn from_number(number: u32, guesses: usize) -> Self {
        let (number, guesses) = (number as usize, guesses.max(1));
        Self { checkpoint: number / guesses, guess: number % guesses }
    }
}

/// When a pass ends; at the last of all segments in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StopRule {
    /// After all segments: upstream's rule
    Never,
    /// At the first segment with q_halt > q_continue, as ACT defines it
    Halt,
    /// At the first segment whose answer is right by the puzzle's rules; later passes of the puzzle are then skipped
    Verified,
}

impl StopRule {
    /// In the order of reports.
    pub const ALL: [Self; 3] = [Self::Never, Self::Halt, Self::Verified];

    /// As flags and files call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Halt => "halt",
            Self::Verified => "verified",
        }
    }
}

/// How a pass stood after one of its segments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// The most likely tokens in the puzzle's own frame, as [`Geometry::text`] writes them.
    pub answer: String,
    /// Segments done.
    pub segments: u32,
    /// q_halt > q_continue
    pub halted: bool,
    /// Right by the puzzle's rules; no label was looked at.
    pub verified: bool,
    /// q_halt − q_continue; finite, as JSON has no other numbers.
    pub margin: f32,
    /// Every cell equals the label; none where no label was compared, as below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<bool>,
    /// Cells that equal the label, givens included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cells: Option<u32>,
}

impl Ending {
    /// The same, compared with the puzzle's label.
    ///
    /// # Shapes
    /// - label: `[S]`, tokens
    #[must_use]
    pub fn beside(self, geometry: Geometry, label: &[u8]) -> Self {
        let answer = geometry.parse(&self.answer).unwrap_or_default();
        let cells = answer.iter().zip(label).filter(|(a, b)| a == b).count();
        Self { exact: Some(cells == label.len()), cells: Some(cells as u32), ..self }
    }

    /// Whether it equals the label, or, where none was compared, is right by the rules.
    pub fn is_right(&self) -> bool {
        self.exact.unwrap_or(self.verified)
    }

    /// Whether it is known to equal the label.
    pub fn is_exact(&self) -> bool {
        self.exact == Some(true)
    }
}

/// The finite number nearest to a margin: JSON has no others.
pub(crate) fn finite(margin: f32) -> f32 {
    if margin.is_nan() { f32::MIN } else { margin.clamp(f32::MIN, f32::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_are_numbered_in_their_order() {
        let all: Vec<PassId> = (0..6).map(|number| PassId::from_number(number, 3)).collect();
        assert_eq!((all[4].checkpoint, all[4].guess), (1, 1));
        assert!(all.is_sorted());
        assert!(all.iter().map(|pass| pass.number(3)).eq(0..6));
        assert!(PassId::all(2, 3).eq(all.iter().copied()));
        assert!(all.windows(2).all(|pair| pair[0].next(3) == pair[1]));
    }

    #[test]
    fn cells_are_compared_with_the_label() {
        let (geometry, margin) = (Geometry::maze(2), 0.5);
        let answer = geometry.text(&[1, 2, 5, 0]);
        let end = Ending { answer, segments: 1, halted: true, verified: false, margin, exact: None, cells: None };
        let beside = |label: &[u8]| {
            let end = end.clone().beside(geometry, label);
            (end.exact, end.cells)
        };
        assert_eq!(beside(&[1, 2, 5, 0]), (Some(true), Some(4)));
        assert_eq!(beside(&[1, 3, 5, 0]), (Some(false), Some(3)));
        assert_eq!(beside(&[1, 2, 5, 255]), (Some(false), Some(3)), "no token is not the pad token");
    }
}
