//! What came of a step: curves and figures of its runs, and what its network costs.

use std::fmt;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::steps::Step;
use crate::pipeline::{Epoch, Provenance, Run, mean, mean_and_deviation};

/// A run that is complete.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) seed: u64,
    pub(super) epochs: Vec<Epoch>,
    pub(super) provenance: Provenance,
}

/// All runs of one step.
#[derive(Clone, Debug)]
pub(super) struct OfStep {
    pub(super) step: &'static Step,
    pub(super) network: Network,
    pub(super) runs: Vec<Outcome>,
    pub(super) num_diverged: usize,
}

/// A step's network, as the binary describes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Network {
    pub(super) change: String,
    pub(super) num_parameters: u64,
    /// Billions of operations of a training step, for one image.
    pub(super) gflop: f64,
}

impl Outcome {
    pub(super) fn of_run(seed: u64, run: &Run) -> Result<Self> {
        let epochs = Epoch::of_run(&run.folder)?;
        if epochs.is_empty() {
            anyhow::bail!("{} has no epoch", run.folder.display());
        }
        Ok(Self { seed, epochs, provenance: Provenance::of_run(&run.folder)? })
    }

    /// Validation accuracy after the last epoch: choosing the best one would choose on what is reported.
    pub(super) fn top1(&self) -> f64 {
        self.epochs.last().map_or(0.0, |epoch| epoch.val_top1)
    }

    fn images_per_second(&self) -> Option<f64> {
        mean(&self.epochs.iter().map(|epoch| epoch.images_per_second).collect::<Vec<_>>())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.images_per_second().unwrap_or(0.0);
        write!(f, "val top-1 {:.2} % after {} epochs, {rate:.0} images/s", 100.0 * self.top1(), self.epochs.len())
    }
}

impl OfStep {
    /// Mean and standard deviation of the accuracy over the seeds.
    pub(super) fn top1(&self) -> Option<(f64, Option<f64>)> {
        mean_and_deviation(&self.runs.iter().map(Outcome::top1).collect::<Vec<_>>())
    }

    pub(super) fn images_per_second(&self) -> Option<f64> {
        mean(&self.runs.iter().filter_map(Outcome::images_per_second).collect::<Vec<_>>())
    }
}

impl Network {
    /// Reads what `taper inspect model` prints.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let after = |word: &str| text.lines().find_map(|line| line.strip_prefix(word)).map(str::trim);
        let field = |word: &str| after(word).with_context(|| format!("`taper inspect model` does not say {word}"));
        let number = |word: &str| field(word).map(|rest| rest.split_whitespace().next().unwrap_or_default().to_owned());
        let change = field("step ")?.split_once(' ').map(|(_, words)| words.trim().to_owned());
        Ok(Self {
            change: change.context("`taper inspect model` does not say what the step changes")?,
            num_parameters: number("parameters")?.parse().context("the number of parameters")?,
            gflop: number("training")?.parse().context("the operations of a step")?,
        })
    }
}

/// Everything but times: equal studies give equal bytes.
pub(super) fn to_json(settings: &Value, outcomes: &[OfStep]) -> Value {
    let step = |of: &OfStep| {
        let top1 = of.top1();
        json!({
            "step": of.step.number,
            "change": of.network.change,
            "val_top1_mean": top1.map(|(mean, _)| mean),
            "val_top1_std": top1.and_then(|(_, deviation)| deviation),
            "report": of.step.report,
            "num_parameters": of.network.num_parameters,
            "gflop_per_training_image": of.network.gflop,
            "num_diverged": of.num_diverged,
            "runs": of.runs.iter().map(run).collect::<Vec<_>>(),
        })
    };
    json!({ "settings": settings, "steps": outcomes.iter().map(step).collect::<Vec<_>>() })
}

fn run(outcome: &Outcome) -> Value {
    let curve = |value: fn(&Epoch) -> f64| outcome.epochs.iter().map(value).collect::<Vec<_>>();
    json!({
        "seed": outcome.seed,
        "data": outcome.provenance.data,
        "val_top1": curve(|epoch| epoch.val_top1),
        "val_loss": curve(|epoch| epoch.val_loss),
        "train_top1": curve(|epoch| epoch.train_top1),
        "train_loss": curve(|epoch| epoch.train_loss),
    })
}

/// One line for each epoch of each run.
pub(super) fn curves(outcomes: &[OfStep]) -> String {
    let mut text = "step,seed,epoch,train_loss,train_top1,val_loss,val_top1\n".to_owned();
    for of in outcomes {
        for run in &of.runs {
            for epoch in &run.epochs {
                let Epoch { epoch, train_loss, train_top1, val_loss, val_top1, .. } = epoch;
                let (step, seed) = (of.step.number, run.seed);
                text += &format!("{step},{seed},{epoch},{train_loss},{train_top1},{val_loss},{val_top1}\n");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::Network;

    #[test]
    fn a_network_is_read_from_what_the_binary_prints() {
        let text = "step 3        one more sub-block\n{\"name\":\"ablation\"}\nclasses       100\nparameters    287018\nforward       0.012 GMAC an image\ntraining      0.074 GFLOP an image\n";
        let expected = Network { change: "one more sub-block".into(), num_parameters: 287_018, gflop: 0.074 };
        assert_eq!(Network::parse(text).unwrap(), expected);
        let error = Network::parse("parameters 3\n").unwrap_err();
        assert!(error.to_string().contains("step"), "{error}");
    }
}
