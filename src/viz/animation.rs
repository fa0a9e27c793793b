//! The board filling in beside the moving point, as a GIF.

use std::collections::HashMap;

use anyhow::Result;
use color_quant::NeuQuant;

use super::{
    axes::EqualAxes,
    board::AnswerBoard,
    canvas::{Canvas, Frame, Lettering, Picture, Point, pixels},
    colormap::Colormap,
    style::{GRID, INK, PAPER, RIGHT, SOFT_INK, WRONG, size},
    trajectory::draw_arrow,
};
use crate::analysis::trajectory::Trajectory;

/// Hundredths of a second that a frame and the last frame stand.
const STANDS: u16 = 35;
const LAST_STANDS: u16 = 250;

/// A trajectory up to one of its points.
#[derive(Clone, Debug)]
struct Moment<'a> {
    trajectory: &'a Trajectory,
    title: &'a str,
    /// The last point shown; none before the first.
    point: Option<usize>,
}

const PLOT: Frame = Frame { left: 24.0, top: 84.0, width: 430.0, height: 400.0 };
const BOARD: Frame = Frame { left: 488.0, top: 84.0, width: 400.0, height: 400.0 };

impl Picture for Moment<'_> {
    fn size(&self) -> [u32; 2] {
        [912, 560]
    }

    fn draw(&self, canvas: &Canvas<'_>) -> Result<()> {
        let t = self.trajectory;
        canvas.text_within(self.title, [24.0, 32.0], 864.0, Lettering::new(24.0, INK).bold())?;
        let axes = EqualAxes::around(&t.points, PLOT, 0.08);
        let places: Vec<Point> = t.points.iter().map(|&p| axes.place(p)).collect();
        canvas.outline(PLOT, &GRID, 1.5)?;
        for pair in places.windows(2) {
            canvas.line(pair, &GRID, 2.0)?;
        }
        let n = places.len();
        let shown = self.point.map_or(0, |p| p + 1);
        for (i, pair) in places[..shown].windows(2).enumerate() {
            draw_arrow(canvas, pair[0], pair[1], Colormap::Viridis.step(i + 1, n))?;
        }
        for (i, &point) in places[..shown].iter().enumerate() {
            let radius = if (i + 1) % t.h_cycles.max(1) == 0 { 5.0 } else { 3.0 };
            canvas.disc(point, radius, &Colormap::Viridis.step(i, n), Some((PAPER, 1.0)))?;
        }
        if let Some(&here) = self.point.and_then(|p| places.get(p)) {
            canvas.disc(here, 9.0, &INK, Some((PAPER, 2.0)))?;
            canvas.disc(here, 5.5, &Colormap::Viridis.step(self.point.unwrap_or(0), n), None)?;
        }
        let label = Lettering::new(size::SMALL, SOFT_INK).middle();
        canvas.text("z_H in its two principal components", [PLOT.at(0.5, 0.0)[0], PLOT.bottom() + 24.0], label)?;

        // An answer is read after each whole segment.
        let done = self.point.map_or(0, |p| (p + 1) / t.h_cycles.max(1));
        let facts = done.checked_sub(1).and_then(|k| t.segments.get(k));
        let answer = facts.map_or(t.puzzle.tokens(), |f| f.prediction.as_slice());
        let question = t.puzzle.unsolved();
        let puzzle = if facts.is_some() { &t.puzzle } else { &question };
        AnswerBoard { puzzle, answer }.draw(canvas, BOARD)?;
        let (words, color) = match facts {
            None => ("the puzzle".to_owned(), SOFT_INK),
            Some(f) if f.end.is_right() => (format!("segment {}: solved", f.end.segments), RIGHT),
            Some(f) => match f.end.cells {
                Some(right) => (format!("segment {}: {right} of {} cells right", f.end.segments, answer.len()), WRONG),
                None => (format!("segment {}", f.end.segments), INK),
            },
        };
        let at = [BOARD.at(0.5, 0.0)[0], BOARD.bottom() + 24.0];
        canvas.text(&words, at, Lettering::new(size::LABEL, color).middle().bold())?;
        let share = (shown as f64 / n.max(1) as f64).clamp(0.0, 1.0);
        canvas.fill_rect(Frame { left: 24.0, top: 536.0, width: 864.0, height: 6.0 }, &GRID)?;
        canvas.fill_rect(Frame { left: 24.0, top: 536.0, width: 864.0 * share, height: 6.0 }, &SOFT_INK)
    }
}

/// Draws a frame a point, as a GIF that plays again without end. `each` is called after every frame.
///
/// # Errors
/// A failure of the drawing library.
pub fn render_gif(trajectory: &Trajectory, title: &str, mut each: impl FnMut()) -> Result<Vec<u8>> {
    let moments = std::iter::once(None).chain((0..trajectory.points.len()).map(Some));
    let mut frames = Vec::new();
    for point in moments {
        frames.push(pixels(&Moment { trajectory, title, point }, 1)?);
        each();
    }
    let [width, height] = Moment { trajectory, title, point: None }.size();
    let (width, height) = (u16::try_from(width)?, u16::try_from(height)?);
    encode(&frames, width, height)
}

/// One palette for all frames, so that nothing flickers.
fn encode(frames: &[Vec<u8>], width: u16, height: u16) -> Result<Vec<u8>> {
    let sample: Vec<u8> = [frames.first(), frames.get(frames.len() / 2), frames.last()]
        .into_iter()
        .flatten()
        .flat_map(|frame| frame.as_chunks::<3>().0)
        .flat_map(|&[r, g, b]| [r, g, b, 255])
        .collect();
    let quantiser = NeuQuant::new(10, 256, &sample);
    let mut nearest: HashMap<[u8; 3], u8> = HashMap::new();
    let mut file = Vec::new();
    {
        let mut encoder = gif::Encoder::new(&mut file, width, height, &quantiser.color_map_rgb())?;
        encoder.set_repeat(gif::Repeat::Infinite)?;
        let mut before: Option<Vec<u8>> = None;
        for (k, frame) in frames.iter().enumerate() {
            let indexed: Vec<u8> = frame
                .as_chunks::<3>()
                .0
                .iter()
                .map(|&[r, g, b]| {
                    *nearest.entry([r, g, b]).or_insert_with(|| quantiser.index_of(&[r, g, b, 255]) as u8)
                })
                .collect();
            let [left, top, w, h] = changed(before.as_deref(), &indexed, usize::from(width));
            let rows = indexed.chunks_exact(usize::from(width)).skip(top).take(h);
            let part: Vec<u8> = rows.flat_map(|row| &row[left..left + w]).copied().collect();
            let mut frame = gif::Frame::from_indexed_pixels(u16::try_from(w)?, u16::try_from(h)?, part, None);
            (frame.left, frame.top) = (u16::try_from(left)?, u16::try_from(top)?);
            frame.delay = if k + 1 == frames.len() { LAST_STANDS } else { STANDS };
            encoder.write_frame(&frame)?;
            before = Some(indexed);
        }
    }
    Ok(file)
}

/// Left, top, width and height of what a frame changes, one pixel at least; all of the first frame.
fn changed(before: Option<&[u8]>, now: &[u8], width: usize) -> [usize; 4] {
    let Some(before) = before else { return [0, 0, width, now.len() / width] };
    let differs = || (0..now.len()).filter(|&i| now[i] != before[i]).map(|i| (i % width, i / width));
    let (left, right) = differs().fold((width, 0), |(a, b), (x, _)| (a.min(x), b.max(x)));
    let (top, bottom) = differs().fold((usize::MAX, 0), |(a, b), (_, y)| (a.min(y), b.max(y)));
    if left > right { [0, 0, 1, 1] } else { [left, top, right - left + 1, bottom - top + 1] }
}

#[cfg(test)]
mod tests {
    use super::changed;

    #[test]
    fn only_what_changed_is_in_a_frame() {
        let first = [0_u8; 12];
        assert_eq!(changed(None, &first, 4), [0, 0, 4, 3]);
        assert_eq!(changed(Some(&first), &first, 4), [0, 0, 1, 1]);
        let mut second = first;
        (second[5], second[10]) = (1, 1);
        assert_eq!(changed(Some(&first), &second, 4), [1, 1, 2, 2]);
    }
}
