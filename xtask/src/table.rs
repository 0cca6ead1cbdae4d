//! Tables for the terminal: the first column to the left, all others to the right.

use std::fmt;

/// A table that is as wide as it needs to be.
pub struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With the names of its columns.
    pub fn new(title: &str, columns: &[&str]) -> Self {
        Self {
            title: title.to_owned(),
            rows: vec![columns.iter().map(|column| (*column).to_owned()).collect()],
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column_count = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..column_count).map(width).collect();
        writeln!(f, "\n{}", self.title)?;
        for (index, row) in self.rows.iter().enumerate() {
            write!(f, "  {:<width$}", row.first().map_or("", String::as_str), width = widths[0])?;
            for (cell, width) in row.iter().zip(&widths).skip(1) {
                write!(f, "  {cell:>width$}")?;
            }
            writeln!(f)?;
            if index == 0 {
                let length = widths.iter().sum::<usize>() + 2 * column_count.saturating_sub(1);
                writeln!(f, "  {}", "-".repeat(length))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new("Fruit", &["name", "count"]);
        table.row(["fig".into(), "7".into()]);
        table.row(["pomegranate".into(), "12345678".into()]);
        let expected = "\nFruit\n  name            count\n  ---------------------\n  fig                 7\n  \
                        pomegranate  12345678\n";
        assert_eq!(table.to_string(), expected);
    }
}
