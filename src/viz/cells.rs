//! The order in which cells become right, and how sure the model is of them.

use anyhow::Result;

use super::{
    axes::{Axes, Scale},
    board::Squares,
    canvas::{Canvas, Frame, Lettering, Picture, Point},
    chart::{Stroke, Words, curve, heading, legend_line},
    colormap::Colormap,
    style::{FRAME, GIVEN, INK, PAPER, SOFT_INK, WRONG, WRONG_PAPER, size},
};
use crate::{
    analysis::cells::CellsSummary,
    puzzle::{Glyph, Puzzle},
};

const MAP: Colormap = Colormap::Viridis;

/// One puzzle's board for the picture.
#[derive(Clone, Debug)]
pub struct CellOrder {
    pub puzzle: Puzzle,
    /// The segment from which on each cell is right. Length seq_len.
    pub right_from: Vec<Option<usize>>,
}

/// What `hrm analyze cells` draws.
#[derive(Clone, Debug)]
pub struct CellsPicture<'a> {
    pub words: Words,
    pub summary: &'a CellsSummary,
    pub example: CellOrder,
}

const BOARD: Frame = Frame { left: 60.0, top: 146.0, width: 400.0, height: 400.0 };
const SURE: Frame = Frame { left: 570.0, top: 146.0, width: 350.0, height: 330.0 };
const TRUE: Frame = Frame { left: 1020.0, top: 146.0, width: 350.0, height: 330.0 };
const STEPS: Frame = Frame { left: 570.0, top: 660.0, width: 350.0, height: 210.0 };
const NARROW: Frame = Frame { left: 1020.0, top: 660.0, width: 350.0, height: 210.0 };

impl Picture for CellsPicture<'_> {
    fn size(&self) -> [u32; 2] {
        [1400, 990]
    }

    fn draw(&self, canvas: &Canvas<'_>) -> Result<()> {
        self.words.draw(canvas, self.size())?;
        self.draw_board(canvas)?;
        self.draw_sure(canvas)?;
        self.draw_reliability(canvas)?;
        self.draw_steps(canvas)?;
        self.draw_candidates(canvas)
    }
}

impl CellsPicture<'_> {
    fn segments(&self) -> usize {
        self.summary.by_segment.len()
    }

    fn draw_board(&self, canvas: &Canvas<'_>) -> Result<()> {
        let e = &self.example;
        heading(canvas, BOARD, &format!("{}: right from segment ...", e.puzzle.title()))?;
        let (puzzle, geometry) = (&e.puzzle, e.puzzle.geometry());
        let squares = Squares::new(geometry, BOARD);
        let step = squares.step;
        let n = self.segments();
        for (cell, (from, &token)) in e.right_from.iter().zip(puzzle.tokens()).enumerate() {
            let square = Frame { width: step + 0.3, height: step + 0.3, ..squares.of(cell) };
            let open = puzzle.label(cell).is_some() && puzzle.is_open(cell);
            let small = Lettering::new(step * 0.46, SOFT_INK).middle();
            match from {
                _ if !open => {
                    let glyph = geometry.glyph(token);
                    canvas.fill_rect(square, if glyph == Glyph::Wall { &SOFT_INK } else { &GIVEN })?;
                    if let Glyph::Symbol(symbol) = glyph {
                        let how = if geometry.is_sudoku() { small } else { Lettering { color: INK, ..small }.bold() };
                        canvas.text(&symbol.to_string(), square.at(0.5, 0.5), how)?;
                    }
                }
                Some(from) => {
                    canvas.fill_rect(square, &MAP.step(from - 1, n))?;
                    let ink = if *from as f64 > 0.6 * n as f64 { INK } else { PAPER };
                    if geometry.width() <= 16 {
                        let how = Lettering { color: ink, ..small }.bold();
                        canvas.text(&from.to_string(), square.at(0.5, 0.5), how)?;
                    }
                }
                None => {
                    canvas.fill_rect(square, &WRONG_PAPER)?;
                    canvas.text("×", square.at(0.5, 0.5), Lettering { color: WRONG, ..small }.bold())?;
                }
            }
        }
        squares.lines(canvas, Some((INK, 0.7)), (INK, 2.2))?;
        canvas.outline(squares.frame, &INK, 2.0)?;
        let bar = Frame { left: BOARD.left, top: BOARD.bottom() + 30.0, width: BOARD.width, height: 18.0 };
        for k in 0..n {
            let left = bar.at(k as f64 / n as f64, 0.0)[0];
            let slice = Frame { left, width: bar.width / n as f64, ..bar };
            canvas.fill_rect(slice, &MAP.step(k, n))?;
        }
        canvas.outline(bar, &FRAME, 1.0)?;
        let letters = Lettering::new(size::SMALL, INK);
        canvas.text("segment 1", [bar.left, bar.bottom() + 18.0], letters)?;
        canvas.text(&format!("segment {n}"), [bar.right(), bar.bottom() + 18.0], letters.right())?;
        canvas.text("grey: given    ×: wrong at the end", [bar.left, bar.bottom() + 48.0], letters)
    }

    fn draw_sure(&self, canvas: &Canvas<'_>) -> Result<()> {
        heading(canvas, SURE, "Open cells by segment")?;
        let axes = Axes { frame: SURE, x: Scale::counts(1.0, self.segments() as f64), y: Scale::linear(0.0, 1.0) };
        axes.draw(canvas, ["segment", "share, or confidence"])?;
        let place = |value: &dyn Fn(&crate::analysis::cells::CellsAt) -> Option<f64>| -> Vec<Point> {
            let known = self.summary.by_segment.iter().filter_map(|s| Some([s.segment as f64, value(s)?]));
            known.map(|p| axes.place(p)).collect()
        };
        let rows: [(&str, Vec<Point>); 3] = [
            ("share that is right", place(&|s| Some(s.right))),
            ("confidence in wrong ones", place(&|s| s.sure_of_wrong)),
            ("confidence in right ones", place(&|s| s.sure_of_right)),
        ];
        for (k, (name, points)) in rows.iter().enumerate() {
            curve(canvas, points, Stroke::series(k))?;
            let at = [SURE.left - 60.0 + 290.0 * k as f64, SURE.bottom() + 80.0];
            legend_line(canvas, at, 280.0, Stroke::series(k), name)?;
        }
        Ok(())
    }

    fn draw_reliability(&self, canvas: &Canvas<'_>) -> Result<()> {
        heading(canvas, TRUE, "Calibration at the end")?;
        let axes = Axes { frame: TRUE, x: Scale::linear(0.0, 1.0), y: Scale::linear(0.0, 1.0) };
        axes.draw(canvas, ["confidence", "share right"])?;
        let diagonal = [axes.place([0.0, 0.0]), axes.place([1.0, 1.0])];
        curve(canvas, &diagonal, Stroke { color: SOFT_INK, width: 1.4, dash: Some([7.0, 5.0]) })?;
        let points: Vec<Point> = self.summary.reliability.iter().map(|r| axes.place([r.confidence, r.right])).collect();
        curve(canvas, &points, Stroke::series(0))?;
        let most = self.summary.reliability.iter().map(|r| r.cells).max().unwrap_or(1) as f64;
        for (point, r) in points.iter().zip(&self.summary.reliability) {
            // The disc's area says how many cells it stands for.
            canvas.disc(
                *point,
                3.0 + 9.0 * (r.cells as f64 / most).sqrt(),
                &Stroke::series(0).color,
                Some((PAPER, 1.0)),
            )?;
        }
        Ok(())
    }

    fn draw_steps(&self, canvas: &Canvas<'_>) -> Result<()> {
        heading(canvas, STEPS, "When open cells become right")?;
        let n = self.segments();
        let total = self.summary.open_cells.max(1) as f64;
        let share = |count: usize| 100.0 * count as f64 / total;
        let most = self.summary.right_from.iter().copied().chain([self.summary.never]).map(share).fold(1.0, f64::max);
        let axes = Axes { frame: STEPS, x: Scale::counts(1.0, n as f64 + 2.0), y: Scale::linear(0.0, most * 1.08) };
        axes.draw_to(canvas, ["segment", "% of cells"], n as f64)?;
        let never = axes.place([n as f64 + 2.0, 0.0]);
        canvas.text("never", [never[0], STEPS.bottom() + 16.0], Lettering::new(size::SMALL, INK).middle())?;
        let bars = self.summary.right_from.iter().enumerate().map(|(k, &c)| ((k + 1) as f64, c, MAP.step(k, n)));
        for (at, count, color) in bars.chain([(n as f64 + 2.0, self.summary.never, WRONG)]) {
            let (a, b) = (axes.place([at - 0.4, share(count)]), axes.place([at + 0.4, 0.0]));
            canvas.fill_rect(Frame { left: a[0], top: a[1], width: b[0] - a[0], height: b[1] - a[1] }, &color)?;
        }
        Ok(())
    }

    fn draw_candidates(&self, canvas: &Canvas<'_>) -> Result<()> {
        let by = &self.summary.by_candidates;
        if by.is_empty() {
            return Ok(());
        }
        heading(canvas, NARROW, "Right at the end, by digits left")?;
        let most = by.iter().map(|b| b.candidates).max().unwrap_or(1) as f64;
        let axes = Axes { frame: NARROW, x: Scale::counts(1.0, most), y: Scale::linear(0.0, 1.08) };
        axes.draw(canvas, ["digits that its units allow", "share right"])?;
        for b in by {
            let x = b.candidates as f64;
            let (a, c) = (axes.place([x - 0.4, b.right]), axes.place([x + 0.4, 0.0]));
            let bar = Frame { left: a[0], top: a[1], width: c[0] - a[0], height: c[1] - a[1] };
            canvas.fill_rect(bar, &Stroke::series(0).color)?;
        }
        Ok(())
    }
}
