//! How the process's memory behaves under tensors that come and go.

/// Readies the C library's allocator for training: freed memory is kept, and lies on large pages. A program that trains
/// calls this once, first of all, on its main thread: others have heaps of their own.
///
/// Every activation and gradient is a block of megabytes that lives for part of a step. glibc maps such blocks afresh
/// each time, and the kernel then clears every page of them: a quarter of a training step of BaseNet (49.6 to 66.2
/// images/s at width 0.125 on two cores). So they come from the heap, which is not given back; the process stays as large
/// as its largest step.
///
/// The heap grows at once by half of the machine's memory, for pages of 2 MiB: of those of 4 KiB a processor cannot keep
/// in mind where all lie (steps of ResNet-50 take 0.92 of the time on a virtual machine). Nothing of it is used before it
/// is needed, though a system without overcommitment counts it. Where the system does not allow as much, the heap stays
/// as it was; where the allocator is another one, nothing happens.
pub fn prepare_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: `mallopt` only sets numbers in the allocator's own state, under its lock; both parameters are documented
        // in mallopt(3), and -1 is the documented way to turn trimming off.
        unsafe {
            libc::mallopt(libc::M_MMAP_MAX, 0);
            libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
        }
        grow_heap_on_large_pages();
    }
}

/// The advice is for addresses, whatever is allocated there later.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn grow_heap_on_large_pages() {
    const LARGE_PAGE: usize = 2 << 20;

    // glibc fills what is freed if it is told to, and would use all of it.
    let is_told = std::env::var("GLIBC_TUNABLES").is_ok_and(|tunables| tunables.contains("malloc.perturb"));
    if is_told || std::env::var_os("MALLOC_PERTURB_").is_some() {
        return;
    }
    // SAFETY: both ask for a number.
    let (pages, page) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    let memory = usize::try_from(pages).unwrap_or(0).saturating_mul(usize::try_from(page).unwrap_or(0));
    // SAFETY: any size may be asked for. What comes is not touched, and given back below.
    let room = unsafe { libc::malloc(memory / 2) };
    if room.is_null() {
        return;
    }
    let start = room.addr().next_multiple_of(LARGE_PAGE);
    let len = (room.addr() + memory / 2).saturating_sub(start) / LARGE_PAGE * LARGE_PAGE;
    // SAFETY: the advice concerns whole pages of this block and changes no contents; if it is not taken, the heap is as
    // good as before, so its result does not matter. The block came from `malloc`, and is not used again.
    unsafe {
        libc::madvise(room.with_addr(start), len, libc::MADV_HUGEPAGE);
        libc::free(room);
    }
}
