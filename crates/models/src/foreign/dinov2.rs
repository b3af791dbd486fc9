//! candle's DINOv2, with the class token as its output and positions for any size of image.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Module, VarBuilder};
use candle_transformers::models::dinov2::DinoVisionTransformer;

use super::adapter::Part;

/// Blocks of the small and the base network; the large one has more outputs than candle's head.
const NUM_BLOCKS: usize = 12;
/// Channels of an attention head.
const HEAD_DIM: usize = 64;
/// Pixels along a side of a patch.
const PATCH_SIZE: usize = 14;
/// Patches along a side of the images of 518 pixels that the published networks ended their training with.
const TRAINED_GRID: usize = 37;
/// Outputs of the head that candle's network ends in.
const NUM_OUTPUTS: usize = 1000;

pub(super) fn build(dim: usize, vb: VarBuilder) -> Result<Part> {
    let network = DinoVisionTransformer::new(vb, NUM_BLOCKS, dim, dim / HEAD_DIM)?;
    Ok(Box::new(candle_nn::func(move |images| class_tokens(&network, images, dim))))
}

/// One image after the other: candle's class token is that of a batch of one.
fn class_tokens(network: &DinoVisionTransformer, images: &Tensor, dim: usize) -> Result<Tensor> {
    let token = |index: usize| network.forward(&images.narrow(0, index, 1)?)?.narrow(1, 0, dim);
    let tokens = (0..images.dim(0)?).map(token).collect::<Result<Vec<_>>>()?;
    Tensor::cat(&tokens, 0)
}

/// Adds what candle's network needs beyond the weights: a head that picks the class token, and positions for the size.
pub(super) fn complete(tensors: &mut HashMap<String, Tensor>, dim: usize, input_size: usize) -> Result<()> {
    // The head sees the class token, then the mean of the patches.
    let mut picks = vec![0f32; NUM_OUTPUTS * 2 * dim];
    (0..dim).for_each(|channel| picks[channel * 2 * dim + channel] = 1.0);
    tensors.insert("head.weight".into(), Tensor::from_vec(picks, (NUM_OUTPUTS, 2 * dim), &Device::Cpu)?);
    tensors.insert("head.bias".into(), Tensor::zeros(NUM_OUTPUTS, DType::F32, &Device::Cpu)?);
    if let Some(positions) = tensors.get_mut("pos_embed") {
        *positions = positions_for(positions, input_size / PATCH_SIZE)?;
    }
    Ok(())
}

/// A table that has the positions of a grid of `side` patches where candle looks them up.
///
/// candle picks the nearest of the table's positions for a grid of another size, where the original and transformers
/// interpolate (bicubic, corners not aligned). The interpolated values are put where it will pick them, which is
/// possible for grids of up to 37 patches; for larger ones candle's choice remains.
///
/// # Shapes
/// `[1, 1 + 37², dim]` in and out.
fn positions_for(table: &Tensor, side: usize) -> Result<Tensor> {
    if side >= TRAINED_GRID {
        return Ok(table.clone());
    }
    let (_, _, dim) = table.dims3()?;
    let values: Vec<f32> = table.flatten_all()?.to_vec1()?;
    let mut placed = values.clone();
    let (taps, grid) = (taps(side), &values[dim..]);
    for (row, vertical) in taps.iter().enumerate() {
        for (column, horizontal) in taps.iter().enumerate() {
            let at = dim + dim * (picked(row, side) * TRAINED_GRID + picked(column, side));
            let target = &mut placed[at..at + dim];
            target.fill(0.0);
            for (y, row_weight) in vertical {
                for (x, column_weight) in horizontal {
                    let source = &grid[dim * (y * TRAINED_GRID + x)..][..dim];
                    let weight = row_weight * column_weight;
                    target.iter_mut().zip(source).for_each(|(sum, value)| *sum += weight * value);
                }
            }
        }
    }
    Tensor::from_vec(placed, table.shape(), table.device())
}

/// Which of the table's rows candle's nearest neighbour takes for row `index` of `side`.
fn picked(index: usize, side: usize) -> usize {
    ((TRAINED_GRID as f64 / side as f64 * index as f64) as usize).min(TRAINED_GRID - 1)
}

/// For each of `side` places, four of the table's with their weights: Keys' cubic convolution with a = -0.75, as
/// PyTorch's bicubic interpolation has it.
fn taps(side: usize) -> Vec<[(usize, f32); 4]> {
    const A: f64 = -0.75;
    let weight = |distance: f64| match distance.abs() {
        near if near <= 1.0 => ((A + 2.0) * near - (A + 3.0)) * near * near + 1.0,
        far => ((A * far - 5.0 * A) * far + 8.0 * A) * far - 4.0 * A,
    };
    let place = |index: usize| {
        let center = (index as f64 + 0.5) * TRAINED_GRID as f64 / side as f64 - 0.5;
        let first = center.floor() as isize - 1;
        [0, 1, 2, 3].map(|tap| {
            let at = first + tap;
            (at.clamp(0, TRAINED_GRID as isize - 1) as usize, weight(center - at as f64) as f32)
        })
    };
    (0..side).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_position_is_picked_once() {
        for side in 1..TRAINED_GRID {
            let rows: Vec<usize> = (0..side).map(|index| picked(index, side)).collect();
            assert!(rows.windows(2).all(|pair| pair[0] < pair[1]), "{side}: {rows:?}");
            for taps in taps(side) {
                let sum: f32 = taps.iter().map(|(_, weight)| weight).sum();
                assert!((sum - 1.0).abs() < 1e-6);
            }
        }
    }
}
