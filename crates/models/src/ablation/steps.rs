//! The report's ablation study as one table of differences.

use crate::{AblationConfig, BaseNetConfig, HeadNorm, ModelConfig, NormPlace, Skip};

/// One row of the study: what it changes in the network of the row before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AblationStep {
    /// The change, in a few words.
    pub change: &'static str,
    differences: &'static [Difference],
}

/// One changed key of the configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Difference {
    Norm(NormPlace),
    Channels(&'static [usize]),
    PoolsAfter(&'static [usize]),
    Kernel(usize),
    Padding(usize),
    ConvsPerBlock(usize),
    Skip(Skip),
    ResidualScale(f64),
    HeadNorm(HeadNorm),
    /// Another network altogether.
    BaseNet,
}

/// The steps 0 to 10. The report does not give the channels of the steps 2 and 3: 16, 16, 32, 32, 64 and 64 are ours.
/// Steps 8 and 9 change the data, not the network.
pub const ABLATION: [AblationStep; 11] = {
    use Difference::{BaseNet, Channels, ConvsPerBlock, Kernel, Norm, Padding, PoolsAfter, ResidualScale};
    const fn step(change: &'static str, differences: &'static [Difference]) -> AblationStep {
        AblationStep { change, differences }
    }
    [
        step("the initial network", &[]),
        step("batch norm after each convolution", &[Norm(NormPlace::BeforeRelu)]),
        step(
            "five sub-blocks, pools after the 2nd and the 4th",
            &[Channels(&[16, 16, 32, 32, 64]), PoolsAfter(&[2, 4]), Kernel(3), Padding(1)],
        ),
        step("one more sub-block", &[Channels(&[16, 16, 32, 32, 64, 64])]),
        step("each sub-block twice, no residual", &[ConvsPerBlock(2)]),
        step("residual connection", &[Difference::Skip(Skip::Add)]),
        step("residual scaled by 0.1", &[ResidualScale(0.1)]),
        step("batch norm after the first linear layer", &[Difference::HeadNorm(HeadNorm::Hidden)]),
        step("data normalised", &[]),
        step("random crop, horizontal flip", &[]),
        step("BaseNet, 100 epochs", &[BaseNet]),
    ]
};

impl ModelConfig {
    /// The network of a step of [`ABLATION`]; `None` if there is no such step.
    pub fn ablation(step: usize) -> Option<Self> {
        let mut model = Self::Ablation(AblationConfig::default());
        for difference in ABLATION.get(..=step)?.iter().flat_map(|step| step.differences) {
            model = difference.applied_to(model);
        }
        Some(model)
    }
}

impl Difference {
    fn applied_to(self, model: ModelConfig) -> ModelConfig {
        let ModelConfig::Ablation(config) = model else { return model };
        ModelConfig::Ablation(match self {
            Self::Norm(norm) => AblationConfig { norm, ..config },
            Self::Channels(channels) => AblationConfig { channels: channels.to_vec(), ..config },
            Self::PoolsAfter(blocks) => AblationConfig { pools_after: blocks.to_vec(), ..config },
            Self::Kernel(kernel) => AblationConfig { kernel, ..config },
            Self::Padding(padding) => AblationConfig { padding, ..config },
            Self::ConvsPerBlock(convs_per_block) => AblationConfig { convs_per_block, ..config },
            Self::Skip(skip) => AblationConfig { skip, ..config },
            Self::ResidualScale(residual_scale) => AblationConfig { residual_scale, ..config },
            Self::HeadNorm(head_norm) => AblationConfig { head_norm, ..config },
            Self::BaseNet => return ModelConfig::BaseNet(BaseNetConfig::default()),
        })
    }
}
