//! The configurations that commands start from.

use clap::ValueEnum;
use taper_models::Freeze;

/// A recipe of this repository, built in.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
}

/// The default for the built-in data.
pub(crate) const GLYPHS: Recipe = Recipe { name: "glyphs", text: include_str!("../../../data/recipes/glyphs.toml") };
/// The default for training on all other data: the report's network.
pub(crate) const BASENET: Recipe =
    Recipe { name: "basenet-cifar100", text: include_str!("../../../data/recipes/basenet-cifar100.toml") };
/// Fine-tuning of a whole network, or of its last layers.
pub(crate) const FINETUNE: Recipe =
    Recipe { name: "finetune", text: include_str!("../../../data/recipes/finetune.toml") };
/// Training of a head alone.
pub(crate) const FINETUNE_HEAD: Recipe =
    Recipe { name: "finetune-head", text: include_str!("../../../data/recipes/finetune-head.toml") };
/// Fine-tuning as the report did it.
pub(crate) const FINETUNE_REPORT: Recipe =
    Recipe { name: "finetune-report", text: include_str!("../../../data/recipes/finetune-report.toml") };

/// `--recipe` of `taper finetune`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FinetuneRecipe {
    /// Ours, one for whole networks and one for heads
    Default,
    /// The report's: 30 epochs, SGD, 5e-4, batches of 32, the data's own mean and deviation
    Report,
}

impl FinetuneRecipe {
    /// The recipe for what is trained.
    pub(crate) fn when_frozen(self, freeze: &Freeze) -> &'static Recipe {
        match (self, freeze) {
            (Self::Report, _) => &FINETUNE_REPORT,
            (Self::Default, Freeze::Backbone) => &FINETUNE_HEAD,
            (Self::Default, Freeze::None | Freeze::Until(_)) => &FINETUNE,
        }
    }
}
