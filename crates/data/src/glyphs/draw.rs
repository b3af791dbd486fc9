//! A shape with a surface, as pixels.
//!
//! Only additions, multiplications, divisions and comparisons of f32, which are the same bits on every platform; the
//! rotation is a rational one, so that no sine is needed.

use super::shape::Shape;
use super::surface::Surface;
use crate::rng::Rng;

/// Height and width of an image in pixels.
pub(super) const SIDE: usize = 32;
/// Samples per pixel and axis, against jagged edges.
const SUBSAMPLES: usize = 2;
/// Square of the distance beyond which no pixel touches a shape: the farthest corner lies at 1.32, a pixel's diagonal is
/// at most 0.14 long. It spares a third of the samples.
const REACH: f32 = 2.14;
/// Half the size of a glyph in pixels, smallest and largest.
const RADIUS: (f32, f32) = (10.5, 12.5);
/// Largest tangent of half the angle: 2 atan(0.11) is 12.6 degrees.
const MAX_HALF_TANGENT: f32 = 0.11;
/// Grey levels of background and inks, before each colour moves away from grey.
const LEVELS: [f32; 3] = [45.0, 128.0, 211.0];
/// How far a channel lies from its grey level at most.
const MAX_CHROMA: f32 = 34.0;
/// How far the noise moves a channel of a pixel at most.
const MAX_NOISE: i32 = 8;

/// All that is random about an image but its noise.
struct Pose {
    centre: [f32; 2],
    /// Cosine and sine of the angle, over the radius.
    cos: f32,
    sin: f32,
    /// Where in a pixel its samples lie, in coordinates of the shape.
    offsets: [[f32; 2]; SUBSAMPLES * SUBSAMPLES],
    /// Background, first ink, second ink.
    colours: [[f32; 3]; 3],
}

/// Draws one image, `[SIDE, SIDE, 3]`.
pub(super) fn draw(shape: Shape, surface: Surface, rng: &mut Rng) -> Vec<u8> {
    let pose = Pose::draw(rng);
    let mut pixels = Vec::with_capacity(SIDE * SIDE * 3);
    for y in 0..SIDE {
        for x in 0..SIDE {
            let colour = pose.colour_at(shape, surface, x, y);
            let noise = rng.next_u32().to_le_bytes();
            for channel in 0..3 {
                let shift = ((i32::from(noise[channel]) * (2 * MAX_NOISE + 1)) >> 8) - MAX_NOISE;
                pixels.push((colour[channel] as i32 + shift).clamp(0, 255) as u8);
            }
        }
    }
    pixels
}

impl Pose {
    fn draw(rng: &mut Rng) -> Self {
        let between = |rng: &mut Rng, low: f32, high: f32| low + (high - low) * rng.unit_f32();
        let radius = between(rng, RADIUS.0, RADIUS.1);
        let middle = SIDE as f32 / 2.0;
        let slack = middle - radius;
        let centre = [middle + between(rng, -slack, slack), middle + between(rng, -slack, slack)];
        let tangent = between(rng, -MAX_HALF_TANGENT, MAX_HALF_TANGENT);
        let (cos, sin) = rotation(tangent);
        let (cos, sin) = (cos / radius, sin / radius);
        let offsets = std::array::from_fn(|sample| {
            let within = |step: usize| (step as f32 + 0.5) / SUBSAMPLES as f32;
            let (right, below) = (within(sample % SUBSAMPLES), within(sample / SUBSAMPLES));
            [right * cos + below * sin, below * cos - right * sin]
        });
        let mut levels = LEVELS;
        rng.shuffle(&mut levels);
        let colours = levels.map(|level| [0; 3].map(|_| level + between(rng, -MAX_CHROMA, MAX_CHROMA)));
        Self { centre, cos, sin, offsets, colours }
    }

    /// Mean colour of the pixel's samples.
    fn colour_at(&self, shape: Shape, surface: Surface, x: usize, y: usize) -> [f32; 3] {
        let (right, below) = (x as f32 - self.centre[0], y as f32 - self.centre[1]);
        let (u, v) = (right * self.cos + below * self.sin, below * self.cos - right * self.sin);
        if u * u + v * v > REACH {
            return self.colours[0];
        }
        // Samples of background, first ink and second ink.
        let mut counts = [0_u8; 3];
        for offset in &self.offsets {
            let (u, v) = (u + offset[0], v + offset[1]);
            let colour = match shape.contains(u, v) {
                false => 0,
                true if surface.is_second_ink(shape, u, v) => 2,
                true => 1,
            };
            counts[colour] += 1;
        }
        let shares = counts.map(|count| f32::from(count) / self.offsets.len() as f32);
        std::array::from_fn(|channel| (0..3).map(|colour| shares[colour] * self.colours[colour][channel]).sum())
    }
}

/// Cosine and sine of twice the angle whose tangent is given, by rational functions of it.
fn rotation(half_tangent: f32) -> (f32, f32) {
    let squared = half_tangent * half_tangent;
    ((1.0 - squared) / (1.0 + squared), 2.0 * half_tangent / (1.0 + squared))
}
