//! The products at the points on the tile unit, in fixed point (see [`crate::amx::fixed`]): as exact as in f32, and the
//! passes in half the time.

mod gradient;
mod weights;

pub(super) use gradient::{Point, planes};
pub(super) use weights::{Inputs, Weights};

pub(super) use crate::amx::fixed::Writing;

use crate::amx::TILE;
use crate::amx::fixed::MAX_DEPTH;
use crate::conv::shape::ConvShape;
use crate::simd::{CpuPath, Selected};

/// Whether the path has the unit, and the channels of a shape fill whole tiles and are so many that the products weigh
/// more than making their operands does.
pub(super) fn covers(path: Selected, shape: &ConvShape) -> bool {
    /// Pairs of channels at least.
    const PAIRS: usize = 64 * 128;

    let channels = [shape.c_in, shape.c_out];
    let fill = channels.into_iter().all(|channels| channels.is_multiple_of(TILE) && channels <= MAX_DEPTH);
    path.path() == CpuPath::Amx && fill && shape.c_in * shape.c_out >= PAIRS
}

/// Rows that the products of so many write: whole tiles.
pub(super) fn rows(count: usize) -> usize {
    count.next_multiple_of(TILE)
}
