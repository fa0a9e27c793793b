//! `hrm analyze attention`.

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::{
    analysis::attention::{HeadShares, attention_of},
    checkpoint::safetensors_file,
    cli::{
        GlobalArgs,
        study::OutputArgs,
        table::{Table, cells},
        ui::Ui,
        viz::PuzzleArgs,
    },
    model::{Model, to_raw},
    puzzle::PuzzleKind,
    say,
    viz::{
        attention::{AttentionPicture, LayerMap},
        chart::Words,
    },
};

const DETAILS: &str = "\
The model works on a puzzle up to --segment; the maps are those of the last update of each module in that segment: the \
probabilities softmax(q k^T / sqrt(d)) of every head, recomputed plainly from the layer's own q and k. How far what they \
give differs from the forward pass's attention is said.

The table tells for every head, in the mean over all cells, how much attention goes to the cell itself, to the other cells \
of its row, column and box (8 each; evenly spread attention would give each 8/81 = 9.9 %; mazes have no such units), \
elsewhere, and to the puzzle embedding. The picture shows every chosen layer's map and the board as --cell sees it.

Files in --output-dir: attention.png, shares.json, shares.npy (its table, f64 [heads of all layers, 7]: itself, row, column, \
box, elsewhere, puzzle, entropy), maps.safetensors (arrays H0, H1, .., L0, .. of [heads, T, T], f32).

Examples:
  hrm analyze attention --index 7
  hrm analyze attention --index 7 --segment 3 --layers H3,L0 --cell 5,5";

/// Where the layers look: attention maps of a puzzle, and what share Sudoku's rules explain
#[derive(clap::Args, Debug)]
#[command(after_long_help = DETAILS, after_help = "Example: hrm analyze attention --index 7    (--help tells more)")]
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

#[derive(Serialize)]
struct Report {
    title: String,
    pictures: Vec<String>,
    maps: String,
    /// numpy's files.
    arrays: Vec<String>,
    checkpoint: String,
    step: Option<u64>,
    dtype: &'static str,
    puzzle: Vec<u8>,
    segment: usize,
    /// Row and column of the cell that the picture shows, from 1.
    cell: [usize; 2],
    /// Between the recomputed output and the forward pass's, over the latter's largest value.
    largest_difference: f64,
    heads: Vec<HeadShares>,
}

pub fn run(args: &AttentionArgs, global: &GlobalArgs) -> Result<()> {
    let ui = args.output.ui();
    let (checkpoint, chosen) = args.subject.choose(&ui)?;
    let puzzle = &chosen.puzzle;
    let side = puzzle.tokens.len().isqrt();
    let cell = match &args.cell {
        Some(text) => cell_of(text, side)?,
        None => first_open(&puzzle.tokens, puzzle.solution.as_deref()),
    };
    let runtime = global.init()?;
    let model = Model::load(&checkpoint, chosen.dims, runtime.device, args.subject.dtype)?;
    let last = usize::try_from(model.config().halt_max_steps)?;
    let segment = args.segment.unwrap_or(last);
    ensure!((1..=1 << 16).contains(&segment), "--segment {segment}: segments count from 1");
    let all: Vec<String> = [('H', model.config().h_layers), ('L', model.config().l_layers)]
        .iter()
        .flat_map(|(module, n)| (0..*n).map(move |i| format!("{module}{i}")))
        .collect();
    let wanted = wanted_layers(&args.layers, &all)?;
    let output = args.output.open("analysis/attention")?;

    let found = attention_of(&model, puzzle, segment)?;
    let shares = found.shares(puzzle.kind)?;
    print_shares(&ui, puzzle.kind, &shares);
    say!(
        ui,
        "recomputed plainly; differs from the forward pass by at most {:.1e} of its largest value",
        found.largest_difference
    );

    let title = title(&chosen.name, puzzle.kind, segment, &shares);
    let layers = wanted
        .iter()
        .map(|&k| {
            let (values, heads, total) = found.values(k)?;
            Ok(LayerMap { name: all[k].clone(), values, heads, total })
        })
        .collect::<Result<Vec<_>>>()?;
    let picture = AttentionPicture {
        words: Words {
            title: title.clone(),
            subtitle: format!(
                "Left: each position's attention; right: the board as the cell in row {}, column {} sees it, by head",
                cell / side + 1,
                cell % side + 1
            ),
            sources: chosen.sources(&checkpoint),
        },
        kind: puzzle.kind,
        layers,
        in_front: found.in_front,
        cell,
        tokens: puzzle.tokens.clone(),
    };
    let pictures = output.picture("attention", &picture)?;
    let maps = output.path("maps.safetensors");
    let tensors: Vec<_> = found.tensors().into_iter().map(|(name, t)| (name, to_raw(&t))).collect();
    safetensors_file::write(&maps, &tensors)?;
    let columns = |s: &HeadShares| [s.itself, s.row, s.column, s.cell_box, s.elsewhere, s.puzzle, s.entropy];
    let table: Vec<[f64; 7]> = shares.iter().map(columns).collect();
    let arrays = vec![output.array("shares", &ndarray::arr2(&table))?];
    say!(ui, "picture: {}", pictures.join(", "));
    let report = Report {
        title,
        pictures,
        maps: maps.display().to_string(),
        arrays,
        checkpoint: checkpoint.path.display().to_string(),
        step: checkpoint.step,
        dtype: model.config().forward_dtype.short_name(),
        puzzle: puzzle.tokens.clone(),
        segment,
        cell: [cell / side + 1, cell % side + 1],
        largest_difference: found.largest_difference,
        heads: shares,
    };
    say!(ui, "data: {}, {}, {}", output.json("shares.json", &report)?, report.maps, report.arrays.join(", "));
    ui.emit(&report)
}

/// The table of heads; a maze has no units of Sudoku.
fn print_shares(ui: &Ui, kind: PuzzleKind, shares: &[HeadShares]) {
    let units = kind == PuzzleKind::Sudoku;
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

fn cell_of(text: &str, side: usize) -> Result<usize> {
    let wanted = || format!("--cell {text:?}: give a row and a column from 1 to {side}, like 5,5");
    let (row, column) = text.split_once(',').with_context(wanted)?;
    let number = |t: &str| t.trim().parse::<usize>().ok().filter(|n| (1..=side).contains(n)).with_context(wanted);
    Ok((number(row)? - 1) * side + number(column)? - 1)
}

/// The first cell that is to be filled in.
fn first_open(tokens: &[u8], solution: Option<&[u8]>) -> usize {
    let open = |cell: usize| match solution {
        Some(solution) => solution[cell] != tokens[cell],
        None => tokens[cell] <= 1,
    };
    (0..tokens.len()).find(|&c| open(c)).unwrap_or(0)
}

/// Positions of the layers among all.
fn wanted_layers(asked: &[String], all: &[String]) -> Result<Vec<usize>> {
    if asked.is_empty() {
        let of = |module: char| (0..all.len()).filter(move |&k| all[k].starts_with(module));
        let mut chosen: Vec<usize> =
            ['H', 'L'].into_iter().flat_map(|m| [of(m).next(), of(m).next_back()]).flatten().collect();
        chosen.dedup();
        return Ok(chosen);
    }
    asked
        .iter()
        .map(|name| match all.iter().position(|a| a.eq_ignore_ascii_case(name.trim())) {
            Some(k) => Ok(k),
            None => bail!("--layers {name}: this model has {}", all.join(", ")),
        })
        .collect()
}

fn title(name: &str, kind: PuzzleKind, segment: usize, shares: &[HeadShares]) -> String {
    let tied = |s: &HeadShares| 1.0 - s.itself - s.elsewhere - s.puzzle;
    match shares.iter().max_by(|a, b| tied(a).total_cmp(&tied(b))) {
        Some(best) if kind == PuzzleKind::Sudoku => format!(
            "{name}, segment {segment}: head {} of {}{} gives {:.0} % to row, column and box",
            best.head,
            best.module,
            best.layer,
            100.0 * tied(best)
        ),
        _ => format!("{name}: where the layers look in segment {segment}"),
    }
}
