//! The networks by name: the one place that says how each is built.

use std::fmt;

use anyhow::{Result, bail};
use candle_core::{Device, Tensor};
use candle_nn::{ModuleT, VarBuilder};
use clap::ValueEnum;
use taper_models::{BaseNet, BaseNetConfig, ResNet, ResNetConfig};

use crate::timing::Size;

/// A network that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Model {
    /// The report's network, 32×32 images.
    #[value(name = "basenet")]
    BaseNet,
    /// ResNet-18, 224×224 images.
    #[value(name = "resnet18")]
    ResNet18,
    /// ResNet-50, 224×224 images.
    #[value(name = "resnet50")]
    ResNet50,
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BaseNet => "basenet",
            Self::ResNet18 => "resnet18",
            Self::ResNet50 => "resnet50",
        })
    }
}

/// What is computed: the network, its size, and the batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    /// Which network.
    pub(crate) model: Model,
    /// Multiplies the channels of a BaseNet; the others have one width.
    pub(crate) width: f64,
    /// Images in a batch.
    pub(crate) batch: usize,
    /// Side of the square images, pixels.
    pub(crate) input_size: usize,
}

impl Workload {
    /// What was asked for, or a tiny version of it in a smoke run.
    pub(crate) fn new(model: Model, width: f64, batch: usize, size: Size) -> Result<Self> {
        if model != Model::BaseNet && width != 1.0 {
            bail!("--width {width}: {model} has one width; leave the option out");
        }
        let (side, smoke_side) = if model == Model::BaseNet { (32, 8) } else { (224, 32) };
        let width = if size == Size::Smoke && model == Model::BaseNet { width.min(0.0625) } else { width };
        Ok(Self { model, width, batch: size.at_most(batch, 4), input_size: size.at_most(side, smoke_side) })
    }

    /// Classes that the head tells apart: CIFAR-100's or ImageNet's.
    pub(crate) fn num_classes(&self) -> usize {
        if self.model == Model::BaseNet { 100 } else { 1000 }
    }

    /// A BaseNet's configuration at this size.
    pub(crate) fn basenet(&self) -> BaseNetConfig {
        BaseNetConfig { width: self.width, input_size: self.input_size, ..BaseNetConfig::default() }
    }

    /// A ResNet's configuration at this size.
    fn resnet(&self) -> ResNetConfig {
        ResNetConfig { input_size: self.input_size, ..ResNetConfig::default() }
    }

    /// Builds the network of this crate's family; another architecture is one more arm.
    pub(crate) fn build(&self, vb: VarBuilder) -> Result<Box<dyn ModuleT + Send + Sync>> {
        match self.model {
            Model::BaseNet => Ok(Box::new(BaseNet::new(&self.basenet(), self.num_classes(), vb)?)),
            Model::ResNet18 => Ok(Box::new(ResNet::resnet18(&self.resnet(), self.num_classes(), vb)?)),
            Model::ResNet50 => Ok(Box::new(ResNet::resnet50(&self.resnet(), self.num_classes(), vb)?)),
        }
    }

    /// Random images `[n, side, side, 3]`, normally distributed as normalised ones are.
    pub(crate) fn images(&self) -> Result<Tensor> {
        Ok(Tensor::randn(0f32, 1f32, (self.batch, self.input_size, self.input_size, 3), &Device::Cpu)?)
    }

    /// Labels `[n]`, different as far as there are classes.
    pub(crate) fn labels(&self) -> Result<Tensor> {
        let classes = self.num_classes() as u32;
        let labels: Vec<u32> = (0..self.batch as u32).map(|index| index % classes).collect();
        Ok(Tensor::from_vec(labels, self.batch, &Device::Cpu)?)
    }
}

#[cfg(test)]
mod tests {
    use super::{Model, Workload};
    use crate::timing::Size;

    #[test]
    fn labels_are_classes() {
        let workload = Workload::new(Model::BaseNet, 1.0, 203, Size::Full).unwrap();
        let labels = workload.labels().unwrap().to_vec1::<u32>().unwrap();
        assert_eq!((labels[0], labels[99], labels[100], labels[202]), (0, 99, 0, 2));
    }

    #[test]
    fn a_resnet_has_no_width() {
        assert!(Workload::new(Model::ResNet18, 0.5, 2, Size::Full).is_err());
        assert_eq!(Workload::new(Model::ResNet18, 1.0, 2, Size::Full).unwrap().input_size, 224);
    }
}
