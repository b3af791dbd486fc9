//! Ten ways to cover a shape with two inks.

use std::f32::consts::FRAC_1_SQRT_2;

use super::shape::Shape;

/// A pattern of two inks in the coordinates of the shape, so that it turns with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Surface {
    Solid,
    Striped,
    Barred,
    Hatched,
    Checked,
    Dotted,
    Outlined,
    Halved,
    Layered,
    Quartered,
}

/// Width of a stripe in units of the shape: at least 2.4 pixels.
const STRIPE: f32 = 0.26;
/// Width of the rim of an outlined shape.
const RIM: f32 = 0.2;

impl Surface {
    pub(super) const ALL: [Self; 10] = [
        Self::Solid,
        Self::Striped,
        Self::Barred,
        Self::Hatched,
        Self::Checked,
        Self::Dotted,
        Self::Outlined,
        Self::Halved,
        Self::Layered,
        Self::Quartered,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Solid => "solid",
            Self::Striped => "striped",
            Self::Barred => "barred",
            Self::Hatched => "hatched",
            Self::Checked => "checked",
            Self::Dotted => "dotted",
            Self::Outlined => "outlined",
            Self::Halved => "halved",
            Self::Layered => "layered",
            Self::Quartered => "quartered",
        }
    }

    /// Whether the point of the shape has the second ink.
    pub(super) fn is_second_ink(self, shape: Shape, u: f32, v: f32) -> bool {
        match self {
            Self::Solid => false,
            Self::Striped => is_odd(v / STRIPE),
            Self::Barred => is_odd(u / STRIPE),
            Self::Hatched => is_odd((u + v) * FRAC_1_SQRT_2 / STRIPE),
            Self::Checked => is_odd(u / 0.36) != is_odd(v / 0.36),
            Self::Dotted => {
                let (across, down) = (from_cell_centre(u), from_cell_centre(v));
                across * across + down * down < 0.026
            }
            Self::Outlined => {
                let steps = [(RIM, 0.0), (-RIM, 0.0), (0.0, RIM), (0.0, -RIM)];
                steps.iter().all(|step| shape.contains(u + step.0, v + step.1))
            }
            Self::Halved => u > 0.0,
            Self::Layered => v > 0.1,
            Self::Quartered => (u > 0.0) != (v > 0.0),
        }
    }
}

/// Whether the unit cell of a line that the value lies in is an odd one. The shift keeps the value positive, so that
/// truncation rounds down.
fn is_odd(value: f32) -> bool {
    (value + 64.5) as u32 % 2 == 1
}

/// Distance from the middle of the cell of a grid.
fn from_cell_centre(value: f32) -> f32 {
    const CELL: f32 = 0.46;
    let cells = value / CELL + 64.5;
    (cells - (cells as u32) as f32 - 0.5) * CELL
}
