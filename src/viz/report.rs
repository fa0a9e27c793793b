//! A report as one HTML file that needs nothing beside it: a table, pictures, and an explorer of single puzzles.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;

use crate::{
    analysis::trajectory::Trajectory,
    puzzle::{Geometry, base36},
};

const PAGE: &str = include_str!("report/page.html");
const STYLE: &str = include_str!("report/style.css");
const SCRIPT: &str = include_str!("report/explorer.js");

/// A picture within the page.
#[derive(Clone, Debug)]
pub struct Figure {
    pub heading: String,
    pub caption: String,
    /// Read out where the picture cannot be seen.
    pub description: String,
    /// A PNG or SVG file.
    pub picture: Vec<u8>,
}

/// What a report holds.
#[derive(Clone, Debug)]
pub struct ReportPage {
    pub title: String,
    pub subtitle: String,
    /// The table: an empty corner and a checkpoint a column, then a measure and its values a row.
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
    pub note: String,
    pub figures: Vec<Figure>,
    pub footer: String,
    pub models: Vec<ExplorerModel>,
}

/// One checkpoint's puzzles in the explorer.
#[derive(Clone, Debug, Serialize)]
pub struct ExplorerModel {
    pub name: String,
    pub puzzles: Vec<ExplorerPuzzle>,
}

/// One puzzle's run, in as few characters as it takes.
#[derive(Clone, Debug, Serialize)]
pub struct ExplorerPuzzle {
    name: String,
    kind: Geometry,
    /// Rows and columns of cells, and of those of a Sudoku's box.
    size: [usize; 2],
    boxes: Option<[usize; 2]>,
    /// A base-36 token a cell.
    puzzle: String,
    solution: Option<String>,
    h_cycles: usize,
    variance: [f64; 2],
    points: Vec<[f64; 2]>,
    steps: Vec<ExplorerStep>,
}

#[derive(Clone, Debug, Serialize)]
struct ExplorerStep {
    answer: String,
    /// Two decimal digits a cell.
    confidence: String,
    loss: Option<f64>,
    conflict: Option<u32>,
    q_halt: f64,
    q_continue: f64,
}

impl ExplorerPuzzle {
    /// A trajectory under a name.
    pub fn new(name: String, t: &Trajectory) -> Self {
        let short = |x: f64| (x * 1e4).round() / 1e4;
        let geometry = t.puzzle.geometry();
        let steps = t.segments.iter().map(|s| ExplorerStep {
            answer: base36(&s.prediction),
            confidence: s.confidence.iter().map(|&c| format!("{:02.0}", (c * 99.0).clamp(0.0, 99.0))).collect(),
            loss: s.loss.map(|l| (l * 1e6).round() / 1e6),
            conflict: s.conflict,
            q_halt: short(s.q_halt.into()),
            q_continue: short(s.q_continue.into()),
        });
        Self {
            name,
            kind: geometry,
            size: [geometry.height(), geometry.width()],
            boxes: geometry.boxes().map(|boxes| [boxes.height(), boxes.width()]),
            puzzle: base36(t.puzzle.tokens()),
            solution: t.puzzle.solution().map(base36),
            h_cycles: t.h_cycles,
            variance: t.explained_variance_ratio.map(short),
            points: t.points.iter().map(|p| p.map(|x| (x * 100.0).round() / 100.0)).collect(),
            steps: steps.collect(),
        }
    }
}

#[derive(Serialize)]
struct Data<'a> {
    models: &'a [ExplorerModel],
}

impl ReportPage {
    /// The whole page.
    ///
    /// # Errors
    /// Numbers that JSON cannot hold.
    pub fn render(&self) -> serde_json::Result<String> {
        // A script element ends at the first `</script`, wherever it stands.
        let data = serde_json::to_string(&Data { models: &self.models })?.replace('<', "\\u003c");
        let row = |cells: &[String]| {
            let name = cells.first().map(|c| format!("<th scope=\"row\">{}</th>", escaped(c))).unwrap_or_default();
            let values: String = cells.iter().skip(1).map(|c| format!("<td>{}</td>", escaped(c))).collect();
            format!("<tr>{name}{values}</tr>\n")
        };
        let head: String = self.columns.iter().map(|c| format!("<th scope=\"col\">{}</th>", escaped(c))).collect();
        let body: String = self.rows.iter().map(|r| row(r)).collect();
        let table = format!("<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>");
        let figures: String = self.figures.iter().map(figure).collect();
        let parts = [
            ("{{TITLE}}", escaped(&self.title)),
            ("{{SUBTITLE}}", escaped(&self.subtitle)),
            ("{{STYLE}}", STYLE.to_owned()),
            ("{{TABLE}}", table),
            ("{{NOTE}}", escaped(&self.note)),
            ("{{FIGURES}}", figures),
            ("{{FOOTER}}", escaped(&self.footer)),
            ("{{DATA}}", data),
            ("{{SCRIPT}}", SCRIPT.to_owned()),
        ];
        Ok(filled(PAGE, &parts))
    }
}

/// The template with each mark replaced once for all: what is put in is not looked into again.
fn filled(template: &str, parts: &[(&str, String)]) -> String {
    let mut page = String::with_capacity(template.len() + parts.iter().map(|(_, t)| t.len()).sum::<usize>());
    let mut rest = template;
    while let Some(at) = rest.find("{{") {
        page.push_str(&rest[..at]);
        rest = &rest[at..];
        match parts.iter().find(|(mark, _)| rest.starts_with(mark)) {
            Some((mark, text)) => {
                page.push_str(text);
                rest = &rest[mark.len()..];
            }
            None => {
                page.push_str("{{");
                rest = &rest[2..];
            }
        }
    }
    page.push_str(rest);
    page
}

fn figure(figure: &Figure) -> String {
    let kind = if figure.picture.starts_with(b"\x89PNG") { "image/png" } else { "image/svg+xml" };
    format!(
        "<h2>{}</h2>\n<figure>\n<img alt=\"{}\" src=\"data:{kind};base64,{}\">\n<figcaption>{}</figcaption>\n</figure>\n",
        escaped(&figure.heading),
        escaped(&figure.description),
        STANDARD.encode(&figure.picture),
        escaped(&figure.caption)
    )
}

/// A text for HTML, also within quotes.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_text() {
        let name = "</script><script>alert(1)</script> {{SCRIPT}} \"'&";
        let report = ReportPage {
            title: name.to_owned(),
            subtitle: String::new(),
            columns: vec![name.to_owned()],
            rows: vec![vec![name.to_owned()]],
            note: String::new(),
            figures: vec![Figure {
                heading: String::new(),
                caption: String::new(),
                description: name.to_owned(),
                picture: b"<svg/>".to_vec(),
            }],
            footer: String::new(),
            models: vec![ExplorerModel { name: name.to_owned(), puzzles: Vec::new() }],
        };
        let page = report.render().unwrap();
        assert_eq!(page.matches("<script").count(), 2, "the page's own two");
        assert_eq!(page.matches("alert(1)").count(), 6);
        assert!(page.contains("{{SCRIPT}}"), "a mark in a name is no mark");
        assert!(page.contains("data:image/svg+xml;base64,PHN2Zy8+"));
        assert!(
            !page.contains("http://") || page.matches("http://").count() == page.matches("http://www.w3.org").count()
        );
    }
}
