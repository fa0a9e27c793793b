//! One training run on several processes, as upstream's: each works on its rows of the global batch, and all of them make
//! the same step.
//!
//! - dense gradients, each of `loss / global_batch_size`, are summed over the ranks in f32, as upstream's are; where they
//!   are kept in bf16, the sum is rounded once, as a single process rounds its own
//! - rows and identifiers of the puzzle embedding's gradient are gathered in the order of the global batch
//! - metrics and evaluations are sums over all rows
//! - what a run begins with is rank 0's; a stop is everybody's as soon as it is anybody's
//!
//! The flat gradient is one bucket, summed after the backward pass.

use anyhow::{Result, bail};
use serde_json::Value;
use tch::{Device, Kind, Tensor, no_grad};

use super::{StopReason, TrainPlan, Trainer, changes};
use crate::{
    checkpoint::Manifest,
    config::TrainConfig,
    eval::evaluate::EvaluationSums,
    metrics::Metric,
    model::Rows,
    runtime::{Acceleration, dist::Group},
};

/// The processes of a run; one alone computes as if this were not here.
#[derive(Debug, Default)]
pub struct Peers {
    group: Option<Group>,
}

impl Peers {
    /// A run in this process alone.
    pub fn alone() -> Self {
        Self::default()
    }

    /// A run shared with the processes of a group.
    pub fn new(group: Group) -> Self {
        Self { group: Some(group) }
    }

    /// Whether this process trains alone.
    pub fn are_none(&self) -> bool {
        self.group.is_none()
    }

    /// This process, from 0.
    pub fn rank(&self) -> usize {
        self.group.as_ref().map_or(0, Group::rank)
    }

    /// Number of processes.
    pub fn world(&self) -> usize {
        self.group.as_ref().map_or(1, Group::world)
    }

    /// Whether this process writes the run's files.
    pub fn leads(&self) -> bool {
        self.rank() == 0
    }

    /// Ends the work with the other ranks, when all of them have come here.
    pub fn leave(self) -> Result<()> {
        self.group.map_or(Ok(()), Group::leave)
    }

    /// Checks that every rank was started for the same run as rank 0: configuration, data of both splits, the checkpoint
    /// to go on from, and how it computes.
    ///
    /// # Errors
    /// What differs, by its key.
    pub fn agree_on(&self, plan: &TrainPlan, acceleration: Acceleration) -> Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        let resumed = plan.resume.as_ref();
        let mine = serde_json::json!({
            "config": plan.config, "data": plan.fingerprint, "test_data": plan.test_fingerprint,
            "resumed": resumed.map(|point| point.state.step),
            "checkpoint": resumed.map(|point| Manifest::read(&point.folder)).transpose()?,
            "forced": plan.forced, "acceleration": format!("{acceleration:?}"),
        });
        let theirs: Value = serde_json::from_slice(&broadcast_bytes(group, mine.to_string().as_bytes())?)?;
        let first: TrainConfig = serde_json::from_value(theirs["config"].clone())?;
        // Where a host has the data is its own affair.
        let mut differs = changes(&TrainConfig { data_path: plan.config.data_path.clone(), ..first }, &plan.config);
        for (key, split) in [("data", "training"), ("test_data", "test")] {
            if theirs[key] != mine[key] {
                differs.push(format!("the {split} data in {} differ", plan.config.data_path));
            }
        }
        if theirs["resumed"] != mine["resumed"] {
            differs.push(format!("it resumes from step {}, rank 0 from {}", mine["resumed"], theirs["resumed"]));
        } else if let Some(point) = resumed.filter(|_| theirs["checkpoint"] != mine["checkpoint"]) {
            differs.push(format!("{} is another checkpoint", point.folder.display()));
        }
        if theirs["forced"] != mine["forced"] {
            differs.push("--force was given to one of them".to_owned());
        }
        if theirs["acceleration"] != mine["acceleration"] {
            let (mine, theirs) = (&mine["acceleration"], &theirs["acceleration"]);
            differs
                .push(format!("it computes with {mine}, rank 0 with {theirs} (--deterministic and HRM_* variables)"));
        }
        // Every rank hears of it, so that rank 0 can tell.
        let mine = differs.join("; ");
        let complaints = gather_texts(group, &mine)?;
        if let Some((rank, what)) = complaints.iter().enumerate().find(|(_, what)| !what.is_empty()) {
            bail!("rank {rank} was started for a different run than rank 0: {what}");
        }
        Ok(())
    }

    /// Gives every rank the parameters, buffers and moments of rank 0.
    pub fn share(&self, trainer: &mut Trainer) -> Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        let (h_init, l_init) = trainer.model.initial_state();
        let fixed = [trainer.model.params().master(), &trainer.adam.m, &trainer.adam.v, h_init, l_init];
        for tensor in fixed.into_iter().chain(&trainer.ema).chain(trainer.model.puzzle_emb()) {
            group.broadcast(tensor, 0)?;
        }
        trainer.model.params_mut().refresh();
        // Nobody goes on, and changes files, before all have read theirs.
        group.barrier()
    }

    /// Sums the dense gradients over the ranks.
    ///
    /// # Shapes
    /// `flat`: `[N]`, the forward dtype, contiguous; changed in place.
    pub fn sum_gradients(&self, flat: &Tensor) -> Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        if flat.kind() == Kind::Float {
            return group.all_reduce(flat);
        }
        let wide = flat.to_kind(Kind::Float);
        group.all_reduce(&wide)?;
        no_grad(|| flat.shallow_clone().copy_(&wide));
        Ok(())
    }

    /// The rows of all ranks, in the order of the global batch.
    pub fn gather<T: Rows>(&self, local: &T) -> Result<T> {
        if self.are_none() {
            return Ok(local.shallow_clone());
        }
        local.try_map_tensors(&mut |t: &Tensor| self.gather_rows(t))
    }

    /// This rank's rows of a tensor of the global batch; where its rows cannot be shared equally, the tensor itself.
    pub fn own_rows(&self, global: &Tensor) -> Tensor {
        let (rows, world) = (global.size().first().copied().unwrap_or(0), self.world() as i64);
        if rows % world != 0 {
            return global.shallow_clone();
        }
        global.narrow(0, self.rank() as i64 * (rows / world), rows / world)
    }

    /// Row numbers of all ranks.
    pub fn gather_examples(&self, local: &[usize]) -> Result<Vec<usize>> {
        let local: Vec<i64> = local.iter().map(|&e| i64::try_from(e)).collect::<Result<_, _>>()?;
        let all = Vec::<i64>::try_from(self.gather_rows(&Tensor::from_slice(&local))?)?;
        Ok(all.into_iter().map(usize::try_from).collect::<Result<_, _>>()?)
    }

    /// `[n, ...]` of every rank as `[world n, ...]`, in the order of the ranks, which is that of the global batch.
    fn gather_rows(&self, local: &Tensor) -> Result<Tensor> {
        let Some(group) = &self.group else { return Ok(local.shallow_clone()) };
        Ok(group.all_gather(&local.contiguous())?.flatten(0, 1))
    }

    /// Sums the metrics of some steps over the ranks. What stands behind [`Metric::ALL`] is the same on all of them.
    ///
    /// # Shapes
    /// `steps`: `[n, 8 or more]` f64, on the host; changed in place.
    pub fn sum_metrics(&self, steps: &Tensor) -> Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        let mut sums = steps.narrow(1, 0, Metric::COUNT as i64);
        let reduced = sums.contiguous();
        group.all_reduce(&reduced)?;
        sums.copy_(&reduced);
        Ok(())
    }

    /// Sums an evaluation over the ranks.
    pub fn sum_evaluation(&self, sums: &mut EvaluationSums) -> Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        for (_, sum) in sums.sums_mut() {
            group.all_reduce(sum)?;
        }
        Ok(())
    }

    /// The reason to stop that any rank has.
    pub fn agree_to_stop(&self, mine: Option<StopReason>) -> Result<Option<StopReason>> {
        let Some(group) = &self.group else { return Ok(mine) };
        let reasons = [StopReason::Asked, StopReason::MaxMinutes];
        let votes = Tensor::from_slice(&reasons.map(|reason| i64::from(mine == Some(reason))));
        group.all_reduce(&votes)?;
        Ok(reasons.into_iter().enumerate().find(|&(i, _)| votes.int64_value(&[i as i64]) > 0).map(|(_, reason)| reason))
    }
}

/// Every rank's text, cut to 1,000 bytes.
fn gather_texts(group: &Group, mine: &str) -> Result<Vec<String>> {
    let mut bytes = mine.as_bytes().to_vec();
    bytes.resize(1000, 0);
    let all = Vec::<u8>::try_from(group.all_gather(&Tensor::from_slice(&bytes))?.view([-1]))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    Ok(all.chunks(bytes.len()).map(text).collect())
}

/// Rank 0's bytes on every rank.
fn broadcast_bytes(group: &Group, mine: &[u8]) -> Result<Vec<u8>> {
    let length = Tensor::from_slice(&[i64::try_from(mine.len())?]);
    group.broadcast(&length, 0)?;
    let length = length.int64_value(&[0]);
    if !(0..1 << 30).contains(&length) {
        bail!("rank 0 announced {length} bytes");
    }
    let bytes = match group.rank() {
        0 => Tensor::from_slice(mine),
        _ => Tensor::zeros([length], (Kind::Uint8, Device::Cpu)),
    };
    group.broadcast(&bytes, 0)?;
    Ok(Vec::try_from(bytes)?)
}
