//! Padded images as rows of pixels whose distance is the same everywhere.
//!
//! A window then reads each of its taps at a fixed distance from its own place, in every row and every image, so that
//! tiles may run over the ends of both. Zeros at the left of a row serve as those at the right of the row before.

use std::ops::Range;

use crate::conv::pass::Pass;
use crate::conv::window::{Axis, Window};

/// One axis of a [`Grid`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    /// Zeros before the first input.
    lead: usize,
    /// Inputs and the zeros around them, whole steps.
    len: usize,
    /// Inputs between neighbouring outputs.
    step: usize,
    /// Steps that the farthest tap lies beyond its output.
    reach: usize,
}

impl Line {
    fn new<'a>(axes: impl Iterator<Item = &'a Axis> + Clone, inputs: usize) -> Self {
        let step = axes.clone().map(|axis| axis.step).max().unwrap_or(1);
        let offsets = || axes.clone().flat_map(|axis| axis.taps.iter().map(|tap| tap.offset));
        let lead = offsets().map(|offset| (-offset).max(0)).max().unwrap_or(0) as usize;
        let reach = offsets().map(|offset| (offset + lead as isize) as usize / step).max().unwrap_or(0);
        let end = axes.clone().filter_map(|axis| axis.reach(axis.count)).map(|reach| reach.1).max().unwrap_or(0);
        let tail = (end - inputs as isize).max(0) as usize;
        let outputs = axes.map(|axis| axis.count).max().unwrap_or(0);
        let len = (lead + inputs + tail.saturating_sub(lead)).max(outputs * step).next_multiple_of(step);
        Self { lead, len, step, reach }
    }

    /// The phase within a step that a tap reads, and its distance in steps.
    fn place(&self, offset: isize) -> (usize, usize) {
        let place = (offset + self.lead as isize) as usize;
        (place % self.step, place / self.step)
    }

    fn steps(&self) -> usize {
        self.len / self.step
    }
}

/// The padded images of a pass. A plane holds the rows of one phase within the vertical step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    rows: Line,
    columns: Line,
}

impl Grid {
    /// The grid that serves all windows, which share their steps, over images of `inputs` rows and columns.
    pub(super) fn new(windows: &[Window], inputs: [usize; 2]) -> Self {
        let rows = Line::new(windows.iter().map(|window| &window.rows), inputs[0]);
        let columns = Line::new(windows.iter().map(|window| &window.columns), inputs[1]);
        Self { rows, columns }
    }

    /// Outputs with a place in a row: as many as there are, and some that are computed in vain.
    pub(super) fn columns(&self) -> usize {
        self.columns.steps()
    }

    /// Rows of outputs with a place in an image.
    pub(super) fn rows(&self) -> usize {
        self.rows.steps()
    }

    /// Planes.
    pub(super) fn phases(&self) -> usize {
        self.rows.step
    }

    /// Phases within the horizontal step.
    pub(super) fn column_phases(&self) -> usize {
        self.columns.step
    }

    /// Pixels of a plane's row.
    pub(super) fn pitch(&self) -> usize {
        self.columns.len
    }

    /// Zeros at the left of a row.
    pub(super) fn lead(&self) -> usize {
        self.columns.lead
    }

    /// Rows of a plane that taps read below an output's own.
    pub(super) fn reach(&self) -> usize {
        self.rows.reach
    }

    /// Plane of a row of taps, and its distance in the plane's rows.
    pub(super) fn tap_row(&self, offset: isize) -> (usize, usize) {
        self.rows.place(offset)
    }

    /// Distance in pixels of a column of taps.
    pub(super) fn tap_column(&self, offset: isize) -> usize {
        (offset + self.columns.lead as isize) as usize
    }

    /// Phase of a column of taps, and its distance in outputs.
    pub(super) fn tap_column_phase(&self, offset: isize) -> (usize, usize) {
        self.columns.place(offset)
    }

    /// The input row at a row of a plane, if it is one.
    pub(super) fn input_row(&self, phase: usize, row: usize, inputs: usize) -> Option<usize> {
        (row * self.rows.step + phase).checked_sub(self.rows.lead).filter(|&row| row < inputs)
    }
}

/// Some images, or some rows of outputs of one image, that are computed from one copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Band {
    pub(super) images: Range<usize>,
    /// Rows of outputs; all that the grid has if there are several images.
    pub(super) rows: Range<usize>,
}

impl Band {
    /// Rows of a plane that the band's windows read.
    pub(super) fn plane_rows(&self, grid: &Grid) -> usize {
        (self.images.len() - 1) * grid.rows() + self.rows.len() + grid.reach()
    }

    /// Places of outputs, those in vain included.
    pub(super) fn places(&self, grid: &Grid) -> usize {
        ((self.images.len() - 1) * grid.rows() + self.rows.len()) * grid.columns()
    }

    /// The image and the plane's row in it for a row of the band's planes. Rows below the last image are its own.
    pub(super) fn row(&self, grid: &Grid, row: usize) -> (usize, usize) {
        let image = (row / grid.rows()).min(self.images.len() - 1);
        (self.images.start + image, self.rows.start + row - image * grid.rows())
    }
}

/// Bands of about `most` rows of a plane each, and at least `least` of them if there is that much to cut.
pub(super) fn bands(pass: &Pass, grid: &Grid, most: usize, least: usize) -> Vec<Band> {
    let rows = grid.rows();
    if pass.images == 0 || rows == 0 {
        return Vec::new();
    }
    let parts = |total: usize, most: usize, least: usize| {
        let count = total.div_ceil(most.max(1)).max(least).clamp(1, total);
        let size = total.div_ceil(count);
        (0..total).step_by(size).map(move |first| first..total.min(first + size))
    };
    if rows <= most && pass.images >= least {
        return parts(pass.images, most / rows, least).map(|images| Band { images, rows: 0..rows }).collect();
    }
    let per_image = least.div_ceil(pass.images);
    (0..pass.images)
        .flat_map(|image| parts(rows, most, per_image).map(move |rows| Band { images: image..image + 1, rows }))
        .collect()
}
