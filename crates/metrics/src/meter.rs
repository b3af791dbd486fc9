//! Rates, from times that the caller measured.

use std::time::Duration;

/// Images over time. Time that is not training (evaluation, checkpoints) is simply not added.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Throughput {
    num_images: u64,
    busy: Duration,
}

impl Throughput {
    /// Adds images and the time they took.
    pub fn add(&mut self, num_images: usize, took: Duration) {
        self.num_images += num_images as u64;
        self.busy += took;
    }

    /// Images per second so far; 0 before any time was added.
    pub fn images_per_second(&self) -> f64 {
        if self.busy.is_zero() { 0.0 } else { self.num_images as f64 / self.busy.as_secs_f64() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_images_over_time() {
        let mut meter = Throughput::default();
        assert_eq!(meter.images_per_second(), 0.0);
        meter.add(64, Duration::from_millis(500));
        meter.add(64, Duration::from_millis(1500));
        assert_eq!(meter.images_per_second(), 64.0);
    }
}
