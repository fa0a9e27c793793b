//! A part of an evaluation: `--shard I/N`, or that of one of several processes.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    str::FromStr,
};

/// One of several equal parts of the puzzles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 0; people count from 1.
    pub index: usize,
    pub count: usize,
}

impl Shard {
    /// The whole.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Its puzzles out of `total`: parts that follow each other and differ by one puzzle at most.
    pub fn of(self, total: usize) -> Range<usize> {
        let end = |parts: usize| (total as u128 * parts as u128 / self.count as u128) as usize;
        end(self.index)..end(self.index + 1)
    }

    /// The file of this part, where `whole` is that of all parts: `a.jsonl` becomes `a.shard-1-of-4.jsonl`.
    pub fn file(self, whole: &Path) -> PathBuf {
        let stem = whole.file_stem().unwrap_or_default().to_string_lossy();
        let ending = whole.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
        whole.with_file_name(format!("{stem}.shard-{}-of-{}{ending}", self.index + 1, self.count))
    }
}

impl FromStr for Shard {
    type Err = String;

    /// `I/N`, I from 1 to N.
    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("'{text}' is not a shard: give I/N with I from 1 to N, such as 1/4");
        let (index, count) = text.split_once('/').ok_or_else(wanted)?;
        let number = |text: &str| text.parse::<usize>().map_err(|_| wanted());
        let (index, count) = (number(index)?, number(count)?);
        if (1..=count).contains(&index) { Ok(Self { index: index - 1, count }) } else { Err(wanted()) }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index + 1, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_cover_everything_once() {
        for (total, count) in [(10, 3), (2, 5), (0, 2), (422_786, 7), (9, 9)] {
            let mut next = 0;
            for index in 0..count {
                let range = Shard { index, count }.of(total);
                assert_eq!(range.start, next);
                assert!(range.len().abs_diff(total / count) <= 1);
                next = range.end;
            }
            assert_eq!(next, total);
        }
    }

    #[test]
    fn spellings() {
        assert_eq!("2/4".parse(), Ok(Shard { index: 1, count: 4 }));
        for wrong in ["0/4", "5/4", "2", "a/b", "1/0", "-1/2", ""] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
        let shard = Shard { index: 1, count: 4 };
        assert_eq!(shard.file(Path::new("out/a.jsonl")), Path::new("out/a.shard-2-of-4.jsonl"));
        assert_eq!(shard.file(Path::new("results")), Path::new("results.shard-2-of-4"));
    }
}
