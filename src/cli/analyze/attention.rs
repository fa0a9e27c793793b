//! `hrm analyze attention`.

use anyhow::{Context, Result, ensure};

use crate::{
    analysis::attention::{HeadShares, attention_of},
    cli::{
        GlobalArgs,
        args::{output::OutputArgs, puzzle::PuzzleArgs},
        table::{Table, cells},
        ui::Ui,
        work::foretell_work,
    },
    config::MOST_SEGMENTS,
    puzzle::Geometry,
    say,
    study::attention::{AttentionStudy, FILES, wanted_layers},
};

const DETAILS: &str = "\
The model works on a puzzle up to --segment; the maps are those of the last update of each module in that segment: the \
probabilities softmax(q k^T / sqrt(d)) of every head, recomputed in plain form from the layer's own q and k. The command reports \
how far the recomputed attention differs from that of the forward pass.

The table shows for every head, averaged over all cells, how much attention goes to the cell itself, to the other cells \
of its row, column and box (8 each; evenly spread attention would give each 8/81 = 9.9 %; mazes have no such units), \
elsewhere, and to the puzzle embedding. The picture shows every chosen layer's map and the board as --cell sees it.

Files in --output-dir: attention.png, shares.json, shares.npy (its table, f64 [heads of all layers, 7]: itself, row, column, \
box, elsewhere, puzzle, entropy), maps.safetensors (arrays H0, H1, .., L0, .. of [heads, T, T], f32).

Examples:
  hrm analyze attention --index 7
  hrm analyze attention --index 7 --segment 3 --layers H3,L0 --cell 5,5";

/// Where the layers look: attention maps of a puzzle, and what share Sudoku's rules explain
#[derive(clap::Args, Debug)]
#[command(after_long_help = DETAILS, after_help = "Example: hrm analyze attention --index 7    (--help has the details)")]
pub struct AttentionArgs {
    #[command(flatten)]
    subject: PuzzleArgs,
    /// The segment whose maps are taken [default: the last]
    #[arg(long, value_name = "N")]
    segment: Option<usize>,
    /// Layers that are drawn, H or L and a number from 0 [default: the first and last of each module]
    #[arg(long, value_name = "H0[,L3...]", value_delimiter = ',')]
    layers: Vec<String>,
    /// The cell whose view is drawn: row and column from 1 [default: the first open one]
    #[arg(long, value_name = "ROW,COLUMN")]
    cell: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn run(args: &AttentionArgs, global: &GlobalArgs) -> Result<()> {
    let ui = args.output.ui();
    let (checkpoint, chosen) = args.subject.choose(&ui)?;
    let puzzle = &chosen.puzzle;
    let geometry = puzzle.geometry();
    let cell = match &args.cell {
        Some(text) => cell_of(text, geometry)?,
        None => (0..geometry.cells()).find(|&cell| puzzle.is_open(cell)).unwrap_or(0),
    };
    let runtime = global.init()?;
    let model = checkpoint.model(chosen.dims, runtime, args.subject.model.dtype)?;
    let last = usize::try_from(model.config().halt_max_steps)?;
    let segment = args.segment.unwrap_or(last);
    ensure!(
        i64::try_from(segment).is_ok_and(|s| (1..=MOST_SEGMENTS).contains(&s)),
        "--segment {segment}: segments count from 1 to {MOST_SEGMENTS}"
    );
    foretell_work(&ui, &model, model.config().flops_per_segment() * segment as f64);
    let layers = wanted_layers(&args.layers, &model)?;
    let output = args.output.open(FILES)?;

    let found = attention_of(&model, puzzle, segment)?;
    let shares = found.shares(geometry)?;
    print_shares(&ui, geometry, &shares);
    say!(
        ui,
        "recomputed in plain form; differs from the forward pass by at most {:.1e} of its largest value",
        found.largest_difference
    );
    let study = AttentionStudy {
        checkpoint: &checkpoint,
        model: &model,
        chosen: &chosen,
        segment,
        found: &found,
        shares,
        cell,
        layers: &layers,
    };
    let (report, file) = study.write(&output)?;
    say!(ui, "picture: {}", report.pictures.join(", "));
    say!(ui, "data: {file}, {}, {}", report.maps, report.arrays.join(", "));
    ui.emit(&report)
}

/// The table of heads; a maze has no units of Sudoku.
fn print_shares(ui: &Ui, geometry: Geometry, shares: &[HeadShares]) {
    let units = geometry.is_sudoku();
    let headings = ["layer", "head", "itself", "row", "column", "box", "elsewhere", "puzzle", "entropy"];
    let shown = |k: &usize| units || !(3..6).contains(k);
    let mut table = Table::headed((0..headings.len()).filter(shown).map(|k| headings[k]), &[]);
    for s in shares {
        let percent = |share: f64| format!("{:.1}", 100.0 * share);
        let cells = cells![
            format!("{}{}", s.module, s.layer),
            s.head,
            percent(s.itself),
            percent(s.row),
            percent(s.column),
            percent(s.cell_box),
            percent(s.elsewhere),
            percent(s.puzzle),
            format!("{:.2}", s.entropy)
        ];
        table.row((0..cells.len()).filter(shown).map(|k| &cells[k]));
    }
    say!(ui, "");
    for (k, line) in table.lines().iter().enumerate() {
        say!(ui, "{line}{}", if k == 0 { "   (attention, %; entropy, bits)" } else { "" });
    }
}

fn cell_of(text: &str, geometry: Geometry) -> Result<usize> {
    let (height, width) = (geometry.height(), geometry.width());
    let wanted = || format!("--cell {text:?}: give a row from 1 to {height} and a column from 1 to {width}, like 2,3");
    let (row, column) = text.split_once(',').with_context(wanted)?;
    let number =
        |t: &str, most: usize| t.trim().parse::<usize>().ok().filter(|n| (1..=most).contains(n)).with_context(wanted);
    Ok((number(row, height)? - 1) * width + number(column, width)? - 1)
}
