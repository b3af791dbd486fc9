//! The axes of the ablation study.

use serde::{Deserialize, Serialize};

use crate::config::Outputs;
use crate::{LayerOrder, ModelCost, ModelError};

/// What an [`AblationNet`](crate::AblationNet) is built from. The default is the report's initial network, step 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AblationConfig {
    /// Multiplies every channel count (rounded down, at least 1).
    pub width: f64,
    /// Channels behind each block at width 1; their number is that of the blocks.
    pub channels: Vec<usize>,
    /// The blocks, counted from 1, behind which a 2×2 max-pool stands.
    pub pools_after: Vec<usize>,
    /// Side of the convolutions' windows.
    pub kernel: usize,
    /// Pixels of zeros around a convolution's input.
    pub padding: usize,
    /// Convolutions of a block, one after the other.
    pub convs_per_block: usize,
    /// Where batch norm stands.
    pub norm: NormPlace,
    /// Whether a block's input is added to its output.
    pub skip: Skip,
    /// What a block's output is multiplied with before its input is added.
    pub residual_scale: f64,
    /// Batch norm between the two linear layers.
    pub head_norm: HeadNorm,
    /// Groups of the convolutions behind the first one; must divide every channel count.
    pub groups: usize,
    /// Side of the square input images, pixels.
    pub input_size: usize,
}

/// Where batch norm stands in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormPlace {
    /// Nowhere; convolutions have a bias.
    None,
    /// Between each convolution, which has no bias, and its ReLU.
    BeforeRelu,
    /// Behind each ReLU; convolutions have a bias.
    AfterRelu,
}

/// Whether a block's input is added to its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Skip {
    /// It is not.
    None,
    /// It is, through a 1×1 convolution where the channel counts differ.
    Add,
}

/// Batch norm between the two linear layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadNorm {
    /// There is none.
    None,
    /// Behind the first linear layer, before its ReLU.
    Hidden,
}

impl Default for AblationConfig {
    fn default() -> Self {
        Self {
            width: 1.0,
            channels: vec![6, 16],
            pools_after: vec![1, 2],
            kernel: 5,
            padding: 0,
            convs_per_block: 1,
            norm: NormPlace::None,
            skip: Skip::None,
            residual_scale: 1.0,
            head_norm: HeadNorm::None,
            groups: 1,
            input_size: 32,
        }
    }
}

/// Where a block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockPlace {
    pub(super) c_in: usize,
    pub(super) c_out: usize,
    pub(super) is_first: bool,
    pub(super) is_pooled: bool,
    /// Side of what its last convolution gives, before the pool; `None` if the window does not fit.
    side: Option<usize>,
}

impl AblationConfig {
    /// Units between the two linear layers.
    pub(super) const HEAD_UNITS: usize = 50;

    fn scaled(&self, channels: usize) -> usize {
        ((channels as f64 * self.width) as usize).max(1)
    }

    /// Side behind a convolution of an image of this side.
    fn convolved(&self, side: usize) -> Option<usize> {
        (side + 2 * self.padding).checked_sub(self.kernel.checked_sub(1)?).filter(|side| *side > 0)
    }

    pub(super) fn blocks(&self) -> Vec<BlockPlace> {
        let (mut c_in, mut side) = (3, Some(self.input_size));
        let place = |(index, channels): (usize, &usize)| {
            for _ in 0..self.convs_per_block {
                side = side.and_then(|side| self.convolved(side));
            }
            let (c_out, is_pooled) = (self.scaled(*channels), self.pools_after.contains(&(index + 1)));
            let place = BlockPlace { c_in, c_out, is_first: index == 0, is_pooled, side };
            side = if is_pooled { side.map(|side| side / 2) } else { side };
            c_in = c_out;
            place
        };
        self.channels.iter().enumerate().map(place).collect()
    }

    /// Side and channels of the last feature map.
    fn output(&self) -> Option<(usize, usize)> {
        let last = *self.blocks().last()?;
        let side = if last.is_pooled { last.side? / 2 } else { last.side? };
        Some((side, last.c_out)).filter(|(side, _)| *side > 0)
    }

    /// Values per image that the head gets; 0 for a configuration that no network can be built from.
    pub(crate) fn head_inputs(&self) -> usize {
        self.output().map_or(0, |(side, channels)| side * side * channels)
    }

    /// Blocks and head by their names.
    pub(crate) fn layers(&self) -> LayerOrder {
        let blocks = (1..self.channels.len()).map(|index| format!("blocks.{index}"));
        LayerOrder::new(&["blocks.0"], blocks, "head")
    }

    /// Finds a configuration that no network can be built from.
    ///
    /// # Errors
    /// Names the key and what would do.
    pub fn validate(&self) -> Result<(), ModelError> {
        if !(self.width.is_finite() && self.width > 0.0 && self.width <= 16.0) {
            return Err(ModelError::config("width", self.width, "must be above 0 and at most 16; 1.0 is the report's"));
        }
        if !self.residual_scale.is_finite() {
            return Err(ModelError::config("residual_scale", self.residual_scale, "must be a finite number"));
        }
        self.validate_counts()?;
        let blocks = self.blocks();
        let divides = |channels: usize| self.groups > 0 && channels.is_multiple_of(self.groups);
        if let Some(block) = blocks.iter().find(|block| !divides(block.c_out)) {
            let reason = format!("must divide the channels of every block, and one has {}", block.c_out);
            return Err(ModelError::config("groups", self.groups, reason));
        }
        if self.skip == Skip::Add && self.convolved(self.input_size) != Some(self.input_size) {
            let reason = "a sum needs convolutions that keep the size: kernel = 2 · padding + 1";
            return Err(ModelError::config("skip", "add", reason));
        }
        match self.head_inputs() {
            0 => Err(ModelError::config("input_size", self.input_size, "convolutions and pools leave nothing of it")),
            _ => Ok(()),
        }
    }

    fn validate_counts(&self) -> Result<(), ModelError> {
        let num_blocks = self.channels.len();
        if !(1..=1000).contains(&num_blocks) || self.channels.iter().any(|count| !(1..=65536).contains(count)) {
            let reason = "must list 1 to 1000 blocks of 1 to 65536 channels each";
            return Err(ModelError::config("channels", format!("{:?}", self.channels), reason));
        }
        if let Some(block) = self.pools_after.iter().find(|block| !(1..=num_blocks).contains(*block)) {
            return Err(ModelError::config("pools_after", block, format!("there are the blocks 1 to {num_blocks}")));
        }
        let ranges = [
            ("kernel", self.kernel, 1..=64),
            ("padding", self.padding, 0..=32),
            ("convs_per_block", self.convs_per_block, 1..=100),
            ("input_size", self.input_size, 2..=1024),
        ];
        match ranges.into_iter().find(|(_, value, range)| !range.contains(value)) {
            Some((key, value, range)) => {
                let reason = format!("must be between {} and {}", range.start(), range.end());
                Err(ModelError::config(key, value, reason))
            }
            None => Ok(()),
        }
    }
}

/// Parameters and multiply-adds, counted from the configuration.
pub(crate) fn ablation_cost(config: &AblationConfig, num_classes: usize) -> ModelCost {
    let (mut num_parameters, mut forward_macs) = (0, 0);
    let (mut outputs, mut largest_weights) = (Outputs::default(), 0);
    let mut side = config.input_size;
    for block in config.blocks() {
        for conv in 0..config.convs_per_block {
            let c_in = if conv == 0 { block.c_in } else { block.c_out };
            let groups = if block.is_first && conv == 0 { 1 } else { config.groups };
            let weights = config.kernel.pow(2) * c_in / groups * block.c_out;
            side = config.convolved(side).unwrap_or(0);
            forward_macs += weights * side * side;
            let output = block.c_out * side * side;
            // The convolution's output, and the norm's or the rectifier's.
            outputs.keep(2, output);
            largest_weights = largest_weights.max(weights);
            num_parameters += weights + block.c_out * values_per_channel(config.norm);
        }
        if config.skip == Skip::Add && block.c_in != block.c_out {
            num_parameters += block.c_in * block.c_out;
            forward_macs += block.c_in * block.c_out * side * side;
            outputs.keep(1, block.c_out * side * side);
        }
        side = if block.is_pooled { side / 2 } else { side };
    }
    let units = AblationConfig::HEAD_UNITS;
    let linear_weights = config.head_inputs() * units + units * num_classes;
    let norm_values = if config.head_norm == HeadNorm::Hidden { 2 * units } else { 0 };
    ModelCost {
        num_parameters: num_parameters + linear_weights + units + num_classes + norm_values,
        forward_macs: forward_macs + linear_weights,
        training_values: outputs.training_values(),
        recomputing_values: outputs.training_values(),
        forward_values: outputs.forward_values(),
        largest_weights: largest_weights.max(config.head_inputs() * units),
    }
}

/// Bias of a convolution, scale and shift of a batch norm.
fn values_per_channel(norm: NormPlace) -> usize {
    match norm {
        NormPlace::None => 1,
        NormPlace::BeforeRelu => 2,
        NormPlace::AfterRelu => 3,
    }
}
