//! `hrm trace`.

use std::{ops::ControlFlow, path::PathBuf, sync::atomic::Ordering};

use anyhow::{Result, bail, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    GlobalArgs,
    analyze::many::{Count, RunArgs, items},
    sources::{load_checkpoint, test_puzzles},
    study::{OutputArgs, batch_size, interrupted},
    ui::Ui,
};
use crate::{
    analysis::{
        identity::TraceIdentity,
        runs::Item,
        trace_file::{TraceFile, TracePlan, arrays},
        trajectory::{SegmentFacts, trace_puzzle},
    },
    journal::run_batches,
    model::Model,
    puzzle::{PuzzleKind, maze},
    say,
    signals::stop_flag,
};

const DETAILS: &str = "\
Writes what happens inside a model while it works on test puzzles, for notebooks and programs of your own:

  trace.safetensors  z_H [N, segments x H_cycles, T, h], with --z-l also z_L [N, segments, T, h], logits \
[N, segments, S, V], q_halt and q_continue [N, segments], inputs and labels [N, S]
  index.json         rows, checkpoint, step, configuration, dtype, shapes

States and logits are stored in the forward dtype unless --f32 asks for f32 (numpy knows no bf16). The size is said before \
anything is written; rows go to the file batch by batch, and a stopped run goes on with --resume. \
docs/read_trace.py reads the file with numpy alone.

With --print nothing is written: the segments of one puzzle are printed as upstream's notebook does, the loss (token loss \
and half the halting loss), q values and board.

Examples:
  hrm trace --index 8 --print
  hrm trace --count 100 --output-dir traces
  hrm trace --index 3,8,21 --z-l --f32 --output-dir three";

/// Write hidden states, logits and q to a file, or print a puzzle's segments
#[derive(clap::Args, Debug)]
#[command(after_long_help = DETAILS, after_help = "Example: hrm trace --index 8 --print    (--help tells more)")]
pub struct TraceArgs {
    /// A run folder, a step_N folder, a .safetensors file or upstream's [default: the newest]
    #[arg(long, visible_alias = "checkpoints", value_name = "PATH")]
    checkpoint: Option<PathBuf>,
    /// Dataset folder whose test split is taken [default: the checkpoint's, else the bundled rows]
    #[arg(long, value_name = "DIR")]
    data_path: Option<PathBuf>,
    /// Test rows, from 0
    #[arg(long, value_name = "I[,I...]", value_delimiter = ',', conflicts_with = "count")]
    index: Vec<usize>,
    /// The first N test rows [default: 16]
    #[arg(long, value_name = "N|all")]
    count: Option<Count>,
    /// Print the segments of the one puzzle that --index names; write nothing
    #[arg(long, conflicts_with_all = ["output_dir", "resume", "force", "z_l", "f32", "count"])]
    print: bool,
    /// Write z_L too
    #[arg(long)]
    z_l: bool,
    /// Store states and logits as f32
    #[arg(long)]
    f32: bool,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Index {
    file: String,
    bytes: u64,
    /// Test row of each of the N.
    rows: Vec<usize>,
    data: String,
    checkpoint: String,
    step: Option<u64>,
    dtype: &'static str,
    segments: usize,
    h_cycles: i64,
    puzzle_emb_len: i64,
    arrays: Value,
    config: Value,
}

#[derive(Serialize)]
struct Printed {
    index: usize,
    checkpoint: String,
    puzzle: Vec<u8>,
    solution: Vec<u8>,
    segments: Vec<SegmentFacts>,
}

pub fn run(args: TraceArgs, global: &GlobalArgs) -> Result<()> {
    let ui = args.output.ui();
    ensure!(!args.print || args.index.len() <= 1, "--print shows one puzzle: give one --index");
    let checkpoint = load_checkpoint(&ui, args.checkpoint.as_deref(), args.run.weights)?;
    let puzzles = test_puzzles(&ui, args.data_path.as_deref(), &checkpoint)?;
    puzzles.check_kind(&checkpoint)?;
    let chosen: Vec<Item> = if args.index.is_empty() && !args.print {
        items(&puzzles, 0, args.count.unwrap_or(Count::Rows(16)))?
    } else {
        let wanted = if args.index.is_empty() { vec![0] } else { args.index.clone() };
        puzzles.rows("--index", &wanted)?
    };
    let runtime = global.init()?;
    let model = args.run.load(&checkpoint, &puzzles, runtime.device)?;
    if args.print {
        ensure!(args.run.segments.is_none(), "--print shows the model's own segments: leave --segments out");
        return print(&ui, &model, &chosen[0], checkpoint.path.display().to_string());
    }

    let segments = args.run.segments(&model)?;
    let plan = TracePlan { rows: chosen.len(), segments, z_l: args.z_l, as_f32: args.f32 };
    let layout = arrays(model.config(), &plan);
    let megabytes = |bytes: usize| format!("{:.1} MB", bytes as f64 / 1e6);
    let parts: Vec<String> = layout.iter().map(|a| format!("{} {}", a.name, megabytes(a.bytes()))).collect();
    say!(
        ui,
        "{} puzzles x {segments} segments will take {}: {}",
        chosen.len(),
        megabytes(layout.iter().map(|a| a.bytes()).sum()),
        parts.join(", ")
    );
    let output = args.output.open("trace")?;
    let rows: Vec<usize> = chosen.iter().map(|i| i.index).collect();
    let asked = TraceIdentity {
        weights: checkpoint.weights_digest(),
        data: puzzles.identity()?,
        rows: rows.clone(),
        segments,
        z_l: args.z_l,
        f32: args.f32,
        dtype: model.config().forward_dtype.short_name(),
    };
    let (mut journal, mut done) = output.journal::<_, usize>("rows.jsonl", &asked)?;
    done.truncate(chosen.len());
    let path = output.path("trace.safetensors");
    if done.len() == chosen.len() && path.exists() {
        say!(ui, "{}: it is whole already", path.display());
        return Ok(());
    }
    let mut file = TraceFile::open(&path, model.config(), plan, done.len())?;
    let stop = stop_flag("stopping after this batch");
    let bar = ui.progress(chosen.len() as u64, "trace", "puzzles");
    bar.set_position(done.len() as u64);
    let numbered: Vec<(usize, Item)> = chosen.into_iter().enumerate().collect();
    let compute = |batch: &[(usize, Item)]| {
        let items: Vec<Item> = batch.iter().map(|(_, item)| item.clone()).collect();
        file.trace(&model, batch.first().map_or(0, |(row, _)| *row), &items)?;
        Ok(items.iter().map(|i| i.index).collect())
    };
    let found =
        run_batches(&numbered, batch_size(args.run.batch_size, &model), Some(&mut journal), done, compute, |found| {
            bar.inc(found.len() as u64);
            if stop.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
    bar.finish_and_clear();
    if found.stopped {
        bail!(interrupted(&ui, found.results.len(), numbered.len(), output.folder()));
    }
    let bytes = file.bytes();
    file.finish()?;
    let shapes: serde_json::Map<String, Value> = layout
        .iter()
        .map(|a| (a.name.to_owned(), json!({"dtype": safetensors::Dtype::from(a.dtype), "shape": a.shape})))
        .collect();
    let index = Index {
        file: "trace.safetensors".to_owned(),
        bytes,
        rows,
        data: puzzles.origin.clone(),
        checkpoint: checkpoint.path.display().to_string(),
        step: checkpoint.step,
        dtype: model.config().forward_dtype.short_name(),
        segments,
        h_cycles: model.config().h_cycles,
        puzzle_emb_len: model.config().puzzle_emb_len(),
        arrays: Value::Object(shapes),
        config: serde_json::to_value(&checkpoint.config)?,
    };
    say!(ui, "trace: {} ({:.1} MB)", path.display(), bytes as f64 / 1e6);
    say!(ui, "index: {}", output.json("index.json", &index)?);
    ui.emit(&index)
}

fn print(ui: &Ui, model: &Model, item: &Item, checkpoint: String) -> Result<()> {
    let trajectory = trace_puzzle(model, &item.watched())?;
    for s in &trajectory.segments {
        say!(
            ui,
            "Step {}, Loss {}, q_halt {:.4}, q_continue {:.4}{}",
            s.segment,
            s.head_loss.unwrap_or(f64::NAN),
            s.q_halt,
            s.q_continue,
            if s.wants_halt { " (halt)" } else { "" }
        );
        say!(ui, "{}", board(item.kind, &s.prediction));
    }
    ui.emit(&Printed {
        index: item.index,
        checkpoint,
        puzzle: item.tokens.clone(),
        solution: item.solution.clone(),
        segments: trajectory.segments,
    })
}

/// A Sudoku as numpy prints its digits, 0 for a blank; a maze as its characters.
fn board(kind: PuzzleKind, tokens: &[u8]) -> String {
    let side = tokens.len().isqrt().max(1);
    let rows = tokens.chunks(side);
    match kind {
        PuzzleKind::Sudoku => {
            let row = |r: &[u8]| {
                let digits: Vec<String> = r.iter().map(|&t| (i32::from(t) - 1).to_string()).collect();
                format!("[{}]", digits.join(" "))
            };
            format!("[{}]", rows.map(row).collect::<Vec<_>>().join("\n "))
        }
        PuzzleKind::Maze => {
            let face = |t: &u8| maze::CHARSET.chars().nth(usize::from(*t).wrapping_sub(1)).unwrap_or('?');
            rows.map(|r| r.iter().map(face).collect::<String>()).collect::<Vec<_>>().join("\n")
        }
    }
}
