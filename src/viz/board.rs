//! A small picture of an answer: what was given, what is right, what is wrong.

use anyhow::Result;
use plotters::{backend::DrawingBackend, style::RGBColor};

use super::{
    canvas::{Canvas, Frame, Lettering},
    style::{FRAME, GIVEN, INK, RIGHT, SOFT_INK, WRONG, WRONG_PAPER, size},
};
use crate::puzzle::{
    PuzzleKind,
    maze::{FREE, GOAL, PATH, START, WALL},
};

/// What a cell shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellMark {
    Given,
    Right,
    Wrong,
    /// Filled in, and nobody knows whether rightly.
    Unknown,
}

/// An answer beside its puzzle.
#[derive(Clone, Copy, Debug)]
pub struct AnswerBoard<'a> {
    pub kind: PuzzleKind,
    /// Tokens. Length side².
    pub puzzle: &'a [u8],
    /// Tokens. Length side².
    pub answer: &'a [u8],
    /// Tokens. Length side².
    pub solution: Option<&'a [u8]>,
}

impl AnswerBoard<'_> {
    /// The solution decides; without one, a given that the answer does not keep is wrong.
    pub fn mark(&self, cell: usize) -> CellMark {
        let answer = self.answer[cell];
        let given = match self.kind {
            PuzzleKind::Sudoku => self.puzzle[cell] > 1,
            // Of a maze everything is given but which free cells belong to the path.
            PuzzleKind::Maze => self.puzzle[cell] != FREE && answer != PATH,
        };
        let kept = answer == self.puzzle[cell];
        match self.solution {
            Some(solution) if solution[cell] != answer => CellMark::Wrong,
            None if given && !kept => CellMark::Wrong,
            _ if given && kept => CellMark::Given,
            Some(_) => CellMark::Right,
            None => CellMark::Unknown,
        }
    }

    /// Draws the board into a square frame.
    pub fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<'_, DB>, frame: Frame) -> Result<()>
    where
        DB::ErrorType: 'static,
    {
        let side = self.answer.len().isqrt().max(1);
        let step = frame.width / side as f64;
        for cell in 0..(side * side).min(self.puzzle.len()) {
            let square = Frame {
                left: frame.left + (cell % side) as f64 * step,
                top: frame.top + (cell / side) as f64 * step,
                width: step,
                height: step,
            };
            match self.kind {
                PuzzleKind::Sudoku => self.draw_digit(canvas, cell, square)?,
                PuzzleKind::Maze => self.draw_maze_cell(canvas, cell, square)?,
            }
        }
        if self.kind == PuzzleKind::Sudoku {
            for i in 1..side {
                let (at, thick) = (i as f64 * step, i % 3 == 0);
                let (color, width) = if thick { (INK, 2.0) } else { (FRAME, 0.75) };
                canvas.line(&[[frame.left + at, frame.top], [frame.left + at, frame.bottom()]], &color, width)?;
                canvas.line(&[[frame.left, frame.top + at], [frame.right(), frame.top + at]], &color, width)?;
            }
        }
        canvas.outline(frame, &INK, 2.0)
    }

    fn draw_digit<DB: DrawingBackend>(&self, canvas: &Canvas<'_, DB>, cell: usize, square: Frame) -> Result<()>
    where
        DB::ErrorType: 'static,
    {
        let mark = self.mark(cell);
        if self.puzzle[cell] > 1 {
            // Also where the answer does not keep the given digit.
            canvas.fill_rect(square, &GIVEN)?;
        }
        if mark == CellMark::Wrong {
            if self.puzzle[cell] <= 1 {
                canvas.fill_rect(square, &WRONG_PAPER)?;
            }
            turn_corner(canvas, square)?;
        }
        let text = match self.answer[cell] {
            digit @ 2..=10 => (digit - 1).to_string(),
            0 | 1 => "–".to_owned(),
            _ => "?".to_owned(),
        };
        let how = Lettering::new(square.height * 0.62, mark_color(mark)).middle();
        let how = if mark == CellMark::Right || mark == CellMark::Unknown { how } else { how.bold() };
        canvas.text(&text, square.at(0.5, 0.5), how)
    }

    fn draw_maze_cell<DB: DrawingBackend>(&self, canvas: &Canvas<'_, DB>, cell: usize, square: Frame) -> Result<()>
    where
        DB::ErrorType: 'static,
    {
        let mark = self.mark(cell);
        let answer = self.answer[cell];
        match (self.puzzle[cell], mark) {
            (_, CellMark::Wrong) => {
                canvas.fill_rect(square, &WRONG_PAPER)?;
                turn_corner(canvas, square)?;
            }
            (WALL, _) => canvas.fill_rect(square, &SOFT_INK)?,
            _ => {}
        }
        let how = |share: f64| Lettering::new(square.height * share, mark_color(mark)).middle().bold();
        match (self.puzzle[cell], answer) {
            (START, _) => canvas.text("S", square.at(0.5, 0.5), how(0.9)),
            (GOAL, _) => canvas.text("G", square.at(0.5, 0.5), how(0.9)),
            (_, PATH) => canvas.disc(square.at(0.5, 0.5), square.width * 0.3, &mark_color(mark), None),
            _ => Ok(()),
        }
    }
}

fn mark_color(mark: CellMark) -> RGBColor {
    match mark {
        CellMark::Given => INK,
        CellMark::Right => RIGHT,
        CellMark::Wrong => WRONG,
        CellMark::Unknown => SOFT_INK,
    }
}

/// A wrong cell's corner, which greyscale keeps.
fn turn_corner<DB: DrawingBackend>(canvas: &Canvas<'_, DB>, square: Frame) -> Result<()>
where
    DB::ErrorType: 'static,
{
    canvas.fill_polygon(&[square.at(1.0, 0.0), square.at(1.0, 0.3), square.at(0.7, 0.0)], &WRONG)
}

/// One entry of a board's legend: a sample cell and its name. Returns the entry's width.
pub fn legend_entry<DB: DrawingBackend>(
    canvas: &Canvas<'_, DB>,
    kind: PuzzleKind,
    mark: CellMark,
    name: &str,
    at: [f64; 2],
) -> Result<f64>
where
    DB::ErrorType: 'static,
{
    let letters = Lettering::new(size::SMALL, INK);
    let side = letters.size * 1.3;
    let square = Frame { left: at[0], top: at[1] - side / 2.0, width: side, height: side };
    // Sample cells that draw as `mark`: [puzzle, answer, solution] tokens.
    let [puzzle, answer, solution] = match (kind, mark) {
        (PuzzleKind::Sudoku, CellMark::Given) => [6, 6, 6],
        (PuzzleKind::Sudoku, CellMark::Wrong) => [1, 6, 5],
        (PuzzleKind::Sudoku, _) => [1, 6, 6],
        (PuzzleKind::Maze, CellMark::Given) => [WALL, WALL, WALL],
        (PuzzleKind::Maze, CellMark::Wrong) => [FREE, PATH, FREE],
        (PuzzleKind::Maze, _) => [FREE, PATH, PATH],
    };
    let solution = [solution];
    let known = mark != CellMark::Unknown;
    let sample =
        AnswerBoard { kind, puzzle: &[puzzle], answer: &[answer], solution: known.then_some(solution.as_slice()) };
    match kind {
        PuzzleKind::Sudoku => sample.draw_digit(canvas, 0, square)?,
        PuzzleKind::Maze => sample.draw_maze_cell(canvas, 0, square)?,
    }
    canvas.outline(square, &FRAME, 1.0)?;
    canvas.text(name, [square.right() + 7.0, at[1]], letters)?;
    Ok(side + 7.0 + canvas.text_width(name, letters))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_a_sudoku() {
        let (puzzle, answer, solution) = ([5, 5, 1, 1], [5, 6, 7, 8], [5, 5, 7, 9]);
        let board =
            AnswerBoard { kind: PuzzleKind::Sudoku, puzzle: &puzzle, answer: &answer, solution: Some(&solution) };
        let marks: Vec<_> = (0..4).map(|c| board.mark(c)).collect();
        assert_eq!(marks, [CellMark::Given, CellMark::Wrong, CellMark::Right, CellMark::Wrong]);
        let unsolved = AnswerBoard { solution: None, ..board };
        assert_eq!([unsolved.mark(1), unsolved.mark(2)], [CellMark::Wrong, CellMark::Unknown]);
    }

    #[test]
    fn marks_of_a_maze() {
        // wall kept, free cell on the path, free cell wrongly on the path, path through a wall
        let (puzzle, answer, solution) = ([1, 2, 2, 1], [1, 5, 5, 5], [1, 5, 2, 1]);
        let board = AnswerBoard { kind: PuzzleKind::Maze, puzzle: &puzzle, answer: &answer, solution: Some(&solution) };
        let marks: Vec<_> = (0..4).map(|c| board.mark(c)).collect();
        assert_eq!(marks, [CellMark::Given, CellMark::Right, CellMark::Wrong, CellMark::Wrong]);
    }
}
