use std::cell::Cell;

thread_local! {
    /// Whether the backward pass that runs leaves gradients of variables as the ops make them.
    static IS_RAW: Cell<bool> = const { Cell::new(false) };
}

/// Runs a backward pass whose gradients of variables may be of any layout and type.
pub(super) fn raw<R>(pass: impl FnOnce() -> R) -> R {
    /// Ends it on a panic too.
    struct Inside(bool);

    impl Drop for Inside {
        fn drop(&mut self) {
            IS_RAW.set(self.0);
        }
    }

    let _inside = Inside(IS_RAW.replace(true));
    pass()
}

/// Whether the gradient of a variable may be left as it was made.
#[cfg(feature = "cuda")]
pub(crate) fn is_raw() -> bool {
    IS_RAW.get()
}
