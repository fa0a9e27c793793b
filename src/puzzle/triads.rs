//! Constraint propagation on triads, and the search on top of it: what the Sudoku solver and its guess count rest on.
//!
//! A triad is the three cells that a row or a column has within a box. Beside the candidates of its nine cells, a box
//! knows for each of its six triads which digits can still be *absent* from it; and each band (three boxes in a row) and
//! stack (three in a column) knows for each digit which of the six ways to place it, one triad in each box, are left.
//! Boxes and bands send each other what they have ruled out until nothing changes.
//!
//! This is the algorithm of Tom Dillon's tdoku (<https://github.com/t-dillon/tdoku>, its solver `dpll_triad_simd`),
//! written anew. The column `rating` of Sudoku-Extreme counts that solver's guesses, and what it guesses depends on the
//! order in which messages are sent and on where it stops propagating short of all that follows. So those are kept:
//! which branch comes first, that a band looks for forced triads once, that a message returns to its sender last.

use super::sudoku::{Board, CELLS, SIDE};

/// Nine bits, digit 1 the lowest.
type Digits = u16;
const ALL: Digits = 0x1ff;

/// Four sets of digits, 16 bits each, the first in the lowest bits: so a few additions work on all four.
type Line = u64;

/// A box as a 4×4 matrix, a line for each row: candidates of its nine cells at rows and columns 0..3; in column 3 the
/// digits that each row of the box may lack, in row 3 those that each column may lack. The last entry is unused and
/// stays [`ALL`].
type Square = [Line; 4];

/// One in each of the four sets.
const ONES: Line = 0x0001_0001_0001_0001;
/// Fewest candidates: a cell holds one digit, a triad of three cells lacks six.
const FEWEST: Square = [line([1, 1, 1, 6]), line([1, 1, 1, 6]), line([1, 1, 1, 6]), line([6, 6, 6, 0])];
/// The three sets of a line that belong to its row or column, without the fourth.
const FIRST_THREE: Line = line([0xffff, 0xffff, 0xffff, 0]);

/// The six ways to place a digit in a band: `WAYS[way][box]` is the triad of that box, no two in one line.
const WAYS: [[usize; 3]; 6] = [[0, 1, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0], [0, 2, 1], [1, 0, 2]];

/// Three boxes in a row (a band) or in a column (a stack). `[way]`, padded to eight.
#[derive(Clone, Copy)]
struct Band {
    /// Digits for which the way is left.
    ways: [Digits; 8],
    /// Digits for which the way is ruled out; not yet taken from `ways`.
    ruled_out: [Digits; 8],
}

/// What is known about a partly filled board.
#[derive(Clone)]
struct Knowledge {
    squares: [Square; 9],
    /// Three bands, then three stacks.
    bands: [Band; 6],
}

/// One more than the digits of a band whose every digit has one way left.
const OPEN: u32 = 10;

impl Knowledge {
    /// Takes in the givens; none if they contradict each other at once.
    fn of(puzzle: &Board) -> Option<Self> {
        let mut ways = [ALL; 8];
        ways[6..].fill(0);
        let mut known = Self { squares: [[every(ALL); 4]; 9], bands: [Band { ways, ruled_out: [0; 8] }; 6] };
        for (cell, &digit) in puzzle.digits().iter().enumerate() {
            if digit != 0 {
                known.give(cell, 1 << (digit - 1));
            }
        }
        for i in 0..3 {
            let next = (i + 1) % 3;
            if !known.settle(i, next) || !known.settle(3 + i, next) {
                return None;
            }
        }
        Some(known)
    }

    /// Notes a given in its box and for its band and stack, without drawing conclusions.
    fn give(&mut self, cell: usize, digit: Digits) {
        let (row, column) = (cell / SIDE, cell % SIDE);
        let (band, stack) = (row / 3, column / 3);
        let square = &mut self.squares[band * 3 + stack];
        let column_bits = set(digit, column % 3);
        for (r, line) in square.iter_mut().enumerate() {
            *line &= !match r {
                3 => column_bits,
                _ if r == row % 3 => set(!digit, column % 3) | every(digit) & !column_bits,
                _ => every(digit) & FIRST_THREE,
            };
        }
        for (i, way) in WAYS.iter().enumerate() {
            if way[stack] != row % 3 {
                self.bands[band].ruled_out[i] |= digit;
            }
            if way[band] != column % 3 {
                self.bands[3 + stack].ruled_out[i] |= digit;
            }
        }
    }

    /// Keeps of a box what `allowed` allows and tells its band and stack what follows. False is a contradiction.
    fn restrict(&mut self, index: usize, allowed: &Square, from_stack: bool) -> bool {
        let (band, stack) = (index / 3, index % 3);
        let square = &mut self.squares[index];
        let mut out = [0; 4];
        for i in 0..4 {
            out[i] = square[i] & !allowed[i];
        }
        if out == [0; 4] {
            return true;
        }
        loop {
            // What has no more candidates than it needs has them all.
            let mut certain = [0; 4];
            let mut too_few = 0;
            for i in 0..4 {
                square[i] &= !out[i];
                let counts = counts(square[i]);
                too_few |= below(counts, FEWEST[i]);
                certain[i] = square[i] & where_zero(counts ^ FEWEST[i]);
            }
            if too_few != 0 {
                return false;
            }
            // A digit stands in one cell of a triad or is absent from it: what is left once in a line is certain.
            let [a, b, c, d] = *square;
            let twice_in_column = (a & b) | ((a | b) & (c | d)) | (c & d);
            for i in 0..4 {
                let line = square[i];
                let (next, pair) = (line.rotate_right(16), line | line.rotate_right(16));
                let twice_in_row = (line & next) | (next & line).rotate_right(32) | (pair & pair.rotate_right(32));
                certain[i] |= line & !(twice_in_row & twice_in_column);
            }

            let mut placed_in_row = [0; 3];
            let placed_in_column = (certain[0] | certain[1] | certain[2]) & FIRST_THREE;
            for r in 0..3 {
                placed_in_row[r] = any_of_three(certain[r]);
            }
            let placed = every(placed_in_row[0] | placed_in_row[1] | placed_in_row[2]) & FIRST_THREE;
            for r in 0..3 {
                let cells = certain[r] & FIRST_THREE;
                out[r] |= ((placed | (!where_zero(cells) & FIRST_THREE)) & !cells) | set(placed_in_row[r], 3);
            }
            out[3] |= placed_in_column;
            let absent_from_row = [part(certain[0], 3), part(certain[1], 3), part(certain[2], 3)];
            self.bands[band].rule_out(stack, absent_from_row, placed_in_row);
            self.bands[3 + stack].rule_out(band, three(certain[3]), three(placed_in_column));

            if (square[0] & out[0]) | (square[1] & out[1]) | (square[2] & out[2]) | (square[3] & out[3]) == 0 {
                break;
            }
        }
        // First across the direction that the message came from.
        let mut messages = [(3 + stack, band), (band, stack)];
        if from_stack {
            messages.reverse();
        }
        messages.into_iter().all(|(index, from)| self.settle(index, from))
    }

    /// Takes the ways that were ruled out from a band (0..3) or stack (3..6) and tells its boxes, `from` last. False is a
    /// contradiction.
    fn settle(&mut self, index: usize, from: usize) -> bool {
        let band = &mut self.bands[index];
        let mut news = 0;
        for way in 0..6 {
            news |= band.ways[way] & band.ruled_out[way];
            band.ways[way] &= !band.ruled_out[way];
        }
        if news == 0 {
            return true;
        }
        // A triad with three digits left has these, so no other triad of its box has.
        let triads = band.triads();
        for place in 0..3 {
            let mut full = [0; 3];
            for t in 0..3 {
                full[t] = if triads[place][t].count_ones() == 3 { triads[place][t] } else { 0 };
            }
            let others = [full[1] | full[2], full[2] | full[0], full[0] | full[1]];
            for way in 0..6 {
                band.ways[way] &= !others[WAYS[way][place]];
            }
        }
        let triads = band.triads();

        let stack = index >= 3;
        for place in [(from + 1) % 3, (from + 2) % 3, from] {
            let square = if stack { place * 3 + index - 3 } else { index * 3 + place };
            if !self.restrict(square, &allowed(triads[place], stack), stack) {
                return false;
            }
        }
        true
    }

    /// The ways to branch on: a digit with few ways left in the band that has fewest in all; none when every band is
    /// decided.
    fn branch(&self) -> Option<Branch> {
        let left = |band: &Band| band.ways.iter().map(|digits| digits.count_ones()).sum::<u32>();
        let open = self.bands.iter().map(left).enumerate().filter(|&(_, left)| left >= OPEN);
        let (band, _) = open.min_by_key(|&(_, left)| left)?;
        let [mut two, mut three, mut four] = [0; 3];
        let mut one = 0;
        for &ways in &self.bands[band].ways {
            four |= three & ways;
            three |= two & ways;
            two |= one & ways;
            one |= ways;
        }
        let candidates = [two & !three, three & !four, four].into_iter().find(|&digits| digits != 0)?;
        let digit = candidates & candidates.wrapping_neg();
        let way = self.bands[band].ways.iter().position(|ways| ways & digit != 0)?;
        Some(Branch { band, digit, way })
    }

    /// Decides for the branch's way. False is a contradiction.
    fn take(&mut self, branch: Branch) -> bool {
        let band = &mut self.bands[branch.band];
        for (way, out) in band.ruled_out.iter_mut().enumerate() {
            if way != branch.way {
                *out |= branch.digit;
            }
        }
        self.settle(branch.band, 0)
    }

    /// Decides against the branch's way. False is a contradiction.
    fn refuse(&mut self, branch: Branch) -> bool {
        self.bands[branch.band].ruled_out[branch.way] |= branch.digit;
        self.settle(branch.band, 0)
    }

    /// The board of a state in which every band is decided.
    fn board(&self) -> Board {
        let digit = |cell: usize| {
            let (row, column) = (cell / SIDE, cell % SIDE);
            let digits = part(self.squares[row / 3 * 3 + column / 3][row % 3], column % 3);
            digits.trailing_zeros().min(8) as u8 + 1
        };
        let mut digits = [0; CELLS];
        digits.iter_mut().enumerate().for_each(|(cell, to)| *to = digit(cell));
        Board(digits)
    }
}

impl Band {
    /// Rules out what a box knows: `absent[t]` do not stand in its triad `t`, `placed[t]` do.
    fn rule_out(&mut self, place: usize, absent: [Digits; 3], placed: [Digits; 3]) {
        let [a, b, c] = placed;
        let out = [absent[0] | b | c, absent[1] | c | a, absent[2] | a | b];
        for way in 0..6 {
            self.ruled_out[way] |= out[WAYS[way][place]];
        }
    }

    /// Digits that each triad of each of the three boxes may hold.
    fn triads(&self) -> [[Digits; 3]; 3] {
        let w = &self.ways;
        [
            [w[0] | w[4], w[1] | w[5], w[2] | w[3]],
            [w[2] | w[5], w[0] | w[3], w[1] | w[4]],
            [w[1] | w[3], w[2] | w[4], w[0] | w[5]],
        ]
    }
}

/// What the triads of one direction leave of a box.
fn allowed(triads: [Digits; 3], stack: bool) -> Square {
    let [a, b, c] = triads;
    // A triad may lack what another may hold.
    let (x, y, z) = (b | c, c | a, a | b);
    if stack {
        let row = line([a, b, c, ALL]);
        [row, row, row, line([x, y, z, ALL])]
    } else {
        [line([a, a, a, x]), line([b, b, b, y]), line([c, c, c, z]), every(ALL)]
    }
}

const fn line(sets: [Digits; 4]) -> Line {
    sets[0] as Line | (sets[1] as Line) << 16 | (sets[2] as Line) << 32 | (sets[3] as Line) << 48
}

/// A line with `digits` in all four places.
const fn every(digits: Digits) -> Line {
    digits as Line * ONES
}

/// A line with `digits` in one place.
fn set(digits: Digits, place: usize) -> Line {
    Line::from(digits) << (16 * place)
}

fn part(line: Line, place: usize) -> Digits {
    (line >> (16 * place)) as Digits
}

fn three(line: Line) -> [Digits; 3] {
    [part(line, 0), part(line, 1), part(line, 2)]
}

fn any_of_three(line: Line) -> Digits {
    part(line, 0) | part(line, 1) | part(line, 2)
}

/// Digits in each of the four sets.
fn counts(line: Line) -> Line {
    let pairs = line - ((line >> 1) & every(0x5555));
    let fours = (pairs & every(0x3333)) + ((pairs >> 2) & every(0x3333));
    let eights = (fours + (fours >> 4)) & every(0x0f0f);
    (eights + (eights >> 8)) & every(0x1f)
}

/// Non-zero where one of four numbers (below 0x8000) is less than its bound.
fn below(numbers: Line, bounds: Line) -> Line {
    !((numbers | every(0x8000)) - bounds) & every(0x8000)
}

/// All bits of the places that hold zero. Takes numbers of 15 bits.
fn where_zero(numbers: Line) -> Line {
    let high = !(numbers + every(0x7fff)) & every(0x8000);
    // 0x8000 becomes 0xffff.
    (high >> 15) * 0xffff
}

/// One way to place one digit in one band.
#[derive(Clone, Copy)]
struct Branch {
    band: usize,
    digit: Digits,
    way: usize,
}

/// How a search ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Search {
    /// Solutions, up to the limit.
    pub found: Vec<Board>,
    /// Ways that were tried where more than one was left, up to the last solution that was looked for.
    pub guesses: u64,
    /// The same up to the first solution.
    pub guesses_to_first: u64,
    /// The search gave up after `most_guesses`.
    pub gave_up: bool,
}

/// Searches for up to `limit` solutions.
pub(super) fn search(puzzle: &Board, limit: usize, most_guesses: u64) -> Search {
    let mut search = Searching { result: Search::default(), limit, most_guesses };
    if let Some(known) = Knowledge::of(puzzle) {
        search.run(known);
    }
    search.result
}

struct Searching {
    result: Search,
    limit: usize,
    most_guesses: u64,
}

impl Searching {
    fn run(&mut self, mut known: Knowledge) {
        while let Some(branch) = known.branch() {
            if self.result.guesses == self.most_guesses {
                self.result.gave_up = true;
                return;
            }
            self.result.guesses += 1;
            let mut taken = known.clone();
            if taken.take(branch) {
                self.run(taken);
                if self.result.found.len() >= self.limit || self.result.gave_up {
                    return;
                }
            }
            if !known.refuse(branch) {
                return;
            }
        }
        if self.result.found.is_empty() {
            self.result.guesses_to_first = self.result.guesses;
        }
        self.result.found.push(known.board());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        puzzle::boxes::Boxes,
        rng::{Purpose, below, distinct, stream},
    };

    /// Solutions of a board by trying every digit, up to `limit`.
    fn count_plainly(digits: &mut [u8; CELLS], limit: usize) -> usize {
        let fits = |digits: &[u8; CELLS], cell: usize, digit: u8| {
            let tied = |other: usize| Boxes::NINE.shared(cell, other).contains(&true);
            !(0..CELLS).any(|other| digits[other] == digit && tied(other))
        };
        let options = |cell: &usize| (1..=9).filter(|&d| fits(digits, *cell, d)).count();
        let Some(cell) = (0..CELLS).filter(|&cell| digits[cell] == 0).min_by_key(options) else { return 1 };
        let mut found = 0;
        for digit in 1..=9 {
            if found < limit && fits(digits, cell, digit) {
                digits[cell] = digit;
                found += count_plainly(digits, limit - found);
                digits[cell] = 0;
            }
        }
        found
    }

    /// Boards with none, one and many solutions.
    #[test]
    fn the_count_of_solutions_is_that_of_plain_search() {
        let answer: Board =
            "534678912672195348198342567859761423426853791713924856961537284287419635345286179".parse().unwrap();
        let mut seen = [0; 3];
        for i in 0..400 {
            let mut rng = stream(Purpose::Examples, 1, i, 0);
            let mut digits = answer.0;
            let blanks = 38 + below(&mut rng, 18);
            for cell in distinct(&mut rng, CELLS as u32, blanks) {
                digits[cell as usize] = 0;
            }
            if i % 4 == 0
                && let Some(blank) = digits.iter().position(|&digit| digit == 0)
            {
                digits[blank] = 1 + below(&mut rng, 9) as u8;
            }
            let board = Board(digits);
            if !board.is_consistent() {
                continue;
            }
            let wanted = count_plainly(&mut digits, 50);
            let found = search(&board, 50, u64::MAX);
            assert_eq!(found.found.len(), wanted, "{board}");
            assert!(found.found.iter().all(|solution| solution.check_solves(&board).is_ok()), "{board}");
            let different: std::collections::HashSet<_> = found.found.iter().collect();
            assert_eq!(different.len(), wanted);
            seen[wanted.min(2)] += 1;
        }
        assert!(seen.iter().all(|&n| n > 10), "{seen:?}");
    }

    #[test]
    fn a_search_gives_up_when_told_to() {
        let found = search(&Board([0; CELLS]), usize::MAX, 1000);
        assert!(found.gave_up && found.guesses == 1000);
    }
}
