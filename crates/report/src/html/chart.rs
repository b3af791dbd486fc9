//! Curves as SVG, with the places of their points for whoever shows values under a pointer.

use std::ops::Range;

use plotters::prelude::*;
use serde::Serialize;

use crate::ReportError;

/// Width and height of a chart in its own units; a page scales it.
const SIZE: (u32, u32) = (520, 330);
/// Stand-ins that a style sheet replaces: axes and words, grid, then one for each series.
const INK: RGBColor = RGBColor(1, 1, 1);
const GRID: RGBColor = RGBColor(2, 2, 2);
/// Series have as many colours; more begin anew.
const NUM_COLOURS: usize = 8;

/// A line of a chart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// Which of the colours.
    pub(crate) colour: usize,
    pub(crate) dash: Dash,
    pub(crate) points: Vec<(f64, f64)>,
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Dash {
    Solid,
    Dashed,
}

/// What stands around the lines.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Frame {
    pub(crate) title: &'static str,
    pub(crate) x: &'static str,
    pub(crate) x_scale: Scale,
    /// Values that the vertical axis shows at least.
    pub(crate) y_at_least: Range<f64>,
}

/// How the horizontal axis runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    Logarithmic,
}

/// A drawn chart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chart {
    pub(crate) title: &'static str,
    pub(crate) svg: String,
    pub(crate) legend: Vec<Legend>,
    /// JSON for the page's script.
    pub(crate) places: String,
}

/// A line's name in the legend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Legend {
    pub(crate) name: String,
    pub(crate) colour: usize,
    pub(crate) is_dashed: bool,
}

/// A line's points: where they are drawn, and what they are.
#[derive(Serialize)]
struct Places<'a> {
    name: &'a str,
    colour: usize,
    /// `[place x, place y, value x, value y]`.
    points: Vec<[f64; 4]>,
}

impl Chart {
    /// Draws the lines. A line without points, and points that are no numbers, are left out.
    ///
    /// # Errors
    /// The library that draws fails.
    pub(crate) fn draw(frame: &Frame, series: &[Series]) -> Result<Self, ReportError> {
        let finite = |series: &Series| {
            let points = series.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite());
            let points = points.filter(|(x, _)| frame.x_scale == Scale::Linear || *x > 0.0).collect();
            Series { points, ..series.clone() }
        };
        let series: Vec<Series> = series.iter().map(finite).filter(|series| !series.points.is_empty()).collect();
        let (svg, places) = draw(frame, &series).map_err(|reason| ReportError::Chart { title: frame.title, reason })?;
        let legend = |series: &Series| Legend {
            name: series.name.clone(),
            colour: series.colour % NUM_COLOURS,
            is_dashed: series.dash == Dash::Dashed,
        };
        Ok(Self { title: frame.title, svg, legend: series.iter().map(legend).collect(), places })
    }
}

fn colour(index: usize) -> RGBColor {
    RGBColor(3, 3, (index % NUM_COLOURS) as u8)
}

fn draw(frame: &Frame, series: &[Series]) -> Result<(String, String), String> {
    let as_drawn = |x: f64| if frame.x_scale == Scale::Logarithmic { x.log10() } else { x };
    let (xs, ys) = ranges(frame, series, as_drawn);
    let mut svg = String::new();
    let mut places = Vec::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut builder = ChartBuilder::on(&area);
        builder.margin(10).x_label_area_size(54).y_label_area_size(68);
        let mut chart = builder.build_cartesian_2d(xs, ys).map_err(|error| error.to_string())?;
        let label = |x: &f64| tick(frame.x_scale, *x);
        let font = || ("sans-serif", 20).into_font().color(&INK);
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(frame.x).x_labels(6).y_labels(6).x_label_formatter(&label).label_style(font());
        mesh.y_label_formatter(&|y| short(*y)).axis_style(INK).bold_line_style(GRID).light_line_style(TRANSPARENT);
        mesh.draw().map_err(|error| error.to_string())?;
        for line in series {
            let points: Vec<(f64, f64)> = line.points.iter().map(|(x, y)| (as_drawn(*x), *y)).collect();
            let style = colour(line.colour).stroke_width(2);
            let drawn = match line.dash {
                Dash::Solid => chart.draw_series(LineSeries::new(points.clone(), style)).map(|_| ()),
                Dash::Dashed => chart.draw_series(DashedLineSeries::new(points.clone(), 6, 4, style)).map(|_| ()),
            };
            drawn.map_err(|error| error.to_string())?;
            let dots = if points.len() <= 40 { points.as_slice() } else { &[] };
            let dot = |point: &(f64, f64)| Circle::new(*point, 3, colour(line.colour).filled());
            chart.draw_series(dots.iter().map(dot)).map_err(|error| error.to_string())?;
            let place = |(point, value): (&(f64, f64), &(f64, f64))| {
                let (x, y) = chart.backend_coord(point);
                [f64::from(x), f64::from(y), value.0, value.1]
            };
            let points = points.iter().zip(&line.points).map(place).collect();
            places.push(Places { name: &line.name, colour: line.colour % NUM_COLOURS, points });
        }
        area.present().map_err(|error| error.to_string())?;
    }
    Ok((svg, serde_json::to_string(&places).map_err(|error| error.to_string())?))
}

/// What stands at a tick of the horizontal axis.
fn tick(scale: Scale, x: f64) -> String {
    match scale {
        Scale::Linear => short(x),
        Scale::Logarithmic => format!("{:.0e}", 10f64.powf(x)),
    }
}

/// What the axes span: all points, with a little room above and below.
fn ranges(frame: &Frame, series: &[Series], as_drawn: impl Fn(f64) -> f64) -> (Range<f64>, Range<f64>) {
    let points = || series.iter().flat_map(|series| &series.points);
    let span = |values: &mut dyn Iterator<Item = f64>, start: Range<f64>| {
        values.fold(start, |range, value| range.start.min(value)..range.end.max(value))
    };
    let nothing = f64::INFINITY..f64::NEG_INFINITY;
    let xs = span(&mut points().map(|(x, _)| as_drawn(*x)), nothing);
    let ys = span(&mut points().map(|(_, y)| *y), frame.y_at_least.clone());
    let room = 0.04 * (ys.end - ys.start).max(1e-9);
    let ys = match frame.y_at_least.is_empty() {
        true => ys.start - room..ys.end + room,
        // A limit that was asked for, such as 0, is not moved.
        false => ys.start..ys.end,
    };
    let xs = if xs.start < xs.end { xs } else { as_wide(xs) };
    (xs, if ys.start < ys.end && ys.start.is_finite() { ys } else { 0.0..1.0 })
}

/// A single point has room on both sides.
fn as_wide(range: Range<f64>) -> Range<f64> {
    if range.start.is_finite() { range.start - 0.5..range.start + 0.5 } else { 0.0..1.0 }
}

/// A number in as few digits as tell it from its neighbours.
fn short(value: f64) -> String {
    let text = match value.abs() {
        0.0 => return "0".to_owned(),
        size if !(1e-4..1e6).contains(&size) => return format!("{value:.1e}"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    };
    let trimmed = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    trimmed.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(points: &[(f64, f64)]) -> Series {
        Series { name: "a<b".into(), colour: 9, dash: Dash::Solid, points: points.to_vec() }
    }

    fn frame(x_scale: Scale) -> Frame {
        Frame { title: "Loss", x: "epoch", x_scale, y_at_least: f64::INFINITY..f64::NEG_INFINITY }
    }

    #[test]
    fn places_are_where_points_are_drawn_and_rise_with_their_values() {
        let chart = Chart::draw(&frame(Scale::Linear), &[line(&[(1.0, 2.0), (2.0, 1.0), (3.0, f64::NAN)])]).unwrap();
        let places: serde_json::Value = serde_json::from_str(&chart.places).unwrap();
        let points: Vec<[f64; 4]> = serde_json::from_value(places[0]["points"].clone()).unwrap();
        assert_eq!(points.len(), 2);
        assert_eq!((points[0][2], points[0][3]), (1.0, 2.0));
        // Down is larger on the screen.
        assert!(points[0][0] < points[1][0] && points[0][1] < points[1][1], "{points:?}");
        let circle = format!("cx=\"{}\" cy=\"{}\"", points[0][0], points[0][1]);
        assert!(chart.svg.contains(&circle), "{circle} in {}", chart.svg);
        assert_eq!(chart.legend[0].colour, 1);
    }

    #[test]
    fn single_points_and_no_points_are_drawn_too() {
        for points in [&[][..], &[(0.0, 0.0)], &[(1e-3, f64::INFINITY)]] {
            for scale in [Scale::Linear, Scale::Logarithmic] {
                assert!(Chart::draw(&frame(scale), &[line(points)]).unwrap().svg.starts_with("<svg"));
            }
        }
    }

    #[test]
    fn numbers_are_short() {
        let cases =
            [(0.0, "0"), (0.05, "0.05"), (1.5, "1.5"), (2.0, "2"), (1234.0, "1234"), (3e-6, "3.0e-6"), (1e7, "1.0e7")];
        for (value, expected) in cases {
            assert_eq!(short(value), expected);
        }
    }
}
