//! Pictures of what [`crate::analysis`] computed, as PNG or SVG. Nothing here computes or knows a model.
//!
//! Text is set in DejaVu Sans, which the binary carries: no font of the system is needed. Colours stay apart for
//! colour-blind eyes and in greyscale, and no fact is told by colour alone.

pub mod animation;
pub mod attention;
pub mod axes;
pub mod board;
pub mod canvas;
pub mod cells;
pub mod chart;
pub mod colormap;
pub mod curves;
pub mod landscape;
pub mod modes;
pub mod pass_curve;
pub mod report;
pub mod segments;
pub mod stability;
pub mod style;
pub mod surface;
pub mod trajectories;
pub mod trajectory;

pub use canvas::{Picture, PictureFormat, render};
