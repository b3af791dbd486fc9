//! The region of a random resized crop.

use crate::resize::Region;
use crate::rng::Rng;

/// How often a region that does not fit is drawn anew, as in torchvision.
const MAX_TRIES: usize = 10;

/// Draws a region of an image of `size` `[height, width]`.
pub(super) fn draw(size: [usize; 2], scale: [f32; 2], ratio: [f32; 2], rng: &mut Rng) -> Region {
    let area = (size[0] * size[1]) as f64;
    let log_ratio = ratio.map(|ratio| f64::from(ratio).ln());
    for _ in 0..MAX_TRIES {
        let region_area = area * between(scale.map(f64::from), rng);
        let region_ratio = between(log_ratio, rng).exp();
        let sides = [region_area / region_ratio, region_area * region_ratio];
        let [height, width] = sides.map(|square| square.sqrt().round_ties_even() as usize);
        if (1..=size[0]).contains(&height) && (1..=size[1]).contains(&width) {
            let (top, left) = (rng.below(size[0] - height + 1), rng.below(size[1] - width + 1));
            return Region { top, left, size: [height, width] };
        }
    }
    central(size, ratio)
}

fn between(range: [f64; 2], rng: &mut Rng) -> f64 {
    range[0] + (range[1] - range[0]) * f64::from(rng.unit_f32())
}

/// The largest region in the middle whose shape is allowed; at least one pixel.
fn central(size: [usize; 2], ratio: [f32; 2]) -> Region {
    let [height, width] = size.map(|length| length as f64);
    let [least, largest] = ratio.map(f64::from);
    let (region_height, region_width) = match width / height {
        narrow if narrow < least => ((width / least).round_ties_even(), width),
        wide if wide > largest => (height, (height * largest).round_ties_even()),
        _ => (height, width),
    };
    let region = [(region_height as usize).clamp(1, size[0].max(1)), (region_width as usize).clamp(1, size[1].max(1))];
    Region { top: (size[0] - region[0]) / 2, left: (size[1] - region[1]) / 2, size: region }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    #[test]
    fn regions_keep_to_scale_and_ratio_and_reach_the_ends() {
        let (size, scale, ratio) = ([300, 400], [0.08, 1.0], [0.75, 4.0 / 3.0]);
        let regions: Vec<Region> =
            (0..4000).map(|index| draw(size, scale, ratio, &mut rng::for_sample(0, 0, index))).collect();
        let shares: Vec<f64> = regions.iter().map(|r| (r.size[0] * r.size[1]) as f64 / 120_000.0).collect();
        let ratios: Vec<f64> = regions.iter().map(|r| r.size[1] as f64 / r.size[0] as f64).collect();
        let least = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
        // Sides are rounded to whole pixels, hence the slack.
        assert!((0.078..0.09).contains(&least(&shares)) && (0.95..=1.0).contains(&most(&shares)));
        assert!((0.74..0.76).contains(&least(&ratios)) && (1.32..1.35).contains(&most(&ratios)));
        assert!(regions.iter().all(|r| r.top + r.size[0] <= size[0] && r.left + r.size[1] <= size[1]));
        for edge in [regions.iter().any(|r| r.top == 0), regions.iter().any(|r| r.left + r.size[1] == 400)] {
            assert!(edge);
        }
        // Large areas fit less often, so that they are not drawn evenly in the end; 40,000 draws of torchvision's
        // `RandomResizedCrop.get_params` on this size have a mean share of 0.4329 and a median of 0.4220.
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        assert!((mean - 0.4329).abs() < 0.01, "{mean}");
        let below_median = shares.iter().filter(|share| **share < 0.4220).count();
        assert!((1900..2100).contains(&below_median), "{below_median}");
    }

    #[test]
    fn shapes_that_never_fit_give_the_central_region() {
        let cases = [
            ([10, 1000], Region { top: 0, left: 493, size: [10, 13] }),
            ([1000, 10], Region { top: 493, left: 0, size: [13, 10] }),
            ([1, 1], Region { top: 0, left: 0, size: [1, 1] }),
        ];
        for (size, expected) in cases {
            assert_eq!(central(size, [0.75, 4.0 / 3.0]), expected, "{size:?}");
            let drawn = draw(size, [1.0, 1.0], [0.75, 4.0 / 3.0], &mut rng::for_sample(0, 0, 0));
            assert_eq!(drawn, expected, "{size:?}");
        }
        assert_eq!(draw([8, 8], [1.0, 1.0], [1.0, 1.0], &mut rng::for_sample(0, 0, 0)), Region::whole([8, 8]));
    }
}
