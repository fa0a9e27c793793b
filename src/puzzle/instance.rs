//! One puzzle, with its solution where that is known.

use serde::Serialize;

use super::{Fault, Geometry, maze::FREE, maze::PATH};

/// A puzzle. In JSON: its kind, its tokens as `puzzle`, its solution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Puzzle {
    #[serde(rename = "kind")]
    geometry: Geometry,
    #[serde(rename = "puzzle")]
    tokens: Vec<u8>,
    solution: Option<Vec<u8>>,
    #[serde(skip)]
    index: Option<usize>,
}

/// Why tokens are no puzzle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's message says it")]
pub enum PuzzleError {
    #[error("the puzzle has {found} cells; a {geometry} puzzle here has {}", .geometry.cells())]
    Cells { found: usize, geometry: Geometry },
    #[error("the puzzle has {cells} cells, its solution {found}")]
    Solution { found: usize, cells: usize },
    #[error("token {token} in cell {} of the puzzle, but a {geometry} puzzle has {} tokens", .cell + 1, .geometry.vocab_size())]
    Token { token: u8, cell: usize, geometry: Geometry },
}

/// What a cell of an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellMark {
    /// Part of the puzzle.
    Given,
    /// Open, and answered as the solution has it.
    Right,
    /// Open, and answered otherwise.
    Wrong,
    /// Filled in, and nobody knows whether rightly.
    Unknown,
}

impl Puzzle {
    /// # Shapes
    /// - tokens: `[cells]`
    /// - solution: `[cells]`; 0 where there is no label
    ///
    /// # Errors
    /// Another number of cells; a token outside the vocabulary.
    pub fn new(geometry: Geometry, tokens: Vec<u8>, solution: Option<Vec<u8>>) -> Result<Self, PuzzleError> {
        let cells = geometry.cells();
        if tokens.len() != cells {
            return Err(PuzzleError::Cells { found: tokens.len(), geometry });
        }
        if let Some(found) = solution.as_ref().map(Vec::len).filter(|&found| found != cells) {
            return Err(PuzzleError::Solution { found, cells });
        }
        for row in [Some(&tokens), solution.as_ref()].into_iter().flatten() {
            if let Some(cell) = row.iter().position(|&token| usize::from(token) >= geometry.vocab_size()) {
                return Err(PuzzleError::Token { token: row[cell], cell, geometry });
            }
        }
        Ok(Self { geometry, tokens, solution, index: None })
    }

    /// The same puzzle, as number `index` of its data or of those that were made.
    pub fn numbered(self, index: usize) -> Self {
        Self { index: Some(index), ..self }
    }

    /// The same puzzle, of which nothing is known but the question.
    pub fn unsolved(&self) -> Self {
        Self { solution: None, ..self.clone() }
    }

    /// Its kind with its sizes.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Shape `[cells]`.
    pub fn tokens(&self) -> &[u8] {
        &self.tokens
    }

    /// Shape `[cells]`; 0 where there is no label.
    pub fn solution(&self) -> Option<&[u8]> {
        self.solution.as_deref()
    }

    /// Its row in the test set, or its number among puzzles that were made; 0 for one that stands alone.
    pub fn index(&self) -> usize {
        self.index.unwrap_or(0)
    }

    /// What titles call it.
    pub fn title(&self) -> String {
        match self.index {
            Some(index) => format!("{} {index}", self.geometry.title()),
            None => format!("Your {}", self.geometry.title()),
        }
    }

    /// The known token of a cell.
    pub fn label(&self, cell: usize) -> Option<u8> {
        self.solution.as_ref()?.get(cell).copied().filter(|&token| token != 0)
    }

    /// Cells whose token is known, givens included.
    pub fn labelled_cells(&self) -> usize {
        (0..self.tokens.len()).filter(|&cell| self.label(cell).is_some()).count()
    }

    /// Cells in which an answer is right, givens included; none where the solution is unknown.
    pub fn right_cells(&self, answer: &[u8]) -> Option<usize> {
        self.solution.as_ref()?;
        let right = |&(cell, &token): &(usize, &u8)| self.label(cell) == Some(token);
        Some(answer.iter().enumerate().filter(right).count())
    }

    /// Whether a cell is to be filled in; see [`Geometry::is_open`].
    pub fn is_open(&self, cell: usize) -> bool {
        self.tokens.get(cell).is_some_and(|&token| self.geometry.is_open(token))
    }

    /// How many cells are open.
    pub fn open_cells(&self) -> usize {
        (0..self.tokens.len()).filter(|&cell| self.is_open(cell)).count()
    }

    /// Checks an answer by the rules; see [`Geometry::check`].
    pub fn check(&self, answer: &[u8]) -> Result<(), Fault> {
        self.geometry.check(&self.tokens, answer)
    }

    /// What a cell of an answer is. The solution decides; without one, a given that the answer does not keep is wrong. Of
    /// a maze everything is given but which free cells belong to the path.
    pub fn mark(&self, cell: usize, answer: u8) -> CellMark {
        let token = self.tokens.get(cell).copied().unwrap_or(0);
        let given = match self.geometry {
            Geometry::Maze { .. } => token != FREE && answer != PATH,
            _ => token > 1,
        };
        let kept = answer == token;
        match self.solution.as_ref().and_then(|s| s.get(cell)) {
            Some(&solution) if solution != answer => CellMark::Wrong,
            None if given && !kept => CellMark::Wrong,
            _ if given && kept => CellMark::Given,
            Some(_) => CellMark::Right,
            None => CellMark::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn puzzles_are_checked() {
        let four = Geometry::sudoku(4).unwrap();
        let new =
            |tokens: &[u8], solution: Option<&[u8]>| Puzzle::new(four, tokens.to_vec(), solution.map(<[u8]>::to_vec));
        assert_eq!(new(&[1; 15], None), Err(PuzzleError::Cells { found: 15, geometry: four }));
        assert_eq!(new(&[1; 16], Some(&[2; 9])), Err(PuzzleError::Solution { found: 9, cells: 16 }));
        assert_eq!(new(&[1; 16], Some(&[6; 16])), Err(PuzzleError::Token { token: 6, cell: 0, geometry: four }));
        let puzzle = new(&[1; 16], Some(&[0; 16])).unwrap();
        assert_eq!((puzzle.title().as_str(), puzzle.open_cells(), puzzle.labelled_cells()), ("Your Sudoku", 16, 0));
        assert_eq!(puzzle.clone().numbered(7).title(), "Sudoku 7");
        assert_eq!(serde_json::to_value(&puzzle).unwrap()["kind"], "sudoku");
    }

    #[test]
    fn marks_of_a_sudoku() {
        let four = Geometry::sudoku(4).unwrap();
        let parse = |text: &str| four.parse(text).unwrap();
        let puzzle = Puzzle::new(four, parse("11.............."), Some(parse("1134341221434321"))).unwrap();
        let marks: Vec<_> = parse("123234122143432.").iter().enumerate().map(|(c, &t)| puzzle.mark(c, t)).collect();
        assert_eq!(marks[..4], [CellMark::Given, CellMark::Wrong, CellMark::Right, CellMark::Wrong]);
        let unsolved = Puzzle::new(four, puzzle.tokens().to_vec(), None).unwrap();
        assert_eq!([unsolved.mark(1, 6), unsolved.mark(2, 5)], [CellMark::Wrong, CellMark::Unknown]);
    }

    #[test]
    fn marks_of_a_maze() {
        let maze = Geometry::maze(2);
        // wall kept, free cell on the path, free cell wrongly on the path, path through a wall
        let puzzle = Puzzle::new(maze, vec![1, 2, 2, 1], Some(vec![1, 5, 2, 1])).unwrap();
        let marks: Vec<_> = [1, 5, 5, 5].iter().enumerate().map(|(c, &t)| puzzle.mark(c, t)).collect();
        assert_eq!(marks, [CellMark::Given, CellMark::Right, CellMark::Wrong, CellMark::Wrong]);
        assert_eq!((puzzle.right_cells(&[1, 5, 5, 5]), puzzle.open_cells()), (Some(2), 2));
    }
}
