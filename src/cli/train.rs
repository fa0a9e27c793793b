//! `hrm train`.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use indicatif::ProgressBar;
use serde_json::json;

use super::{
    GlobalArgs,
    args::{checkpoints::compute_dtype, launch::LaunchArgs},
    ui::{self, JsonArg, Ui, sparkline, warn},
    work::least_time,
};
use crate::{
    bench, config,
    dtype::Dtype,
    escape::shell_word,
    eval::evaluate::Evaluation,
    metrics::MetricValues,
    outcome::Interrupted,
    runtime::{self, Runtime, catch_panics, device_name, dist::Group, launch::Role},
    say,
    signals::stop_flag,
    train::{
        self, DecidedRun, Peers, Resume, StopReason, TrainMetrics, TrainObserver, TrainPlan, TrainRequest, TrainSummary,
    },
};

const DETAILS: &str = "\
Without arguments: the 27M Sudoku model and the published Sudoku recipe (arch.preset=sudoku recipe=sudoku) on \
data/sudoku-extreme-full.

Examples:
  hrm train
  hrm train data_path=data/sudoku-extreme-full-hint recipe=sudoku arch.preset=sudoku
  hrm train data_path=D epochs=2000 eval_interval=500 global_batch_size=64 lr=1e-3 arch.hidden_size=128 arch.num_heads=4
  hrm train --config config/cfg_pretrain.yaml data_path=D
  hrm train --resume 'checkpoints/Data ACT-torch/my run'
  hrm train --resume auto run_name=nightly data_path=D max_minutes=55
  hrm train --nproc-per-node gpu data_path=D
  torchrun --nproc-per-node 8 --no-python hrm train data_path=D

Later settings win: built-in defaults, preset and recipe, --config, KEY=VALUE.
The run goes to checkpoints/<project>/<run>/: all_config.yaml, metrics.jsonl (a line per step and per \
evaluation) and a folder step_N for each checkpoint. Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 write a checkpoint and stop; the same signal again, other than \
SIGUSR1, stops at once.

--resume continues from the newest intact checkpoint as if the run had never stopped: on a CPU bit for bit, on a GPU \
too with --deterministic in both runs, else up to the order of its sums. The run's own settings apply; a KEY=VALUE that differs from them is refused unless --force is given, except for those that concern only saving and run time.

Many processes share every batch: --nproc-per-node N starts N of them on this host; on several hosts the same command is started on each with --nnodes, --node-rank and --master-addr. torchrun can start them instead. The result is that of one process, up to the order of sums; see docs/CLUSTER.md.";

/// Examples and the table of all keys.
fn details() -> String {
    let presets = config::PRESETS.iter().map(|p| ("arch.preset", p));
    let sets = presets.chain(config::RECIPES.iter().map(|p| ("recipe", p)));
    let sets: String = sets.map(|(key, p)| format!("  {key}={}  {}\n", p.name, p.help)).collect();
    let (upstream, ours) = (config::keys::help_text(false), config::keys::help_text(true));
    format!(
        "{DETAILS}\n\nSets of keys:\n{sets}\nKeys [default]:\n{upstream}\nKeys that upstream does not have:\n{ours}"
    )
}

/// Train a model
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: hrm train data_path=D epochs=2000 lr=1e-3    (--help lists all keys)", after_long_help = details())]
pub struct TrainArgs {
    /// Settings in upstream's names, such as epochs=2000, lr=1e-4, arch.hidden_size=256
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Read settings from a YAML file in upstream's layout
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Compute in this dtype instead of arch.forward_dtype
    #[arg(long, value_name = "bf16|f32", value_parser = compute_dtype())]
    dtype: Option<Dtype>,
    /// Continue a run: its folder or one of its step_N folders; auto: the run that these settings name, or a new one
    #[arg(long, value_name = "RUN|auto")]
    resume: Option<PathBuf>,
    /// With --resume: continue in spite of changed settings or data
    #[arg(long, requires = "resume")]
    force: bool,
    /// Bitwise reproducible on a GPU, at some cost in speed
    #[arg(long)]
    pub deterministic: bool,
    /// Write TensorBoard event files into the run's folder too
    #[arg(long)]
    tensorboard: bool,
    /// Check everything and print the plan, without training
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    json: JsonArg,
    #[command(flatten)]
    launch: LaunchArgs,
}

pub fn run(args: TrainArgs, global: &GlobalArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    if args.deterministic {
        runtime::make_deterministic()?;
    }
    let role = args.launch.role(global.device)?;
    ui::only_errors(!role.reports() && !args.dry_run);
    let mut plan = plan(&args, global, &role, &ui)?;
    plan.share(role.rank(), role.world())?;
    if let Role::Launcher(launch) = &role
        && !args.dry_run
    {
        let decided = DecidedRun::from(&plan);
        drop(plan);
        return launch.run(&decided);
    }
    let mut runtime = global.init_on(role.device(global.device)?)?;
    runtime.acceleration.tuned_products &= !args.deterministic;
    if role.rank() == 0 {
        describe(&ui, &plan, runtime, role.world(), global.threads.is_some());
    }
    if args.dry_run {
        return ui.emit(&json!({ "derived": plan.derived(), "config": plan.config }));
    }

    let stop = stop_flag("stopping after this step with a checkpoint; Ctrl-C again stops at once");
    let mut watcher = Watcher::new(&ui, &plan, stop);
    let summary = catch_panics(|| {
        let peers = match role {
            Role::Rank(rank) => Peers::new(Group::join(rank.place, runtime.device)?),
            _ => Peers::alone(),
        };
        train::run(&plan, runtime.into(), peers, &mut watcher)
    })
    .map_err(|e| plan.with_advice(e))?;
    watcher.bar.finish_and_clear();
    summarise(&ui, &summary, &watcher.losses);
    ui.emit(&summary)?;
    ensure!(summary.stopped_by != Some(StopReason::Asked), Interrupted::TOLD);
    Ok(())
}

/// What the launcher decided, else what the user asked for; checked.
fn plan(args: &TrainArgs, global: &GlobalArgs, role: &Role, ui: &Ui) -> Result<TrainPlan> {
    if let Some(decided) = role.handed_down::<DecidedRun>()? {
        return decided.plan();
    }
    let request = TrainRequest {
        config_file: args.config.clone(),
        overrides: args.overrides.clone(),
        seed: global.seed,
        dtype: args.dtype,
        resume: match &args.resume {
            None => Resume::No,
            Some(path) if path == Path::new("auto") => Resume::Auto,
            Some(path) => Resume::From(path.clone()),
        },
        force: args.force,
        tensorboard: args.tensorboard,
    };
    let planned = request.plan(&mut rand::rng())?;
    for note in &planned.notes {
        say!(ui, "{note}");
    }
    Ok(planned.plan)
}

fn summarise(ui: &Ui, summary: &TrainSummary, losses: &[f64]) {
    if summary.stopped {
        let why = if summary.stopped_by == Some(StopReason::MaxMinutes) { ", as max_minutes asks" } else { "" };
        say!(ui, "stopped at step {} of {}{why}", summary.steps, summary.total_steps);
        say!(ui, "go on:      hrm train --resume {}", shell_word(&summary.run_dir));
    } else {
        say!(ui, "done: {} steps", summary.steps);
    }
    // Rows work on a puzzle for several steps: means of some dozen steps show what single losses hide.
    if losses.len() >= 200 {
        let (first, last) = (mean(&losses[..50]), mean(&losses[losses.len() - 50..]));
        say!(ui, "loss:       {first:.3} {} {last:.3} (first and last 50 steps)", sparkline(losses, 40));
    }
    if let Some(at) = &summary.checkpoint {
        say!(ui, "checkpoint: {}", at.display());
        say!(ui, "try it:     hrm infer --checkpoint {}", shell_word(at));
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn describe(ui: &Ui, plan: &TrainPlan, runtime: Runtime, world: usize, threads_asked: bool) {
    let device = runtime.device;
    let (c, m, d) = (&plan.config, &plan.model, plan.derived());
    say!(
        ui,
        "data        {} ({} puzzles in {} boards; test {})",
        c.data_path,
        plan.train.meta().total_groups,
        plan.train.len(),
        plan.test.len()
    );
    say!(
        ui,
        "model       {:.2}M parameters: hidden {}, {} heads, {}+{} layers, {}x{} cycles, {} on {}",
        d.parameters as f64 / 1e6,
        m.hidden_size,
        m.num_heads,
        m.h_layers,
        m.l_layers,
        m.h_cycles,
        m.l_cycles,
        m.forward_dtype.short_name(),
        device_name(device)
    );
    say!(
        ui,
        "plan        {} steps of {} puzzles ({} tokens), {} evaluations",
        d.total_steps,
        c.global_batch_size,
        d.tokens_per_step,
        plan.passes
    );
    if world > 1 {
        let rows = plan.sampler.local_batch_size();
        let plural = if runtime.threads == 1 { "" } else { "s" };
        // torchrun sets it to 1 where the user has not: worth knowing on a CPU.
        let by = match std::env::var("OMP_NUM_THREADS") {
            Ok(omp) if !threads_asked => format!(" (OMP_NUM_THREADS={omp})"),
            _ => String::new(),
        };
        say!(
            ui,
            "processes   {world}, each with {rows} of a step's puzzles and {} CPU thread{plural}{by}",
            runtime.threads
        );
    }
    let rate = bench::matmul_rate(device, m.forward_dtype) * world as f64;
    let least = least_time(d.flops_per_step * d.total_steps as f64, rate);
    say!(
        ui,
        "work        {:.2} TFLOP a step; at this machine's {:.2} TFLOP/s at least {}",
        d.flops_per_step / 1e12,
        rate / 1e12,
        indicatif::HumanDuration(least)
    );
    say!(ui, "run         {}", plan.run_dir.display());
}

/// Shows a run: a bar on a terminal, a line now and then elsewhere.
struct Watcher {
    ui: Ui,
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
    total: i64,
    printed: Instant,
    /// Of every step.
    losses: Vec<f64>,
    /// How many of them earlier lines have told.
    told: usize,
}

impl Watcher {
    fn new(ui: &Ui, plan: &TrainPlan, stop: Arc<AtomicBool>) -> Self {
        let bar = ui.progress(plan.total_steps as u64, "training", "steps");
        bar.set_position(plan.resume.as_ref().map_or(0, |point| point.state.step as u64));
        bar.reset_eta();
        Self {
            ui: ui.clone(),
            bar,
            stop,
            total: plan.total_steps,
            printed: Instant::now(),
            losses: Vec::new(),
            told: 0,
        }
    }

    fn line(&self, text: std::fmt::Arguments<'_>) {
        self.bar.suspend(|| self.ui.say(text));
    }
}

impl TrainObserver for Watcher {
    fn step(&mut self, step: i64, metrics: &TrainMetrics) -> bool {
        let MetricValues { lm_loss, accuracy, exact_accuracy, .. } = metrics.means;
        self.losses.push(lm_loss);
        self.bar.set_position(step as u64);
        self.bar.set_message(format!("loss {lm_loss:.3} exact {:.1} %", 100.0 * exact_accuracy));
        let every = if self.bar.is_hidden() { Duration::from_secs(10) } else { Duration::from_secs(60) };
        if step == 1 || step == self.total || self.printed.elapsed() >= every {
            let mean = mean(&self.losses[self.told..]);
            self.line(format_args!(
                "step {step:>6}/{}  loss {mean:.4}  cells right {:>5.1} %  exact {:>5.1} %  lr {:.2e}",
                self.total,
                100.0 * accuracy,
                100.0 * exact_accuracy,
                metrics.lr
            ));
            self.printed = Instant::now();
            self.told = self.losses.len();
        }
        !self.stop.load(Ordering::SeqCst)
    }

    fn evaluating(&mut self, batch: usize, batches: usize) -> bool {
        self.bar.set_message(format!("evaluating {batch}/{batches}"));
        !self.stop.load(Ordering::SeqCst)
    }

    fn evaluated(&mut self, step: i64, evaluation: &Evaluation) {
        for (set, metrics) in &evaluation.sets {
            let MetricValues { lm_loss, accuracy, exact_accuracy, .. } = metrics.last();
            self.line(format_args!(
                "evaluation at step {step}, set {set}: cells right {:.1} %, exact {:.2} %, loss {lm_loss:.4}",
                100.0 * accuracy,
                100.0 * exact_accuracy
            ));
        }
    }

    fn saved(&mut self, _step: i64, folder: &Path) {
        self.line(format_args!("saved {}", folder.display()));
    }

    fn warn(&mut self, text: &str) {
        self.bar.suspend(|| warn(format_args!("{text}")));
    }
}
