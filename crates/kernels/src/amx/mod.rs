//! Products of f32 matrices on the tile unit of x86-64 (AMX), which multiplies small numbers only, but many of them in a
//! cycle: bytes thirty-two times as many as AVX-512 does f32, bf16 numbers sixteen times.
//!
//! In [`fixed`] point, f32 becomes three bytes, where a scale can be found for all values that are summed together.
//!
//! Else each f32 is split into bf16 numbers, each of which rounds what those before leave, and of the products of two such
//! sums those that matter are formed (Henry, Tang and Heinecke 2019, "Leveraging the bfloat16 artificial intelligence
//! datatype for higher-precision computations"): six of three parts each, which is as exact as f32. One product of one
//! part each keeps 8 of f32's 24 digits.
//!
//! The instructions have no stable intrinsics, so the inner loops are assembly.

mod axis;
mod balance;
mod digits;
pub(crate) mod fixed;
mod operand;
mod product;
mod split;
pub(crate) mod windows;

pub(crate) use balance::Balance;
pub(crate) use operand::{ZEROS, left_tile, right_tile};
pub(crate) use product::{DEPTH, Product, TILE, Tiles};
pub(crate) use split::{Parts, split, split_few, split_pixel, transpose_pairs};

use std::sync::OnceLock;

/// Whether the processor has the tile unit, and the system lets this process use it.
///
/// Asks the system for the permission, once.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let has_vectors = std::is_x86_feature_detected!("avx512f")
            && std::is_x86_feature_detected!("avx512bw")
            && std::is_x86_feature_detected!("avx512bf16");
        has_vectors && has_tiles() && is_permitted()
    })
}

fn has_tiles() -> bool {
    /// Intel's manual, volume 2A, CPUID leaf 7: bits of EDX.
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    const AMX_INT8: u32 = 1 << 25;

    const ALL: u32 = AMX_BF16 | AMX_TILE | AMX_INT8;
    std::arch::x86_64::__cpuid_count(7, 0).edx & ALL == ALL
}

/// Tiles are 8 KiB of state per thread, which Linux saves only for processes that have asked
/// (<https://docs.kernel.org/arch/x86/xstate.html>).
fn is_permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;

    // SAFETY: the call takes two numbers, and changes what this process may use alone.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}
