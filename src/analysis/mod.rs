//! What a model's hidden states say: principal components, conflicts on a board, trajectories. Draws nothing.

pub mod attention;
pub mod cells;
pub mod curves;
pub mod facts;
pub mod identity;
pub mod landscape;
pub mod modes;
pub mod pca;
pub mod runs;
pub mod segments;
pub mod stability;
pub mod subject;
pub mod test_puzzles;
pub mod trace_file;
pub mod trajectory;
