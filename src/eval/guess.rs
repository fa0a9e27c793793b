//! The ways in which one puzzle is put before a model: a transform that is undone in the answer, a starting state, noise.
//!
//! - cyclic shifts of the digits; start and goal of a maze swapped: upstream's permutations, the default
//! - any of the 9! relabellings, and the board's own symmetries (transpose, bands, stacks; a square's eight for mazes)
//! - random starting states: upstream's unused option of `reset_carry`, H_init and L_init plus a truncated normal vector
//!   of deviation 2
//! - Gaussian noise on z_H before every segment, as "Probabilistic Tiny Recursive Model" (PTRM; Sghaier, Parviz and
//!   Jolicoeur-Martineau, 2026, arXiv:2605.19943) adds it to the latent state at each recursion
//!
//! Guess 0 is always the puzzle as it is, from the model's own start, without noise.

use std::collections::HashSet;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

pub use super::guess_options::GuessOptions;

use crate::{
    model::{ERF_SQRT2, Model, StartStates, rows, truncated_normal_of},
    puzzle::{Geometry, Transform},
    rng::{Purpose, stream},
};

/// One way to put a puzzle before a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Guess {
    /// Turns the puzzle into an equivalent one.
    pub transform: Transform,
    /// Start from random states in place of the model's own.
    pub random_start: bool,
    /// Standard deviation of the noise that is added to the states before every segment; 0 = none.
    pub noise: f64,
}

/// `count` guesses of puzzles; the same options give the same guesses, and more of them begin with the same.
///
/// # Errors
/// Those of [`GuessOptions::check`].
pub fn guesses(geometry: Geometry, count: u32, options: &GuessOptions) -> Result<Vec<Guess>> {
    options.check(geometry, count)?;
    let mut taken = HashSet::new();
    Ok((0..count)
        .map(|index| {
            let mut rng = stream(Purpose::Guesses, options.seed, u64::from(index), 0);
            loop {
                let other = index > 0;
                let repeats = geometry.permutations();
                let mut transform = Transform::permuted(geometry, index % repeats);
                if options.symmetries {
                    transform = transform.turned(geometry, (index / repeats) as usize % 8);
                }
                if other {
                    transform = transform.drawn(geometry, options.relabel, options.symmetries, &mut rng);
                }
                // A transform that came before is drawn again, as long as there are others.
                let drawn = other && geometry.is_sudoku() && (options.relabel || options.symmetries);
                if taken.insert(transform.clone()) || !drawn {
                    let noise = if other { options.noise } else { 0.0 };
                    return Guess { transform, random_start: other && options.random_start, noise };
                }
            }
        })
        .collect())
}

/// A list of guesses on a device.
#[derive(Debug)]
pub struct DeviceGuesses {
    /// `[G, V]` and `[G, S]`, int64, each with its inverse.
    tokens: Tensor,
    tokens_back: Tensor,
    cells: Tensor,
    cells_back: Tensor,
    /// Deviation of the noise of each guess, on the host.
    noise: Vec<f64>,
    random_start: Vec<bool>,
    seed: u64,
}

/// The inverse maps of each row of a batch.
#[derive(Debug)]
pub struct Undo {
    /// `[B, V]`, int64
    tokens: Tensor,
    /// `[B, S]`, int64
    cells: Tensor,
}
rows!(Undo { tokens, cells });

impl DeviceGuesses {
    /// Puts guesses on a device; `seed` is of everything that they draw.
    pub fn new(list: &[Guess], seed: u64, device: Device) -> Self {
        let table = |rows: Vec<Vec<i64>>| {
            let flat: Vec<i64> = rows.concat();
            Tensor::from_slice(&flat).view([rows.len() as i64, -1]).to_device(device)
        };
        let tokens = |of: &Transform| of.tokens().iter().map(|&t| i64::from(t)).collect::<Vec<i64>>();
        let cells = |of: &Transform| of.cells().iter().map(|&c| i64::from(c)).collect::<Vec<i64>>();
        let (there, back): (Vec<_>, Vec<_>) = list.iter().map(|g| (&g.transform, g.transform.inverse())).unzip();
        Self {
            tokens: table(there.iter().copied().map(tokens).collect()),
            tokens_back: table(back.iter().map(tokens).collect()),
            cells: table(there.iter().copied().map(cells).collect()),
            cells_back: table(back.iter().map(cells).collect()),
            noise: list.iter().map(|g| g.noise).collect(),
            random_start: list.iter().map(|g| g.random_start).collect(),
            seed,
        }
    }

    /// The boards as the model sees them.
    ///
    /// # Shapes
    /// - boards, result: `[B, S]`, int64
    /// - guess: `[B]`, int64
    pub fn apply(&self, boards: &Tensor, guess: &Tensor) -> Tensor {
        let cells = self.cells.index_select(0, guess); // [B, S]
        self.tokens.index_select(0, guess).gather(1, &boards.gather(1, &cells, false), false)
    }

    /// What undoes these guesses in rows, `[B]` int64.
    pub fn undoing(&self, guess: &Tensor) -> Undo {
        Undo { tokens: self.tokens_back.index_select(0, guess), cells: self.cells_back.index_select(0, guess) }
    }

    /// Whether any guess has a starting state or noise of its own.
    pub fn touch_states(&self) -> bool {
        self.noisy() || self.random_start.contains(&true)
    }

    /// Whether any guess has noise.
    pub fn noisy(&self) -> bool {
        self.noise.iter().any(|&n| n > 0.0)
    }

    /// Starting states of every guess, `[G, 1, h]`: the model's own, with a random vector added where the guess says so.
    pub fn start_states(&self, model: &Model) -> StartStates {
        let (h_init, l_init) = model.initial_state();
        let states = |init: &Tensor, which: u64| {
            let rows: Vec<Tensor> = self
                .random_start
                .iter()
                .enumerate()
                .map(|(guess, &random)| {
                    if !random {
                        return init.shallow_clone();
                    }
                    let key = mixed(&[self.seed, guess as u64, which, 2]);
                    let drawn = truncated(&Tensor::from_slice(&[key]), init.numel() as i64) * 2.0; // [1, h]
                    init + drawn.view([-1]).to_kind(init.kind()).to_device(init.device())
                })
                .collect();
            Tensor::stack(&rows, 0).unsqueeze(1)
        };
        StartStates { z_h: states(h_init, 0), z_l: states(l_init, 1) }
    }

    /// Adds each row's noise to its z_H. A row's noise depends on its key alone, not on where it stands.
    ///
    /// # Shapes
    /// - z_h: `[B, T, h]`
    /// - guess, key: B each
    pub fn add_noise(&self, z_h: &Tensor, guess: &[i64], key: &[i64]) {
        let (rows, tokens, hidden) = z_h.size3().unwrap_or_default();
        let deviation: Vec<f32> = guess.iter().map(|&g| self.noise[g as usize] as f32).collect();
        let device = z_h.device();
        // A few rows at a time: the draws take eight bytes for every number of z_H.
        const ROWS: i64 = 256;
        for from in (0..rows).step_by(ROWS as usize) {
            let part = from as usize..(from + ROWS).min(rows) as usize;
            let n = part.len() as i64;
            let keys = Tensor::from_slice(&key[part.clone()]).to_device(device);
            let deviation = Tensor::from_slice(&deviation[part]).to_device(device).view([-1, 1, 1]);
            let noise = normal(&keys, tokens * hidden).view([n, tokens, hidden]) * deviation;
            let mut rows = z_h.narrow(0, from, n);
            let _ = rows.g_add_(&noise.to_kind(z_h.kind()));
        }
    }

    /// The key of a row's noise before its segment `segment`.
    pub fn noise_key(&self, puzzle: usize, guess: u32, segment: u32) -> i64 {
        mixed(&[self.seed, puzzle as u64, u64::from(guess), u64::from(segment)])
    }
}

impl Undo {
    /// Answers in the puzzles' own frame.
    ///
    /// # Shapes
    /// - answers, result: `[B, S]`, int64
    pub fn undo(&self, answers: &Tensor) -> Tensor {
        self.tokens.gather(1, answers, false).gather(1, &self.cells, false)
    }
}

const GOLDEN: i64 = 0x9e37_79b9_7f4a_7c15_u64 as i64;
const FIRST: i64 = 0xbf58_476d_1ce4_e5b9_u64 as i64;
const SECOND: i64 = 0x94d0_49bb_1331_11eb_u64 as i64;

/// One number from several, by rounds of splitmix64.
fn mixed(parts: &[u64]) -> i64 {
    parts.iter().fold(0_u64, |state, part| {
        let mut x = (state ^ part).wrapping_add(GOLDEN as u64);
        x = (x ^ (x >> 30)).wrapping_mul(FIRST as u64);
        x = (x ^ (x >> 27)).wrapping_mul(SECOND as u64);
        x ^ (x >> 31)
    }) as i64
}

/// The splitmix64 stream of each key: 64 random bits for each of `n` places. `key`: `[B]` int64; result `[B, n]`.
fn bits(key: &Tensor, n: i64) -> Tensor {
    let logical_shift = |x: &Tensor, by: i64| {
        let kept = (1_i64 << (64 - by)) - 1;
        x.bitwise_right_shift_tensor_scalar(by).bitwise_and(kept)
    };
    let place = Tensor::arange_start(1, n + 1, (Kind::Int64, key.device())) * GOLDEN; // [n]
    let x = key.unsqueeze(1) + place; // [B, n]
    let x = x.bitwise_xor_tensor(&logical_shift(&x, 30)) * FIRST;
    let x = x.bitwise_xor_tensor(&logical_shift(&x, 27)) * SECOND;
    x.bitwise_xor_tensor(&logical_shift(&x, 31))
}

/// 24 of the bits, from bit `from` on, as a number between 0 and 1, neither of them.
fn uniform(bits: &Tensor, from: i64) -> Tensor {
    let part = bits.bitwise_right_shift_tensor_scalar(from).bitwise_and(0xff_ffff);
    (part.to_kind(Kind::Float) + 0.5) * (1.0 / f64::from(1 << 24))
}

/// Standard normal numbers by Box and Muller. `key`: `[B]`; result: `[B, n]`, f32.
fn normal(key: &Tensor, n: i64) -> Tensor {
    let drawn = bits(key, n);
    let radius = (uniform(&drawn, 0).log() * -2.0).sqrt();
    radius * (uniform(&drawn, 32) * (2.0 * std::f64::consts::PI)).cos()
}

/// Normal numbers of deviation 1 cut at two (uncorrected) deviations, as [`crate::model::truncated_normal`] makes them.
fn truncated(key: &Tensor, n: i64) -> Tensor {
    truncated_normal_of(&((uniform(&bits(key, n), 0) * 2.0 - 1.0) * ERF_SQRT2), 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::puzzle::Board;

    const QUESTION: &str = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79";
    const ANSWER: &str = "534678912672195348198342567859761423426853791713924856961537284287419635345286179";

    fn options(text: &str) -> GuessOptions {
        GuessOptions {
            relabel: text.contains('r'),
            symmetries: text.contains('s'),
            random_start: text.contains('i'),
            noise: if text.contains('n') { 0.1 } else { 0.0 },
            seed: 3,
        }
    }

    #[test]
    fn every_transform_is_a_sudoku_and_comes_back() {
        let (question, answer) = (QUESTION.parse::<Board>().unwrap(), ANSWER.parse::<Board>().unwrap());
        for kinds in ["", "r", "s", "rs"] {
            let list = guesses(Geometry::SUDOKU, 9, &options(kinds)).unwrap();
            let mut seen = HashSet::new();
            for guess in &list {
                let (q, a) = (guess.transform.apply(&question.tokens()), guess.transform.apply(&answer.tokens()));
                assert_eq!(guess.transform.undo(&a), answer.tokens(), "{kinds}");
                let board = |tokens: &[u8]| Board::from_tokens(tokens).unwrap();
                assert_eq!(board(&a).check_solves(&board(&q)), Ok(()), "{kinds}");
                assert!(seen.insert(a), "{kinds}: a transform twice");
            }
            assert_eq!(list[0].transform.apply(&question.tokens()), question.tokens(), "guess 0 is the puzzle itself");
            let more = guesses(Geometry::SUDOKU, 5, &options(kinds)).unwrap();
            assert_eq!(more, list[..5], "a shorter list is the beginning of a longer one");
        }
    }

    #[test]
    fn mazes_have_sixteen() {
        let board: Vec<u8> = vec![3, 4, 1, 2, 2, 1, 1, 2, 5, 1, 2, 2, 1, 1, 1, 2];
        let list = guesses(Geometry::maze(4), 16, &options("s")).unwrap();
        let all: HashSet<Vec<u8>> = list.iter().map(|g| g.transform.apply(&board)).collect();
        assert_eq!(all.len(), 16);
        assert!(list.iter().all(|g| g.transform.undo(&g.transform.apply(&board)) == board));
        assert!(guesses(Geometry::maze(4), 17, &options("s")).is_err());
        assert!(guesses(Geometry::maze(4), 3, &options("")).is_err());
        assert!(guesses(Geometry::maze(4), 2, &options("r")).is_err());
        assert_eq!(guesses(Geometry::maze(4), 40, &options("i")).unwrap().len(), 40);
    }

    #[test]
    fn the_device_does_what_the_host_does() {
        let board = QUESTION.parse::<Board>().unwrap().tokens();
        let list = guesses(Geometry::SUDOKU, 6, &options("rs")).unwrap();
        let on_device = DeviceGuesses::new(&list, 3, Device::Cpu);
        let which = Tensor::from_slice(&[5_i64, 0, 3]);
        let boards: Vec<i64> = board.iter().map(|&t| i64::from(t)).collect();
        let rows = Tensor::from_slice(&boards).repeat([3, 1]);
        let transformed = on_device.apply(&rows, &which);
        for (row, guess) in [5, 0, 3].into_iter().enumerate() {
            let found: Vec<i64> = Vec::try_from(transformed.get(row as i64)).unwrap();
            let wanted: Vec<i64> = list[guess].transform.apply(&board).iter().map(|&t| i64::from(t)).collect();
            assert_eq!(found, wanted);
        }
        assert!(on_device.undoing(&which).undo(&transformed).equal(&rows));
    }

    #[test]
    fn noise_is_normal_and_depends_on_its_key_alone() {
        let list = guesses(Geometry::SUDOKU, 2, &options("n")).unwrap();
        let on_device = DeviceGuesses::new(&list, 1, Device::Cpu);
        let keys: Vec<i64> = (0..300).map(|p| on_device.noise_key(p, 1, 4)).collect();
        let state = Tensor::zeros([300, 4, 32], (Kind::Float, Device::Cpu));
        on_device.add_noise(&state, &[1; 300], &keys);
        let (mean, deviation) = (state.mean(Kind::Float).double_value(&[]), state.std(false).double_value(&[]));
        // Six standard errors of 38,400 draws.
        assert!(mean.abs() < 0.0031 && (deviation - 0.1).abs() < 0.0022, "{mean} {deviation}");
        let tail = state.abs().gt(0.2).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
        assert!((tail - 0.0455).abs() < 0.0064, "{tail} beyond two deviations");

        let one = Tensor::zeros([1, 4, 32], (Kind::Float, Device::Cpu));
        on_device.add_noise(&one, &[1], &keys[7..8]);
        assert!(one.get(0).equal(&state.get(7)));
        let none = Tensor::zeros([1, 4, 32], (Kind::Float, Device::Cpu));
        on_device.add_noise(&none, &[0], &keys[7..8]);
        assert_eq!(none.abs().max().double_value(&[]), 0.0, "guess 0 has no noise");
        assert_ne!(on_device.noise_key(1, 2, 3), on_device.noise_key(2, 1, 3));
    }
}
