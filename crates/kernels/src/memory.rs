//! How the process's memory behaves under tensors that come and go.

/// Tells the C library's allocator to keep freed memory instead of giving each large block back to the system.
///
/// Every activation and gradient is a block of megabytes that lives for part of a step. glibc maps such blocks afresh
/// each time, and the kernel then clears every page of them: a quarter of a training step of BaseNet (49.6 to 66.2
/// images/s at width 0.125 on two cores). A program that trains calls this once at its start; the process then stays as
/// large as its largest step. Where the allocator is another one, nothing happens.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` only sets numbers in the allocator's own state, under its lock; both parameters are documented
    // in mallopt(3), and -1 is the documented way to turn trimming off.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
    }
}
