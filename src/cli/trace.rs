//! `hrm trace`.

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{
    GlobalArgs,
    args::{
        checkpoints::CheckpointArg,
        output::OutputArgs,
        puzzles::{DataPathArg, RunArgs, open_test_set},
    },
    ui::Ui,
    watch::StudyWatch,
    work::foretell_work,
};
use crate::{
    analysis::{facts::SegmentFacts, trajectory::trace_puzzle},
    dataset::RowCount,
    model::Model,
    puzzle::{Geometry, Puzzle},
    say,
    study::{
        batch_size,
        trace::{FILES, TraceStudy, Traced},
    },
};

const DETAILS: &str = "\
Writes what happens inside a model while it works on test puzzles, for notebooks and programs of your own:

  trace.safetensors  z_H [N, segments x H_cycles, T, h], with --z-l also z_L [N, segments, T, h], logits \
[N, segments, S, V], q_halt and q_continue [N, segments], inputs and labels [N, S]
  index.json         rows, checkpoint, step, configuration, dtype, shapes

States and logits are stored in the forward dtype unless --f32 asks for f32 (numpy has no bf16). The size is printed before \
anything is written; rows go to the file batch by batch, and --resume continues a stopped run. \
docs/read_trace.py reads the file with numpy alone.

With --print nothing is written: the segments of one puzzle are printed as upstream's notebook does, the loss (token loss \
and half the halting loss), q values and board.

Examples:
  hrm trace --index 8 --print
  hrm trace --count 100 --output-dir traces
  hrm trace --index 3,8,21 --z-l --f32 --output-dir three";

/// Write hidden states, logits and q to a file, or print a puzzle's segments
#[derive(clap::Args, Debug)]
#[command(after_long_help = DETAILS, after_help = "Example: hrm trace --index 8 --print    (--help has the details)")]
pub struct TraceArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    data: DataPathArg,
    /// Test rows, from 0
    #[arg(long, value_name = "I[,I...]", value_delimiter = ',', conflicts_with = "count")]
    index: Vec<usize>,
    /// The first N test rows [default: 16]
    #[arg(long, value_name = "N|all")]
    count: Option<RowCount>,
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
    let checkpoint = args.checkpoint.load(&ui, args.run.model.weights)?;
    let puzzles = open_test_set(&ui, &args.data, &checkpoint)?;
    puzzles.check_kind(&checkpoint)?;
    let items: Vec<Puzzle> = if args.index.is_empty() && !args.print {
        puzzles.rows_from(0, args.count.unwrap_or(RowCount::First(16)).rows())?
    } else {
        let wanted = if args.index.is_empty() { &[0][..] } else { &args.index };
        puzzles.rows("--index", wanted)?
    };
    let runtime = global.init()?;
    let model = args.run.load(&checkpoint, &puzzles, runtime)?;
    if args.print {
        ensure!(args.run.segments.is_none(), "--print shows the model's own segments: leave --segments out");
        return print(&ui, &model, &items[0], checkpoint.path.display().to_string());
    }

    let segments = args.run.segments(&model)?;
    foretell_work(&ui, &model, model.config().flops_per_segment() * (segments * items.len()) as f64);
    let study = TraceStudy {
        checkpoint: &checkpoint,
        model: &model,
        items: &items,
        data: &puzzles.identity()?,
        segments,
        z_l: args.z_l,
        as_f32: args.f32,
        batch_size: batch_size(args.run.batch_size, &model),
    };
    say_size(&ui, &study);
    let output = args.output.open(FILES)?;
    let watch = StudyWatch::new(&ui);
    let Traced { index, index_file, was_whole } = study.run(&output, &watch)?;
    let (path, already) = (output.path(&index.file), if was_whole { ", it is whole already" } else { "" });
    say!(ui, "trace: {} ({:.1} MB{already})", path.display(), index.bytes as f64 / 1e6);
    say!(ui, "index: {index_file}");
    ui.emit(&index)
}

fn say_size(ui: &Ui, study: &TraceStudy<'_>) {
    let megabytes = |bytes: usize| format!("{:.1} MB", bytes as f64 / 1e6);
    let layout = study.layout();
    let parts: Vec<String> = layout.iter().map(|a| format!("{} {}", a.name, megabytes(a.bytes()))).collect();
    say!(
        ui,
        "{} puzzles x {} segments will take {}: {}",
        study.items.len(),
        study.segments,
        megabytes(layout.iter().map(|a| a.bytes()).sum()),
        parts.join(", ")
    );
}

fn print(ui: &Ui, model: &Model, item: &Puzzle, checkpoint: String) -> Result<()> {
    let trajectory = trace_puzzle(model, item)?;
    for s in &trajectory.segments {
        say!(
            ui,
            "Step {}, Loss {}, q_halt {:.4}, q_continue {:.4}{}",
            s.end.segments,
            s.head_loss.unwrap_or(f64::NAN),
            s.q_halt,
            s.q_continue,
            if s.end.halted { " (halt)" } else { "" }
        );
        say!(ui, "{}", board(item.geometry(), &s.prediction));
    }
    ui.emit(&Printed {
        index: item.index(),
        checkpoint,
        puzzle: item.tokens().to_vec(),
        solution: item.solution().unwrap_or_default().to_vec(),
        segments: trajectory.segments,
    })
}

/// A Sudoku as numpy prints its digits, 0 for a blank; a maze as its characters.
fn board(geometry: Geometry, tokens: &[u8]) -> String {
    if !geometry.is_sudoku() {
        return geometry.grid(None, tokens, |_, text| text);
    }
    let row = |r: &[u8]| {
        let digits: Vec<String> = r.iter().map(|&t| (i32::from(t) - 1).to_string()).collect();
        format!("[{}]", digits.join(" "))
    };
    format!("[{}]", tokens.chunks(geometry.width()).map(row).collect::<Vec<_>>().join("\n "))
}
