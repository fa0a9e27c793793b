//! What a segment's answers are worth, row by row: what trajectories and runs are made of.

use anyhow::Result;
use serde::{Serialize, Serializer, ser::SerializeStruct};
use tch::{Device, Kind, Tensor};

use crate::{
    dataset::IGNORE_LABEL,
    eval::{
        infer::host_tokens,
        pass::{Ending, finite},
    },
    model::{Model, Segment, loss_head},
    ops::token_loss,
    puzzle::Puzzle,
};

/// One segment's answer to one puzzle.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentFacts {
    /// `exact` and `cells` are there where the solution is known.
    pub end: Ending,
    /// Sudoku only: cells without a digit.
    pub blanks: u64,
    /// Sudoku only: broken rules, see [`crate::puzzle::Boxes::conflicts`].
    pub conflict: Option<u32>,
    /// The model's q of halting after this segment.
    pub q_halt: f32,
    /// The model's q of going on.
    pub q_continue: f32,
    /// Mean token loss over the labelled cells, as in training (nats); none where the solution is unknown.
    pub loss: Option<f64>,
    /// What upstream's loss head and notebook call the loss: `loss` and half the halting loss. Of a batch of one puzzle
    /// with a known solution.
    pub head_loss: Option<f64>,
    /// The answer's tokens. Length seq_len.
    pub prediction: Vec<u8>,
    /// The probability that the model's own output function gives each predicted token. Length seq_len.
    pub confidence: Vec<f64>,
}

impl Serialize for SegmentFacts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let end = &self.end;
        let mut map = serializer.serialize_struct("SegmentFacts", 12)?;
        map.serialize_field("segment", &end.segments)?;
        map.serialize_field("solved", &end.is_right())?;
        map.serialize_field("cells_right", &end.cells)?;
        map.serialize_field("blanks", &self.blanks)?;
        map.serialize_field("conflict", &self.conflict)?;
        map.serialize_field("q_halt", &f64::from(self.q_halt))?;
        map.serialize_field("q_continue", &f64::from(self.q_continue))?;
        map.serialize_field("wants_halt", &end.halted)?;
        map.serialize_field("loss", &self.loss)?;
        map.serialize_field("head_loss", &self.head_loss)?;
        map.serialize_field("prediction", &self.prediction)?;
        map.serialize_field("confidence", &self.confidence.iter().map(|&p| p as f32).collect::<Vec<_>>())?;
        map.end()
    }
}

/// The facts of every row after segment `number` (from 1); the rows are those of `puzzles`.
///
/// # Errors
/// A failure inside libtorch; a model that answers with more tokens than a byte holds.
pub fn facts_of(model: &Model, number: usize, segment: &Segment, puzzles: &[Puzzle]) -> Result<Vec<SegmentFacts>> {
    let predictions = segment.predictions();
    let answers = host_tokens(&predictions)?; // [B, S]
    let losses = token_loss(model.config().loss_type, &segment.logits, &predictions).loss; // [B, S]
    let confidence = host::<f64>(&losses.f_neg()?.f_exp()?, Kind::Double)?;
    let loss = mean_losses(model, segment)?;
    let (q_halt, q_continue) = (host::<f32>(&segment.q_halt, Kind::Float)?, host(&segment.q_continue, Kind::Float)?);
    let alone = puzzles.len() == 1;
    let of_row = |(row, puzzle): (usize, &Puzzle)| {
        let prediction = answers.row(row).iter().map(|&token| u8::try_from(token)).collect::<Result<Vec<u8>, _>>()?;
        let (q_halt, q_continue): (f32, f32) = (q_halt[row], q_continue[row]);
        let (geometry, known) = (puzzle.geometry(), puzzle.solution().is_some());
        let boxes = geometry.boxes();
        let end = Ending {
            answer: geometry.text(&prediction),
            segments: u32::try_from(number)?,
            halted: q_halt > q_continue,
            verified: puzzle.check(&prediction).is_ok(),
            margin: finite(q_halt - q_continue),
            exact: None,
            cells: None,
        };
        Ok(SegmentFacts {
            end: match puzzle.solution() {
                Some(solution) => end.beside(geometry, solution),
                None => end,
            },
            blanks: boxes.map_or(0, |boxes| prediction.iter().filter(|&&t| boxes.digit(t).is_none()).count() as u64),
            conflict: boxes.map(|boxes| boxes.conflicts(&prediction)),
            q_halt,
            q_continue,
            loss: known.then_some(loss[row]),
            head_loss: (alone && known).then(|| head_loss(model, segment)).transpose()?,
            confidence: confidence[row * prediction.len()..(row + 1) * prediction.len()].to_vec(),
            prediction,
        })
    };
    puzzles.iter().enumerate().map(of_row).collect()
}

/// The loss head's value in evaluation: the rows' token losses and half their halting losses, summed.
pub fn head_loss(model: &Model, segment: &Segment) -> Result<f64> {
    let metrics = loss_head(model.ops(), model.config().loss_type, segment, None, 1.0);
    Ok(metrics.loss.f_double_value(&[])?)
}

/// Mean token loss of each row over its labelled cells. Length B.
fn mean_losses(model: &Model, segment: &Segment) -> Result<Vec<f64>> {
    let labels = &segment.carry.batch.labels;
    let over_cells = |t: &Tensor, kind: Kind| t.f_sum_dim_intlist([-1_i64].as_slice(), false, kind);
    let labelled = over_cells(&labels.f_ne(i64::from(IGNORE_LABEL))?, Kind::Int64)?.f_clamp_min(1)?;
    let losses = token_loss(model.config().loss_type, &segment.logits, labels).loss; // [B, S]
    host(&over_cells(&losses, Kind::Double)?.f_div(&labelled)?, Kind::Double)
}

/// A tensor's values in order, on the host.
fn host<T: tch::kind::Element + Copy>(values: &Tensor, kind: Kind) -> Result<Vec<T>> {
    Ok(Vec::try_from(values.f_to_kind(kind)?.f_to_device(Device::Cpu)?.f_reshape([-1])?)?)
}
