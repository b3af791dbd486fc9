use candle_core::cuda_backend::cudarc::cublas::result::{CublasError, gemm_ex};
use candle_core::cuda_backend::cudarc::cublas::sys::{
    cublasComputeType_t as Compute, cublasGemmAlgo_t as Algorithm, cublasOperation_t as Transpose, cudaDataType,
};
use candle_core::{DType, Result, Tensor};

use super::dnn::is_tf32;
use super::elementwise::{add_bias, cast, column_sums};
use super::gpu::Gpu;
use super::memory::address;
use crate::error::KernelError;
use crate::graph::{Gradient, Operation, attach, wanted};

const OP: &str = "linear";

/// `x · wᵀ + bias` by cuBLAS, in the activations' type with sums in f32.
pub(crate) fn linear(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let gpu = Gpu::of(OP, "x", x)?;
    let (x, w) = (x.contiguous()?, w.contiguous()?);
    let (rows, inner, columns) = (x.dim(0)?, x.dim(1)?, w.dim(0)?);
    let op = Linear { rows, inner, columns, weights: cast(&gpu, &w.detach(), x.dtype())? };
    let y = gpu.empty(x.dtype(), (rows, columns))?;
    let (x_at, w_at) = (address(OP, "x", &x)?, address(OP, "w", &op.weights)?);
    // In columns, as cuBLAS counts: yᵀ [out, n] = w [out, k] · xᵀ [k, n].
    let product = Product {
        sizes: [columns, rows, inner],
        left: (w_at, Transpose::CUBLAS_OP_T, inner),
        right: (x_at, Transpose::CUBLAS_OP_N, inner),
        result: (y.address, columns),
    };
    product.run(&gpu, [x.dtype(), x.dtype()])?;
    let Some(bias) = bias else {
        return attach(op, &[&x, &w], y, (rows, columns));
    };
    let bias = bias.contiguous()?;
    add_bias(&gpu, y.address, &bias, x.dtype(), [rows, columns])?;
    attach(op, &[&x, &w, &bias], y, (rows, columns))
}

struct Linear {
    rows: usize,
    inner: usize,
    columns: usize,
    /// In the activations' type.
    weights: Tensor,
}

impl Linear {
    /// `dxᵀ [k, n] = wᵀ [k, out] · dyᵀ [out, n]`.
    fn input_gradient(&self, dy: &Tensor) -> Result<Tensor> {
        let &Self { rows, inner, columns, .. } = self;
        let gpu = Gpu::of(OP, "gradient", dy)?;
        let dx = gpu.empty(dy.dtype(), (rows, inner))?;
        let product = Product {
            sizes: [inner, rows, columns],
            left: (address(OP, "w", &self.weights)?, Transpose::CUBLAS_OP_N, inner),
            right: (address(OP, "gradient", dy)?, Transpose::CUBLAS_OP_N, columns),
            result: (dx.address, inner),
        };
        product.run(&gpu, [dy.dtype(), dy.dtype()])?;
        Ok(dx.into_tensor())
    }

    /// `dwᵀ [k, out] = xᵀ [k, n] · dy [n, out]`, in f32.
    fn weight_gradient(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let &Self { rows, inner, columns, .. } = self;
        let gpu = Gpu::of(OP, "gradient", dy)?;
        let dw = gpu.empty(DType::F32, (columns, inner))?;
        let product = Product {
            sizes: [inner, columns, rows],
            left: (address(OP, "x", x)?, Transpose::CUBLAS_OP_N, inner),
            right: (address(OP, "gradient", dy)?, Transpose::CUBLAS_OP_T, columns),
            result: (dw.address, inner),
        };
        product.run(&gpu, [dy.dtype(), DType::F32])?;
        Ok(dw.into_tensor())
    }
}

impl Operation for Linear {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, inputs: &[Tensor], _y: &Tensor, gradient: &Gradient) -> Result<Vec<Option<Gradient>>> {
        let (x, w, dy) = (&inputs[0], &inputs[1], gradient.tensor());
        let mut gradients = vec![wanted(x, || self.input_gradient(dy))?, wanted(w, || self.weight_gradient(x, dy))?];
        if let Some(bias) = inputs.get(2) {
            gradients.push(wanted(bias, || column_sums(OP, dy))?);
        }
        Ok(gradients)
    }
}

/// `result [m, n] = left [m, k] · right [k, n]`, all by columns: where each begins, whether it is transposed, and the
/// distance between its columns.
struct Product {
    sizes: [usize; 3],
    left: (u64, Transpose, usize),
    right: (u64, Transpose, usize),
    result: (u64, usize),
}

impl Product {
    fn run(&self, gpu: &Gpu, [factors, result]: [DType; 2]) -> Result<()> {
        let [m, n, k] = self.sizes.map(|size| size as i32);
        if m == 0 || n == 0 {
            return Ok(());
        }
        let compute = match factors == DType::F32 && is_tf32() {
            true => Compute::CUBLAS_COMPUTE_32F_FAST_TF32,
            false => Compute::CUBLAS_COMPUTE_32F,
        };
        let (one, zero) = (1.0f32, 0.0f32);
        let (blas, (factor_type, result_type)) = (gpu.device.cublas_handle(), (data_type(factors), data_type(result)));
        let (left, right, (to, distance)) = (self.left, self.right, self.result);
        // SAFETY: callers pass addresses of matrices of these sizes and types, which they hold; both numbers outlive the
        // call, which reads them from the host.
        let queued = unsafe {
            gemm_ex(
                *blas.handle(),
                left.1,
                right.1,
                m,
                n,
                k,
                std::ptr::from_ref(&one).cast(),
                left.0 as *const _,
                factor_type,
                left.2 as i32,
                right.0 as *const _,
                factor_type,
                right.2 as i32,
                std::ptr::from_ref(&zero).cast(),
                to as *mut _,
                result_type,
                distance as i32,
                compute,
                Algorithm::CUBLAS_GEMM_DEFAULT,
            )
        };
        let refused = |error: CublasError| {
            let problem = format!("cuBLAS cannot multiply [{m}, {k}] by [{k}, {n}]: {error:?}");
            KernelError::Gpu { op: OP, problem }.into()
        };
        queued.map_err(refused)
    }
}

fn data_type(dtype: DType) -> cudaDataType {
    match dtype {
        DType::BF16 => cudaDataType::CUDA_R_16BF,
        _ => cudaDataType::CUDA_R_32F,
    }
}
