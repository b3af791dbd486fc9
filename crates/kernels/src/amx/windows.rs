//! Windows over images of few channels, in fixed point, read where the pixels lie.
//!
//! Windows that move by two rows begin at every second one, so rows lie in pairs: of each pixel of the upper one and the
//! one below four bytes, a channel each. Eight such pixels are a row of a tile; the next window begins some pixels further.

use std::arch::asm;
use std::arch::x86_64::*;

use super::digits::{self, DIGITS, Peak};
use super::fixed::{Operand, QUAD, Results, STEP, STEP_BYTES, Sums, TILE_BYTES, write};
use super::product::{TILE, Tiles};
use crate::scratch::Buffer;

/// Channels at most: each is a byte of a pixel.
pub(crate) const CHANNELS: usize = QUAD;

/// Rows that lie together, and by how many windows move.
pub(crate) const ROWS: usize = 2;

/// Bytes of a pixel and of the one below.
const PIXEL_BYTES: usize = CHANNELS * ROWS;

/// Columns of a window at most.
pub(crate) const COLUMNS: usize = STEP / PIXEL_BYTES;

/// Values of an image, which share a scale.
#[derive(Clone, Copy)]
pub(crate) struct Image<'a> {
    values: &'a [f32],
    width: usize,
    lanes: Lanes,
    peak: Peak,
}

impl<'a> Image<'a> {
    /// Looks for the scale. Rows are `width` pixels, and those [`CHANNELS`] values at most; each channel is multiplied by
    /// its factor, if there are any.
    ///
    /// # Safety
    /// The processor has AVX-512 F.
    #[target_feature(enable = "avx512f")]
    pub(crate) unsafe fn new(values: &'a [f32], width: usize, channels: usize, factors: Option<&[f32]>) -> Self {
        let lanes = Lanes::new(channels, factors);
        let mut peaks = [Peak::none(); 2];
        for (index, first) in (0..values.len()).step_by(lanes.values()).enumerate() {
            // One chain would wait for itself.
            let peak = &mut peaks[index % 2];
            *peak = peak.with(lanes.load(&values[first..]));
        }
        Self { values, width, lanes, peak: peaks[0].or(peaks[1]).of_all_lanes() }
    }

    fn row(&self, row: Option<usize>) -> Option<&'a [f32]> {
        let len = self.width * self.lanes.channels;
        row.and_then(|row| self.values.get(row * len..(row + 1) * len))
    }
}

/// How values side by side become [`CHANNELS`] lanes for each pixel.
#[derive(Clone, Copy)]
struct Lanes {
    channels: usize,
    /// Lanes with a value, and which one.
    mask: __mmask16,
    sources: __m512i,
    factors: __m512,
}

impl Lanes {
    #[target_feature(enable = "avx512f")]
    fn new(channels: usize, factors: Option<&[f32]>) -> Self {
        let (mut mask, mut sources, mut scaled) = (0, [0i32; TILE], [1.0f32; TILE]);
        for lane in (0..TILE).filter(|lane| lane % CHANNELS < channels) {
            let (pixel, channel) = (lane / CHANNELS, lane % CHANNELS);
            mask |= 1 << lane;
            sources[lane] = (pixel * channels + channel) as i32;
            scaled[lane] = factors.map_or(1.0, |factors| factors[channel]);
        }
        // SAFETY: sixteen values are a vector.
        let (sources, factors) =
            unsafe { (_mm512_loadu_si512(sources.as_ptr().cast()), _mm512_loadu_ps(scaled.as_ptr())) };
        Self { channels, mask, sources, factors }
    }

    /// Values of a vector.
    fn values(&self) -> usize {
        TILE / CHANNELS * self.channels
    }

    /// The first values, zeros beyond the last one.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(&self, values: &[f32]) -> __m512 {
        let mask = (1u32 << values.len().min(self.values())) - 1;
        // SAFETY: lanes outside the mask are not read.
        let lanes = unsafe { _mm512_maskz_loadu_ps(mask as u16, values.as_ptr()) };
        _mm512_mul_ps(_mm512_maskz_permutexvar_ps(self.mask, self.sources, lanes), self.factors)
    }
}

/// Pairs of rows of an image as digits, a plane for each digit.
pub(crate) struct Pairs {
    digits: Buffer,
    /// Bytes between pairs.
    pitch: usize,
    /// Bytes between digits.
    plane: usize,
    scale: [f32; TILE],
}

impl Pairs {
    /// Room for so many pairs of `width` pixels, those that windows read beside the image included. The scale is that of
    /// an image.
    ///
    /// # Safety
    /// As [`Image::new`].
    #[target_feature(enable = "avx512f")]
    pub(crate) unsafe fn new(pairs: usize, width: usize, image: &Image<'_>) -> Self {
        // Whole vectors are written beyond the last pixel.
        let pitch = (width * PIXEL_BYTES + TILE * ROWS).next_multiple_of(STEP);
        let plane = pairs * pitch;
        let mut scale = [0.0; TILE];
        // SAFETY: sixteen values are a vector.
        unsafe { _mm512_storeu_ps(scale.as_mut_ptr(), image.peak.scale()) };
        Self { digits: Buffer::lend((DIGITS * plane).div_ceil(size_of::<f32>())), pitch, plane, scale }
    }

    fn place(&self, pair: usize, pixel: usize) -> *const u8 {
        self.digits.as_ptr().cast::<u8>().wrapping_add(pair * self.pitch + pixel * PIXEL_BYTES)
    }

    /// Fills a pair with two rows of the image, zeros in place of those that it has not, after `before` pixels of zeros.
    ///
    /// # Safety
    /// As [`Image::new`]; there is such a pair, with room for as many pixels.
    #[target_feature(enable = "avx512f")]
    pub(crate) unsafe fn fill(&mut self, pair: usize, rows: [Option<usize>; ROWS], image: &Image<'_>, before: usize) {
        let (start, plane) = (self.digits.as_mut_ptr().cast::<u8>(), self.plane);
        let start = start.wrapping_add(pair * self.pitch);
        for digit in 0..DIGITS {
            // SAFETY: the caller's.
            unsafe { start.add(digit * plane).write_bytes(0, self.pitch) };
        }
        let rows = rows.map(|row| image.row(row));
        let (lanes, shift) = (&image.lanes, image.peak.shift());
        for first in (0..image.width * lanes.channels).step_by(lanes.values()) {
            let target = start.wrapping_add((before + first / lanes.channels) * PIXEL_BYTES);
            let mut digits = [[_mm_setzero_si128(); DIGITS]; ROWS];
            for (digits, row) in digits.iter_mut().zip(rows) {
                if let Some(row) = row {
                    *digits = digits::rows(lanes.load(&row[first..]), shift);
                }
            }
            let [upper, lower] = digits;
            for (digit, (upper, lower)) in upper.into_iter().zip(lower).enumerate() {
                // SAFETY: the caller's; there is room for a whole vector beyond the last pixel.
                unsafe {
                    let target = target.add(digit * plane);
                    _mm_storeu_si128(target.cast(), _mm_unpacklo_epi32(upper, lower));
                    _mm_storeu_si128(target.add(TILE).cast(), _mm_unpackhi_epi32(upper, lower));
                }
            }
        }
    }
}

/// The value of a window that a weight on the shared axis of a right operand belongs to: the axis has a step for each two
/// rows.
pub(crate) struct Tap {
    pub(crate) row: usize,
    pub(crate) column: usize,
    pub(crate) channel: usize,
}

impl Tap {
    /// Of a place on the axis.
    pub(crate) fn at(place: usize) -> Self {
        let (step, place) = (place / STEP, place % STEP);
        let (channel, quad) = (place / TILE, place % TILE);
        Self { row: step * ROWS + quad % ROWS, column: quad / ROWS, channel }
    }
}

/// Length of the axis for windows of so many rows.
pub(crate) fn depth(rows: usize) -> usize {
    rows.div_ceil(ROWS) * STEP
}

/// `results = windows · weights` for a tile of columns and as many windows, side by side from a pixel of a pair on, as
/// there are rows of results.
///
/// # Safety
/// The pairs that the windows reach and the weights are filled, and there are pixels for whole tiles of windows; nobody
/// else touches the results.
pub(crate) unsafe fn multiply(
    _unit: &Tiles,
    (pairs, pair, stride): (&Pairs, usize, usize),
    (weights, column): (&Operand, usize),
    results: Results,
) {
    let mut sums = Sums::zeros();
    let windows = Windows { pitch: pairs.pitch, plane: pairs.plane, across: stride * PIXEL_BYTES };
    for tile in 0..results.rows.div_ceil(TILE) {
        // SAFETY: the caller's.
        unsafe {
            let left = pairs.place(pair, tile * TILE * stride);
            sum_digits(left, &windows, weights.tile(column), weights.steps(), &mut sums);
            write(&sums, (&pairs.scale, weights.scales(column)), results.tile(tile, 0));
        }
    }
}

/// Bytes from pair to pair, from digit to digit, and from window to window.
struct Windows {
    pitch: usize,
    plane: usize,
    across: usize,
}

/// The sums of products of digits of one tile of windows and one of columns.
///
/// # Safety
/// The tiles are configured whole; there are so many steps, one at least.
#[inline]
unsafe fn sum_digits(left: *const u8, windows: &Windows, right: *const u8, steps: usize, sums: &mut Sums) {
    let (mid, low) = (left.wrapping_add(windows.plane), left.wrapping_add(2 * windows.plane));
    // SAFETY: the caller's; every register used is named.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            ".p2align 5",
            "2:",
            "tileloadd tmm3, [{high} + {across}]",
            "tileloadd tmm6, [{right} + {row}]",
            "tdpbssd tmm0, tmm3, tmm6",
            "tileloadd tmm4, [{mid} + {across}]",
            "tdpbssd tmm1, tmm4, tmm6",
            "tileloadd tmm5, [{low} + {across}]",
            "tdpbssd tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{right} + {row} + 1024]",
            "tdpbssd tmm1, tmm3, tmm7",
            "tdpbssd tmm2, tmm4, tmm7",
            "tileloadd tmm6, [{right} + {row} + 2048]",
            "tdpbssd tmm2, tmm3, tmm6",
            "add {high}, {pitch}",
            "add {mid}, {pitch}",
            "add {low}, {pitch}",
            "add {right}, 3072",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {row}], tmm0",
            "tilestored [{sums} + {row} + 1024], tmm1",
            "tilestored [{sums} + {row} + 2048], tmm2",
            high = inout(reg) left => _,
            mid = inout(reg) mid => _,
            low = inout(reg) low => _,
            right = inout(reg) right => _,
            steps = inout(reg) steps => _,
            pitch = in(reg) windows.pitch,
            across = in(reg) windows.across,
            row = in(reg) STEP,
            sums = in(reg) sums,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

// The assembly above counts in these.
const _: () = assert!(STEP_BYTES == 3072 && TILE_BYTES == 1024 && DIGITS == 3);
