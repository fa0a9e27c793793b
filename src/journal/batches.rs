//! Work done batch by batch, each written down as it ends.

use std::ops::ControlFlow;

use anyhow::{Result, ensure};
use serde::{Serialize, de::DeserializeOwned};

use super::{Identity, Journal};

/// Results in the order of the items.
#[derive(Debug)]
pub struct Batches<T> {
    /// Without those that are missing, where the run was stopped.
    pub results: Vec<T>,
    /// Asked to stop before the last item.
    pub stopped: bool,
}

/// Computes what is missing of `items`, `batch_size` neighbours at a time; `done` holds the results that are known, in the
/// places of their items. Every batch is written to the journal as it ends, then shown to `watch`, which may stop the run.
///
/// # Errors
/// Those of `compute` and of the journal; a batch size of 0.
pub fn run_batches<Item, I: Identity, T: Serialize + DeserializeOwned>(
    items: &[Item],
    batch_size: usize,
    mut journal: Option<&mut Journal<I, T>>,
    done: Vec<Option<T>>,
    mut compute: impl FnMut(&[Item]) -> Result<Vec<T>>,
    mut watch: impl FnMut(&[T]) -> ControlFlow<()>,
) -> Result<Batches<T>> {
    ensure!(batch_size > 0, "the batch size is 0: give at least 1");
    let mut results = done;
    results.resize_with(items.len(), || None);
    let mut from = 0;
    while let Some(first) = results[from..].iter().position(Option::is_none).map(|k| from + k) {
        let missing = results[first..].iter().take(batch_size).take_while(|result| result.is_none()).count();
        from = first + missing;
        let found = compute(&items[first..from])?;
        ensure!(found.len() == missing, "{} results of {missing} items", found.len());
        if let Some(journal) = &mut journal {
            journal.append(&found)?;
        }
        let stop = watch(&found).is_break();
        results[first..from].iter_mut().zip(found).for_each(|(place, result)| *place = Some(result));
        if stop && results[from..].iter().any(Option::is_none) {
            return Ok(Batches { results: results.into_iter().flatten().collect(), stopped: true });
        }
    }
    Ok(Batches { results: results.into_iter().flatten().collect(), stopped: false })
}
