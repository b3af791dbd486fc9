use std::ffi::{c_char, c_void};

use candle_core::Result;
use candle_core::cuda_backend::cudarc::cudnn::sys::{
    self, cudnnBackendAttributeName_t as Attribute, cudnnBackendAttributeType_t as Type,
    cudnnBackendDescriptorType_t as Kind, cudnnStatus_t,
};

use crate::error::KernelError;

/// What cuDNN says of a call that failed.
pub(super) fn check(status: cudnnStatus_t, what: &str) -> Result<()> {
    if status == cudnnStatus_t::CUDNN_STATUS_SUCCESS {
        return Ok(());
    }
    let mut text = [0u8; 1024];
    // SAFETY: the buffer is as long as is said; cuDNN ends what it writes with a zero.
    unsafe { sys::cudnnGetLastErrorString(text.as_mut_ptr().cast::<c_char>(), text.len()) };
    let text: Vec<u8> = text.into_iter().take_while(|&byte| byte != 0).collect();
    let problem = format!("cuDNN cannot {what}: {status:?}: {}", String::from_utf8_lossy(&text).trim());
    Err(KernelError::Gpu { op: "conv2d", problem }.into())
}

/// A descriptor of cuDNN's graph interface: made, filled, finalised, then only read.
#[derive(Debug)]
pub(super) struct Descriptor(sys::cudnnBackendDescriptor_t);

// SAFETY: a descriptor is plain memory of cuDNN's, bound to no thread; one thread at a time holds it.
unsafe impl Send for Descriptor {}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once.
        unsafe { sys::cudnnBackendDestroyDescriptor(self.0) };
    }
}

/// A value that an attribute can have, with the name cuDNN gives its type.
pub(super) trait Value: Copy + Default {
    const TYPE: Type;
}

impl Value for i64 {
    const TYPE: Type = Type::CUDNN_TYPE_INT64;
}

impl Value for f32 {
    const TYPE: Type = Type::CUDNN_TYPE_FLOAT;
}

impl Value for u8 {
    const TYPE: Type = Type::CUDNN_TYPE_CHAR;
}

impl Descriptor {
    pub(super) fn new(kind: Kind) -> Result<Self> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` outlives the call.
        check(unsafe { sys::cudnnBackendCreateDescriptor(kind, &mut raw) }, "make a descriptor")?;
        Ok(Self(raw))
    }

    /// As it is known to cuDNN; good while the descriptor lives.
    pub(super) fn raw(&self) -> sys::cudnnBackendDescriptor_t {
        self.0
    }

    /// Sets an attribute to numbers.
    pub(super) fn with<V: Value>(self, name: Attribute, values: &[V]) -> Result<Self> {
        self.with_raw(name, V::TYPE, values)
    }

    /// Sets an attribute to values of one of cuDNN's own types.
    pub(super) fn with_raw<V>(self, name: Attribute, kind: Type, values: &[V]) -> Result<Self> {
        // SAFETY: cuDNN reads `len` values of the type that `kind` names, which callers keep to.
        let status = unsafe {
            sys::cudnnBackendSetAttribute(self.0, name, kind, values.len() as i64, values.as_ptr().cast::<c_void>())
        };
        check(status, &format!("set {name:?}"))?;
        Ok(self)
    }

    /// Sets an attribute to other descriptors.
    pub(super) fn with_child(self, name: Attribute, child: &Self) -> Result<Self> {
        self.with_raw(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &[child.0])
    }

    pub(super) fn finalised(self, what: &str) -> Result<Self> {
        // SAFETY: the descriptor is alive.
        check(unsafe { sys::cudnnBackendFinalize(self.0) }, what)?;
        Ok(self)
    }

    /// How many values an attribute has.
    pub(super) fn count(&self, name: Attribute, kind: Type) -> Result<usize> {
        let mut count = 0i64;
        // SAFETY: with room for nothing, only the count is written.
        let status = unsafe { sys::cudnnBackendGetAttribute(self.0, name, kind, 0, &mut count, std::ptr::null_mut()) };
        check(status, &format!("count {name:?}"))?;
        Ok(count.max(0) as usize)
    }

    /// The values of an attribute, `most` of them at the most.
    pub(super) fn get<V: Copy + Default>(&self, name: Attribute, kind: Type, most: usize) -> Result<Vec<V>> {
        let mut values = vec![V::default(); most.max(1)];
        let count = self.fill(name, kind, &mut values)?;
        values.truncate(count);
        Ok(values)
    }

    /// Descriptors that cuDNN fills; the caller makes them.
    pub(super) fn children(&self, name: Attribute, mut made: Vec<Self>) -> Result<Vec<Self>> {
        let mut raw: Vec<_> = made.iter().map(|child| child.0).collect();
        let count = self.fill(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &mut raw)?;
        made.truncate(count);
        Ok(made)
    }

    fn fill<V>(&self, name: Attribute, kind: Type, values: &mut [V]) -> Result<usize> {
        let mut count = 0i64;
        let room = values.len() as i64;
        // SAFETY: cuDNN writes at most `room` values of the type that `kind` names, which callers keep to.
        let status = unsafe {
            sys::cudnnBackendGetAttribute(self.0, name, kind, room, &mut count, values.as_mut_ptr().cast::<c_void>())
        };
        check(status, &format!("read {name:?}"))?;
        Ok((count.max(0) as usize).min(values.len()))
    }
}
