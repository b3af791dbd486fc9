//! Passes in fixed point (see [`crate::amx::fixed`]), on pixels where they lie.

mod gradient;
mod pointwise;
mod windows;

pub(super) use gradient::weight_gradient;
pub(super) use pointwise::input_gradient;
pub(super) use windows::covers as covers_windows;
pub(in crate::conv) use windows::forward;

use crate::amx::TILE;
use crate::amx::fixed::MAX_DEPTH;
use crate::conv::shape::ConvShape;

/// Whether the channels fill whole tiles, and sums over them fit.
pub(super) fn covers(shape: &ConvShape) -> bool {
    let channels = [shape.c_in, shape.c_out];
    channels.into_iter().all(|channels| channels.is_multiple_of(TILE) && channels <= MAX_DEPTH)
}
