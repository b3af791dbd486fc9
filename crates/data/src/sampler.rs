//! The order of the samples of an epoch.

use crate::rng;

/// A shuffled `0..len`, the same for the same seed, epoch and length.
///
/// ```
/// let order = taper_data::epoch_order(0, 0, 5);
/// assert_ne!(order, taper_data::epoch_order(0, 1, 5));
/// ```
pub fn epoch_order(seed: u64, epoch: u64, len: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    rng::for_order(seed, epoch).shuffle(&mut order);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_permutation() {
        for len in [0, 1, 2, 1000] {
            let mut order = epoch_order(3, 1, len);
            assert_eq!(order, epoch_order(3, 1, len));
            order.sort_unstable();
            assert_eq!(order, (0..len).collect::<Vec<_>>());
        }
    }

    #[test]
    fn seed_and_epoch_change_the_order() {
        let order = epoch_order(3, 1, 100);
        assert_ne!(order, epoch_order(4, 1, 100));
        assert_ne!(order, epoch_order(3, 2, 100));
    }
}
