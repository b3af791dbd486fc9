use candle_core::cuda_backend::cudarc::cudnn::sys::{
    cudnnBackendAttributeName_t as Attribute, cudnnBackendAttributeType_t as Type,
    cudnnBackendDescriptorType_t as Kind, cudnnConvolutionMode_t, cudnnDataType_t,
};
use candle_core::{DType, Result};

use super::descriptor::Descriptor;
use crate::conv::ConvShape;
use crate::geometry::ConvGeometry;

/// The convolutions of a training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// `y` from `x` and `w`.
    Forward,
    /// `dx` from `dy` and `w`.
    InputGradient,
    /// The same, added to what lies there.
    AddedInputGradient,
    /// `dw` from `dy` and `x`.
    WeightGradient,
}

/// A convolution as cuDNN sees it: channels-last on both sides, weights `[k, kh, kw, c / groups]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Problem {
    pub(crate) dtype: DType,
    pub(crate) images: usize,
    pub(crate) input: [usize; 2],
    pub(crate) output: [usize; 2],
    /// Input channels, with those that only fill up to a multiple of eight.
    pub(crate) c_in: usize,
    pub(crate) c_out: usize,
    pub(crate) kernel: [usize; 2],
    geometry: ConvGeometry,
}

/// Names that tie the tensors of an operation to addresses.
pub(super) const X: i64 = 1;
pub(super) const W: i64 = 2;
pub(super) const Y: i64 = 3;

/// Tensor cores take channels by eights.
const CHANNELS: usize = 8;

impl Problem {
    pub(crate) fn new(shape: &ConvShape, dtype: DType) -> Self {
        let is_grouped = shape.geometry.groups > 1;
        Self {
            dtype,
            images: shape.images,
            input: shape.input,
            output: shape.output,
            c_in: if is_grouped { shape.c_in } else { shape.c_in.next_multiple_of(CHANNELS) },
            c_out: shape.c_out,
            kernel: shape.kernel,
            geometry: shape.geometry,
        }
    }

    /// Input channels of one group.
    pub(crate) fn group_in(&self) -> usize {
        self.c_in / self.geometry.groups
    }

    pub(crate) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    pub(crate) fn x_shape(&self) -> [usize; 4] {
        [self.images, self.input[0], self.input[1], self.c_in]
    }

    pub(crate) fn y_shape(&self) -> [usize; 4] {
        [self.images, self.output[0], self.output[1], self.c_out]
    }

    /// As the weights lie for cuDNN.
    pub(crate) fn packed_shape(&self) -> [usize; 4] {
        [self.c_out, self.kernel[0], self.kernel[1], self.group_in()]
    }

    /// A pass of the convolution in words; two that differ in anything have different ones.
    pub(super) fn name(&self, direction: Direction, tf32: bool) -> String {
        let Self { dtype, images, input: [height, width], output: _, c_in, c_out, kernel: [kh, kw], geometry } = self;
        let ConvGeometry { stride, padding, dilation, groups } = geometry;
        let pass = match direction {
            Direction::Forward => "forward",
            Direction::InputGradient => "input gradient",
            Direction::AddedInputGradient => "added input gradient",
            Direction::WeightGradient => "weight gradient",
        };
        let kind = if tf32 && *dtype == DType::F32 { "tf32" } else { dtype.as_str() };
        format!(
            "{pass} {kind} [{images}, {height}, {width}, {c_in}] to {c_out} by {kh}x{kw}, stride {stride:?}, padding \
             {padding:?}, dilation {dilation:?}, groups {groups}"
        )
    }

    fn data_type(&self) -> cudnnDataType_t {
        match self.dtype {
            DType::BF16 => cudnnDataType_t::CUDNN_DATA_BFLOAT16,
            _ => cudnnDataType_t::CUDNN_DATA_FLOAT,
        }
    }

    /// A tensor of `[n, h, w, c]` in memory; cuDNN counts its axes as n, c, h, w.
    fn tensor(&self, name: i64, [n, h, w, c]: [usize; 4]) -> Result<Descriptor> {
        let axes = [n, c, h, w].map(|size| size as i64);
        let strides = [h * w * c, 1, w * c, c].map(|stride| stride as i64);
        Descriptor::new(Kind::CUDNN_BACKEND_TENSOR_DESCRIPTOR)?
            .with_raw(Attribute::CUDNN_ATTR_TENSOR_DATA_TYPE, Type::CUDNN_TYPE_DATA_TYPE, &[self.data_type()])?
            .with(Attribute::CUDNN_ATTR_TENSOR_DIMENSIONS, &axes)?
            .with(Attribute::CUDNN_ATTR_TENSOR_STRIDES, &strides)?
            .with(Attribute::CUDNN_ATTR_TENSOR_UNIQUE_ID, &[name])?
            .with(Attribute::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, &[16i64])?
            .finalised("describe a tensor")
    }

    fn convolution(&self) -> Result<Descriptor> {
        let pair = |values: [usize; 2]| values.map(|value| value as i64);
        let geometry = &self.geometry;
        Descriptor::new(Kind::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)?
            .with_raw(
                Attribute::CUDNN_ATTR_CONVOLUTION_COMP_TYPE,
                Type::CUDNN_TYPE_DATA_TYPE,
                &[cudnnDataType_t::CUDNN_DATA_FLOAT],
            )?
            .with_raw(
                Attribute::CUDNN_ATTR_CONVOLUTION_CONV_MODE,
                Type::CUDNN_TYPE_CONVOLUTION_MODE,
                &[cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION],
            )?
            .with(Attribute::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, &[2i64])?
            .with(Attribute::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, &pair(geometry.padding))?
            .with(Attribute::CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, &pair(geometry.padding))?
            .with(Attribute::CUDNN_ATTR_CONVOLUTION_DILATIONS, &pair(geometry.dilation))?
            .with(Attribute::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, &pair(geometry.stride))?
            .finalised("describe a convolution")
    }

    /// The operation, finalised, last; before it the descriptors it is made of, which must live as long.
    pub(super) fn operation(&self, direction: Direction) -> Result<Vec<Descriptor>> {
        let names = Names::of(direction);
        let kept = if direction == Direction::AddedInputGradient { 1f32 } else { 0.0 };
        let (x, y) = (self.tensor(X, self.x_shape())?, self.tensor(Y, self.y_shape())?);
        let w = self.tensor(W, self.packed_shape())?;
        let convolution = self.convolution()?;
        let operation = Descriptor::new(names.kind)?
            .with_child(names.x, &x)?
            .with_child(names.w, &w)?
            .with_child(names.y, &y)?
            .with_child(names.convolution, &convolution)?
            .with(names.alpha, &[1f32])?
            .with(names.beta, &[kept])?
            .finalised("describe the operation")?;
        Ok(vec![x, y, w, convolution, operation])
    }
}

/// What cuDNN calls the parts of an operation.
struct Names {
    kind: Kind,
    x: Attribute,
    w: Attribute,
    y: Attribute,
    convolution: Attribute,
    alpha: Attribute,
    beta: Attribute,
}

impl Names {
    fn of(direction: Direction) -> Self {
        match direction {
            Direction::Forward => Self {
                kind: Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                x: Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                w: Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                y: Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                convolution: Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                alpha: Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                beta: Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
            },
            Direction::InputGradient | Direction::AddedInputGradient => Self {
                kind: Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                x: Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                w: Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                y: Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                convolution: Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                alpha: Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                beta: Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
            },
            Direction::WeightGradient => Self {
                kind: Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                x: Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                w: Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                y: Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                convolution: Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                alpha: Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                beta: Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
            },
        }
    }
}
