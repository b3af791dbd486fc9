use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor};

use super::gradient::Gradient;
use super::node::Node;
use super::values::Values;

/// What candle holds as the operation of a result: it owns the node, and hands over the result once.
pub(super) struct Adaptor {
    node: Arc<Node>,
    result: Mutex<Option<(Storage, Shape)>>,
}

impl Adaptor {
    pub(super) fn new(node: Arc<Node>, result: Values, shape: Shape) -> Result<Self> {
        let result = result.into_storage(node.name(), &shape)?;
        Ok(Self { node, result: Mutex::new(Some((result, shape))) })
    }

    fn hand_over(&self) -> Result<(CpuStorage, Shape)> {
        match self.take()? {
            (Storage::Cpu(values), shape) => Ok((values, shape)),
            _ => candle_core::bail!("{}: inputs are on the CPU, the result is not", self.node.name()),
        }
    }

    fn hand_over_cuda(&self) -> Result<(CudaStorage, Shape)> {
        match self.take()? {
            (Storage::Cuda(values), shape) => Ok((values, shape)),
            _ => candle_core::bail!("{}: inputs are on a GPU, the result is not", self.node.name()),
        }
    }

    fn take(&self) -> Result<(Storage, Shape)> {
        let result = self.result.lock().unwrap_or_else(PoisonError::into_inner).take();
        result.ok_or_else(|| candle_core::Error::Msg(format!("{}: the result is already taken", self.node.name())))
    }

    /// The gradients of the inputs, and nothing for those candle has room for beyond them.
    fn gradients<const N: usize>(&self, output: &Tensor, gradient: &Tensor) -> Result<[Option<Tensor>; N]> {
        // candle may hold these values elsewhere; nothing is added to them here.
        let gradient = Gradient::from(gradient.detach().contiguous()?);
        let mut gradients = self.node.backward(output, &gradient)?.into_iter();
        Ok(std::array::from_fn(|_| gradients.next().flatten().map(Gradient::into_tensor)))
    }
}

impl CustomOp1 for Adaptor {
    fn name(&self) -> &'static str {
        self.node.name()
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.hand_over()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.hand_over_cuda()
    }

    fn bwd(&self, _: &Tensor, output: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let [x] = self.gradients(output, gradient)?;
        Ok(x)
    }
}

impl CustomOp2 for Adaptor {
    fn name(&self) -> &'static str {
        self.node.name()
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.hand_over()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.hand_over_cuda()
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        output: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [x, second] = self.gradients(output, gradient)?;
        Ok((x, second))
    }
}

impl CustomOp3 for Adaptor {
    fn name(&self) -> &'static str {
        self.node.name()
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.hand_over()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.hand_over_cuda()
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        output: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [x, second, third] = self.gradients(output, gradient)?;
        Ok((x, second, third))
    }
}
