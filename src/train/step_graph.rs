//! A training step as one CUDA graph, or, with peers, as two: the ranks exchange their gradients between them.

use anyhow::Result;
use tch::{Device, Kind, Tensor, no_grad};

use super::{
    Peers, Trainer,
    pass::{PuzzleGrad, pass},
    step::{StepScalars, follow, update},
};
use crate::{
    model::{DeviceBatch, Exploration, Rows},
    runtime::{CudaGraph, Recorded},
};

/// The whole step as a CUDA graph, with the tensors that it reads its input from and leaves its metrics in. The carry,
/// the parameters and the moments are the trainer's own, changed in place. With peers the graph ends before the exchange
/// of gradients, and a second one begins after it.
#[derive(Debug)]
pub(super) struct StepGraph {
    graph: CudaGraph,
    second: Option<SecondGraph>,
    batch: DeviceBatch,
    draws: Exploration,
    scalars: Tensor,
    metrics: Tensor,
}

/// The optimisers, with the puzzle embedding's gradient before and after the exchange.
#[derive(Debug)]
struct SecondGraph {
    graph: CudaGraph,
    local: Option<PuzzleGrad>,
    gathered: Option<PuzzleGrad>,
}

impl SecondGraph {
    fn exchange(&self, peers: &Peers) -> Result<()> {
        self.gathered.assign(&peers.gather(&self.local)?);
        Ok(())
    }
}

impl Trainer {
    /// A step through the graph; records it first where that was not done. Returns the metrics.
    pub(super) fn graph_step(
        &mut self,
        batch: &DeviceBatch,
        draws: &Exploration,
        scalars: StepScalars,
    ) -> Result<Tensor> {
        let on_device = scalars.upload(self.model.device());
        if let Some(graph) = self.recorded.graph() {
            graph.batch.assign(batch);
            graph.draws.assign(draws);
            graph.scalars.shallow_clone().copy_(&on_device);
            graph.graph.replay()?;
            let metrics = self.exchange(graph.metrics.copy())?;
            if let Some(second) = &graph.second {
                second.exchange(&self.peers)?;
                second.graph.replay()?;
            }
            return Ok(metrics);
        }
        let Device::Cuda(device) = self.model.device() else { panic!("graphs need a GPU") };
        let batch = batch.copy();
        let draws = draws.copy();
        let plan = self.pass_plan();
        if !self.peers.are_none() {
            return self.record_halves(device, batch, draws, on_device);
        }
        let metrics = Tensor::zeros([plan.metrics()], (Kind::Double, self.model.device()));
        let (model, adam, carry) = (&mut self.model, &mut self.adam, &self.carry);
        let (ema, decay) = (self.ema.as_ref(), self.config.ema_decay);
        let mut runs = 0;
        let graph = CudaGraph::record(device, || {
            let done = pass(model, carry, &batch, &draws, plan);
            update(model, adam, done.puzzle.as_ref(), &on_device, None);
            follow(ema, model.params().master(), decay);
            no_grad(|| {
                carry.assign(&done.carry);
                metrics.shallow_clone().copy_(&done.metrics);
            });
            runs += 1;
        });
        let values = metrics.copy();
        let scalars = on_device;
        self.recorded =
            Recorded::of(graph.map(|graph| StepGraph { graph, second: None, batch, draws, scalars, metrics }));
        assert!(runs > 0, "the step ran before it was recorded");
        Ok(values)
    }

    /// Records the step as two graphs, between which the ranks exchange their gradients, while it is done once.
    fn record_halves(
        &mut self,
        device: usize,
        batch: DeviceBatch,
        draws: Exploration,
        scalars: Tensor,
    ) -> Result<Tensor> {
        let plan = self.pass_plan();
        let metrics = Tensor::zeros([plan.metrics()], (Kind::Double, self.model.device()));
        // Sizes are known before the first pass: what outlives the recording is made outside it.
        let local = self.model.puzzle_emb().map(|table| PuzzleGrad {
            identifiers: Tensor::zeros([batch.rows()], (Kind::Int, table.device())),
            grad: Tensor::zeros([batch.rows(), table.size()[1]], (Kind::Float, table.device())),
        });
        let (model, carry) = (&mut self.model, &self.carry);
        let mut runs = 0;
        let graph = CudaGraph::record(device, || {
            // The recorded run overwrites the gradients, as every replay shall.
            model.params_mut().clear_grad();
            let done = pass(model, carry, &batch, &draws, plan);
            no_grad(|| {
                carry.assign(&done.carry);
                metrics.shallow_clone().copy_(&done.metrics);
            });
            local.assign(&done.puzzle);
            runs += 1;
        });
        assert!(runs > 0, "the step ran before it was recorded");
        let summed = self.exchange(metrics.copy())?;
        let gathered = self.peers.gather(&local)?;
        let (model, adam) = (&mut self.model, &mut self.adam);
        let (ema, decay) = (self.ema.as_ref(), self.config.ema_decay);
        let mut runs = 0;
        let second = CudaGraph::record(device, || {
            update(model, adam, gathered.as_ref(), &scalars, None);
            follow(ema, model.params().master(), decay);
            runs += 1;
        });
        assert!(runs > 0, "the step ran before it was recorded");
        self.recorded = Recorded::of(graph.and_then(|graph| {
            let second = Some(SecondGraph { graph: second?, local, gathered });
            Ok(StepGraph { graph, second, batch, draws, scalars, metrics })
        }));
        Ok(summed)
    }
}
