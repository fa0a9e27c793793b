//! How many rows a batch should have.

use tch::Device;

use super::Model;
use crate::runtime::device_memory;

impl Model {
    /// Rows of a large batch whose matrix products fill the GPU's processors evenly, and that fit into its free memory
    /// beside `others` more models of this size; none on a CPU and in the plain form.
    ///
    /// With tiles of 128 rows and 256 columns, the products onto `hidden_size` = 512 have two tiles for each 128 tokens:
    /// ten full waves of them are 1,030 Sudoku on 132 processors. Large puzzles take fewer waves: a batch keeps to about
    /// 110,000 tokens.
    pub fn filling_batch(&self, others: usize) -> Option<usize> {
        const TILE: i64 = 128;
        const TOKENS: i64 = 110_000;
        let processors = self.ops().fused()?.processors();
        let columns = (self.config().hidden_size + 255) / 256;
        let total = self.config().total_seq();
        let tokens = match self.device() {
            Device::Cuda(index) => device_memory(index).map_or(TOKENS, |memory| {
                let held_back = memory.free / 10 * 9 / (others as u64 + 1);
                TOKENS.min(i64::try_from(held_back / self.bytes_per_token()).unwrap_or(TOKENS))
            }),
            _ => TOKENS,
        };
        let rows = |waves: i64| waves * processors / columns * TILE / total;
        let best = (1..=10).rev().map(rows).find(|&b| b > 0 && b * total <= tokens).unwrap_or(tokens / total);
        usize::try_from(best.max(1)).ok()
    }

    /// Most device memory that a segment takes for each token: the state before and after, and what a layer makes.
    fn bytes_per_token(&self) -> u64 {
        let config = self.config();
        let wide = 16 * config.hidden_size + 4 * config.intermediate_size();
        wide.unsigned_abs() * self.config().forward_dtype.size() as u64
    }
}
