//! The look that every picture shares: fonts, sizes, colours. Lengths are units of a picture about 1,200 wide, so that
//! the smallest text is still read when the picture is shown at half that width.

use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use plotters::style::RGBColor;
use resvg::usvg::fontdb::{Database, Source};
use skrifa::{FontRef, MetadataProvider, instance::LocationRef, prelude::Size};

/// What an SVG viewer looks for; the first that it has.
pub const FONT_NAMES: &str = "DejaVu Sans, Verdana, Arial, sans-serif";

const REGULAR: &[u8] = include_bytes!("../../assets/fonts/DejaVuSans.ttf");
const BOLD: &[u8] = include_bytes!("../../assets/fonts/DejaVuSans-Bold.ttf");

/// The fonts that the binary carries, DejaVu Sans, regular and bold. The system's are never looked at: a picture is the
/// same on every machine.
pub struct Fonts {
    /// For the rasteriser.
    pub database: Arc<Database>,
    regular: FontRef<'static>,
    bold: FontRef<'static>,
}

impl Fonts {
    /// Width of a text at an em size of 1.
    pub fn width(&self, text: &str, bold: bool) -> f64 {
        let font = if bold { &self.bold } else { &self.regular };
        let (glyphs, metrics) = (font.charmap(), font.glyph_metrics(Size::new(1.0), LocationRef::default()));
        text.chars().filter_map(|c| metrics.advance_width(glyphs.map(c)?)).map(f64::from).sum()
    }
}

/// The fonts, read once.
pub fn fonts() -> Result<&'static Fonts> {
    static FONTS: OnceLock<Option<Fonts>> = OnceLock::new();
    let load = || {
        let mut database = Database::new();
        for font in [REGULAR, BOLD] {
            database.load_font_source(Source::Binary(Arc::new(font)));
        }
        let (regular, bold) = (FontRef::new(REGULAR).ok()?, FontRef::new(BOLD).ok()?);
        Some(Fonts { database: Arc::new(database), regular, bold })
    };
    FONTS.get_or_init(load).as_ref().context("the embedded fonts cannot be read: this build of hrm is damaged")
}

/// Em sizes of text.
pub mod size {
    pub const TITLE: f64 = 29.0;
    pub const SUBTITLE: f64 = 20.0;
    pub const LABEL: f64 = 21.0;
    pub const SMALL: f64 = 18.0;
}

pub const PAPER: RGBColor = RGBColor(255, 255, 255);
pub const INK: RGBColor = RGBColor(26, 26, 30);
pub const SOFT_INK: RGBColor = RGBColor(84, 84, 94);
pub const GRID: RGBColor = RGBColor(228, 228, 234);
pub const FRAME: RGBColor = RGBColor(120, 120, 130);
/// Behind what the puzzle gave.
pub const GIVEN: RGBColor = RGBColor(226, 226, 232);
/// Blue and vermilion of Okabe and Ito's palette: apart for every kind of colour blindness.
pub const RIGHT: RGBColor = RGBColor(0, 96, 168);
pub const WRONG: RGBColor = RGBColor(200, 72, 0);
/// Behind a wrong cell.
pub const WRONG_PAPER: RGBColor = RGBColor(255, 221, 196);
