//! Which answer of a puzzle's passes a user takes, without looking at labels.
//!
//! ```text
//! verified   some pass's answer is right by the puzzle's rules
//! vote       the most frequent answer among halted passes (all passes where none halted), ties by the highest
//!            q_halt - q_continue among its passes, then by the earlier pass
//! best halt  the answer of the pass with the highest q_halt - q_continue
//! ```

use std::collections::HashMap;

use crate::eval::pass::Ending;

/// The answers of a puzzle's passes, as they come.
#[derive(Default)]
pub struct Pool<'a> {
    among_halted: Votes<'a>,
    among_all: Votes<'a>,
    best_halt: Option<&'a Ending>,
    verified: Option<&'a Ending>,
    any_exact: bool,
}

/// Whether the label-free answers are there and right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    /// Some pass equals the label.
    pub any_exact: bool,
    pub verified: bool,
    /// Verified, and the label is another answer.
    pub mismatch: bool,
    pub vote: bool,
    pub best_halt: bool,
}

#[derive(Default)]
struct Votes<'a> {
    of: HashMap<&'a str, Standing>,
    cast: usize,
    leader: Option<&'a Ending>,
}

/// How an answer stands.
#[derive(Clone, Copy)]
struct Standing {
    votes: usize,
    /// The highest among its passes.
    margin: f32,
    /// The place of its first pass.
    first: usize,
}

impl Standing {
    fn leads(self, other: Self) -> bool {
        match self.votes.cmp(&other.votes) {
            std::cmp::Ordering::Equal if self.margin == other.margin => self.first < other.first,
            std::cmp::Ordering::Equal => self.margin > other.margin,
            by_votes => by_votes.is_gt(),
        }
    }
}

impl<'a> Votes<'a> {
    fn add(&mut self, end: &'a Ending) {
        let first = self.cast;
        self.cast += 1;
        let own = self.of.entry(&end.answer).or_insert(Standing { votes: 0, margin: f32::MIN, first });
        own.votes += 1;
        own.margin = own.margin.max(end.margin);
        let own = *own;
        // One vote lifts one answer only.
        if self.leader.is_none_or(|leader| own.leads(self.of[leader.answer.as_str()])) {
            self.leader = Some(end);
        }
    }
}

impl<'a> Pool<'a> {
    /// The next pass, in order.
    pub fn add(&mut self, end: &'a Ending) {
        self.among_all.add(end);
        if end.halted {
            self.among_halted.add(end);
        }
        if self.best_halt.is_none_or(|best| end.margin > best.margin) {
            self.best_halt = Some(end);
        }
        if end.verified && self.verified.is_none() {
            self.verified = Some(end);
        }
        self.any_exact |= end.is_exact();
    }

    /// The most frequent answer.
    pub fn vote(&self) -> Option<&'a Ending> {
        self.among_halted.leader.or(self.among_all.leader)
    }

    /// The answer that the model is surest of.
    pub fn best_halt(&self) -> Option<&'a Ending> {
        self.best_halt
    }

    /// The first answer that is right by the rules.
    pub fn verified(&self) -> Option<&'a Ending> {
        self.verified
    }

    pub(super) fn chosen(&self) -> Chosen {
        let right = |end: Option<&Ending>| end.is_some_and(Ending::is_exact);
        Chosen {
            any_exact: self.any_exact,
            verified: self.verified.is_some(),
            mismatch: self.verified.is_some() && !right(self.verified),
            vote: right(self.vote()),
            best_halt: right(self.best_halt),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(answer: &str, halted: bool, margin: f32) -> Ending {
        Ending { answer: answer.into(), segments: 2, halted, verified: false, margin, exact: None, cells: None }
    }

    fn pool(ends: &[Ending]) -> Pool<'_> {
        let mut pool = Pool::default();
        ends.iter().for_each(|e| pool.add(e));
        pool
    }

    fn answer(end: Option<&Ending>) -> &str {
        end.map_or("none", |e| e.answer.as_str())
    }

    #[test]
    fn the_vote_is_of_halted_passes_and_ties_go_to_the_surest() {
        let ends = [end("a", true, 1.0), end("b", true, 2.0), end("a", true, 0.5), end("c", false, 9.0)];
        assert_eq!(answer(pool(&ends).vote()), "a");
        assert_eq!(answer(pool(&ends[..2]).vote()), "b", "one vote each: the higher margin");
        assert_eq!(answer(pool(&ends).best_halt()), "c", "halted or not");
        let none = [end("a", false, -1.0), end("b", false, -2.0), end("b", false, -3.0)];
        assert_eq!(answer(pool(&none).vote()), "b", "no pass halted: all vote");
        let equal = [end("a", true, 1.0), end("b", true, 1.0)];
        assert_eq!(answer(pool(&equal).vote()), "a", "the earlier pass");
        let back = [end("a", true, 1.0), end("b", true, 3.0), end("b", true, 0.0), end("a", true, 0.0)];
        assert_eq!(answer(pool(&back).vote()), "b", "two each: the higher margin stays ahead");
        assert_eq!(answer(pool(&[]).vote()), "none");
    }
}
