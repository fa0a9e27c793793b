//! A sheet to draw on in the picture's own units, and the way from it to a finished file.
//!
//! plotters draws in whole pixels and without smoothing. So a PNG is drawn larger than it is saved and averaged down,
//! and an SVG has four of its own units to each of the picture's. A PNG's letters are set here, as plotters' own
//! setting leaves out the glyphs' side bearings; an SVG's texts stay texts.

use std::{ffi::OsStr, fmt, path::Path};

use ab_glyph::{Font, FontRef, PxScale, ScaleFont, point};
use anyhow::{Result, anyhow, bail};
use plotters::{
    backend::{BitMapBackend, DrawingBackend, SVGBackend},
    coord::Shift,
    drawing::{DrawingArea, IntoDrawingArea},
    element::{Circle, PathElement, Polygon, Rectangle, Text},
    style::{
        Color, FontStyle, FontTransform, IntoFont, RGBColor, ShapeStyle, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::style::{FONT_NAMES, Fonts, PAPER, fonts};

/// Saved pixels per unit: a picture 1,200 wide is 2,400 pixels, 20 cm in print.
const DENSITY: u32 = 2;
/// Drawn pixels per saved pixel, each way.
const SMOOTHING: u32 = 2;
/// Units of an SVG per unit of the picture.
const SVG_UNITS: u32 = 4;

/// Something that can be drawn.
pub trait Picture {
    /// Width and height in units.
    fn size(&self) -> [u32; 2];

    /// Paints it all on an empty canvas.
    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<'_, DB>) -> Result<()>
    where
        DB::ErrorType: 'static;
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
pub fn render<P: Picture>(picture: &P, format: PictureFormat) -> Result<Vec<u8>> {
    let [width, height] = picture.size();
    match format {
        PictureFormat::Svg => {
            let (w, h) = (width * SVG_UNITS, height * SVG_UNITS);
            let mut text = String::new();
            {
                let area = SVGBackend::with_string(&mut text, (w, h)).into_drawing_area();
                paint(picture, &area, SVG_UNITS, true)?;
            }
            // Shown at the picture's own size; the viewBox keeps the finer units.
            let header = format!("width=\"{w}\" height=\"{h}\"");
            Ok(text.replacen(&header, &format!("width=\"{width}\" height=\"{height}\""), 1).into_bytes())
        }
        PictureFormat::Png => encode_png(&pixels(picture, DENSITY)?, width * DENSITY, height * DENSITY),
    }
}

/// A picture as rows of RGB pixels, `density` of them a unit.
pub fn pixels<P: Picture>(picture: &P, density: u32) -> Result<Vec<u8>> {
    let [width, height] = picture.size();
    let scale = density * SMOOTHING;
    let (w, h) = (width * scale, height * scale);
    let mut pixels = vec![0_u8; w as usize * h as usize * 3];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, (w, h)).into_drawing_area();
        paint(picture, &area, scale, false)?;
    }
    Ok(averaged(&pixels, w as usize))
}

fn paint<P: Picture, DB: DrawingBackend>(
    picture: &P,
    area: &DrawingArea<DB, Shift>,
    scale: u32,
    texts_stay_texts: bool,
) -> Result<()>
where
    DB::ErrorType: 'static,
{
    area.fill(&PAPER).map_err(drawing_error)?;
    picture.draw(&Canvas { area, scale: f64::from(scale), texts_stay_texts, fonts: fonts()? })?;
    area.present().map_err(drawing_error)
}

/// Means over squares of `SMOOTHING` × `SMOOTHING` RGB pixels.
fn averaged(pixels: &[u8], width: usize) -> Vec<u8> {
    let n = SMOOTHING as usize;
    let out_width = width / n;
    let mut out = Vec::with_capacity(pixels.len() / (n * n));
    for rows in pixels.chunks_exact(width * 3 * n) {
        for x in 0..out_width {
            for channel in 0..3 {
                let of_square = (0..n * n).map(|i| u32::from(rows[(i / n * width + x * n + i % n) * 3 + channel]));
                out.push((of_square.sum::<u32>() as f64 / (n * n) as f64).round() as u8);
            }
        }
    }
    out
}

fn encode_png(pixels: &[u8], width: u32, height: u32) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Default);
    encoder.set_adaptive_filter(png::AdaptiveFilterType::Adaptive);
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

/// A sheet of a certain backend.
pub struct Canvas<'a, DB: DrawingBackend> {
    area: &'a DrawingArea<DB, Shift>,
    /// Backend units per unit of the picture.
    scale: f64,
    texts_stay_texts: bool,
    fonts: &'static Fonts,
}

impl<DB: DrawingBackend> Canvas<'_, DB>
where
    DB::ErrorType: 'static,
{
    fn to_backend(&self, [x, y]: Point) -> (i32, i32) {
        ((x * self.scale).round() as i32, (y * self.scale).round() as i32)
    }

    fn stroke(&self, color: &impl Color, width: f64) -> ShapeStyle {
        ShapeStyle { color: color.to_rgba(), filled: false, stroke_width: (width * self.scale).round().max(1.0) as u32 }
    }

    /// Fills a rectangle.
    pub fn fill_rect(&self, frame: Frame, color: &impl Color) -> Result<()> {
        let corners = [self.to_backend(frame.at(0.0, 0.0)), self.to_backend(frame.at(1.0, 1.0))];
        self.area.draw(&Rectangle::new(corners, color.to_rgba().filled())).map_err(drawing_error)
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

    /// Draws a line through the points, `width` wide.
    pub fn line(&self, points: &[Point], color: &impl Color, width: f64) -> Result<()> {
        let path: Vec<_> = points.iter().map(|&p| self.to_backend(p)).collect();
        self.area.draw(&PathElement::new(path, self.stroke(color, width))).map_err(drawing_error)
    }

    /// Fills the polygon with these corners.
    pub fn fill_polygon(&self, points: &[Point], color: &impl Color) -> Result<()> {
        let path: Vec<_> = points.iter().map(|&p| self.to_backend(p)).collect();
        self.area.draw(&Polygon::new(path, color.to_rgba().filled())).map_err(drawing_error)
    }

    /// A disc with a rim of another colour around it.
    pub fn disc(&self, centre: Point, radius: f64, color: &impl Color, rim: Option<(RGBColor, f64)>) -> Result<()> {
        let disc = |radius: f64, style: ShapeStyle| {
            Circle::new(self.to_backend(centre), (radius * self.scale).round().max(1.0) as i32, style)
        };
        if let Some((color, width)) = rim {
            self.area.draw(&disc(radius + width, color.filled())).map_err(drawing_error)?;
        }
        self.area.draw(&disc(radius, color.to_rgba().filled())).map_err(drawing_error)
    }

    /// Writes one line of text.
    pub fn text(&self, text: &str, at: Point, how: Lettering) -> Result<()> {
        if self.texts_stay_texts { self.text_as_text(text, at, how) } else { self.text_as_glyphs(text, at, how) }
    }

    fn text_as_text(&self, text: &str, at: Point, how: Lettering) -> Result<()> {
        let horizontal = match how.anchor {
            Anchor::Left => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::Right => HPos::Right,
        };
        let style = if how.bold { FontStyle::Bold } else { FontStyle::Normal };
        // plotters writes size / 1.24 as the em size, and half an ex (0.547 em) below the point as the baseline.
        let mut font = (FONT_NAMES, how.size * self.scale * 1.24, style).into_font();
        let down = how.size * (CAP_HEIGHT - 0.547) / 2.0;
        let mut at = [at[0], at[1] + down];
        if how.upwards {
            font = font.transform(FontTransform::Rotate270);
            at = [at[0] + down, at[1] - down];
        }
        let style = TextStyle::from(font).color(&how.color).pos(Pos::new(horizontal, VPos::Center));
        self.area.draw(&Text::new(text.to_owned(), self.to_backend(at), style)).map_err(drawing_error)
    }

    fn text_as_glyphs(&self, text: &str, at: Point, how: Lettering) -> Result<()> {
        let font = self.font(how);
        let scaled = font.as_scaled(px_scale(font, how.size * self.scale));
        let width = self.text_width(text, how) * self.scale;
        let start = match how.anchor {
            Anchor::Left => 0.0,
            Anchor::Middle => -width / 2.0,
            Anchor::Right => -width,
        };
        let [x, y] = at.map(|v| v * self.scale);
        let mut pen = start as f32;
        let baseline = (how.size * self.scale * CAP_HEIGHT / 2.0) as f32;
        let mut before = None;
        for character in text.chars() {
            let id = scaled.glyph_id(character);
            pen += before.map_or(0.0, |b| scaled.kern(b, id));
            before = Some(id);
            let glyph = id.with_scale_and_position(scaled.scale(), point(pen, baseline));
            pen += scaled.h_advance(id);
            let Some(outline) = font.outline_glyph(glyph) else { continue };
            let bounds = outline.px_bounds();
            let mut result = Ok(());
            outline.draw(|column, row, coverage| {
                let along = f64::from(bounds.min.x) + f64::from(column);
                let across = f64::from(bounds.min.y) + f64::from(row);
                let (px, py) = if how.upwards { (x + across, y - along) } else { (x + along, y + across) };
                if coverage > 0.0 && result.is_ok() {
                    let ink = how.color.mix(f64::from(coverage.min(1.0)));
                    result = self.area.draw_pixel((px.round() as i32, py.round() as i32), &ink);
                }
            });
            result.map_err(drawing_error)?;
        }
        Ok(())
    }

    fn font(&self, how: Lettering) -> &'static FontRef<'static> {
        if how.bold { &self.fonts.bold } else { &self.fonts.regular }
    }

    /// Width of a text in units.
    pub fn text_width(&self, text: &str, how: Lettering) -> f64 {
        let font = self.font(how);
        let scaled = font.as_scaled(px_scale(font, how.size));
        let mut before = None;
        text.chars()
            .map(|character| {
                let id = scaled.glyph_id(character);
                let kern = before.map_or(0.0, |b| scaled.kern(b, id));
                before = Some(id);
                f64::from(kern + scaled.h_advance(id))
            })
            .sum()
    }

    /// A text at the largest size up to `how.size` at which it is no wider than `width`.
    pub fn text_within(&self, text: &str, at: Point, width: f64, how: Lettering) -> Result<()> {
        let needed = self.text_width(text, how);
        let size = if needed > width { how.size * width / needed } else { how.size };
        self.text(text, at, Lettering { size, ..how })
    }
}

/// ab_glyph's scale, which counts from ascent to descent, for an em size in pixels.
fn px_scale(font: &FontRef<'static>, em: f64) -> PxScale {
    let em_units = font.units_per_em().unwrap_or(2048.0);
    PxScale::from(em as f32 * font.height_unscaled() / em_units)
}
