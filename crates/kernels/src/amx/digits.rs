//! From f32 to the digits of fixed-point numbers, in the order in which the tile unit wants them.

use std::arch::x86_64::*;

/// Digits of a number, the first one the highest.
pub(super) const DIGITS: usize = 3;

/// What the largest value of a sum becomes. Three digits hold 8,355,711, a little more, so that no rounding leads beyond.
const LARGEST: f32 = 8_355_000.0;

/// Sums of smaller values lose digits, rather than that their factor be out of range.
const TINY: f32 = 2.5e-32;

/// The largest value that each lane has seen.
///
/// As numbers without sign: their order is that of the values, and behind them come the infinite ones and those that
/// are none, which so are not lost.
#[derive(Clone, Copy)]
pub(crate) struct Peak(__m512i);

// Plain functions of vectors: callers have the processor's features on.
impl Peak {
    /// Of no values.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn none() -> Self {
        Self(_mm512_setzero_si512())
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn with(self, values: __m512) -> Self {
        Self(_mm512_max_epu32(self.0, _mm512_castps_si512(_mm512_abs_ps(values))))
    }

    /// The larger one in each lane.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn or(self, other: Self) -> Self {
        Self(_mm512_max_epu32(self.0, other.0))
    }

    /// That of all lanes in each of them.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn of_all_lanes(self) -> Self {
        Self(_mm512_set1_epi32(_mm512_reduce_max_epu32(self.0) as i32))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn value(self) -> __m512 {
        _mm512_max_ps(_mm512_castsi512_ps(self.0), _mm512_set1_ps(TINY))
    }

    /// What values are multiplied by to become numbers.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn factor(self) -> __m512 {
        _mm512_div_ps(_mm512_set1_ps(LARGEST), self.value())
    }

    /// The value of a first digit of 1. NaN where a value was not finite: so are all sums that it is part of.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn scale(self) -> __m512 {
        const INFINITY: i32 = f32::INFINITY.to_bits() as i32;

        let is_finite = _mm512_cmplt_epu32_mask(self.0, _mm512_set1_epi32(INFINITY));
        let scale = _mm512_mul_ps(self.value(), _mm512_set1_ps(65_536.0 / LARGEST));
        _mm512_mask_blend_ps(is_finite, _mm512_set1_ps(f32::NAN), scale)
    }
}

/// The digits of four vectors times `factor`: of each lane the four bytes side by side, for each digit.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn quads(values: [__m512; 4], factor: __m512) -> [__m512i; DIGITS] {
    /// Takes the bits of the first operand where the last one's are set, and those of the second elsewhere.
    const SELECT: i32 = 0xe4;

    let (bytes, halves) = (_mm512_set1_epi32(0x00ff_00ff), _mm512_set1_epi32(0xffff));
    // Digits from -128 to 127 are bytes less 128 of a number that is larger by as much in every digit.
    let middle = _mm512_set1_epi32(0x0080_8080);
    let mut numbers = [middle; 4];
    for (number, value) in numbers.iter_mut().zip(values) {
        *number = _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(value, factor)), middle);
    }
    let [a, b, c, d] = numbers;
    // Bytes 0 and 2 of two numbers, and bytes 1 and 3.
    let even = _mm512_ternarylogic_epi32::<SELECT>(a, _mm512_slli_epi32::<8>(b), bytes);
    let odd = _mm512_ternarylogic_epi32::<SELECT>(_mm512_srli_epi32::<8>(a), b, bytes);
    let next_even = _mm512_ternarylogic_epi32::<SELECT>(c, _mm512_slli_epi32::<8>(d), bytes);
    let next_odd = _mm512_ternarylogic_epi32::<SELECT>(_mm512_srli_epi32::<8>(c), d, bytes);
    let high = _mm512_ternarylogic_epi32::<SELECT>(_mm512_srli_epi32::<16>(even), next_even, halves);
    let mid = _mm512_ternarylogic_epi32::<SELECT>(odd, _mm512_slli_epi32::<16>(next_odd), halves);
    let low = _mm512_ternarylogic_epi32::<SELECT>(even, _mm512_slli_epi32::<16>(next_even), halves);
    let middle = _mm512_set1_epi32(0x8080_8080_u32 as i32);
    [_mm512_xor_si512(high, middle), _mm512_xor_si512(mid, middle), _mm512_xor_si512(low, middle)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(values: __m512) -> [f32; 16] {
        // SAFETY: both are sixteen f32.
        unsafe { std::mem::transmute(values) }
    }

    #[test]
    fn digits_add_up_to_the_values() {
        if !super::super::is_available() {
            eprintln!("passed over: this processor lacks the tile unit");
            return;
        }
        let value = |index: usize| (index as f32 * 0.37 - 11.0) * if index.is_multiple_of(5) { 1e-3 } else { 1.0 };
        let values: [[f32; 16]; 4] = std::array::from_fn(|row| std::array::from_fn(|lane| value(16 * row + lane)));
        // SAFETY: the processor has the features; all arrays are of 64 bytes.
        let (digits, scale) = unsafe {
            let vectors = values.map(|row| _mm512_loadu_ps(row.as_ptr()));
            let peak = vectors.into_iter().fold(Peak::none(), |peak, vector| peak.with(vector)).of_all_lanes();
            (quads(vectors, peak.factor()), lanes(peak.scale())[0])
        };
        // SAFETY: as above.
        let digits = digits.map(|digits| unsafe { std::mem::transmute::<__m512i, [[i8; 4]; 16]>(digits) });
        for (row, values) in values.iter().enumerate() {
            for (lane, &value) in values.iter().enumerate() {
                let [high, mid, low] = digits.map(|digits| f64::from(digits[lane][row]));
                let found = (high + mid / 256.0 + low / 65_536.0) * f64::from(scale);
                assert!((found - f64::from(value)).abs() <= 12.4 * 2f64.powi(-22), "{row} {lane}: {found}, {value}");
            }
        }
    }

    #[test]
    fn scales_keep_the_largest_value_and_what_is_no_number() {
        if !super::super::is_available() {
            eprintln!("passed over: this processor lacks the tile unit");
            return;
        }
        for (value, is_finite) in
            [(0.0, true), (-3.0, true), (f32::MAX, true), (1e-42, true), (f32::INFINITY, false), (-f32::NAN, false)]
        {
            // SAFETY: the processor has the features.
            let (scale, factor) = unsafe {
                let peak = Peak::none().with(_mm512_set1_ps(-0.5 * value.abs().min(1.0))).with(_mm512_set1_ps(value));
                (lanes(peak.scale())[3], lanes(peak.factor())[3])
            };
            assert_eq!(scale.is_finite(), is_finite, "{value}: {scale}");
            assert!(factor.is_finite());
            if value == -3.0 {
                assert!((f64::from(scale) * 127.49 - 3.0).abs() < 1e-3, "{scale}");
            }
        }
    }
}
