//! Ten outlines.

/// An outline around the origin, about one unit in each direction, `v` pointing down. All are symmetric to the vertical
/// axis, so that a flip keeps the class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Disc,
    Ring,
    Square,
    Triangle,
    Diamond,
    Cross,
    Star,
    Crescent,
    Hourglass,
    Arrow,
}

/// Directions of the tips of a five-pointed star, to 7 digits; constants, so that no platform's sine is involved.
const STAR_TIPS: [(f32, f32); 5] = [
    (0.0, -1.0),
    (0.951_056_5, -0.309_017),
    (0.587_785_3, 0.809_017),
    (-0.587_785_3, 0.809_017),
    (-0.951_056_5, -0.309_017),
];

impl Shape {
    pub(super) const ALL: [Self; 10] = [
        Self::Disc,
        Self::Ring,
        Self::Square,
        Self::Triangle,
        Self::Diamond,
        Self::Cross,
        Self::Star,
        Self::Crescent,
        Self::Hourglass,
        Self::Arrow,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Disc => "disc",
            Self::Ring => "ring",
            Self::Square => "square",
            Self::Triangle => "triangle",
            Self::Diamond => "diamond",
            Self::Cross => "cross",
            Self::Star => "star",
            Self::Crescent => "crescent",
            Self::Hourglass => "hourglass",
            Self::Arrow => "arrow",
        }
    }

    /// Whether the point lies in it.
    pub(super) fn contains(self, u: f32, v: f32) -> bool {
        let (across, down) = (u.abs(), v.abs());
        match self {
            Self::Disc => u * u + v * v < 0.85,
            Self::Ring => (0.22..1.1).contains(&(u * u + v * v)),
            Self::Square => across.max(down) < 0.82,
            Self::Triangle => v < 0.8 && across < 0.58 * (v + 1.0),
            Self::Diamond => across * 1.6 + down < 1.05,
            Self::Cross => across.min(down) < 0.36 && across.max(down) < 1.0,
            // Inside of at least four of the five lines that join every second tip.
            Self::Star => STAR_TIPS.iter().filter(|tip| tip.0 * u + tip.1 * v < 0.38).count() >= 4,
            Self::Crescent => {
                let above = v + 0.5;
                u * u + v * v < 1.0 && u * u + above * above > 0.56
            }
            Self::Hourglass => down < 0.9 && across < 0.2 + 0.7 * down,
            Self::Arrow if v < 0.05 => across < 0.95 * (v + 1.0),
            Self::Arrow => v < 1.0 && across < 0.36,
        }
    }
}
