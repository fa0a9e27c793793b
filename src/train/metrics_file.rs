//! What writers and readers of metrics.jsonl share.

use std::path::Path;

use crate::store::is_locked;

/// The file's name in a run folder.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// No line of it is longer, in bytes.
pub(super) const LONGEST_LINE: usize = 1 << 20;

/// Whether a process is training the run in this folder.
pub fn is_running(folder: &Path) -> bool {
    is_locked(&folder.join(METRICS_FILE))
}
