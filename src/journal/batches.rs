//! Work done batch by batch, each written down as it ends.

use std::ops::ControlFlow;

use anyhow::{Result, ensure};
use serde::{Serialize, de::DeserializeOwned};

use super::{Identity, Journal};

/// Results in the order of the items.
#[derive(Debug)]
pub struct Batches<T> {
    pub results: Vec<T>,
    /// Asked to stop before the last item.
    pub stopped: bool,
}

/// Computes what is missing of `items`, `batch_size` at a time; `done` holds the results of the first of them, and any
/// beyond the last item are left aside. Every batch is written to the journal as it ends, then shown to `watch`, which may
/// stop the run.
///
/// # Errors
/// Those of `compute` and of the journal; a batch size of 0.
pub fn run_batches<Item, I: Identity, T: Serialize + DeserializeOwned>(
    items: &[Item],
    batch_size: usize,
    mut journal: Option<&mut Journal<I, T>>,
    done: Vec<T>,
    mut compute: impl FnMut(&[Item]) -> Result<Vec<T>>,
    mut watch: impl FnMut(&[T]) -> ControlFlow<()>,
) -> Result<Batches<T>> {
    ensure!(batch_size > 0, "the batch size is 0: give at least 1");
    let mut results = done;
    results.truncate(items.len());
    while results.len() < items.len() {
        let from = results.len();
        let batch = &items[from..(from + batch_size).min(items.len())];
        let found = compute(batch)?;
        ensure!(found.len() == batch.len(), "{} results of {} items", found.len(), batch.len());
        if let Some(journal) = &mut journal {
            journal.append(&found)?;
        }
        let stop = watch(&found).is_break();
        results.extend(found);
        if stop && results.len() < items.len() {
            return Ok(Batches { results, stopped: true });
        }
    }
    Ok(Batches { results, stopped: false })
}
