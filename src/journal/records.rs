//! What a journal held when it was opened.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

/// Records with the lines that they stand in.
#[derive(Debug)]
pub struct Records<R> {
    path: PathBuf,
    records: Vec<(usize, R)>,
    damaged: bool,
}

impl<R> Records<R> {
    pub(super) fn none(path: &Path) -> Self {
        Self { path: path.to_owned(), records: Vec::new(), damaged: false }
    }

    pub(super) fn add(&mut self, line: usize, record: R) {
        self.records.push((line, record));
    }

    pub(super) fn set_damaged(&mut self, damaged: bool) {
        self.damaged = damaged;
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The records in their order.
    pub fn into_values(self) -> Vec<R> {
        self.records.into_iter().map(|(_, record)| record).collect()
    }

    /// The records with the numbers of their lines, from 1.
    pub fn with_lines(self) -> impl Iterator<Item = (usize, R)> {
        self.records.into_iter()
    }

    /// Puts each record in the place of the item that it belongs to. Where there are records for all items, those of a
    /// longer run are left aside.
    ///
    /// # Errors
    /// A record that belongs to none of the items, by its line.
    pub fn place<T>(self, items: &[T], fits: impl Fn(&R, &T) -> bool) -> Result<Vec<Option<R>>> {
        let mut placed: Vec<Option<R>> = items.iter().map(|_| None).collect();
        let (mut next, mut left) = (0, items.len());
        for (line, record) in self.records {
            if left == 0 {
                break;
            }
            let free = |k: &usize| placed[*k].is_none() && fits(&record, &items[*k]);
            // As a rule the records are in the order of the items.
            if let Some(place) = (next..items.len()).chain(0..next).find(free) {
                placed[place] = Some(record);
                next = place + 1;
                left -= 1;
            } else {
                // Where a line was lost, this one may be of a longer run.
                ensure!(self.damaged, "{}:{line}: none of this work: --force starts over", self.path.display());
            }
        }
        Ok(placed)
    }
}
