//! `hrm eval`.

use std::{path::PathBuf, sync::Arc, sync::atomic::Ordering};

use anyhow::{Result, bail, ensure};

use super::{
    GlobalArgs,
    args::{
        checkpoints::{CheckpointArg, ModelArgs},
        choices::{OUTPUTS, one_of},
        output::{ForceArg, check_files},
        puzzles::{DataPathArg, open_test_puzzles},
    },
    table::{Table, cells},
    ui::{JsonArg, Ui},
    work::foretell_work,
};
use crate::{
    config::MOST_SEGMENTS,
    dataset::SequentialSampler,
    eval::{
        evaluate::{Evaluation, EvaluationSums},
        outputs::{SavedOutputs, SavedTensor},
    },
    model::Dims,
    outcome::Interrupted,
    runtime::device_name,
    say,
    signals::stop_flag,
};

const DETAILS: &str = "\
Upstream's evaluate.py: every test puzzle runs all segments, and every metric of the last one, and loss and accuracies of \
each, is averaged over the puzzles. For votes, verified answers and several checkpoints use hrm infer.

As upstream, losses are sums over rows divided by the number of puzzles, and rows that pad the last batch add to \
q_halt_loss; so that one figure depends on --batch-size.

--json writes upstream's {set: {metric: value}}. --save-outputs keeps tensors of the last segment, in the files' order and \
without padding: inputs, labels, puzzle_identifiers, logits, q_halt_logits, q_continue_logits.

Examples:
  hrm eval
  hrm eval --checkpoint runs/a/step_52080 --json metrics.json
  hrm eval --checkpoint runs/a --save-outputs outputs.safetensors
  hrm eval --checkpoint runs/a --save-outputs outputs/ --keys logits,labels     (a .npy file each)";

/// Evaluate a checkpoint as training does: all metrics of every segment
#[derive(clap::Args, Debug)]
#[command(after_long_help = DETAILS, after_help = "Example: hrm eval --checkpoint runs/a    (--help has the details)")]
pub struct EvalArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    data: DataPathArg,
    /// Puzzles per batch [default: the checkpoint's global_batch_size]
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    batch_size: Option<u64>,
    /// Segments [default: the checkpoint's halt_max_steps]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=MOST_SEGMENTS))]
    segments: Option<i64>,
    #[command(flatten)]
    model: ModelArgs,
    /// Keep tensors of the last segment: a .safetensors file, else a folder of .npy files
    #[arg(long, value_name = "FILE|DIR")]
    save_outputs: Option<PathBuf>,
    /// Which tensors [default: all]
    #[arg(long, value_name = "NAME[,NAME...]", value_delimiter = ',', requires = "save_outputs", value_parser = one_of(OUTPUTS))]
    keys: Vec<SavedTensor>,
    #[command(flatten)]
    force: ForceArg,
    #[command(flatten)]
    json: JsonArg,
}

pub fn run(args: EvalArgs, global: &GlobalArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    let existing = args.force.existing();
    let mut checkpoint = args.checkpoint.load(&ui, args.model.weights)?;
    let puzzles = open_test_puzzles(&ui, &args.data, &checkpoint)?;
    if let Some(segments) = args.segments {
        checkpoint.config.arch.halt_max_steps = segments;
    }
    let batch_size = match args.batch_size {
        Some(given) => usize::try_from(given)?,
        None => usize::try_from(checkpoint.config.global_batch_size)?,
    };
    ensure!(batch_size > 0, "{}: its global_batch_size is 0: give --batch-size", checkpoint.path.display());

    let runtime = global.init()?;
    let data = Arc::new(puzzles.dataset);
    let keys = if args.keys.is_empty() { &SavedTensor::ALL[..] } else { &args.keys };
    let mut outputs = None;
    if let Some(path) = &args.save_outputs {
        let sets: Vec<&str> = data.sets().iter().filter(|set| !set.is_empty()).map(|set| set.name()).collect();
        let saved = SavedOutputs::new(path, &sets, keys);
        check_files(saved.files().iter().map(PathBuf::as_path), existing, &args.json)?;
        outputs = Some(saved);
    }
    let model = checkpoint.model(Dims::from(data.meta()), runtime, args.model.dtype)?;
    say!(
        ui,
        "{} {} puzzles of {} in batches of {batch_size}: {}, {} segments, {} on {}",
        data.len(),
        puzzles.geometry,
        puzzles.origin,
        checkpoint.path.display(),
        model.config().halt_max_steps,
        model.config().forward_dtype.short_name(),
        device_name(runtime.device)
    );
    foretell_work(&ui, &model, model.config().flops_per_row() * data.len() as f64);
    let mut sums = EvaluationSums::default();
    let asked_to_stop = stop_flag("");
    let bar = ui.progress(data.len() as u64, "eval", "puzzles");
    for batch in SequentialSampler::new(Arc::clone(&data), batch_size, 0, 1)? {
        let batch = batch?;
        let set = data.sets()[batch.set].name();
        let last = sums.add(&model, set, &batch.batch);
        if let Some(outputs) = &mut outputs {
            outputs.add(set, &last, batch.examples.len())?;
        }
        bar.inc(batch.examples.len() as u64);
        if asked_to_stop.load(Ordering::SeqCst) {
            bar.finish_and_clear();
            say!(ui, "interrupted; no results were written");
            bail!(Interrupted::TOLD);
        }
    }
    bar.finish_and_clear();
    let evaluation = sums.finish(false)?;
    print(&ui, &evaluation);
    if let (Some(outputs), Some(path)) = (outputs, &args.save_outputs) {
        outputs.write(existing)?;
        say!(ui, "outputs: {}", path.display());
    }
    ui.emit(&evaluation)
}

fn print(ui: &Ui, evaluation: &Evaluation) {
    for (set, metrics) in &evaluation.sets {
        let last = metrics.last();
        say!(ui, "");
        say!(ui, "set {set}");
        let mut table = Table::headed(["segment", "loss", "cells", "exact"], &[]);
        for (k, segment) in metrics.segments.iter().enumerate() {
            let percent = |share: f64| format!("{:.2} %", 100.0 * share);
            let (cells, exact) = (percent(segment.accuracy), percent(segment.exact_accuracy));
            table.row(cells![k + 1, format!("{:.4}", segment.lm_loss), cells, exact]);
        }
        table.print(ui);
        say!(
            ui,
            "last: q_halt right for {:.2} %, q_halt_loss {:.4}, {:.2} segments",
            100.0 * last.q_halt_accuracy,
            last.q_halt_loss,
            last.steps
        );
    }
}
