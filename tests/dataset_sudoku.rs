//! The Sudoku solver, its rating and the canonical form, on the bundled rows of Sudoku-Extreme.

mod common;

use std::collections::HashSet;

use anyhow::Result;
use hrm::{
    dataset::{PuzzleFile, PuzzleList, ReadOptions, Split},
    puzzle::{
        Board, PuzzleKind, canonical,
        solve::{Solutions, is_minimal, rate, solve},
    },
};
use rayon::prelude::*;

fn bundled(split: Split) -> Result<PuzzleList> {
    let options = ReadOptions { kind: PuzzleKind::Sudoku, min_difficulty: None, first_rows: None };
    PuzzleFile::Bundled(split).read(&options)
}

/// The column is what tdoku counted; not one of 11,000 rows differs.
#[test]
fn the_rating_is_the_column_on_every_bundled_row() -> Result<()> {
    for (split, rows) in [(Split::Test, 10_000), (Split::Train, 1_000)] {
        let list = bundled(split)?;
        assert_eq!(list.len(), rows);
        let different: Vec<usize> = (0..rows)
            .into_par_iter()
            .filter(|&i| {
                let board = Board::from_tokens(list.question(i)).ok();
                board.and_then(|b| rate(&b)) != u64::try_from(list.row(i).rating).ok()
            })
            .collect();
        assert!(different.is_empty(), "{split}: rows {different:?}");
    }
    Ok(())
}

#[test]
fn every_bundled_puzzle_has_one_solution_and_no_double() -> Result<()> {
    let mut forms = HashSet::new();
    let mut minimal = 0;
    for split in [Split::Test, Split::Train] {
        let list = bundled(split)?;
        let found: Vec<_> = (0..list.len())
            .into_par_iter()
            .map(|i| -> Result<_> {
                let (question, answer) = (Board::from_tokens(list.question(i))?, Board::from_tokens(list.answer(i))?);
                assert_eq!(solve(&question), Solutions::One(answer), "{split} row {i}");
                Ok((canonical(&question, &answer)?, split == Split::Train && is_minimal(&question)))
            })
            .collect::<Result<_>>()?;
        minimal += found.iter().filter(|(_, minimal)| *minimal).count();
        forms.extend(found.into_iter().map(|(form, _)| form));
    }
    assert_eq!((forms.len(), minimal), (11_000, 971));
    Ok(())
}
