//! An architecture as data: what a config file says, what a weights file carries.

use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use crate::ablation::ablation_cost;
use crate::basenet::HEAD_UNITS;
use crate::resnet::resnet_cost;
use crate::{
    AblationConfig, AblationNet, BaseNet, BaseNetConfig, ForeignConfig, LayerOrder, ModelError, Network, ResNet,
    ResNetConfig, ResNetLayout, Shortcut,
};

/// Every architecture this crate builds, by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
#[non_exhaustive]
pub enum ModelConfig {
    /// The report's residual network.
    BaseNet(BaseNetConfig),
    /// A network of the report's way there; see [`ModelConfig::ablation`].
    Ablation(AblationConfig),
    /// [`ResNetLayout::RESNET18`].
    ResNet18(ResNetConfig),
    /// [`ResNetLayout::RESNET34`].
    ResNet34(ResNetConfig),
    /// [`ResNetLayout::RESNET50`].
    ResNet50(ResNetConfig),
    /// [`ResNetLayout::RESNET101`].
    ResNet101(ResNetConfig),
    /// [`ResNetLayout::RESNET152`].
    ResNet152(ResNetConfig),
    /// A frozen backbone of another family. It comes with weights, and has no default.
    Foreign(ForeignConfig),
}

/// A name's family, with what the name fixes.
enum Family<'a> {
    BaseNet(&'a BaseNetConfig),
    Ablation(&'a AblationConfig),
    ResNet(ResNetLayout, &'a ResNetConfig),
    Foreign(&'a ForeignConfig),
}

/// What a model costs, for one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelCost {
    /// Trained values: weights, biases, normalisation scales.
    pub num_parameters: usize,
    /// Multiply-adds of a forward pass in convolutions and linear layers.
    pub forward_macs: usize,
    /// Most values that a training step holds at a time: what is kept for the backward pass, and the gradients on its way.
    pub training_values: usize,
    /// The same where what lies between a batch norm and a convolution is computed again, see
    /// [`taper_kernels::set_recompute`].
    pub recomputing_values: usize,
    /// Most values that a pass without learning holds at a time.
    pub forward_values: usize,
    /// Values of the layer with most weights.
    pub largest_weights: usize,
}

/// The outputs of a network's layers in their order, as memory sees them.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    kept: usize,
    /// Of those kept, the ones that can be computed again.
    can_be_again: usize,
    widest: usize,
    training_values: usize,
    recomputing_values: usize,
}

impl Outputs {
    /// Outputs of a layer's size that are at work beside what is kept: in a backward pass the gradient of its output, of
    /// its input and of its shortcut; in a forward pass the output, the input and the shortcut.
    const AT_WORK: usize = 3;

    /// Counts `num_kept` outputs of so many values each. The backward pass frees what it has passed, so it holds what is
    /// kept up to a layer and what is at work there.
    pub(crate) fn keep(&mut self, num_kept: usize, values: usize) {
        self.kept += num_kept * values;
        self.widest = self.widest.max(values);
        self.training_values = self.training_values.max(self.kept + Self::AT_WORK * values);
        // There, what is computed again is at work as well.
        let kept = self.kept - self.can_be_again;
        self.recomputing_values = self.recomputing_values.max(kept + (Self::AT_WORK + 1) * values);
    }

    /// Counts an output that a batch norm and ReLU give to a convolution.
    pub(crate) fn keep_between(&mut self, values: usize) {
        self.can_be_again += values;
        self.keep(1, values);
    }

    /// The most in a training step that computes what [`Self::keep_between`] counts again.
    pub(crate) fn recomputing_values(&self) -> usize {
        self.recomputing_values
    }

    /// The most in a training step.
    pub(crate) fn training_values(&self) -> usize {
        self.training_values
    }

    /// The most in a pass that keeps nothing.
    pub(crate) fn forward_values(&self) -> usize {
        Self::AT_WORK * self.widest
    }
}

impl ModelConfig {
    /// The names of the architectures that can be trained from the start. `ablation` is step 0 of the study.
    pub const NAMES: [&str; 7] = ["basenet", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "ablation"];

    /// Short names for the configurations of [`ModelConfig::ablation`], by step.
    pub const ABLATION_NAMES: [&str; 11] = [
        "ablation0",
        "ablation1",
        "ablation2",
        "ablation3",
        "ablation4",
        "ablation5",
        "ablation6",
        "ablation7",
        "ablation8",
        "ablation9",
        "ablation10",
    ];

    /// The architecture of that name, one of [`ModelConfig::NAMES`] with its defaults or of
    /// [`ModelConfig::ABLATION_NAMES`], if there is one.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "basenet" => Self::BaseNet(BaseNetConfig::default()),
            "resnet18" => Self::ResNet18(ResNetConfig::default()),
            "resnet34" => Self::ResNet34(ResNetConfig::default()),
            "resnet50" => Self::ResNet50(ResNetConfig::default()),
            "resnet101" => Self::ResNet101(ResNetConfig::default()),
            "resnet152" => Self::ResNet152(ResNetConfig::default()),
            "ablation" => Self::Ablation(AblationConfig::default()),
            _ => return Self::ablation(Self::ABLATION_NAMES.iter().position(|known| *known == name)?),
        })
    }

    /// The name: one of [`ModelConfig::NAMES`], or a backbone's of [`ForeignBackbone::ALL`](crate::ForeignBackbone).
    pub fn name(&self) -> &str {
        match self {
            Self::BaseNet(_) => "basenet",
            Self::Ablation(_) => "ablation",
            Self::ResNet18(_) => "resnet18",
            Self::ResNet34(_) => "resnet34",
            Self::ResNet50(_) => "resnet50",
            Self::ResNet101(_) => "resnet101",
            Self::ResNet152(_) => "resnet152",
            Self::Foreign(config) => &config.backbone,
        }
    }

    /// Finds a configuration that no network can be built from.
    ///
    /// # Errors
    /// Names the key and what would do.
    pub fn validate(&self) -> Result<(), ModelError> {
        match self.family() {
            Family::BaseNet(config) => config.validate(),
            Family::Ablation(config) => config.validate(),
            Family::ResNet(_, config) => config.validate(),
            Family::Foreign(config) => config.validate(),
        }
    }

    /// Builds the network over the variables of `vb`.
    ///
    /// # Errors
    /// A configuration that [`ModelConfig::validate`] refuses, or tensors of another shape in `vb`.
    pub fn build(&self, num_classes: usize, vb: VarBuilder) -> Result<Network, ModelError> {
        Ok(match self.family() {
            Family::BaseNet(config) => BaseNet::new(config, num_classes, vb)?.into(),
            Family::Ablation(config) => AblationNet::new(config, num_classes, vb)?.into(),
            Family::ResNet(layout, config) => ResNet::new(&layout, config, num_classes, vb)?.into(),
            Family::Foreign(config) => config.build(num_classes, vb)?,
        })
    }

    /// The layers from the image to the logits, by their parameters' names.
    pub fn layers(&self) -> LayerOrder {
        match self.family() {
            Family::BaseNet(config) => config.layers(),
            Family::Ablation(config) => config.layers(),
            Family::ResNet(layout, _) => layout.layers(),
            Family::Foreign(config) => config.layers(),
        }
    }

    /// Values of the features that the head gets for one image.
    pub fn num_features(&self) -> usize {
        match self.family() {
            Family::BaseNet(config) => config.num_features(),
            Family::Ablation(config) => config.head_inputs(),
            Family::ResNet(layout, _) => layout.num_features(),
            Family::Foreign(config) => config.num_features(),
        }
    }

    /// Height and width of the images that are prepared for the network, pixels.
    pub fn input_size(&self) -> [usize; 2] {
        match self.family() {
            Family::BaseNet(config) => [config.input_size; 2],
            Family::Ablation(config) => [config.input_size; 2],
            Family::ResNet(_, config) => [config.input_size; 2],
            Family::Foreign(config) => [config.input_size; 2],
        }
    }

    /// Parameters and multiply-adds, counted from the configuration.
    pub fn cost(&self, num_classes: usize) -> ModelCost {
        match self.family() {
            Family::BaseNet(config) => basenet_cost(config, num_classes),
            Family::Ablation(config) => ablation_cost(config, num_classes),
            Family::ResNet(layout, config) => resnet_cost(&layout, config, num_classes),
            Family::Foreign(config) => config.cost(num_classes),
        }
    }

    /// Whether the backbone can be trained, and not its head alone.
    pub fn trains_backbone(&self) -> bool {
        !matches!(self, Self::Foreign(_))
    }

    fn family(&self) -> Family<'_> {
        match self {
            Self::BaseNet(config) => Family::BaseNet(config),
            Self::Ablation(config) => Family::Ablation(config),
            Self::ResNet18(config) => Family::ResNet(ResNetLayout::RESNET18, config),
            Self::ResNet34(config) => Family::ResNet(ResNetLayout::RESNET34, config),
            Self::ResNet50(config) => Family::ResNet(ResNetLayout::RESNET50, config),
            Self::ResNet101(config) => Family::ResNet(ResNetLayout::RESNET101, config),
            Self::ResNet152(config) => Family::ResNet(ResNetLayout::RESNET152, config),
            Self::Foreign(config) => Family::Foreign(config),
        }
    }
}

fn basenet_cost(config: &BaseNetConfig, num_classes: usize) -> ModelCost {
    let pixels = config.input_size * config.input_size;
    let stem = config.channels()[0];
    // Convolution weights are used once per pixel; batch norms have two values per channel.
    let mut conv_weights = 9 * 3 * stem;
    let mut norm_values = 2 * stem;
    let mut outputs = Outputs::default();
    // What is kept of each: its convolution's output and its norm's, which has ReLU, scaling and sum in it.
    outputs.keep(2, stem * pixels);
    let mut largest_weights = 9 * 3 * stem;
    for block in config.blocks() {
        conv_weights += 9 * block.c_out * (block.c_in + block.c_out) / config.groups;
        if block.c_in != block.c_out && (config.shortcut == Shortcut::Conv1x1 || block.c_out < block.c_in) {
            conv_weights += block.c_in * block.c_out;
            outputs.keep(1, block.c_out * pixels);
        }
        norm_values += 4 * block.c_out;
        outputs.keep_between(block.c_out * pixels);
        outputs.keep(3, block.c_out * pixels);
        largest_weights = largest_weights.max(9 * block.c_out * block.c_in.max(block.c_out) / config.groups);
    }
    // The pooled values, and the same in the order of the linear layer's weights.
    outputs.keep(2, config.head_inputs());
    let linear_weights = config.head_inputs() * HEAD_UNITS + HEAD_UNITS * num_classes;
    let largest_weights = largest_weights.max(config.head_inputs() * HEAD_UNITS);
    let head_vectors = HEAD_UNITS + num_classes + 2 * num_classes;
    ModelCost {
        num_parameters: conv_weights + norm_values + linear_weights + head_vectors,
        forward_macs: conv_weights * pixels + linear_weights,
        training_values: outputs.training_values(),
        recomputing_values: outputs.recomputing_values(),
        forward_values: outputs.forward_values(),
        largest_weights,
    }
}
