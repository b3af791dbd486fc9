use candle_core::Result;

use crate::storage::option_error;

/// How a convolution's window moves over the image; pairs are `[vertical, horizontal]`, in pixels.
///
/// The default is PyTorch's: stride 1, no padding, dilation 1, one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConvGeometry {
    /// Step between neighbouring windows.
    pub stride: [usize; 2],
    /// Zeros added on each side.
    pub padding: [usize; 2],
    /// Distance between neighbouring taps of the window.
    pub dilation: [usize; 2],
    /// Number of independent slices of the channels.
    pub groups: usize,
}

impl Default for ConvGeometry {
    fn default() -> Self {
        Self { stride: [1; 2], padding: [0; 2], dilation: [1; 2], groups: 1 }
    }
}

impl ConvGeometry {
    /// Stride 1 with the padding that keeps the size for an odd `kernel` side.
    pub fn same(kernel: usize) -> Self {
        Self { padding: [kernel / 2; 2], ..Self::default() }
    }

    pub(crate) fn validate(&self, op: &'static str) -> Result<()> {
        if self.stride.contains(&0) {
            return Err(option_error(op, "stride", format!("{:?}", self.stride), "at least 1"));
        }
        if self.dilation.contains(&0) {
            return Err(option_error(op, "dilation", format!("{:?}", self.dilation), "at least 1"));
        }
        if self.groups == 0 {
            return Err(option_error(op, "groups", 0, "at least 1"));
        }
        Ok(())
    }
}

/// How the number of windows is rounded where they do not fit evenly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// Only whole windows count.
    #[default]
    Floor,
    /// A last window may hang over the edge, if it starts inside the image or its leading padding
    /// (PyTorch's `ceil_mode=True`).
    Ceil,
}

/// What an average-pooling window divides by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Padding {
    /// Padding zeros count as values (PyTorch's default, `count_include_pad=True`).
    #[default]
    Counted,
    /// Only values of the image count.
    NotCounted,
}

/// How a pooling window moves over the image; pairs are `[vertical, horizontal]`, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolGeometry {
    /// Size of the window.
    pub kernel: [usize; 2],
    /// Step between neighbouring windows.
    pub stride: [usize; 2],
    /// Padding on each side, at most half the window.
    pub padding: [usize; 2],
    /// What happens where windows do not fit evenly.
    pub rounding: Rounding,
}

impl PoolGeometry {
    /// A square window that moves by its own size, without padding.
    pub fn square(kernel: usize) -> Self {
        let (kernel, padding) = ([kernel; 2], [0; 2]);
        Self { kernel, stride: kernel, padding, rounding: Rounding::Floor }
    }

    pub(crate) fn validate(&self, op: &'static str) -> Result<()> {
        if self.kernel.contains(&0) {
            return Err(option_error(op, "kernel", format!("{:?}", self.kernel), "at least 1"));
        }
        if self.stride.contains(&0) {
            return Err(option_error(op, "stride", format!("{:?}", self.stride), "at least 1"));
        }
        if (0..2).any(|axis| self.padding[axis] > self.kernel[axis] / 2) {
            let expected = format!("at most half of the kernel {:?}", self.kernel);
            return Err(option_error(op, "padding", format!("{:?}", self.padding), expected));
        }
        Ok(())
    }

    /// Number of windows along one axis of `size` pixels; `None` if not even one fits.
    pub(crate) fn windows(&self, axis: usize, size: usize) -> Option<usize> {
        let (stride, padding) = (self.stride[axis], self.padding[axis]);
        let free = (size + 2 * padding).checked_sub(self.kernel[axis])?;
        let windows = match self.rounding {
            Rounding::Floor => free / stride + 1,
            Rounding::Ceil => free.div_ceil(stride) + 1,
        };
        // A window that would start in the trailing padding is dropped, as in PyTorch.
        Some(if (windows - 1) * stride >= size + padding { windows - 1 } else { windows })
    }
}
