//! From f32 to the digits of fixed-point numbers, in the order in which the tile unit wants them.

use std::arch::x86_64::*;

/// Digits of a number, the first one the highest.
pub(super) const DIGITS: usize = 3;

/// Numbers have fewer than so many binary digits, beside the sign: three digits hold 8,355,711 of 8,388,608.
const BITS: f32 = 23.0;

/// Values larger than this share of a power of two become numbers of one binary digit less, so that no rounding leads
/// beyond what three digits hold.
const FULL: f32 = 8_355_000.0 / 8_388_608.0;

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

    /// The power of two that is larger than all values, about. A power of two, so that no value is rounded by it, and the
    /// order in which scales are applied does not matter.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn exponent(self) -> __m512 {
        /// Under that of the smallest value.
        const LEAST: f32 = -200.0;

        // Of values near the largest f32, the division overflows; its infinite exponent is brought back to theirs.
        let filled = _mm512_div_ps(_mm512_castsi512_ps(self.0), _mm512_set1_ps(FULL));
        let exponent = _mm512_add_ps(_mm512_getexp_ps(filled), _mm512_set1_ps(1.0));
        _mm512_min_ps(_mm512_max_ps(exponent, _mm512_set1_ps(LEAST)), _mm512_set1_ps(129.0))
    }

    /// The power of two by which values become numbers.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn shift(self) -> __m512 {
        _mm512_sub_ps(_mm512_set1_ps(BITS), self.exponent())
    }

    /// The power of two that a first digit of 1 stands for. NaN where a value was not finite: so are all sums that it is part
    /// of.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn scale(self) -> __m512 {
        const INFINITY: i32 = f32::INFINITY.to_bits() as i32;

        let is_finite = _mm512_cmplt_epu32_mask(self.0, _mm512_set1_epi32(INFINITY));
        let scale = _mm512_sub_ps(self.exponent(), _mm512_set1_ps(BITS - 16.0));
        _mm512_mask_blend_ps(is_finite, _mm512_set1_ps(f32::NAN), scale)
    }
}

/// The number of each lane, shifted. Digits from -128 to 127 are bytes less 128 of a number that is larger by as much in
/// every digit, which this is.
#[inline]
#[target_feature(enable = "avx512f")]
fn numbers(values: __m512, shift: __m512) -> __m512i {
    _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_scalef_ps(values, shift)), _mm512_set1_epi32(0x0080_8080))
}

/// The digits of a vector, shifted: the bytes of all lanes side by side, for each digit.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn rows(values: __m512, shift: __m512) -> [__m128i; DIGITS] {
    let (numbers, middle) = (numbers(values, shift), _mm_set1_epi8(-128));
    let [high, mid] = [_mm512_srli_epi32::<16>(numbers), _mm512_srli_epi32::<8>(numbers)];
    [high, mid, numbers].map(|digit| _mm_xor_si128(_mm512_cvtepi32_epi8(digit), middle))
}

/// The digits of four vectors, shifted: of each lane the four bytes side by side, for each digit.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn quads(values: [__m512; 4], shift: __m512) -> [__m512i; DIGITS] {
    /// Takes the bits of the first operand where the last one's are set, and those of the second elsewhere.
    const SELECT: i32 = 0xe4;

    let (bytes, halves) = (_mm512_set1_epi32(0x00ff_00ff), _mm512_set1_epi32(0xffff));
    let [a, b, c, d] = values.map(|values| numbers(values, shift));
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
            (quads(vectors, peak.shift()), lanes(peak.scale())[0])
        };
        // SAFETY: as above.
        let digits = digits.map(|digits| unsafe { std::mem::transmute::<__m512i, [[i8; 4]; 16]>(digits) });
        for (row, values) in values.iter().enumerate() {
            for (lane, &value) in values.iter().enumerate() {
                let [high, mid, low] = digits.map(|digits| f64::from(digits[lane][row]));
                let found = (high + mid / 256.0 + low / 65_536.0) * f64::from(scale).exp2();
                // The largest is 12.31, so a unit is 2⁻¹⁹.
                assert!((found - f64::from(value)).abs() <= 2f64.powi(-20), "{row} {lane}: {found}, {value}");
            }
        }
    }

    #[test]
    fn scales_keep_the_largest_value_and_what_is_no_number() {
        if !super::super::is_available() {
            eprintln!("passed over: this processor lacks the tile unit");
            return;
        }
        // Beside a value, the first digits of it and of half of it.
        for (value, expected) in [
            (0.0, [0, 0]),
            (1.0, [64, 32]),
            (-1.99, [-127, -64]),
            (1.9999, [64, 32]),
            (f32::MAX, [64, 32]),
            (-1e-42, [-89, -45]),
            (f32::from_bits(1), [64, 0]),
        ] {
            // SAFETY: the processor has the features; the array is of 64 bytes.
            let (scale, digits) = unsafe {
                let vector = _mm512_set1_ps(value);
                let peak = Peak::none().with(_mm512_set1_ps(0.5 * value)).with(vector);
                let [high, _, _] = quads([vector, _mm512_set1_ps(0.5 * value), vector, vector], peak.shift());
                (lanes(peak.scale())[3], std::mem::transmute::<__m512i, [[i8; 4]; 16]>(high)[3])
            };
            assert!(scale.is_finite(), "{value}: {scale}");
            assert_eq!(digits[..2], expected, "{value}");
        }
        for value in [f32::INFINITY, -f32::NAN] {
            // SAFETY: as above.
            let scale = unsafe { lanes(Peak::none().with(_mm512_set1_ps(value)).with(_mm512_set1_ps(1.0)).scale())[3] };
            assert!(scale.is_nan());
        }
    }
}
