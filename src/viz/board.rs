//! A small picture of an answer: what was given, what is right, what is wrong.

use anyhow::Result;
use plotters::style::RGBColor;

use super::{
    canvas::{Canvas, Frame, Lettering},
    style::{FRAME, GIVEN, INK, RIGHT, SOFT_INK, WRONG, WRONG_PAPER, size},
};
use crate::puzzle::{
    CellMark, Geometry, Glyph, Line, Puzzle,
    boxes::{BLANK, FIRST_DIGIT},
    maze::{FREE, PATH, WALL},
};

/// An answer beside its puzzle.
#[derive(Clone, Copy, Debug)]
pub struct AnswerBoard<'a> {
    pub puzzle: &'a Puzzle,
    /// Tokens. Length seq_len.
    pub answer: &'a [u8],
}

impl AnswerBoard<'_> {
    /// Draws the board as large as it can be in a square frame.
    pub fn draw(&self, canvas: &Canvas<'_>, frame: Frame) -> Result<()> {
        let geometry = self.puzzle.geometry();
        let squares = Squares::new(geometry, frame);
        for (cell, (&token, &answer)) in self.puzzle.tokens().iter().zip(self.answer).enumerate() {
            draw_cell(canvas, geometry, [token, answer], self.puzzle.mark(cell, answer), squares.of(cell))?;
        }
        squares.lines(canvas, Some((FRAME, 0.75)), (INK, 2.0))?;
        canvas.outline(squares.frame, &INK, 2.0)
    }
}

/// Where the cells of a board are.
#[derive(Clone, Copy, Debug)]
pub struct Squares {
    geometry: Geometry,
    /// Around all cells.
    pub frame: Frame,
    /// Width and height of a cell.
    pub step: f64,
}

impl Squares {
    /// As large as they can be within a frame, from its upper left corner on.
    pub fn new(geometry: Geometry, frame: Frame) -> Self {
        let (rows, columns) = (geometry.height().max(1) as f64, geometry.width().max(1) as f64);
        let step = (frame.width / columns).min(frame.height / rows);
        Self { geometry, frame: Frame { width: step * columns, height: step * rows, ..frame }, step }
    }

    /// One cell's.
    pub fn of(&self, cell: usize) -> Frame {
        let (row, column) = (cell / self.geometry.width().max(1), cell % self.geometry.width().max(1));
        let (left, top) = (self.frame.left + column as f64 * self.step, self.frame.top + row as f64 * self.step);
        Frame { left, top, width: self.step, height: self.step }
    }

    /// The lines between cells, if thin ones are wanted, and between boxes.
    pub fn lines(&self, canvas: &Canvas<'_>, thin: Option<(RGBColor, f64)>, thick: (RGBColor, f64)) -> Result<()> {
        let style = |line: Line| match line {
            Line::None => None,
            Line::Thin => thin,
            Line::Thick => Some(thick),
        };
        let Frame { left, top, .. } = self.frame;
        for column in 0..self.geometry.width().saturating_sub(1) {
            if let Some((color, width)) = style(self.geometry.line_right(column)) {
                let x = left + (column + 1) as f64 * self.step;
                canvas.line(&[[x, top], [x, self.frame.bottom()]], &color, width)?;
            }
        }
        for row in 0..self.geometry.height().saturating_sub(1) {
            if let Some((color, width)) = style(self.geometry.line_below(row)) {
                let y = top + (row + 1) as f64 * self.step;
                canvas.line(&[[left, y], [self.frame.right(), y]], &color, width)?;
            }
        }
        Ok(())
    }
}

/// `tokens`: of the puzzle and of the answer.
fn draw_cell(canvas: &Canvas<'_>, geometry: Geometry, tokens: [u8; 2], mark: CellMark, square: Frame) -> Result<()> {
    match geometry {
        Geometry::Maze { .. } => draw_maze_cell(canvas, geometry, tokens, mark, square),
        _ => draw_digit(canvas, geometry, tokens, mark, square),
    }
}

fn draw_digit(
    canvas: &Canvas<'_>,
    geometry: Geometry,
    [token, answer]: [u8; 2],
    mark: CellMark,
    square: Frame,
) -> Result<()> {
    let given = !geometry.is_open(token);
    if given {
        // Also where the answer does not keep the given digit.
        canvas.fill_rect(square, &GIVEN)?;
    }
    if mark == CellMark::Wrong {
        if !given {
            canvas.fill_rect(square, &WRONG_PAPER)?;
        }
        turn_corner(canvas, square)?;
    }
    let text = match geometry.glyph(answer) {
        Glyph::Symbol(symbol) => symbol,
        _ => '–',
    };
    let how = Lettering::new(square.height * 0.62, mark_color(mark)).middle();
    let how = if mark == CellMark::Right || mark == CellMark::Unknown { how } else { how.bold() };
    canvas.text(&text.to_string(), square.at(0.5, 0.5), how)
}

fn draw_maze_cell(
    canvas: &Canvas<'_>,
    geometry: Geometry,
    [token, answer]: [u8; 2],
    mark: CellMark,
    square: Frame,
) -> Result<()> {
    match (geometry.glyph(token), mark) {
        (_, CellMark::Wrong) => {
            canvas.fill_rect(square, &WRONG_PAPER)?;
            turn_corner(canvas, square)?;
        }
        (Glyph::Wall, _) => canvas.fill_rect(square, &SOFT_INK)?,
        _ => {}
    }
    match (geometry.glyph(token), geometry.glyph(answer)) {
        (Glyph::Symbol(letter), _) => {
            let how = Lettering::new(square.height * 0.9, mark_color(mark)).middle().bold();
            canvas.text(&letter.to_string(), square.at(0.5, 0.5), how)
        }
        (_, Glyph::Dot) => canvas.disc(square.at(0.5, 0.5), square.width * 0.3, &mark_color(mark), None),
        _ => Ok(()),
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
fn turn_corner(canvas: &Canvas<'_>, square: Frame) -> Result<()> {
    canvas.fill_polygon(&[square.at(1.0, 0.0), square.at(1.0, 0.3), square.at(0.7, 0.0)], &WRONG)
}

/// One entry of a board's legend: a sample cell and its name. Returns the entry's width.
pub fn legend_entry(canvas: &Canvas<'_>, geometry: Geometry, mark: CellMark, name: &str, at: [f64; 2]) -> Result<f64> {
    let letters = Lettering::new(size::SMALL, INK);
    let side = letters.size * 1.3;
    let square = Frame { left: at[0], top: at[1] - side / 2.0, width: side, height: side };
    // Tokens of puzzle and answer.
    let sample = match (geometry, mark) {
        (Geometry::Maze { .. }, CellMark::Given) => [WALL, WALL],
        (Geometry::Maze { .. }, _) => [FREE, PATH],
        (_, CellMark::Given) => [FIRST_DIGIT + 3, FIRST_DIGIT + 3],
        _ => [BLANK, FIRST_DIGIT + 3],
    };
    draw_cell(canvas, geometry, sample, mark, square)?;
    canvas.outline(square, &FRAME, 1.0)?;
    canvas.text(name, [square.right() + 7.0, at[1]], letters)?;
    Ok(side + 7.0 + canvas.text_width(name, letters))
}
