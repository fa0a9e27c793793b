//! The random choices of a training pass, apart from what is done with them: ours are seeded, a test may replay recorded
//! ones.

use std::ops::Range;

use rand_chacha::ChaCha8Rng;

use crate::rng::{Purpose, below, permutation, shuffle_front, stream};

/// Which pass of a sampler draws are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassKey {
    /// The run's seed.
    pub seed: u64,
    /// 1 for the first pass over a set; one more with every set and every pass, as upstream counts.
    pub iteration: u64,
}

/// Makes the draws of each pass. The same key must give the same draws again, because a restored sampler replays a pass
/// up to its place.
pub trait DrawSource {
    /// The draws of one pass.
    type Pass: PassDraws;
    /// Begins a pass.
    fn start(&mut self, key: PassKey) -> Self::Pass;
}

/// The draws of one pass, asked for in this order: an epoch's group order before its first group; then for each group a
/// puzzle and its examples.
pub trait PassDraws {
    /// A random order of `0..groups` for epoch `epoch` of the pass.
    fn group_order(&mut self, epoch: usize, groups: usize) -> Vec<u32>;
    /// One puzzle of a group's (non-empty) range.
    fn puzzle(&mut self, puzzles: Range<usize>) -> usize;
    /// Appends to `chosen` `count` distinct examples of a puzzle's range, in random order; `count` is at most its
    /// length.
    fn examples(&mut self, examples: Range<usize>, count: usize, chosen: &mut Vec<usize>);
}

/// Draws keyed by (seed, pass): every rank draws the same, so their slices belong to one global batch.
///
/// Upstream draws examples within a puzzle from a generator that differs between ranks; the two agree wherever a puzzle
/// has one example, which holds for every dataset built here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeededDraws;

/// One pass of [`SeededDraws`].
#[derive(Clone, Debug)]
pub struct SeededPass {
    key: PassKey,
    examples: ChaCha8Rng,
}

impl DrawSource for SeededDraws {
    type Pass = SeededPass;

    fn start(&mut self, key: PassKey) -> SeededPass {
        SeededPass { key, examples: stream(Purpose::Examples, key.seed, key.iteration, 0) }
    }
}

impl PassDraws for SeededPass {
    fn group_order(&mut self, epoch: usize, groups: usize) -> Vec<u32> {
        let mut rng = stream(Purpose::GroupOrder, self.key.seed, self.key.iteration, epoch as u64);
        permutation(&mut rng, groups as u32)
    }

    fn puzzle(&mut self, puzzles: Range<usize>) -> usize {
        puzzles.start + below(&mut self.examples, puzzles.len() as u32) as usize
    }

    fn examples(&mut self, examples: Range<usize>, count: usize, chosen: &mut Vec<usize>) {
        if examples.len() == 1 && count == 1 {
            return chosen.push(examples.start);
        }
        let mut all: Vec<usize> = examples.collect();
        shuffle_front(&mut self.examples, &mut all, count);
        chosen.extend_from_slice(&all[..count.min(all.len())]);
    }
}
