//! The transforms of tiles: inputs, outputs and gradients, one vector of channels at a time.

use std::ops::Range;

use super::{Place, Planes, TILE, Tiles, WINDOW};
use crate::scratch::LINE;
use crate::simd::Vector;
use crate::tile::prefetch;

/// √½ and √2, the two positive points; their squares are ½ and 2, and their product is 1.
pub(super) const NEAR: f32 = std::f32::consts::FRAC_1_SQRT_2;
/// See [`NEAR`].
pub(super) const FAR: f32 = std::f32::consts::SQRT_2;

/// Tiles ahead whose pixels are asked for.
const AHEAD: usize = 8;

/// Some channels of an image in memory.
#[derive(Clone, Copy)]
pub(super) struct Channels {
    /// The first of the channels at the first pixel.
    pub(super) start: *const f32,
    /// Elements between pixels.
    pub(super) stride: usize,
    /// How many are transformed.
    pub(super) count: usize,
}

impl Channels {
    /// All channels of images.
    pub(super) fn of(images: &[f32], count: usize) -> Self {
        Self { start: images.as_ptr(), stride: count, count }
    }
}

/// Where the pixels under a tile lie.
trait Pixels: Copy {
    /// # Safety
    /// The pixel lies in the images or is a stand-in for one outside.
    unsafe fn at(&self, row: usize, column: usize) -> *const f32;
}

/// A tile inside the image.
#[derive(Clone, Copy)]
struct Strided {
    start: *const f32,
    row: usize,
    column: usize,
}

impl Strided {
    /// # Safety
    /// The pixel and those of the tile after it lie in the images.
    #[inline(always)]
    unsafe fn at(pixels: Channels, pixel: usize, width: usize) -> Self {
        // SAFETY: the caller vouches for the pixel.
        let start = unsafe { pixels.start.add(pixel * pixels.stride) };
        Self { start, row: width * pixels.stride, column: pixels.stride }
    }
}

impl Pixels for Strided {
    #[inline(always)]
    unsafe fn at(&self, row: usize, column: usize) -> *const f32 {
        // SAFETY: the caller vouches for the pixel.
        unsafe { self.start.add(row * self.row + column * self.column) }
    }
}

/// A tile that hangs over the edge.
#[derive(Clone, Copy)]
struct Scattered<'a>(&'a [[*const f32; WINDOW]; WINDOW]);

/// Where the pixels under a tile lie, `zeros` standing in for those outside. Of a tile of gradients the first rows and
/// columns count.
fn scattered(
    pixels: Channels,
    zeros: *const f32,
    pixel: impl Fn(usize, usize) -> Option<usize>,
) -> [[*const f32; WINDOW]; WINDOW] {
    let source = |y, x| pixel(y, x).map_or(zeros, |pixel| pixels.start.wrapping_add(pixel * pixels.stride));
    std::array::from_fn(|y| std::array::from_fn(|x| source(y, x)))
}

impl Pixels for Scattered<'_> {
    #[inline(always)]
    unsafe fn at(&self, row: usize, column: usize) -> *const f32 {
        self.0[row][column]
    }
}

#[inline(always)]
unsafe fn load<V: Vector, P: Pixels, const WHOLE: bool>(
    source: P,
    row: usize,
    column: usize,
    channel: usize,
    lanes: usize,
) -> V {
    // SAFETY: the caller vouches for the pixel and its channels.
    unsafe {
        let from = source.at(row, column).add(channel);
        if WHOLE { V::load(from) } else { V::load_first(from, lanes) }
    }
}

/// `Bᵀ d`: six inputs along one axis to the six points.
#[inline(always)]
unsafe fn to_points<V: Vector>(d: [V; WINDOW]) -> [V; WINDOW] {
    // SAFETY: the caller vouches for the processor.
    unsafe {
        let (half, two, both) = (V::splat(0.5), V::splat(2.0), V::splat(2.5));
        let (near, far) = (V::splat(NEAR), V::splat(FAR));
        let (even, odd) = (d[2].neg_mul_add(two, d[4]), d[1].neg_mul_add(two, d[3]));
        let (even_far, odd_far) = (d[2].neg_mul_add(half, d[4]), d[1].neg_mul_add(half, d[3]));
        [
            d[2].neg_mul_add(both, d[0].add(d[4])),
            odd.mul_add(near, even),
            odd.neg_mul_add(near, even),
            odd_far.mul_add(far, even_far),
            odd_far.neg_mul_add(far, even_far),
            d[3].neg_mul_add(both, d[1].add(d[5])),
        ]
    }
}

/// `Aᵀ m`: six points along one axis to four outputs.
#[inline(always)]
unsafe fn from_points<V: Vector>(m: [V; WINDOW]) -> [V; TILE] {
    // SAFETY: the caller vouches for the processor.
    unsafe {
        let (half, two, near, far) = (V::splat(0.5), V::splat(2.0), V::splat(NEAR), V::splat(FAR));
        let (near_cube, far_cube) = (V::splat(0.5 * NEAR), V::splat(2.0 * FAR));
        let (sum, difference) = (m[1].add(m[2]), m[1].sub(m[2]));
        let (sum_far, difference_far) = (m[3].add(m[4]), m[3].sub(m[4]));
        [
            m[0].add(sum.add(sum_far)),
            near.mul_add(difference, far.mul(difference_far)),
            half.mul_add(sum, two.mul(sum_far)),
            near_cube.mul_add(difference, far_cube.mul_add(difference_far, m[5])),
        ]
    }
}

/// `A y`: four gradients along one axis to the six points.
#[inline(always)]
unsafe fn gradient_to_points<V: Vector>(y: [V; TILE]) -> [V; WINDOW] {
    // SAFETY: the caller vouches for the processor.
    unsafe {
        let (half, two, near, far) = (V::splat(0.5), V::splat(2.0), V::splat(NEAR), V::splat(FAR));
        let (near_cube, far_cube) = (V::splat(0.5 * NEAR), V::splat(2.0 * FAR));
        let (even, odd) = (half.mul_add(y[2], y[0]), near_cube.mul_add(y[3], near.mul(y[1])));
        let (even_far, odd_far) = (two.mul_add(y[2], y[0]), far_cube.mul_add(y[3], far.mul(y[1])));
        [y[0], even.add(odd), even.sub(odd), even_far.add(odd_far), even_far.sub(odd_far), y[3]]
    }
}

/// Transforms the inputs under a block of tiles; `STREAM` writes past the caches.
///
/// # Safety
/// The processor has the vector's instructions; `pixels` covers the images, `zeros` as many values as `pixels` has
/// channels, and `out` [`Planes::len`] values with rows of whole vectors. What is streamed is aligned to the vector, and
/// [fenced](crate::simd::fence_streams) by the caller.
#[inline(always)]
pub(super) unsafe fn inputs<V: Vector, const STREAM: bool>(
    pixels: Channels,
    tiles: &Tiles,
    block: Range<usize>,
    zeros: *const f32,
    out: *mut f32,
    planes: Planes,
) {
    for (index, tile) in block.enumerate() {
        let place = tiles.place(tile);
        ask_for(pixels, tiles, tile + AHEAD);
        // SAFETY: the caller vouches for the buffers; pixels inside the image are read where they lie, others as zeros.
        unsafe {
            let out = out.add(index * planes.row);
            if tiles.is_inside(place) {
                let pixel = tiles.input_pixel(place, 0, 0).unwrap_or(0);
                let source = Strided::at(pixels, pixel, tiles.input[1]);
                input_tile::<V, _, STREAM>(pixels.count, source, out, planes);
            } else {
                let sources = scattered(pixels, zeros, |y, x| tiles.input_pixel(place, y, x));
                input_tile::<V, _, STREAM>(pixels.count, Scattered(&sources), out, planes);
            }
        }
    }
}

/// Asks for the pixels that a later tile adds to its neighbours'.
#[inline(always)]
fn ask_for(pixels: Channels, tiles: &Tiles, tile: usize) {
    if tile >= tiles.count() {
        return;
    }
    let place = tiles.place(tile);
    for row in 0..TILE {
        for column in 0..TILE {
            if let Some(pixel) = tiles.input_pixel(place, row + tiles.padding[0], column + tiles.padding[1]) {
                for channel in (0..pixels.count).step_by(LINE) {
                    prefetch(pixels.start.wrapping_add(pixel * pixels.stride + channel));
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn input_tile<V: Vector, P: Pixels, const STREAM: bool>(
    channels: usize,
    source: P,
    out: *mut f32,
    planes: Planes,
) {
    let whole = channels / V::LANES * V::LANES;
    // SAFETY: the caller vouches for the sources and the room.
    unsafe {
        for channel in (0..whole).step_by(V::LANES) {
            let out = out.add(planes.channel(channel));
            input_vector::<V, P, true, STREAM>(source, channel, V::LANES, out, planes);
        }
        if whole < channels {
            let out = out.add(planes.channel(whole));
            input_vector::<V, P, false, STREAM>(source, whole, channels - whole, out, planes);
        }
    }
}

/// `Bᵀ d B` of one vector of channels; rows of points are stored as soon as they are there, to spare registers.
#[inline(always)]
unsafe fn input_vector<V: Vector, P: Pixels, const WHOLE: bool, const STREAM: bool>(
    source: P,
    channel: usize,
    lanes: usize,
    out: *mut f32,
    planes: Planes,
) {
    // SAFETY: the caller vouches for the sources and the room.
    unsafe {
        let both = V::splat(2.5);
        for (row, first) in [(0, 0), (WINDOW - 1, 1)] {
            let mut values = [both; WINDOW];
            for (x, value) in values.iter_mut().enumerate() {
                let outer = load::<V, P, WHOLE>(source, first, x, channel, lanes);
                let outer = outer.add(load::<V, P, WHOLE>(source, first + 4, x, channel, lanes));
                *value = load::<V, P, WHOLE>(source, first + 2, x, channel, lanes).neg_mul_add(both, outer);
            }
            store_points::<V, STREAM>(to_points(values), out.add(row * WINDOW * planes.plane), planes);
        }
        for (row, square, point) in [(1, 2.0, NEAR), (3, 0.5, FAR)] {
            let (square, point) = (V::splat(square), V::splat(point));
            let (mut plus, mut minus) = ([both; WINDOW], [both; WINDOW]);
            for x in 0..WINDOW {
                let (even, odd) = (
                    load::<V, P, WHOLE>(source, 4, x, channel, lanes),
                    load::<V, P, WHOLE>(source, 3, x, channel, lanes),
                );
                let even = load::<V, P, WHOLE>(source, 2, x, channel, lanes).neg_mul_add(square, even);
                let odd = load::<V, P, WHOLE>(source, 1, x, channel, lanes).neg_mul_add(square, odd);
                plus[x] = odd.mul_add(point, even);
                minus[x] = odd.neg_mul_add(point, even);
            }
            store_points::<V, STREAM>(to_points(plus), out.add(row * WINDOW * planes.plane), planes);
            store_points::<V, STREAM>(to_points(minus), out.add((row + 1) * WINDOW * planes.plane), planes);
        }
    }
}

#[inline(always)]
unsafe fn store_points<V: Vector, const STREAM: bool>(values: [V; WINDOW], out: *mut f32, planes: Planes) {
    for (column, value) in values.into_iter().enumerate() {
        // SAFETY: the caller vouches for the room.
        unsafe {
            let out = out.add(column * planes.plane);
            if STREAM {
                value.stream(out);
            } else {
                value.store(out);
                // The next tile's.
                prefetch(out.wrapping_add(planes.row));
            }
        }
    }
}

/// Transforms a block of products back to the outputs and adds the bias, if there is one.
///
/// # Safety
/// The processor has the vector's instructions; `products` covers the planes, `bias` (unless null) and every pixel of
/// `y` have `channels` values, and nobody else touches the block's outputs.
#[inline(always)]
pub(super) unsafe fn outputs<V: Vector>(
    products: *const f32,
    planes: Planes,
    tiles: &Tiles,
    block: Range<usize>,
    channels: usize,
    bias: *const f32,
    y: *mut f32,
) {
    for (index, tile) in block.enumerate() {
        let place = tiles.place(tile);
        ask_for_outputs(y, channels, tiles, tile + 1);
        for channel in (0..channels).step_by(V::LANES) {
            let lanes = (channels - channel).min(V::LANES);
            // SAFETY: the caller vouches for the buffers; outputs beyond the edge are not written.
            unsafe {
                let mut values = output_vector::<V>(products.add(index * planes.row + channel), planes.plane);
                if !bias.is_null() {
                    let bias = V::load_first(bias.add(channel), lanes);
                    for value in values.iter_mut().flatten() {
                        *value = value.add(bias);
                    }
                }
                store_outputs(values, tiles, place, y.add(channel), channels, lanes);
            }
        }
    }
}

/// Asks for the lines of a later tile of outputs. Those that are written come from memory too, however new the values.
#[inline(always)]
fn ask_for_outputs(y: *const f32, channels: usize, tiles: &Tiles, tile: usize) {
    if tile >= tiles.count() {
        return;
    }
    let place = tiles.place(tile);
    for row in 0..TILE {
        for column in 0..TILE {
            if let Some(pixel) = tiles.output_pixel(place, row, column) {
                for channel in (0..channels).step_by(LINE) {
                    prefetch(y.wrapping_add(pixel * channels + channel));
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn output_vector<V: Vector>(products: *const f32, plane: usize) -> [[V; TILE]; TILE] {
    // SAFETY: the caller vouches for the planes.
    unsafe {
        let mut rows = [[V::splat(0.0); WINDOW]; TILE];
        for x in 0..WINDOW {
            let mut column = [V::splat(0.0); WINDOW];
            for (y, value) in column.iter_mut().enumerate() {
                *value = V::load(products.add((y * WINDOW + x) * plane));
            }
            let column = from_points(column);
            for (row, value) in rows.iter_mut().zip(column) {
                row[x] = value;
            }
        }
        [from_points(rows[0]), from_points(rows[1]), from_points(rows[2]), from_points(rows[3])]
    }
}

#[inline(always)]
unsafe fn store_outputs<V: Vector>(
    values: [[V; TILE]; TILE],
    tiles: &Tiles,
    place: Place,
    y: *mut f32,
    stride: usize,
    lanes: usize,
) {
    let is_whole = tiles.is_whole(place) && lanes == V::LANES;
    let first = (place.image * tiles.output[0] + place.row) * tiles.output[1] + place.column;
    for (row, values) in values.into_iter().enumerate() {
        for (column, value) in values.into_iter().enumerate() {
            // SAFETY: the caller vouches for the pixels of the image.
            unsafe {
                if is_whole {
                    value.store(y.add((first + row * tiles.output[1] + column) * stride));
                } else if let Some(pixel) = tiles.output_pixel(place, row, column) {
                    value.store_first(y.add(pixel * stride), lanes);
                }
            }
        }
    }
}

/// Transforms the gradients of a block of tiles' outputs; `STREAM` writes past the caches.
///
/// # Safety
/// As for [`inputs`].
#[inline(always)]
pub(super) unsafe fn gradients<V: Vector, const STREAM: bool>(
    pixels: Channels,
    tiles: &Tiles,
    block: Range<usize>,
    zeros: *const f32,
    out: *mut f32,
    planes: Planes,
) {
    for (index, tile) in block.enumerate() {
        let place = tiles.place(tile);
        ask_for_outputs(pixels.start, pixels.stride, tiles, tile + AHEAD);
        // SAFETY: the caller vouches for the buffers; gradients beyond the edge are read as zeros.
        unsafe {
            let out = out.add(index * planes.row);
            if tiles.is_whole(place) {
                let first = (place.image * tiles.output[0] + place.row) * tiles.output[1] + place.column;
                let source = Strided::at(pixels, first, tiles.output[1]);
                gradient_tile::<V, _, STREAM>(pixels.count, source, out, planes);
            } else {
                let sources = scattered(pixels, zeros, |y, x| tiles.output_pixel(place, y, x));
                gradient_tile::<V, _, STREAM>(pixels.count, Scattered(&sources), out, planes);
            }
        }
    }
}

#[inline(always)]
unsafe fn gradient_tile<V: Vector, P: Pixels, const STREAM: bool>(
    channels: usize,
    source: P,
    out: *mut f32,
    planes: Planes,
) {
    let whole = channels / V::LANES * V::LANES;
    // SAFETY: the caller vouches for the sources and the room.
    unsafe {
        for channel in (0..whole).step_by(V::LANES) {
            let out = out.add(planes.channel(channel));
            gradient_vector::<V, P, true, STREAM>(source, channel, V::LANES, out, planes);
        }
        if whole < channels {
            let out = out.add(planes.channel(whole));
            gradient_vector::<V, P, false, STREAM>(source, whole, channels - whole, out, planes);
        }
    }
}

/// `A y Aᵀ` of one vector of channels.
#[inline(always)]
unsafe fn gradient_vector<V: Vector, P: Pixels, const WHOLE: bool, const STREAM: bool>(
    source: P,
    channel: usize,
    lanes: usize,
    out: *mut f32,
    planes: Planes,
) {
    // SAFETY: the caller vouches for the sources and the room.
    unsafe {
        let mut rows = [[V::splat(0.0); TILE]; WINDOW];
        for x in 0..TILE {
            let mut column = [V::splat(0.0); TILE];
            for (y, value) in column.iter_mut().enumerate() {
                *value = load::<V, P, WHOLE>(source, y, x, channel, lanes);
            }
            for (row, value) in rows.iter_mut().zip(gradient_to_points(column)) {
                row[x] = value;
            }
        }
        for (y, row) in rows.into_iter().enumerate() {
            store_points::<V, STREAM>(gradient_to_points(row), out.add(y * WINDOW * planes.plane), planes);
        }
    }
}
