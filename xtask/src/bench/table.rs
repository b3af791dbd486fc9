//! A table as text: Markdown whose columns line up.

use std::fmt;

/// A title, a header, rows of as many cells, and remarks.
#[derive(Clone, Debug)]
pub(super) struct Table {
    title: String,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
}

impl Table {
    pub(super) fn new(title: impl Into<String>, header: &[&str]) -> Self {
        let header = header.iter().map(|cell| (*cell).to_owned()).collect();
        Self { title: title.into(), header, rows: Vec::new(), notes: Vec::new() }
    }

    /// Appends a row; missing cells are empty.
    pub(super) fn push<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let mut row: Vec<String> = cells.into_iter().map(Into::into).collect();
        row.resize(self.header.len(), String::new());
        self.rows.push(row);
    }

    /// Appends a line that stands below the table.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = std::iter::once(&self.header).chain(&self.rows).map(|row| row[column].chars().count());
            cells.max().unwrap_or(0).max(3)
        };
        let widths: Vec<_> = (0..self.header.len()).map(width).collect();
        writeln!(f, "## {}\n", self.title)?;
        write_row(f, &self.header, &widths)?;
        let rule: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
        write_row(f, &rule, &widths)?;
        self.rows.iter().try_for_each(|row| write_row(f, row, &widths))?;
        self.notes.iter().try_for_each(|note| write!(f, "\n{note}\n"))
    }
}

fn write_row(f: &mut fmt::Formatter<'_>, cells: &[String], widths: &[usize]) -> fmt::Result {
    for (cell, width) in cells.iter().zip(widths) {
        write!(f, "| {cell:width$} ")?;
    }
    writeln!(f, "|")
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_line_up_whatever_the_letters() {
        let mut table = Table::new("Steps", &["what", "n"]);
        table.push(["3×3", "10000"]);
        table.push(["a long name"]);
        table.note("n: number");
        let expected = "\
            ## Steps\n\n\
            | what        | n     |\n\
            | ----------- | ----- |\n\
            | 3×3         | 10000 |\n\
            | a long name |       |\n\
            \nn: number\n";
        assert_eq!(table.to_string(), expected);
    }
}
