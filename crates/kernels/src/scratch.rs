use std::cell::RefCell;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Lends a buffer of `len` elements with unspecified contents.
///
/// Each worker thread keeps its buffers, because asking the system for fresh pages costs more than
/// filling a tile that is still in the cache.
pub(crate) fn with_buffer<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = BUFFERS.with(|buffers| buffers.borrow_mut().pop()).unwrap_or_default();
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    let result = work(&mut buffer[..len]);
    BUFFERS.with(|buffers| buffers.borrow_mut().push(buffer));
    result
}
