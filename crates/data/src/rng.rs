//! Random numbers keyed by what they are for, never by when they are drawn.
//!
//! Each generator is ChaCha8 (Bernstein 2008) with the key `(seed, purpose, epoch, index)`, four little-endian `u64`.
//! The numbers of one sample therefore do not depend on threads, on other samples or on where a run was resumed.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// What the numbers are for; part of the key, so that no two uses share a stream.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Purpose {
    Sample = 1,
    Order = 2,
    Split = 3,
    Glyph = 4,
}

/// The generator for the transforms of one sample in one epoch.
pub fn for_sample(seed: u64, epoch: u64, index: usize) -> Rng {
    Rng::keyed(seed, Purpose::Sample, epoch, index as u64)
}

/// The generator for the order of the samples in one epoch.
pub fn for_order(seed: u64, epoch: u64) -> Rng {
    Rng::keyed(seed, Purpose::Order, epoch, 0)
}

/// The generator that picks the validation images of one class.
pub fn for_split(seed: u64, class: u32) -> Rng {
    Rng::keyed(seed, Purpose::Split, 0, u64::from(class))
}

/// The generator that draws one image of the built-in set.
pub(crate) fn for_glyph(index: usize) -> Rng {
    Rng::keyed(0, Purpose::Glyph, 0, index as u64)
}

/// A generator with the few draws that this crate needs.
///
/// ```
/// use taper_data::rng;
///
/// let mut first = rng::for_sample(0, 3, 17);
/// let mut again = rng::for_sample(0, 3, 17);
/// assert_eq!(first.below(1000), again.below(1000));
/// ```
#[derive(Debug, Clone)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    fn keyed(seed: u64, purpose: Purpose, epoch: u64, index: u64) -> Self {
        let mut key = [0; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip([seed, purpose as u64, epoch, index]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Any `u32`, all equally likely.
    pub fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Any `u64`, all equally likely.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number from `0..bound`, all equally likely (Lemire 2019, "Fast random integer generation in an interval").
    /// A `bound` of zero gives zero.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        if bound == 0 {
            return 0;
        }
        // The low half of the product below this many would come up once too often for some results.
        let biased = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(bound);
            if product as u64 >= biased {
                return (product >> 64) as usize;
            }
        }
    }

    /// A number from `[0, 1)`, a multiple of 2⁻²⁴, all equally likely.
    pub fn unit_f32(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 / 16_777_216.0
    }

    /// Puts `items` into an order drawn from all orders equally likely (Fisher–Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_key_counts() {
        let base = for_sample(1, 2, 3).next_u64();
        assert_eq!(base, for_sample(1, 2, 3).next_u64());
        for other in [for_sample(0, 2, 3), for_sample(1, 0, 3), for_sample(1, 2, 0), for_order(1, 2), for_split(1, 3)] {
            assert_ne!(base, other.clone().next_u64());
        }
    }

    #[test]
    fn the_stream_is_pinned() {
        // A change of generator or key would silently change every split and every run.
        let mut rng = for_sample(7, 1, 42);
        assert_eq!([rng.next_u32(), rng.next_u32()], PINNED);
    }

    /// Computed apart from this crate: the first words of the ChaCha8 block with this key, counter and nonce zero.
    const PINNED: [u32; 2] = [2_965_748_479, 1_071_705_556];

    #[test]
    fn below_is_even_and_stays_in_range() {
        for bound in [1, 2, 3, 7, 100] {
            let mut rng = for_order(0, 0);
            let mut counts = vec![0_u32; bound];
            for _ in 0..bound * 1000 {
                counts[rng.below(bound)] += 1;
            }
            assert!(counts.iter().all(|count| (850..1150).contains(count)), "{bound}: {counts:?}");
        }
        assert_eq!(for_order(0, 0).below(0), 0);
    }

    #[test]
    fn unit_is_half_open_and_even() {
        let mut rng = for_order(0, 0);
        let draws: Vec<f32> = (0..10_000).map(|_| rng.unit_f32()).collect();
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
        let mean = draws.iter().sum::<f32>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
    }
}
