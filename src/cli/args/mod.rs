//! What several commands accept, each group of arguments defined once.

pub mod launch;
