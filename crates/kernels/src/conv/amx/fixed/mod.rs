//! Passes in fixed point (see [`crate::amx::fixed`]), on pixels where they lie.

mod gradient;
mod pointwise;

pub(super) use gradient::weight_gradient;
pub(super) use pointwise::{forward, input_gradient};

use crate::amx::TILE;
use crate::conv::shape::ConvShape;

/// Whether the channels fill whole tiles.
pub(super) fn covers(shape: &ConvShape) -> bool {
    shape.c_in.is_multiple_of(TILE) && shape.c_out.is_multiple_of(TILE)
}
