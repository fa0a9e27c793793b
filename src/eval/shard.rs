//! A part of an evaluation: `--shard I/N`, or the place of this process among several that were started together.

use std::{
    env, fmt,
    ops::Range,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result, ensure};

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
        let wanted = || format!("'{text}' is no shard: give I/N with I from 1 to N, such as 1/4");
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

/// The place of this process among those that a launcher started, as torchrun tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    pub shard: Shard,
    /// Which GPU of its machine.
    pub local: usize,
}

impl Rank {
    /// From RANK, WORLD_SIZE and LOCAL_RANK; none where this process is alone.
    ///
    /// # Errors
    /// Values that are no numbers or do not fit together.
    pub fn from_env() -> Result<Option<Self>> {
        Self::from(|name| env::var(name).ok())
    }

    fn from(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let number = |name: &str| -> Result<Option<usize>> {
            let Some(text) = get(name) else { return Ok(None) };
            Ok(Some(text.parse().with_context(|| format!("{name}={text}: no number"))?))
        };
        let (Some(index), Some(count)) = (number("RANK")?, number("WORLD_SIZE")?) else { return Ok(None) };
        ensure!(index < count, "RANK={index} with WORLD_SIZE={count}: ranks go from 0 to WORLD_SIZE - 1");
        let local = number("LOCAL_RANK")?.unwrap_or(index);
        Ok((count > 1).then_some(Self { shard: Shard { index, count }, local }))
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

    #[test]
    fn ranks() {
        let from = |text: &str| {
            let pairs: Vec<(String, String)> =
                text.split_whitespace().filter_map(|p| p.split_once('=')).map(|(a, b)| (a.into(), b.into())).collect();
            Rank::from(move |name| pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()))
        };
        assert_eq!(from("").unwrap(), None);
        assert_eq!(from("RANK=0 WORLD_SIZE=1").unwrap(), None);
        let found = from("RANK=5 WORLD_SIZE=8 LOCAL_RANK=1").unwrap();
        assert_eq!(found, Some(Rank { shard: Shard { index: 5, count: 8 }, local: 1 }));
        assert!(from("RANK=8 WORLD_SIZE=8").is_err());
        assert!(from("RANK=x WORLD_SIZE=8").is_err());
    }
}
