//! A short training on the GPU beside the same on the CPU.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};

use super::noise::Noise;
use super::report::{Check, Report};
use super::speed::Plans;
use crate::network::{Model, Workload};
use crate::own;
use crate::timing::Size;

/// Losses of the first steps from the same weights and images.
fn losses(workload: &Workload, images: &Tensor, device: &Device, steps: usize) -> Result<Vec<f32>> {
    let mut step = own::training(workload, images, device)?;
    (0..steps).map(|_| step()).collect()
}

/// The largest difference of two rows of losses, relative to the first one that is expected: later ones come near zero.
fn largest_difference(found: &[f32], expected: &[f32]) -> f64 {
    let difference = |(found, own): (&f32, &f32)| f64::from((found - own).abs() / expected[0]);
    let largest = found.iter().zip(expected).map(difference).fold(0.0, f64::max);
    if found.iter().all(|loss| loss.is_finite()) { largest } else { f64::INFINITY }
}

pub(super) fn compare(device: &Device, size: Size, noise: &mut Noise, report: &mut Report) -> Result<()> {
    let steps = size.at_most(20, 3);
    let workload = Workload::new(Model::BaseNet, 0.125, 64, size)?;
    // As widely spread as normalised images are.
    let images = noise.tensor(workload.images()?.dims())?.affine(1.7, 0.0)?;
    let expected = losses(&workload, &images, &Device::Cpu, steps)?;
    // Rounding errors grow from step to step, those of eight bits of mantissa soon to percents.
    for (dtype, tolerance, plans) in [
        (DType::F32, 1e-4, Plans::Heuristic),
        (DType::BF16, 0.05, Plans::Heuristic),
        (DType::BF16, 0.05, Plans::Measured),
    ] {
        plans.switch();
        let images = images.to_dtype(dtype)?;
        let found = losses(&workload, &images, device, steps)?;
        let again = losses(&workload, &images, device, steps)?;
        let differing = found.iter().zip(&again).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        taper_kernels::set_recompute(true);
        let recomputed = losses(&workload, &images, device, steps)?;
        taper_kernels::set_recompute(false);
        let others = found.iter().zip(&recomputed).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        let errors = vec![
            ("losses".to_owned(), largest_difference(&found, &expected), tolerance),
            ("losses that differ between two runs".to_owned(), differing as f64, 0.0),
            ("losses that differ where activations are computed again".to_owned(), others as f64, 0.0),
        ];
        let way = if plans == Plans::Measured { ", measured plans" } else { "" };
        report.add(Check::of(format!("{steps} steps of BaseNet {}{way}", dtype.as_str()), errors));
    }
    Plans::Heuristic.switch();
    Ok(())
}
