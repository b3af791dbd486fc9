//! Predictions as CSV: `path,class_index,class,probability,error` and the columns a caller asks for beside them.

use std::io::Write;
use std::path::Path;

use crate::ReportError;

/// What is said of one image: an answer, or why there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictionRow {
    /// The file, or the image's name in its data set.
    pub path: String,
    /// The true class where it is known.
    pub label: Option<String>,
    /// Best classes first: index, name, probability 0..=1. Empty where the image could not be read.
    pub classes: Vec<(usize, String, f64)>,
    /// All logits in class order, where [`Columns::num_logits`] asks for them.
    pub logits: Vec<f32>,
    /// Why the image could not be read; empty where it could.
    pub error: String,
}

impl PredictionRow {
    /// A row for an image that was classified.
    pub fn answer(path: impl Into<String>, label: Option<String>, classes: Vec<(usize, String, f64)>) -> Self {
        Self { path: path.into(), label, classes, logits: Vec::new(), error: String::new() }
    }

    /// A row for an image that could not be read.
    pub fn unreadable(path: impl Into<String>, error: impl Into<String>) -> Self {
        Self { path: path.into(), label: None, classes: Vec::new(), logits: Vec::new(), error: error.into() }
    }
}

/// The optional columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// Classes per image; above 1 each image has that many lines, and a `rank` from 1.
    pub topk: usize,
    /// Adds `logit_0…`; 0 leaves them out.
    pub num_logits: usize,
    /// Adds `label` behind `path`, for images whose class is known.
    pub label: LabelColumn,
}

/// Whether the true class has a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LabelColumn {
    /// No column.
    #[default]
    Absent,
    /// A column `label` behind `path`.
    Present,
}

/// Writes a header and the rows.
///
/// # Errors
/// A writer that fails.
pub fn write_predictions(out: impl Write, rows: &[PredictionRow], columns: &Columns) -> Result<(), ReportError> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(header(columns))?;
    for row in rows {
        for rank in 0..columns.topk.min(row.classes.len()).max(1) {
            csv.write_record(line(row, rank, columns))?;
        }
    }
    csv.flush().map_err(|source| ReportError::Csv(source.into()))
}

/// Reads what [`write_predictions`] wrote: the best class of each image.
///
/// # Errors
/// A file that cannot be read, or that lacks a column.
pub fn read_predictions(path: &Path) -> Result<Vec<PredictionRow>, ReportError> {
    let wrong = |reason: String| ReportError::Predictions { path: path.to_owned(), reason };
    let mut csv = csv::Reader::from_path(path).map_err(|error| wrong(error.to_string()))?;
    let header = csv.headers().map_err(|error| wrong(error.to_string()))?.clone();
    let column = |name: &str| header.iter().position(|cell| cell == name);
    let needed = |name: &str| column(name).ok_or_else(|| wrong(format!("no column {name}")));
    let (name, index, class) = (needed("path")?, needed("class_index")?, needed("class")?);
    let (probability, error, label) = (needed("probability")?, needed("error")?, column("label"));
    let mut rows = Vec::new();
    for record in csv.records() {
        let record = record.map_err(|error| wrong(error.to_string()))?;
        let cell = |at: usize| record.get(at).unwrap_or_default().to_owned();
        let number = |at: usize| cell(at).parse::<f64>().map_err(|error| wrong(format!("{:?}: {error}", cell(at))));
        if cell(class).is_empty() {
            rows.push(PredictionRow::unreadable(cell(name), cell(error)));
            continue;
        }
        let best = (number(index)? as usize, cell(class), number(probability)?);
        rows.push(PredictionRow::answer(cell(name), label.map(cell), vec![best]));
    }
    Ok(rows)
}

fn header(columns: &Columns) -> Vec<String> {
    let mut names = vec!["path".to_owned()];
    if columns.label == LabelColumn::Present {
        names.push("label".to_owned());
    }
    names.extend(["class_index", "class", "probability", "error"].map(str::to_owned));
    if columns.topk > 1 {
        names.push("rank".to_owned());
    }
    names.extend((0..columns.num_logits).map(|index| format!("logit_{index}")));
    names
}

fn line(row: &PredictionRow, rank: usize, columns: &Columns) -> Vec<String> {
    let mut cells = vec![row.path.clone()];
    if columns.label == LabelColumn::Present {
        cells.push(row.label.clone().unwrap_or_default());
    }
    match row.classes.get(rank) {
        Some((index, name, probability)) => {
            cells.extend([index.to_string(), name.clone(), format!("{probability:.6}"), String::new()]);
        }
        None => cells.extend([String::new(), String::new(), String::new(), row.error.clone()]),
    }
    if columns.topk > 1 {
        cells.push(if row.classes.is_empty() { String::new() } else { (rank + 1).to_string() });
    }
    let logit = |index| row.logits.get(index).map(f32::to_string).unwrap_or_default();
    cells.extend((0..columns.num_logits).map(logit));
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csv(rows: &[PredictionRow], columns: Columns) -> String {
        let mut out = Vec::new();
        write_predictions(&mut out, rows, &columns).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn unreadable_file_has_an_empty_class_and_a_reason() {
        let text = csv(&[PredictionRow::unreadable("a,b.png", "not a PNG")], Columns::default());
        assert_eq!(text, "path,class_index,class,probability,error\n\"a,b.png\",,,,not a PNG\n");
    }

    #[test]
    fn topk_has_ranks_and_logits_have_columns() {
        let mut row = PredictionRow::answer("a", None, vec![(1, "x".into(), 0.75), (0, "y".into(), 0.25)]);
        row.logits = vec![0.5, 1.5];
        let text = csv(&[row], Columns { topk: 2, num_logits: 2, label: LabelColumn::Absent });
        assert_eq!(
            text,
            "path,class_index,class,probability,error,rank,logit_0,logit_1\na,1,x,0.750000,,1,0.5,1.5\na,0,y,0.250000,,2,0.5,1.5\n"
        );
    }

    #[test]
    fn what_was_written_is_read_back() {
        let rows = [
            PredictionRow::answer("a, b.png", Some("t".into()), vec![(1, "x \"y\"".into(), 0.5)]),
            PredictionRow::unreadable("c", "torn"),
        ];
        let columns = Columns { label: LabelColumn::Present, ..Columns::default() };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("predictions.csv");
        std::fs::write(&path, csv(&rows, columns)).unwrap();
        assert_eq!(read_predictions(&path).unwrap(), rows);
        std::fs::write(&path, "path,class\na,b\n").unwrap();
        assert!(read_predictions(&path).unwrap_err().to_string().contains("no column class_index"));
    }

    #[test]
    fn label_column_stands_behind_the_path() {
        let row = PredictionRow::answer("a", Some("t".into()), vec![(1, "x".into(), 1.0)]);
        let text = csv(&[row], Columns { label: LabelColumn::Present, ..Columns::default() });
        assert_eq!(text, "path,label,class_index,class,probability,error\na,t,1,x,1.000000,\n");
    }
}
