use candle_core::{Result, Tensor};

use crate::geometry::ConvGeometry;
use crate::storage::{option_error, shape_error, sizes_error};

/// Every size of one convolution, checked once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConvShape {
    pub(crate) images: usize,
    pub(crate) input: [usize; 2],
    pub(crate) output: [usize; 2],
    pub(crate) c_in: usize,
    pub(crate) c_out: usize,
    pub(crate) kernel: [usize; 2],
    pub(crate) geometry: ConvGeometry,
}

impl ConvShape {
    /// Reads the sizes off `x` `[n, h, w, c_in]` and `w` `[c_out, c_in / groups, kh, kw]`.
    pub(crate) fn new(op: &'static str, x: &Tensor, w: &Tensor, geometry: &ConvGeometry) -> Result<Self> {
        let &[images, height, width, c_in] = x.dims() else {
            return Err(shape_error(op, "x", x, "[n, h, w, c_in]".into()));
        };
        let &[c_out, c_group, kh, kw] = w.dims() else {
            return Err(shape_error(op, "w", w, "[c_out, c_in / groups, kh, kw]".into()));
        };
        Self::of_sizes(op, [images, height, width, c_in], [c_out, c_group, kh, kw], geometry)
    }

    /// From the sizes themselves, of images and weights.
    pub(crate) fn of_sizes(
        op: &'static str,
        [images, height, width, c_in]: [usize; 4],
        [c_out, c_group, kh, kw]: [usize; 4],
        geometry: &ConvGeometry,
    ) -> Result<Self> {
        geometry.validate(op)?;
        let groups = geometry.groups;
        if c_in % groups != 0 || c_out % groups != 0 {
            let expected = format!("a divisor of c_in = {c_in} and of c_out = {c_out}");
            return Err(option_error(op, "groups", groups, expected));
        }
        if c_group * groups != c_in || [c_in, c_out, kh, kw].contains(&0) {
            let expected =
                format!("[c_out, {}, kh, kw], no size 0, for {c_in} channels in {groups} groups", c_in / groups);
            return Err(sizes_error(op, "w", &[c_out, c_group, kh, kw], expected));
        }
        let (input, kernel) = ([height, width], [kh, kw]);
        let mut output = [0; 2];
        for axis in 0..2 {
            let span = geometry.dilation[axis] * (kernel[axis] - 1) + 1;
            let Some(free) = (input[axis] + 2 * geometry.padding[axis]).checked_sub(span) else {
                let expected = format!(
                    "an image that covers the {span} pixels the window spans along axis {axis}, padding included"
                );
                return Err(sizes_error(op, "x", &[images, height, width, c_in], expected));
            };
            output[axis] = free / geometry.stride[axis] + 1;
        }
        Ok(Self { images, input, output, c_in, c_out, kernel, geometry: *geometry })
    }

    /// Pixels of one output image.
    pub(crate) fn output_pixels(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Input channels of one group.
    pub(crate) fn group_in(&self) -> usize {
        self.c_in / self.geometry.groups
    }

    /// Output channels of one group.
    pub(crate) fn group_out(&self) -> usize {
        self.c_out / self.geometry.groups
    }

    /// Taps of the window.
    pub(crate) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Values of one window within one group: the depth of the matrix product.
    pub(crate) fn depth(&self) -> usize {
        self.taps() * self.group_in()
    }

    /// A window of one pixel that moves by one pixel: the image is the matrix.
    pub(crate) fn is_pointwise(&self) -> bool {
        let geometry = &self.geometry;
        self.kernel == [1, 1] && geometry.stride == [1, 1] && geometry.padding == [0, 0]
    }

    /// The same convolution on one image of rows of other lengths, if its windows do not see where images and rows
    /// begin: 1×1 without padding. Long rows fill tiles; channels bound them, so that a row stays in the cache.
    pub(crate) fn flattened(&self) -> Self {
        /// Pixels of a row at most.
        const LONGEST: usize = 512;
        /// Elements of a row at most.
        const LARGEST: usize = 256 * 1024;

        if !self.is_pointwise() {
            return *self;
        }
        let pixels = self.images * self.output_pixels();
        let longest = (LARGEST / self.c_in.max(self.c_out)).clamp(1, LONGEST);
        let width = (1..=longest.min(pixels)).rev().find(|width| pixels.is_multiple_of(*width)).unwrap_or(1);
        let size = [pixels / width, width];
        Self { images: 1, input: size, output: size, ..*self }
    }

    /// The convolution that takes the gradient of the output to that of the input, if one does:
    /// stride 1 and no more padding than the window reaches.
    pub(crate) fn reversed(&self) -> Option<Self> {
        if self.geometry.stride != [1, 1] {
            return None;
        }
        let mut geometry = self.geometry;
        for axis in 0..2 {
            let reach = geometry.dilation[axis] * (self.kernel[axis] - 1);
            geometry.padding[axis] = reach.checked_sub(geometry.padding[axis])?;
        }
        let (input, output) = (self.output, self.input);
        Some(Self { input, output, c_in: self.c_out, c_out: self.c_in, geometry, ..*self })
    }
}
