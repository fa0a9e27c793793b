//! A sheet to draw on in the picture's own units, and the way from it to a finished file.
//!
//! plotters draws in whole units of an SVG, so an SVG has four of its own units to each of the picture's. A PNG is that
//! same SVG, rasterised by resvg with the fonts that the binary carries.

use std::{ffi::OsStr, fmt, path::Path, sync::Arc};

use anyhow::{Context, Result, anyhow, bail};
use plotters::{
    backend::SVGBackend,
    coord::Shift,
    drawing::{DrawingArea, IntoDrawingArea},
    element::{Circle, Drawable, PathElement, PointCollection, Polygon, Rectangle, Text},
    style::{
        Color, FontStyle, FontTransform, IntoFont, RGBColor, ShapeStyle, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};
use resvg::{
    tiny_skia::{Pixmap, Transform},
    usvg::{Options, Tree},
};

use super::style::{FONT_NAMES, Fonts, PAPER, fonts};

/// Saved pixels per unit: a picture 1,200 wide is 2,400 pixels, 20 cm in print.
const DENSITY: u32 = 2;
/// Units of an SVG per unit of the picture.
const SVG_UNITS: u32 = 4;
/// Rectangles end at whole pixels: cells side by side would else show the paper between them. Corners of lines do not
/// stick out.
const LOOK: &str = "\n<style>rect { shape-rendering: crispEdges } polyline { stroke-linejoin: round }</style>";

/// Something that can be drawn.
pub trait Picture {
    /// Width and height in units.
    fn size(&self) -> [u32; 2];

    /// Paints it all on an empty canvas.
    fn draw(&self, canvas: &Canvas<'_>) -> Result<()>;
}

/// The two kinds of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureFormat {
    Png,
    Svg,
}

impl PictureFormat {
    /// The format that a file name asks for.
    pub fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase).as_deref() {
            Some("png") => Ok(Self::Png),
            Some("svg") => Ok(Self::Svg),
            _ => bail!("{}: a picture's name must end in .png or .svg", path.display()),
        }
    }
}

/// Draws a picture into memory.
pub fn render(picture: &impl Picture, format: PictureFormat) -> Result<Vec<u8>> {
    match format {
        PictureFormat::Svg => Ok(svg(picture)?.into_bytes()),
        PictureFormat::Png => {
            let [width, height] = picture.size();
            encode_png(&pixels(picture, DENSITY)?, width * DENSITY, height * DENSITY)
        }
    }
}

fn svg(picture: &impl Picture) -> Result<String> {
    let [width, height] = picture.size();
    let (w, h) = (width * SVG_UNITS, height * SVG_UNITS);
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (w, h)).into_drawing_area();
        area.fill(&PAPER).map_err(drawing_error)?;
        let canvas = Canvas { area, fonts: fonts()? };
        picture.draw(&canvas)?;
        canvas.area.present().map_err(drawing_error)?;
    }
    // Shown at the picture's own size; the viewBox keeps the finer units.
    let header = format!("width=\"{w}\" height=\"{h}\"");
    text = text.replacen(&header, &format!("width=\"{width}\" height=\"{height}\""), 1);
    let inside = text.find('\n').context("an SVG without its first line")?;
    text.insert_str(inside, LOOK);
    Ok(text)
}

/// A picture as rows of RGB pixels, `density` of them a unit.
pub fn pixels(picture: &impl Picture, density: u32) -> Result<Vec<u8>> {
    let options = Options { fontdb: Arc::clone(&fonts()?.database), ..Options::default() };
    let tree = Tree::from_str(&svg(picture)?, &options).map_err(drawing_error)?;
    let [width, height] = picture.size().map(|n| n * density);
    let mut pixels = Pixmap::new(width, height).context("a picture without pixels")?;
    let scale = density as f32;
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixels.as_mut());
    Ok(pixels.pixels().iter().flat_map(|p| [p.red(), p.green(), p.blue()]).collect())
}

/// Not tiny-skia's PNG: it has an alpha channel, and no size in print.
fn encode_png(pixels: &[u8], width: u32, height: u32) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let per_metre = (f64::from(DENSITY) * 150.0 / 0.0254).round() as u32;
    encoder.set_pixel_dims(Some(png::PixelDimensions { xppu: per_metre, yppu: per_metre, unit: png::Unit::Meter }));
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(file)
}

fn drawing_error(error: impl fmt::Display) -> anyhow::Error {
    anyhow!("the picture cannot be drawn: {error}")
}

/// A point in the picture's units, y down.
pub type Point = [f64; 2];

/// A rectangle in the picture's units, y down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frame {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
}

impl Frame {
    pub fn right(&self) -> f64 {
        self.left + self.width
    }

    pub fn bottom(&self) -> f64 {
        self.top + self.height
    }

    /// The point at these shares of width and height.
    pub fn at(&self, x: f64, y: f64) -> Point {
        [self.left + x * self.width, self.top + y * self.height]
    }
}

/// Where a text's point lies: its left, middle or right, at half its height.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    Left,
    Middle,
    Right,
}

/// How a text is set.
#[derive(Clone, Copy, Debug)]
pub struct Lettering {
    /// Em size in units.
    pub size: f64,
    pub color: RGBColor,
    pub bold: bool,
    pub anchor: Anchor,
    /// Reads from bottom to top.
    pub upwards: bool,
}

impl Lettering {
    pub fn new(size: f64, color: RGBColor) -> Self {
        Self { size, color, bold: false, anchor: Anchor::Left, upwards: false }
    }

    /// In bold type.
    pub fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    /// Centred on its point.
    pub fn middle(self) -> Self {
        Self { anchor: Anchor::Middle, ..self }
    }

    /// Ending at its point.
    pub fn right(self) -> Self {
        Self { anchor: Anchor::Right, ..self }
    }

    /// Written from bottom to top.
    pub fn upwards(self) -> Self {
        Self { upwards: true, ..self }
    }
}

/// The height of DejaVu Sans' capitals and digits, of which a text's point is at the middle. In ems.
const CAP_HEIGHT: f64 = 0.729;

/// A sheet to draw on.
pub struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
    fonts: &'static Fonts,
}

fn length(units: f64) -> i32 {
    (units * f64::from(SVG_UNITS)).round() as i32
}

fn place([x, y]: Point) -> (i32, i32) {
    (length(x), length(y))
}

impl<'a> Canvas<'a> {
    fn element<E>(&self, element: &E) -> Result<()>
    where
        for<'b> &'b E: PointCollection<'b, (i32, i32)>,
        E: Drawable<SVGBackend<'a>>,
    {
        self.area.draw(element).map_err(drawing_error)
    }

    /// Fills a rectangle.
    pub fn fill_rect(&self, frame: Frame, color: &impl Color) -> Result<()> {
        let corners = [place(frame.at(0.0, 0.0)), place(frame.at(1.0, 1.0))];
        self.element(&Rectangle::new(corners, color.to_rgba().filled()))
    }

    /// Draws the edge of a rectangle, `width` wide.
    pub fn outline(&self, frame: Frame, color: &impl Color, width: f64) -> Result<()> {
        let side = |x: f64, y: f64, w: f64, h: f64| Frame { left: x, top: y, width: w, height: h };
        let (left, top, half) = (frame.left - width / 2.0, frame.top - width / 2.0, width / 2.0);
        let (long, tall) = (frame.width + width, frame.height + width);
        self.fill_rect(side(left, top, long, width), color)?;
        self.fill_rect(side(left, frame.bottom() - half, long, width), color)?;
        self.fill_rect(side(left, top, width, tall), color)?;
        self.fill_rect(side(frame.right() - half, top, width, tall), color)
    }

    /// Fills a square around a point, `half` its side.
    pub fn square(&self, [x, y]: Point, half: f64, color: &impl Color) -> Result<()> {
        let side = 2.0 * half;
        self.fill_rect(Frame { left: x - half, top: y - half, width: side, height: side }, color)
    }

    /// Fills a square that stands on a corner, `half` as high as that.
    pub fn diamond(&self, [x, y]: Point, half: f64, color: &impl Color) -> Result<()> {
        self.fill_polygon(&[[x, y - half], [x + half, y], [x, y + half], [x - half, y]], color)
    }

    /// Draws a line through the points, `width` wide.
    pub fn line(&self, points: &[Point], color: &impl Color, width: f64) -> Result<()> {
        let stroke_width = length(width).max(1).unsigned_abs();
        let style = ShapeStyle { color: color.to_rgba(), filled: false, stroke_width };
        self.element(&PathElement::new(points.iter().map(|&p| place(p)).collect::<Vec<_>>(), style))
    }

    /// Fills the polygon with these corners.
    pub fn fill_polygon(&self, points: &[Point], color: &impl Color) -> Result<()> {
        self.element(&Polygon::new(points.iter().map(|&p| place(p)).collect::<Vec<_>>(), color.to_rgba().filled()))
    }

    /// A disc with a rim of another colour around it.
    pub fn disc(&self, centre: Point, radius: f64, color: &impl Color, rim: Option<(RGBColor, f64)>) -> Result<()> {
        let disc = |radius: f64, style: ShapeStyle| Circle::new(place(centre), length(radius).max(1), style);
        if let Some((color, width)) = rim {
            self.element(&disc(radius + width, color.filled()))?;
        }
        self.element(&disc(radius, color.to_rgba().filled()))
    }

    /// Writes one line of text.
    pub fn text(&self, text: &str, [x, y]: Point, how: Lettering) -> Result<()> {
        let horizontal = match how.anchor {
            Anchor::Left => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::Right => HPos::Right,
        };
        let style = if how.bold { FontStyle::Bold } else { FontStyle::Normal };
        // plotters writes size / 1.24 as the em size, and a baseline 0.76 em below the point.
        let font = (FONT_NAMES, how.size * f64::from(SVG_UNITS) * 1.24, style).into_font();
        let up = how.size * (0.76 - CAP_HEIGHT / 2.0);
        let (font, at) =
            if how.upwards { (font.transform(FontTransform::Rotate270), [x - up, y]) } else { (font, [x, y - up]) };
        let style = TextStyle::from(font).color(&how.color).pos(Pos::new(horizontal, VPos::Top));
        self.element(&Text::new(text.to_owned(), place(at), style))
    }

    /// Width of a text in units.
    pub fn text_width(&self, text: &str, how: Lettering) -> f64 {
        self.fonts.width(text, how.bold) * how.size
    }

    /// A text at the largest size up to `how.size` at which it is no wider than `width`.
    pub fn text_within(&self, text: &str, at: Point, width: f64, how: Lettering) -> Result<()> {
        let needed = self.text_width(text, how);
        let size = if needed > width { how.size * width / needed } else { how.size };
        self.text(text, at, Lettering { size, ..how })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::viz::style::INK;

    /// Two cells that meet within a pixel, and a letter beside them.
    struct Cells;

    impl Picture for Cells {
        fn size(&self) -> [u32; 2] {
            [40, 20]
        }

        fn draw(&self, canvas: &Canvas<'_>) -> Result<()> {
            let cell = Frame { left: 2.0, top: 2.0, width: 5.25, height: 16.0 };
            canvas.fill_rect(cell, &INK)?;
            canvas.fill_rect(Frame { left: cell.right(), ..cell }, &INK)?;
            canvas.text("H", [30.0, 10.0], Lettering::new(16.0, INK).middle())
        }
    }

    #[test]
    fn cells_have_no_seams_and_letters_stand_around_their_point() {
        let pixels = pixels(&Cells, 1).unwrap();
        let dark = |x: usize, y: usize| pixels[3 * (40 * y + x)] < 128;
        assert!((2..12).all(|x| pixels[3 * (40 * 10 + x)] == INK.0), "{:?}", &pixels[3 * 400..3 * 420]);
        let ink: Vec<(usize, usize)> =
            (0..800).map(|i| (i % 40, i / 40)).filter(|&(x, y)| x > 16 && dark(x, y)).collect();
        let span = |of: fn(&(usize, usize)) -> usize| ink.iter().map(of).min().zip(ink.iter().map(of).max());
        let (Some((left, right)), Some((top, bottom))) = (span(|p| p.0), span(|p| p.1)) else { panic!("no letter") };
        // Capitals are 0.729 em high: 11.7 of 16.
        assert!((10..=12).contains(&(bottom - top + 1)), "{top} to {bottom}");
        assert!((left + right).abs_diff(2 * 30 - 1) <= 1 && (top + bottom).abs_diff(2 * 10 - 1) <= 1, "{ink:?}");
    }
}
