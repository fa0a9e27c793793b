//! Tables for people: columns two spaces apart, without lines and without colours.

use comfy_table::{Cell, CellAlignment, ContentArrangement, presets};

use super::ui::Ui;
use crate::{escape::one_line, say};

/// Columns of text, as wide as their longest cell. Numbers stand at the right of theirs.
pub struct Table {
    cells: comfy_table::Table,
    /// Columns of words, which stand at the left.
    left: &'static [usize],
}

impl Table {
    /// Without headings; `left` are the columns of words.
    pub fn new(left: &'static [usize]) -> Self {
        let mut cells = comfy_table::Table::new();
        cells.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        Self { cells, left }
    }

    /// With a line of headings.
    pub fn headed(headings: impl IntoIterator<Item = impl ToString>, left: &'static [usize]) -> Self {
        let mut table = Self::new(left);
        let headings = table.aligned(headings);
        table.cells.set_header(headings);
        table
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = impl ToString>) {
        let cells = self.aligned(cells);
        self.cells.add_row(cells);
    }

    fn aligned(&self, cells: impl IntoIterator<Item = impl ToString>) -> Vec<Cell> {
        let side = |k| if self.left.contains(&k) { CellAlignment::Left } else { CellAlignment::Right };
        cells
            .into_iter()
            .enumerate()
            .map(|(k, cell)| Cell::new(one_line(&cell.to_string())).set_alignment(side(k)))
            .collect()
    }

    /// The finished lines.
    pub fn lines(mut self) -> Vec<String> {
        for column in self.cells.column_iter_mut() {
            column.set_padding((0, 2));
        }
        self.cells.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// Prints the lines.
    pub fn print(self, ui: &Ui) {
        self.print_behind(ui, "");
    }

    /// Prints each line behind `before`.
    pub fn print_behind(self, ui: &Ui, before: &str) {
        self.lines().iter().for_each(|line| say!(ui, "{before}{line}"));
    }
}

/// `cells![a, b]`: values of several types as a row of texts.
macro_rules! cells {
    ($($cell:expr),* $(,)?) => { [$($cell.to_string()),*] };
}
pub(crate) use cells;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let mut table = Table::headed(["name", "n", "share", "what"], &[0, 3]);
        table.row(cells!["first", 1, "0.5 %", "plain words"]);
        table.row(cells!["Größe", 12345, "100.0 %", ""]);
        assert_eq!(
            table.lines(),
            ["name       n    share  what", "first      1    0.5 %  plain words", "Größe  12345  100.0 %"]
        );
        let mut table = Table::new(&[]);
        table.row(["a", "b"]);
        table.row([
            "a long line of words is never wrapped, however narrow the terminal: a pipe has no width at all",
            "",
        ]);
        assert_eq!(table.lines().len(), 2);
        assert!(Table::new(&[]).lines().is_empty());
    }
}
