use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use super::gradient::Gradient;
use super::node::Node;

/// What candle holds as the operation of a result: it owns the node, and hands over the result once.
pub(super) struct Adaptor {
    node: Arc<Node>,
    result: Mutex<Option<(CpuStorage, Shape)>>,
}

impl Adaptor {
    pub(super) fn new(node: Arc<Node>, result: Vec<f32>, shape: Shape) -> Result<Self> {
        if result.len() != shape.elem_count() {
            candle_core::bail!("{}: {} values do not fill the shape {shape:?}", node.name(), result.len());
        }
        Ok(Self { node, result: Mutex::new(Some((CpuStorage::F32(result), shape))) })
    }

    fn hand_over(&self) -> Result<(CpuStorage, Shape)> {
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
