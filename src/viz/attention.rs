//! Attention maps: every position to every position, and the board as one cell sees it.

use anyhow::Result;

use super::{
    board::Squares,
    canvas::{Canvas, Frame, Lettering, Picture},
    chart::Words,
    colormap::Colormap,
    style::{FRAME, INK, PAPER, SOFT_INK, WRONG, size},
};
use crate::puzzle::{Glyph, Puzzle};

const MAP: Colormap = Colormap::Viridis;

/// One layer's map.
#[derive(Clone, Debug)]
pub struct LayerMap {
    /// `H0`, say.
    pub name: String,
    /// `[heads, total, total]`, flattened.
    pub values: Vec<f32>,
    pub heads: usize,
    pub total: usize,
}

impl LayerMap {
    fn at(&self, head: usize, from: usize, to: usize) -> f64 {
        f64::from(self.values[(head * self.total + from) * self.total + to])
    }
}

/// What `hrm analyze attention` draws.
#[derive(Clone, Debug)]
pub struct AttentionPicture {
    pub words: Words,
    pub layers: Vec<LayerMap>,
    /// Positions in front of the cells.
    pub in_front: usize,
    /// The cell whose view is shown.
    pub cell: usize,
    /// Its digits are shown faintly on the boards of a Sudoku.
    pub puzzle: Puzzle,
}

const HEAD: f64 = 190.0;
const GAP: f64 = 22.0;
const SIDE: f64 = 300.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 150.0;
/// Boards beside each other.
const ACROSS: usize = 4;

impl AttentionPicture {
    fn across(&self) -> usize {
        self.layers.iter().map(|l| l.heads).max().unwrap_or(1).min(ACROSS)
    }

    /// Height of a layer's row: its map, or its heads' boards in rows of four.
    fn layer_height(&self) -> f64 {
        let heads = self.layers.iter().map(|l| l.heads).max().unwrap_or(1);
        let rows = heads.div_ceil(ACROSS) as f64;
        (rows * (HEAD + 34.0)).max(SIDE + 34.0) + 50.0
    }
}

impl Picture for AttentionPicture {
    fn size(&self) -> [u32; 2] {
        let width = LEFT + SIDE + 60.0 + self.across() as f64 * (HEAD + GAP) + 40.0;
        let height = TOP + self.layers.len() as f64 * self.layer_height() + 70.0;
        [(width as u32).max(900), height as u32]
    }

    fn draw(&self, canvas: &Canvas<'_>) -> Result<()> {
        self.words.draw(canvas, self.size())?;
        let letters = Lettering::new(size::SMALL, INK);
        for (k, layer) in self.layers.iter().enumerate() {
            let top = TOP + k as f64 * self.layer_height();
            let square = Frame { left: LEFT, top, width: SIDE, height: SIDE };
            canvas.text(
                &format!("Layer {}: mean over {} heads", layer.name, layer.heads),
                [square.left, top - 18.0],
                letters.bold(),
            )?;
            self.draw_map(canvas, square, layer)?;
            for head in 0..layer.heads {
                let frame = Frame {
                    left: square.right() + 60.0 + (head % ACROSS) as f64 * (HEAD + GAP),
                    top: top + (head / ACROSS) as f64 * (HEAD + 34.0),
                    width: HEAD,
                    height: HEAD,
                };
                self.draw_view(canvas, frame, layer, head)?;
            }
        }
        Ok(())
    }
}

impl AttentionPicture {
    /// Every position to every position, coloured by the square root so that small weights are seen.
    fn draw_map(&self, canvas: &Canvas<'_>, frame: Frame, layer: &LayerMap) -> Result<()> {
        // A maze's 900 positions are shown in blocks, by their mean.
        let shown = layer.total.min(150);
        let edge = |k: usize| k * layer.total / shown;
        let mut means = vec![0.0; shown * shown];
        for from in 0..shown {
            for to in 0..shown {
                let (rows, columns) = (edge(from)..edge(from + 1), edge(to)..edge(to + 1));
                let mut sum = 0.0;
                for r in rows.clone() {
                    for c in columns.clone() {
                        sum += (0..layer.heads).map(|h| layer.at(h, r, c)).sum::<f64>();
                    }
                }
                means[from * shown + to] = sum / (rows.len() * columns.len() * layer.heads).max(1) as f64;
            }
        }
        let most = means.iter().copied().fold(1e-12, f64::max);
        let step = frame.width / shown as f64;
        for from in 0..shown {
            for to in 0..shown {
                let cell = Frame {
                    left: frame.left + to as f64 * step,
                    top: frame.top + from as f64 * step,
                    width: step + 0.3,
                    height: step + 0.3,
                };
                canvas.fill_rect(cell, &MAP.at((means[from * shown + to] / most).sqrt()))?;
            }
        }
        canvas.outline(frame, &FRAME, 1.0)?;
        let small = Lettering { size: 15.0, ..Lettering::new(size::SMALL, SOFT_INK) };
        let under = format!("key position (0 to {}); brightest {most:.3}", layer.total - 1);
        canvas.text_within(&under, [frame.left, frame.bottom() + 16.0], SIDE, small)?;
        canvas.text("query position", [frame.left - 18.0, frame.at(0.0, 0.5)[1]], small.middle().upwards())
    }

    /// The board in the colours of one head's attention from the chosen cell.
    fn draw_view(&self, canvas: &Canvas<'_>, frame: Frame, layer: &LayerMap, head: usize) -> Result<()> {
        let cells = layer.total - self.in_front;
        let geometry = self.puzzle.geometry();
        let from = self.in_front + self.cell;
        let values: Vec<f64> = (0..cells).map(|to| layer.at(head, from, self.in_front + to)).collect();
        let most = values.iter().copied().fold(1e-12, f64::max);
        let squares = Squares::new(geometry, frame);
        let step = squares.step;
        for (cell, &value) in values.iter().enumerate() {
            let share = (value / most).sqrt();
            let square = squares.of(cell);
            canvas.fill_rect(Frame { width: step + 0.3, height: step + 0.3, ..square }, &MAP.at(share))?;
            if let (true, Some(Glyph::Symbol(digit))) =
                (geometry.is_sudoku(), self.puzzle.tokens().get(cell).map(|&token| geometry.glyph(token)))
            {
                let ink = if share > 0.6 { INK } else { PAPER };
                canvas.text(&digit.to_string(), square.at(0.5, 0.5), Lettering::new(step * 0.55, ink).middle())?;
            }
        }
        squares.lines(canvas, None, (PAPER, 1.6))?;
        canvas.outline(squares.frame, &FRAME, 1.0)?;
        let own = squares.of(self.cell);
        canvas.outline(own, &PAPER, 5.0)?;
        canvas.outline(own, &WRONG, 3.0)?;
        let small = Lettering { size: 15.0, ..Lettering::new(size::SMALL, INK) };
        canvas.text(&format!("head {head}, most {most:.3}"), [frame.left, frame.bottom() + 15.0], small)
    }
}
