//! What a model's hidden states say: principal components, conflicts on a board, trajectories. Draws nothing.

pub(crate) mod attention;
pub mod cells;
pub(crate) mod curves;
pub mod facts;
pub(crate) mod identity;
pub mod landscape;
pub mod modes;
pub mod pca;
pub mod runs;
pub mod segments;
pub mod stability;
pub(crate) mod subject;
pub(crate) mod trace_file;
pub mod trajectory;
