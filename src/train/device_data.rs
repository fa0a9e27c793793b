//! A dataset's boards on the GPU as bytes: a batch is gathered there from a list of row numbers.

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use crate::{
    dataset::{Dataset, IGNORE_LABEL},
    model::DeviceBatch,
    runtime,
};

/// Rows copied to the device at a time.
const CHUNK: usize = 1 << 16;

/// All sets of a split on one device.
#[derive(Debug)]
pub struct DeviceData {
    sets: Vec<DeviceSet>,
    ignore_label: Option<i64>,
}

#[derive(Debug)]
struct DeviceSet {
    /// `[N, S]`, uint8.
    inputs: Tensor,
    labels: Tensor,
    /// `[N]`, int32.
    identifiers: Tensor,
}

impl DeviceData {
    /// Copies a split to a GPU; none on a CPU, and none where it would take more than a quarter of the free memory.
    pub fn upload(dataset: &Dataset, device: Device) -> Result<Option<Self>> {
        let Device::Cuda(index) = device else { return Ok(None) };
        let free = runtime::device_memory(index)?.free;
        let bytes: u64 = dataset.sets().iter().map(|s| (s.len() * (2 * s.seq_len() + 4)) as u64).sum();
        if bytes > free / 4 || dataset.meta().vocab_size > 256 {
            return Ok(None);
        }
        let sets = dataset.sets().iter().map(|set| {
            let shape = [i64::try_from(set.len())?, i64::try_from(set.seq_len())?];
            let inputs = Tensor::empty(shape, (Kind::Uint8, device));
            let labels = Tensor::empty(shape, (Kind::Uint8, device));
            let identifiers = Tensor::empty([shape[0]], (Kind::Int, device));
            let all: Vec<usize> = (0..set.len()).collect();
            let mut first = 0;
            for rows in all.chunks(CHUNK) {
                let batch = set.rows_as_stored(rows)?;
                let count = rows.len() as i64;
                let bytes = |a: &ndarray::Array2<i32>| {
                    let flat: Vec<u8> = a.iter().map(|&t| t as u8).collect();
                    Tensor::from_slice(&flat).view([count, shape[1]])
                };
                inputs.narrow(0, first, count).copy_(&bytes(&batch.inputs));
                labels.narrow(0, first, count).copy_(&bytes(&batch.labels));
                let ids: Vec<i32> = batch.puzzle_identifiers.iter().copied().collect();
                identifiers.narrow(0, first, count).copy_(&Tensor::from_slice(&ids));
                first += count;
            }
            Ok(DeviceSet { inputs, labels, identifiers })
        });
        let sets = sets.collect::<Result<Vec<_>>>()?;
        Ok(Some(Self { sets, ignore_label: dataset.meta().ignore_label_id }))
    }

    /// The batch of the given examples of a set, labels as the loss wants them.
    pub fn batch(&self, set: usize, examples: &[usize]) -> DeviceBatch {
        let set = &self.sets[set];
        let rows: Vec<i64> = examples.iter().map(|&e| e as i64).collect();
        let rows = runtime::upload(&Tensor::from_slice(&rows), set.inputs.device());
        let labels = set.labels.index_select(0, &rows).to_kind(Kind::Int);
        let labels = match self.ignore_label {
            Some(id) => labels.masked_fill(&labels.eq(id), i64::from(IGNORE_LABEL)),
            None => labels,
        };
        DeviceBatch {
            inputs: set.inputs.index_select(0, &rows).to_kind(Kind::Int),
            labels,
            puzzle_identifiers: set.identifiers.index_select(0, &rows),
        }
    }
}
