//! Between the parameter's layout (OIHW, as in checkpoints) and the one the matrix products read.

use super::shape::ConvShape;

/// OIHW → per group `[tap, c_in / groups, c_out / groups]`: rows in the order of im2col's columns.
pub(crate) fn pack(w: &[f32], shape: &ConvShape) -> Vec<f32> {
    let mut packed = vec![0.0; w.len()];
    for_each(shape, |oihw, position| packed[position] = w[oihw]);
    packed
}

/// The inverse of [`pack`].
pub(crate) fn unpack(packed: &[f32], shape: &ConvShape) -> Vec<f32> {
    let mut w = vec![0.0; packed.len()];
    for_each(shape, |oihw, position| w[oihw] = packed[position]);
    w
}

/// OIHW weights of the convolution that takes the gradient of the output to that of the input, for
/// stride 1: taps in reverse, input and output channels exchanged within each group.
pub(crate) fn reversed(w: &[f32], shape: &ConvShape) -> Vec<f32> {
    let (taps, c_in, c_out) = (shape.taps(), shape.group_in(), shape.group_out());
    let mut reversed = vec![0.0; w.len()];
    for (kernel, taps_of) in w.chunks_exact(taps).enumerate() {
        let (o, i) = (kernel / c_in, kernel % c_in);
        let (group, o) = (o / c_out, o % c_out);
        let target = &mut reversed[((group * c_in + i) * c_out + o) * taps..][..taps];
        target.iter_mut().zip(taps_of.iter().rev()).for_each(|(target, &tap)| *target = tap);
    }
    reversed
}

/// Calls `visit(index in OIHW, index in the packed order)` for every weight.
fn for_each(shape: &ConvShape, mut visit: impl FnMut(usize, usize)) {
    let (taps, c_in, c_out) = (shape.taps(), shape.group_in(), shape.group_out());
    for group in 0..shape.geometry.groups {
        for o in 0..c_out {
            for i in 0..c_in {
                for tap in 0..taps {
                    let oihw = ((group * c_out + o) * c_in + i) * taps + tap;
                    visit(oihw, ((group * taps + tap) * c_in + i) * c_out + o);
                }
            }
        }
    }
}
