use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::error::KernelError;

/// Which instructions the CPU kernels use. Results of one path are the same bits everywhere it runs; those of two
/// paths differ by rounding. The products of the linear layer are the `gemm` crate's, which chooses its instructions
/// by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CpuPath {
    /// As [`Self::Amx`], with one bf16 number for each f32 in all convolutions of one group: 8 of f32's 24 digits, as
    /// PyTorch's autocast has them, an error of 3e-3 of the largest value. Never chosen unasked.
    AmxBf16,
    /// As [`Self::Avx512`], with convolutions on the tile unit (AMX) where that is faster.
    ///
    /// Most of them in fixed point: values that are summed together, of one pixel or of one channel in some hundred pixels
    /// (of one image for a first layer of wide windows), become numbers of 24 binary digits of the largest of them, and
    /// their products are exact. The error is that of f32 relative to the largest products of a sum (4e-6 of the largest
    /// result in the tests, whose inputs differ in size by four orders of magnitude), for such a first layer to the largest
    /// pixel of the image; what is 2²⁴ times smaller counts as zero. Others split each f32 into three bf16 numbers and sum
    /// six of their products in f32; there a value beyond 3.39e38, the largest of bf16, counts as infinite.
    /// Linux only.
    Amx,
    /// AVX-512 F, VL, DQ and BW.
    Avx512,
    /// AVX2 with FMA.
    Avx2,
    /// What the target's baseline has: on x86-64, SSE2.
    Portable,
}

impl CpuPath {
    /// All of them, fastest first.
    pub const ALL: [Self; 5] = [Self::AmxBf16, Self::Amx, Self::Avx512, Self::Avx2, Self::Portable];

    /// Whether this processor has the path's instructions.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx | Self::AmxBf16 => Self::Avx512.is_available() && crate::amx::is_available(),
            #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
            Self::Amx | Self::AmxBf16 => false,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                std::is_x86_feature_detected!("avx512f")
                    && std::is_x86_feature_detected!("avx512vl")
                    && std::is_x86_feature_detected!("avx512dq")
                    && std::is_x86_feature_detected!("avx512bw")
                    && Self::Avx2.is_available()
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma"),
            Self::Portable => true,
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx2 => false,
        }
    }

    /// The fastest path of this processor that keeps f32's precision.
    pub fn best() -> Self {
        let mut exact = Self::ALL.into_iter().filter(|&path| path != Self::AmxBf16);
        exact.find(|path| path.is_available()).unwrap_or(Self::Portable)
    }

    fn name(self) -> &'static str {
        match self {
            Self::AmxBf16 => "amx-bf16",
            Self::Amx => "amx",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }
}

impl fmt::Display for CpuPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CpuPath {
    type Err = KernelError;

    /// Reads the lower-case name.
    fn from_str(text: &str) -> Result<Self, KernelError> {
        let found = Self::ALL.into_iter().find(|path| path.name() == text);
        found.ok_or_else(|| KernelError::UnknownCpuPath { name: text.to_owned() })
    }
}

/// No path chosen yet.
const UNSET: u8 = u8::MAX;

static SELECTED: AtomicU8 = AtomicU8::new(UNSET);

/// The path that the kernels take in this process: the fastest, unless [`set_cpu_path`] chose another.
pub fn cpu_path() -> CpuPath {
    selected().0
}

/// Makes the kernels of the whole process take one path from here on.
///
/// Meant for the start of a program: an op that has begun ends on the path it began with.
///
/// # Errors
/// A path whose instructions this processor lacks.
pub fn set_cpu_path(path: CpuPath) -> Result<(), KernelError> {
    if !path.is_available() {
        return Err(KernelError::CpuPath { path, best: CpuPath::best() });
    }
    let index = CpuPath::ALL.iter().position(|&other| other == path).unwrap_or(CpuPath::ALL.len() - 1);
    SELECTED.store(index as u8, Ordering::Relaxed);
    Ok(())
}

/// A path whose instructions this processor has.
///
/// An op asks once and takes it through all its stages: what one of them packs, another reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Selected(CpuPath);

impl Selected {
    pub(crate) fn path(self) -> CpuPath {
        self.0
    }
}

/// See [`cpu_path`].
pub(crate) fn selected() -> Selected {
    match CpuPath::ALL.get(usize::from(SELECTED.load(Ordering::Relaxed))) {
        Some(&path) => Selected(path),
        None => {
            let best = CpuPath::best();
            // Only `set_cpu_path` may have been faster, and its choice stays.
            let index = CpuPath::ALL.iter().position(|&path| path == best).unwrap_or(CpuPath::ALL.len() - 1);
            let _ = SELECTED.compare_exchange(UNSET, index as u8, Ordering::Relaxed, Ordering::Relaxed);
            Selected(best)
        }
    }
}
