//! How many rows are asked for.

use std::{fmt, str::FromStr};

/// So many rows from the first on, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowCount {
    /// At least one; fewer where there are no more.
    First(usize),
    /// Every row.
    All,
}

impl RowCount {
    /// None for all.
    pub fn rows(self) -> Option<usize> {
        match self {
            Self::First(n) => Some(n),
            Self::All => None,
        }
    }
}

impl fmt::Display for RowCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First(n) => write!(f, "{n}"),
            Self::All => f.write_str("all"),
        }
    }
}

impl FromStr for RowCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("all", _) => Ok(Self::All),
            (_, Ok(n)) if n > 0 => Ok(Self::First(n)),
            _ => Err("give a whole number, 1 or more, or `all`".to_owned()),
        }
    }
}
