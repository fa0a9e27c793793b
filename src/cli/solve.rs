//! `hrm solve`.

use std::{
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::{
    GlobalArgs,
    args::{
        checkpoints::{ModelArgs, load_checkpoints},
        choices::{STOP_RULES, one_of},
        guesses::GuessArgs,
    },
    ui::{JsonArg, Ui, warn},
    work::foretell_work,
};
use crate::{
    checkpoint::Checkpoint,
    config::MOST_SEGMENTS,
    eval::{
        guess::guesses,
        pass::StopRule,
        solve::{SolvePlan, Solved, Step, solve},
        test_puzzles::check_fits,
    },
    input,
    puzzle::{Count, Geometry, Known, Typed},
    runtime::device_name,
    say,
};

const DETAILS: &str = "\
A Sudoku is 81 characters row by row, 1-9 and . or 0 for blanks; lines, spaces and the rules of a printed grid are skipped. \
A file may hold several. A maze is lines of # (wall), space, S, G, and needs a checkpoint of mazes.

An exact search determines beforehand whether the puzzle has one solution (a maze: one shortest path). The model then makes \
--passes passes, each under another transform of the puzzle; it ends at the first answer that is right by the rules (--stop). Without such an answer the most \
frequent one of the halted passes is shown, and what is wrong with it.

--steps shows every segment; --animate redraws the grid in place on a terminal, cells that changed highlighted.

Examples:
  hrm solve 53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79
  hrm solve -f puzzles.txt --passes 9 --json -
  hrm solve --checkpoint runs/a --animate -f grid.txt
  cat maze.txt | hrm solve --checkpoint runs/maze -";

/// Solve a puzzle and show how
#[derive(clap::Args, Debug)]
#[command(after_long_help = DETAILS, after_help = "Example: hrm solve -f puzzle.txt --passes 9    (--help has the details)")]
pub struct SolveArgs {
    /// The puzzle, such as 81 characters for a Sudoku; - reads standard input
    #[arg(value_name = "PUZZLE", required_unless_present = "file", conflicts_with = "file")]
    puzzle: Option<String>,
    /// Read puzzles from a file
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A run folder, a step_N folder, a .safetensors file or upstream's; several with commas [default: the newest]
    #[arg(long, visible_alias = "checkpoints", value_name = "PATH[,PATH...]", value_delimiter = ',')]
    checkpoint: Vec<PathBuf>,
    /// Maximum number of passes of each checkpoint: transforms of the puzzle
    #[arg(long, visible_aliases = ["guesses", "permutes"], value_name = "K", default_value_t = 1)]
    passes: u32,
    /// When a pass ends; verified also ends the passes
    #[arg(long, value_name = "never|halt|verified", default_value = "verified", hide_possible_values = true, value_parser = one_of(STOP_RULES))]
    stop: StopRule,
    /// Maximum number of segments of a pass [default: the checkpoint's halt_max_steps]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=MOST_SEGMENTS))]
    segments: Option<i64>,
    /// Show the answer after every segment
    #[arg(long)]
    steps: bool,
    /// Redraw the grid in place while it is solved
    #[arg(long)]
    animate: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    json: JsonArg,
    // The last one: its heading holds for what follows.
    #[command(flatten)]
    guesses: GuessArgs,
}

/// The JSON document.
#[derive(Serialize)]
struct SolveReport {
    puzzles: Vec<PuzzleReport>,
    checkpoints: Vec<String>,
    dataset: Geometry,
    dtype: &'static str,
    device: String,
}

#[derive(Serialize)]
struct PuzzleReport {
    question: String,
    solutions: Count,
    /// The only one (of a maze the only shortest way): null where there is none, several, or it is not known.
    solution: Option<String>,
    /// Null where there was nothing to solve.
    #[serde(flatten)]
    solved: Option<Solved>,
    /// Whether the answer is the only solution; null where that is not known.
    correct: Option<bool>,
}

pub fn run(args: SolveArgs, global: &GlobalArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    let text = read_text(&args)?;
    let mut checkpoints = load_checkpoints(&ui, &args.checkpoint, args.model.weights)?;
    let typed = Typed::read(vocab_size_of(&checkpoints)?, &text).with_context(|| origin(&args))?;
    let (geometry, questions) = (typed.geometry, typed.puzzles);
    let options = args.guesses.options(global.seed.unwrap_or(0));
    checkpoints.iter().try_for_each(|checkpoint| check_fits(checkpoint, geometry, &origin(&args)))?;
    let list = guesses(geometry, args.passes, &options)?;
    let animate = args.animate && io::stdout().is_terminal();
    if args.animate && !animate {
        warn(format_args!("--animate: standard output is not a terminal: showing the steps one after the other"));
    }

    let runtime = global.init()?;
    let mut models = Vec::new();
    for checkpoint in &mut checkpoints {
        if let Some(segments) = args.segments {
            checkpoint.config.arch.halt_max_steps = segments;
        }
        let dims = checkpoint.dims(geometry.cells(), geometry.vocab_size())?;
        models.push(checkpoint.model(dims, runtime, args.model.dtype)?);
    }
    let passes = (questions.len() * list.len()) as f64;
    foretell_work(&ui, &models[0], passes * models.iter().map(|m| m.config().flops_per_row()).sum::<f64>());
    let plan = SolvePlan { geometry, guesses: &list, seed: options.seed, stop: args.stop };
    let mut show = Show { ui: &ui, geometry, steps: args.steps || args.animate, animate, drawn: 0 };
    let mut reports = Vec::new();
    for (i, question) in questions.iter().enumerate() {
        if questions.len() > 1 {
            say!(ui, "{}puzzle {}", if i > 0 { "\n" } else { "" }, i + 1);
        }
        let known = Known::of(geometry, question);
        show.question(question, &known);
        let solved = if known.count == Count::None {
            None
        } else {
            let solved = solve(&models, question, &plan, |step| show.step(question, step))?;
            show.result(question, &solved, &known);
            Some(solved)
        };
        let correct = known.solution.as_ref().zip(solved.as_ref()).map(|(wanted, found)| *wanted == found.tokens);
        reports.push(PuzzleReport {
            question: geometry.text(question),
            solutions: known.count,
            solution: known.solution.as_deref().map(|s| geometry.text(s)),
            correct,
            solved,
        });
    }
    ui.emit(&SolveReport {
        puzzles: reports,
        checkpoints: checkpoints.iter().map(|c| c.path.display().to_string()).collect(),
        dataset: geometry,
        dtype: models[0].config().forward_dtype.short_name(),
        device: device_name(runtime.device),
    })
}

fn origin(args: &SolveArgs) -> String {
    match (&args.file, args.puzzle.as_deref()) {
        (Some(file), _) => file.display().to_string(),
        (None, Some("-")) => "standard input".to_owned(),
        (None, _) => "PUZZLE".to_owned(),
    }
}

fn read_text(args: &SolveArgs) -> Result<String> {
    /// No list of puzzles for a person is nearly this long (bytes).
    const MOST: u64 = 16 << 20;
    let whole = |reader: &mut dyn Read, name: &str| -> Result<String> {
        let mut text = String::new();
        let read = reader.take(MOST).read_to_string(&mut text);
        read.with_context(|| format!("{name}: cannot be read as text"))?;
        ensure!((text.len() as u64) < MOST, "{name}: more than {MOST} bytes");
        Ok(text)
    };
    match (&args.file, args.puzzle.as_deref()) {
        (Some(path), _) if path != Path::new("-") => whole(&mut input::open_stream(path)?, &path.display().to_string()),
        (Some(_), _) | (None, Some("-")) => whole(&mut io::stdin().lock(), "standard input"),
        (None, Some(text)) => Ok(text.to_owned()),
        (None, None) => bail!("name a puzzle, or a file with --file"),
    }
}

/// The vocabulary that all checkpoints know; that of the usual Sudoku where the weights do not tell it.
fn vocab_size_of(checkpoints: &[Checkpoint]) -> Result<usize> {
    let size = |checkpoint: &Checkpoint| checkpoint.vocab_size().unwrap_or(Geometry::SUDOKU.vocab_size());
    let first = size(checkpoints.first().context("no checkpoint")?);
    for checkpoint in checkpoints {
        let found = size(checkpoint);
        let path = checkpoint.path.display();
        ensure!(
            found == first,
            "{path}: a checkpoint of {found} tokens beside one of {first}: they solve different puzzles"
        );
    }
    Ok(first)
}

/// Prints the puzzle, its steps and its result.
struct Show<'a> {
    ui: &'a Ui,
    geometry: Geometry,
    steps: bool,
    animate: bool,
    /// Lines of the last drawing, to be drawn over.
    drawn: usize,
}

impl Show<'_> {
    fn question(&mut self, question: &[u8], known: &Known) {
        let ui = self.ui;
        say!(ui, "{}", self.grid(question, question, &[]));
        match (known.count, &known.why) {
            (Count::None, Some(why)) => say!(ui, "\nno solution: {why}"),
            (Count::None, None) => say!(ui, "\nno solution: the givens contradict each other"),
            (Count::Several, _) => say!(ui, "\nthis puzzle has several solutions: any of them counts"),
            (Count::Unknown, _) => say!(ui, "\nhow many solutions this puzzle has is not known"),
            (Count::One, _) => {}
        }
        self.drawn = 0;
    }

    fn step(&mut self, question: &[u8], step: &Step) {
        if !self.steps {
            return;
        }
        let end = &step.end;
        let state = match (end.verified, end.halted) {
            (true, _) => ", right by the rules",
            (false, true) => ", halted",
            _ => "",
        };
        let head = format!(
            "pass {}, segment {}: {} cells changed, q_halt - q_continue {:+.2}{state}",
            step.pass + 1,
            end.segments,
            step.changed.len(),
            end.margin
        );
        let grid = self.grid(question, &step.tokens, &step.changed);
        if !self.animate {
            say!(self.ui, "\n{head}\n{grid}");
            return;
        }
        let text = format!("{head}\n{grid}");
        let mut out = io::stdout().lock();
        let up = if self.drawn > 0 { format!("\x1b[{}A", self.drawn) } else { "\n".to_owned() };
        let lines: String = text.lines().map(|line| format!("\x1b[2K{line}\n")).collect();
        let _ = write!(out, "{up}{lines}").and_then(|()| out.flush());
        self.drawn = text.lines().count();
        thread::sleep(Duration::from_millis(150));
    }

    fn result(&mut self, question: &[u8], solved: &Solved, known: &Known) {
        let ui = self.ui;
        say!(ui, "\n{}\n", self.grid(question, &solved.tokens, &[]));
        let verdict = match self.geometry.check(question, &solved.tokens) {
            Err(fault) => format!("not solved: {fault}"),
            Ok(()) => format!("verified: {}", self.geometry.right_answer()),
        };
        say!(ui, "{verdict}");
        if let Some(solution) = known.solution.as_ref().filter(|s| **s != solved.tokens) {
            let wrong = solution.iter().zip(&solved.tokens).filter(|(a, b)| a != b).count();
            say!(ui, "{wrong} of {} cells differ from the only solution", solution.len());
        }
        let end = &solved.end;
        let halted = if end.halted { "the model signals halt" } else { "the model would continue" };
        say!(
            ui,
            "confidence: q_halt - q_continue {:+.2} ({halted}); {} of {} pass(es) have this answer",
            end.margin,
            solved.agreeing,
            solved.passes_run
        );
        say!(ui, "segments: {} in pass {}, {} in all", end.segments, solved.pass + 1, solved.segments_total);
    }

    /// A board; what the puzzle leaves open stands in parentheses, and changed cells are highlighted on a terminal.
    fn grid(&self, question: &[u8], answer: &[u8], changed: &[usize]) -> String {
        let lit = |cell: usize, text: String| {
            if self.animate && changed.contains(&cell) { format!("\x1b[7m{text}\x1b[0m") } else { text }
        };
        self.geometry.grid(Some(question), answer, lit)
    }
}
