//! A value for each stop rule.

use std::ops::Index;

use serde::Serialize;

use crate::eval::pass::StopRule;

/// A value for each stop rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PerRule<T> {
    /// Under [`StopRule::Never`].
    pub never: T,
    /// Under [`StopRule::Halt`].
    pub halt: T,
    /// Under [`StopRule::Verified`].
    pub verified: T,
}

impl<T> PerRule<T> {
    /// What `of` makes of each.
    pub fn each(mut of: impl FnMut(StopRule) -> T) -> Self {
        Self { never: of(StopRule::Never), halt: of(StopRule::Halt), verified: of(StopRule::Verified) }
    }
}

impl<T> Index<StopRule> for PerRule<T> {
    type Output = T;

    fn index(&self, rule: StopRule) -> &T {
        match rule {
            StopRule::Never => &self.never,
            StopRule::Halt => &self.halt,
            StopRule::Verified => &self.verified,
        }
    }
}
