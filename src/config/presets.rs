//! Named sets of values: `arch.preset=NAME` and `recipe=NAME`.

/// A named set of `KEY=VALUE` lines.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// What `arch.preset=` or `recipe=` calls it.
    pub name: &'static str,
    /// One line for help and for what a run prints.
    pub help: &'static str,
    /// Later lines win, as on the command line.
    pub values: &'static [&'static str],
}

/// Architectures, chosen by `arch.preset=NAME`.
pub const PRESETS: &[Preset] = &[SUDOKU, SUDOKU_MINI];

const SUDOKU: Preset = Preset {
    name: "sudoku",
    help: "upstream's 27M model: hidden_size 512, 8 heads, 4+4 layers, 2x2 cycles, 16 segments",
    values: &[
        "arch.H_cycles=2",
        "arch.L_cycles=2",
        "arch.H_layers=4",
        "arch.L_layers=4",
        "arch.hidden_size=512",
        "arch.num_heads=8",
        "arch.expansion=4",
        "arch.puzzle_emb_ndim=${.hidden_size}",
        "arch.pos_encodings=rope",
        "arch.halt_max_steps=16",
        "arch.halt_exploration_prob=0.1",
        "arch.loss.loss_type=stablemax_cross_entropy",
    ],
};

const SUDOKU_MINI: Preset = Preset {
    name: "sudoku-mini",
    help: "a quarter of the size, 6.8M parameters: hidden_size 256, 4 heads, otherwise as sudoku",
    values: &[
        "arch.H_cycles=2",
        "arch.L_cycles=2",
        "arch.H_layers=4",
        "arch.L_layers=4",
        "arch.hidden_size=256",
        "arch.num_heads=4",
        "arch.expansion=4",
        "arch.puzzle_emb_ndim=${.hidden_size}",
        "arch.pos_encodings=rope",
        "arch.halt_max_steps=16",
        "arch.halt_exploration_prob=0.1",
        "arch.loss.loss_type=stablemax_cross_entropy",
    ],
};

/// Hyper-parameters, chosen by `recipe=NAME`.
pub const RECIPES: &[Preset] = &[Preset {
    name: "sudoku",
    help: "the analysis paper's Sudoku training: 40,000 epochs at batch 768, lr 1e-4, weight decay 1",
    values: &[
        "epochs=40000",
        "eval_interval=1000",
        "global_batch_size=768",
        "lr=1e-4",
        "puzzle_emb_lr=1e-4",
        "weight_decay=1.0",
        "puzzle_emb_weight_decay=1.0",
    ],
}];
