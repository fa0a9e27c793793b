//! Puzzles as text.
//!
//! The plain form has a character a cell, row by row: a Sudoku's digits 1 to 9, then A for 10, and `.` for a blank; a
//! maze's `#` wall, space way, `S` start, `G` goal, `o` path; `?` for padding. Base 36 has a character a token. Where a
//! kind is unknown the plain form is base 36, or numbers with commas between where there are more than 36 tokens.

use super::{
    Geometry,
    boxes::{BLANK, FIRST_DIGIT},
    maze::CHARSET,
};

/// What stands for padding, and for a token that the puzzle does not have.
const PADDING: char = '?';

/// Why a text is no puzzle of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's message says it")]
pub enum TextError {
    #[error("{found} cells; this puzzle has {} ({} rows of {})", .geometry.cells(), .geometry.height(), .geometry.width())]
    Cells { found: usize, geometry: Geometry },
    #[error("cell {} (row {}, column {}) holds {found:?}; {}", .cell + 1, .cell / .geometry.width() + 1,
        .cell % .geometry.width() + 1, .geometry.alphabet())]
    Symbol { found: String, cell: usize, geometry: Geometry },
}

impl Geometry {
    /// The character of a token; `?` where there is none.
    pub fn symbol(self, token: u8) -> char {
        let at = usize::from(token);
        match self {
            Self::Sudoku(_) if token == BLANK => '.',
            Self::Sudoku(boxes) => boxes.digit(token).map_or(PADDING, |digit| match digit {
                1..=9 => char::from(b'0' + digit),
                _ => char::from(b'A' + digit - 10),
            }),
            Self::Maze { .. } => CHARSET.as_bytes().get(at.wrapping_sub(1)).map_or(PADDING, |&c| char::from(c)),
            Self::Unknown { .. } => char::from_digit(token.into(), 36).unwrap_or(PADDING),
        }
    }

    /// The token of a character; a Sudoku's letters may be small, its blank a 0.
    pub fn token(self, symbol: char) -> Option<u8> {
        if symbol == PADDING {
            return Some(0);
        }
        let token = match self {
            Self::Sudoku(_) if symbol == '.' || symbol == '0' => BLANK,
            Self::Sudoku(boxes) => {
                let digit = symbol.to_digit(36)?;
                let token = u8::try_from(digit).ok()? + FIRST_DIGIT - 1;
                boxes.digit(token).map(|_| token)?
            }
            Self::Maze { .. } => CHARSET.find(symbol).and_then(|at| u8::try_from(at + 1).ok())?,
            Self::Unknown { .. } => u8::try_from(symbol.to_digit(36)?).ok()?,
        };
        (usize::from(token) < self.vocab_size()).then_some(token)
    }

    /// Tokens as people write them.
    pub fn text(self, tokens: &[u8]) -> String {
        if self.in_numbers() {
            return tokens.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
        }
        tokens.iter().map(|&token| self.symbol(token)).collect()
    }

    /// Undoes [`Geometry::text`].
    ///
    /// # Shapes
    /// - result: `[cells]`
    ///
    /// # Errors
    /// Another number of cells; what is no token.
    pub fn parse(self, text: &str) -> Result<Vec<u8>, TextError> {
        let cell = |(cell, found): (usize, &str)| {
            let mut symbols = found.chars();
            let token = match (symbols.next(), symbols.next()) {
                _ if self.in_numbers() => found.parse().ok().filter(|&token| usize::from(token) < self.vocab_size()),
                (Some(symbol), None) => self.token(symbol),
                _ => None,
            };
            token.ok_or_else(|| TextError::Symbol { found: found.to_owned(), cell, geometry: self })
        };
        let parts: Vec<&str> = match self.in_numbers() {
            true => text.split(',').collect(),
            false => text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]).collect(),
        };
        let tokens = parts.iter().copied().enumerate().map(cell).collect::<Result<Vec<u8>, _>>()?;
        match tokens.len() == self.cells() {
            true => Ok(tokens),
            false => Err(TextError::Cells { found: tokens.len(), geometry: self }),
        }
    }

    /// A board over several lines: a Sudoku in a grid, a maze row by row. With a `question`, digits that it leaves blank
    /// stand in parentheses, so that givens can be told from what was filled in. `style` sees the cell and the text of
    /// each, and returns what stands in its place, such as the text in colour.
    ///
    /// # Shapes
    /// - question, tokens: `[cells]`
    pub fn grid(self, question: Option<&[u8]>, tokens: &[u8], style: impl Fn(usize, String) -> String) -> String {
        let Some(boxes) = self.boxes() else {
            if self.in_numbers() {
                return self.text(tokens);
            }
            let row = |(row, line): (usize, &[u8])| -> String {
                let cell = |(column, &token)| style(row * self.width() + column, self.symbol(token).into());
                line.iter().enumerate().map(cell).collect()
            };
            return tokens.chunks(self.width().max(1)).enumerate().map(row).collect::<Vec<_>>().join("\n");
        };
        let across = boxes.side() / boxes.width();
        let rule = vec!["-".repeat(3 * boxes.width()); across].join("+");
        let mut lines = Vec::new();
        for (row, line) in tokens.chunks(boxes.side()).enumerate() {
            if row > 0 && row.is_multiple_of(boxes.height()) {
                lines.push(rule.clone());
            }
            let cell = |(column, &token): (usize, &u8)| {
                let (cell, symbol) = (row * boxes.side() + column, self.symbol(token));
                let open = question.is_some_and(|q| q.get(cell).is_some_and(|&q| boxes.digit(q).is_none()));
                let filled = open && boxes.digit(token).is_some();
                style(cell, if filled { format!("({symbol})") } else { format!(" {symbol} ") })
            };
            let cells: Vec<String> = line.iter().enumerate().map(cell).collect();
            lines.push(cells.chunks(boxes.width()).map(|cells| cells.concat()).collect::<Vec<_>>().join("|"));
        }
        lines.join("\n")
    }

    /// What a cell may hold, in words.
    pub(super) fn alphabet(self) -> String {
        match self {
            Self::Sudoku(boxes) => {
                let last = self.symbol(self.vocab_size() as u8 - 1);
                let letters = if boxes.side() > 9 { format!("9 or A-{last}") } else { last.to_string() };
                format!("a cell is 1-{letters}, or '.' or 0 for a blank")
            }
            Self::Maze { .. } => "a maze is written with '#', ' ', 'S', 'G' and 'o'".to_owned(),
            Self::Unknown { vocab_size, .. } => format!("a cell is a token below {vocab_size}"),
        }
    }

    /// Whether tokens have no characters.
    fn in_numbers(self) -> bool {
        matches!(self, Self::Unknown { vocab_size, .. } if vocab_size > 36)
    }
}

/// Tokens with a character each in base 36; `?` for a token beyond.
pub fn base36(tokens: &[u8]) -> String {
    tokens.iter().map(|&token| char::from_digit(token.into(), 36).unwrap_or(PADDING)).collect()
}

/// Undoes [`base36`]; 0 for what is no token.
pub fn from_base36(text: &str) -> Vec<u8> {
    text.chars().map(|c| c.to_digit(36).and_then(|token| u8::try_from(token).ok()).unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_of_every_kind_comes_back() {
        let kinds = [4, 6, 9, 16, 25].map(|side| Geometry::sudoku(side).unwrap()).into_iter().chain([
            Geometry::maze(7),
            Geometry::Maze { height: 3, width: 5 },
            Geometry::Unknown { vocab_size: 11, cells: 16 },
            Geometry::Unknown { vocab_size: 100, cells: 250 },
        ]);
        for geometry in kinds {
            let tokens: Vec<u8> = (0..geometry.cells()).map(|cell| (cell % geometry.vocab_size()) as u8).collect();
            let text = geometry.text(&tokens);
            assert_eq!(geometry.parse(&text), Ok(tokens.clone()), "{text}");
            let lines = geometry.grid(None, &tokens, |_, text| text);
            if !geometry.is_sudoku() && geometry.vocab_size() < 37 {
                assert_eq!(lines.replace('\n', ""), text);
            }
        }
        assert_eq!(Geometry::sudoku(16).unwrap().text(&[0, 1, 2, 10, 11, 17, 18]), "?.19AG?");
        assert_eq!(Geometry::maze(3).text(&[0, 1, 2, 3, 4, 5, 6]), "?# SGo?");
        assert_eq!(from_base36(&base36(&[0, 1, 10, 35])), [0, 1, 10, 35]);
        assert_eq!((base36(&[36]).as_str(), from_base36("1?")), ("?", vec![1, 0]));
    }

    #[test]
    fn what_is_no_puzzle_is_told_by_its_cell() {
        let (four, sixteen) = (Geometry::sudoku(4).unwrap(), Geometry::sudoku(16).unwrap());
        assert_eq!(four.parse("0.00 0000 0000 000").unwrap_err().to_string(), {
            "cell 5 (row 2, column 1) holds \" \"; a cell is 1-4, or '.' or 0 for a blank"
        });
        assert_eq!(four.parse("12").unwrap_err().to_string(), "2 cells; this puzzle has 16 (4 rows of 4)");
        assert!(four.parse(&"5".repeat(16)).is_err(), "no digit of a board of four");
        assert!(sixteen.parse("H").unwrap_err().to_string().contains("1-9 or A-G"));
        assert_eq!(sixteen.token('g'), Some(17));
        assert!(Geometry::maze(2).parse("#S.G").unwrap_err().to_string().contains("column 1) holds \".\""));
        assert!(Geometry::Unknown { vocab_size: 40, cells: 2 }.parse("39,40").is_err());
    }

    #[test]
    fn a_grid_tells_givens_from_filled_cells() {
        let four = Geometry::sudoku(4).unwrap();
        let (question, answer) = (four.parse("1...34122.434321").unwrap(), four.parse("1.34341221434321").unwrap());
        assert_eq!(four.grid(Some(&question), &answer, |_, text| text), {
            " 1  . |(3)(4)\n 3  4 | 1  2 \n------+------\n 2 (1)| 4  3 \n 4  3 | 2  1 "
        });
        let six = Geometry::sudoku(6).unwrap();
        let lit = six.grid(None, &[1; 36], |cell, text| if cell == 35 { format!("<{text}>") } else { text });
        assert!(lit.ends_with(" .  . < . >") && lit.lines().count() == 8, "{lit}");
    }
}
