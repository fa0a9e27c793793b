//! Values that have names on the command line, and what help says of each.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::{
    eval::{outputs::SavedTensor, pass::StopRule},
    puzzle::PuzzleKind,
};

type Choices<T> = &'static [(T, &'static str, &'static str)];

/// `--stop`.
pub const STOP_RULES: Choices<StopRule> = &[
    (StopRule::Never, "never", "After all segments: upstream's rule"),
    (StopRule::Halt, "halt", "At the first segment with q_halt > q_continue, as ACT defines it"),
    (
        StopRule::Verified,
        "verified",
        "At the first segment whose answer is right by the puzzle's rules; later passes of the puzzle are then skipped",
    ),
];

/// `--dataset`.
pub const KINDS: Choices<PuzzleKind> = &[
    (PuzzleKind::Sudoku, "sudoku", "Rows, columns and boxes that hold every digit once"),
    (PuzzleKind::Maze, "maze", "Walls, free cells, start, goal and path"),
];

/// `--keys`.
pub const OUTPUTS: Choices<SavedTensor> = &[
    (SavedTensor::Inputs, "inputs", "[N, S], int32"),
    (SavedTensor::Labels, "labels", "[N, S], int32, −100 where there is none"),
    (SavedTensor::PuzzleIdentifiers, "puzzle_identifiers", "[N], int32"),
    (SavedTensor::Logits, "logits", "[N, S, V], the forward pass's dtype (f32 in .npy files)"),
    (SavedTensor::QHaltLogits, "q_halt_logits", "[N], f32"),
    (SavedTensor::QContinueLogits, "q_continue_logits", "[N], f32"),
];

/// Parses the name of one of the choices.
pub fn one_of<T: Copy + Send + Sync + 'static>(choices: Choices<T>) -> impl TypedValueParser<Value = T> {
    let names = choices.iter().map(|(_, name, help)| PossibleValue::new(*name).help(*help));
    PossibleValuesParser::new(names).try_map(|given| {
        let found = choices.iter().find(|(_, name, _)| **name == given);
        found.map(|(value, ..)| *value).ok_or_else(|| format!("unknown name {given}"))
    })
}
