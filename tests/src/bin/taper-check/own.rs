//! Steps of this project, put together from its crates as `taper-train` does.

use anyhow::Result;
use candle_core::{Device, Tensor};
use candle_nn::VarMap;
use taper_kernels::{backward_raw, cross_entropy, keep_packed_weights};
use taper_models::seeded;
use taper_optim::{Gradients, GroupRules, Optimizer, OptimizerConfig, ParameterSet, SgdConfig};

use crate::network::Workload;
use crate::step::{LR, MOMENTUM, Step, WEIGHT_DECAY};

/// Forward, loss, backward, update on a device, with activations of the type that the images have.
pub(crate) fn training(workload: &Workload, images: &Tensor, device: &Device) -> Result<Step> {
    let vars = VarMap::new();
    let network = workload.build(seeded(&vars, 0, device))?;
    let images = images.to_device(device)?;
    let labels = workload.labels()?.to_device(device)?;
    let config = OptimizerConfig::Sgd(SgdConfig {
        lr: LR,
        momentum: MOMENTUM,
        nesterov: true,
        weight_decay: WEIGHT_DECAY,
        // As PyTorch's, which decays all that it is given.
        decay_norms_and_biases: true,
        ..SgdConfig::default()
    });
    let mut optimizer = Optimizer::new(&config, ParameterSet::new(&vars, &GroupRules::new(&config))?)?;
    let packed = keep_packed_weights();
    Ok(Box::new(move || {
        let _ = &packed;
        let loss = cross_entropy(&network.forward_t(&images, true)?, &labels, 0.0)?;
        let value = loss.detach();
        let gradients = Gradients::take(optimizer.parameters(), &backward_raw(loss)?)?;
        optimizer.step(&gradients, LR)?;
        // Last, because it waits for the device.
        Ok(value.to_scalar()?)
    }))
}

/// Forward and loss.
pub(crate) fn evaluation(workload: &Workload) -> Result<Step> {
    let network = workload.build(seeded(&VarMap::new(), 0, &Device::Cpu))?;
    let (images, labels) = (workload.images()?, workload.labels()?);
    Ok(Box::new(move || {
        Ok(cross_entropy(&taper_kernels::without_history(|| network.forward_t(&images, false))?, &labels, 0.0)?
            .to_scalar()?)
    }))
}
