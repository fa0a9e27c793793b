//! How a command ended: done, interrupted or failed.

use anyhow::{Error, Result};
use thiserror::Error;

/// The exit code of a process that was asked to stop before it was done: 128 + SIGINT, as shells have it.
pub const INTERRUPTED: u8 = 130;

/// The error of work that stopped before it was done because it was asked to. It holds what remains to be told the user;
/// see [`Interrupted::TOLD`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Interrupted(pub &'static str);

impl Interrupted {
    /// The user was told already how far the work came and how it goes on.
    pub const TOLD: Self = Self("");
}

/// How a command ended.
#[derive(Debug)]
pub enum Outcome {
    Done,
    Interrupted(Interrupted),
    Failed(Error),
}

impl From<Result<()>> for Outcome {
    fn from(result: Result<()>) -> Self {
        match result {
            Ok(()) => Self::Done,
            Err(error) => match error.downcast_ref() {
                Some(interrupted) => Self::Interrupted(*interrupted),
                None => Self::Failed(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn an_interruption_is_no_failure_whatever_its_context() {
        let stopped: Result<()> = Err(Interrupted("stopped")).context("while it was built").context("data");
        assert!(matches!(Outcome::from(stopped), Outcome::Interrupted(Interrupted("stopped"))));
        assert!(matches!(Outcome::from(Err(anyhow!("stopped"))), Outcome::Failed(_)));
        assert!(matches!(Outcome::from(Ok(())), Outcome::Done));
    }
}
