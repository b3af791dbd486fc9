use std::cell::Cell;

thread_local! {
    /// How many calls of [`without_history`] this thread is in.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Runs a forward pass whose results of this crate's ops have no history, though it reads variables.
///
/// Each activation is then freed as soon as the next op has read it, where it would otherwise live until the result
/// is dropped: PyTorch's `no_grad`. It holds for the calling thread; candle's own ops keep their history.
///
/// ```
/// use candle_core::{Device, Var};
/// use taper_kernels::{relu, without_history};
///
/// let x = Var::new(&[-1f32, 2.0], &Device::Cpu)?;
/// assert!(relu(&x)?.track_op());
/// assert!(!without_history(|| relu(&x))?.track_op());
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn without_history<R>(forward: impl FnOnce() -> R) -> R {
    /// Leaves on a panic too.
    struct Inside;

    impl Drop for Inside {
        fn drop(&mut self) {
            DEPTH.set(DEPTH.get() - 1);
        }
    }

    DEPTH.set(DEPTH.get() + 1);
    let _inside = Inside;
    forward()
}

/// Whether this thread keeps no history now.
pub(crate) fn is_off() -> bool {
    DEPTH.get() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_comes_back_after_nesting_and_panics() {
        assert!(!is_off());
        without_history(|| {
            without_history(|| assert!(is_off()));
            assert!(is_off());
        });
        assert!(!is_off());
        assert!(std::panic::catch_unwind(|| without_history(|| panic!("on purpose"))).is_err());
        assert!(!is_off());
    }
}
