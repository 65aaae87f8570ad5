//! Results as Markdown tables and JSON lines, and the figures in them.

use std::fmt::Write;

/// The `q`-quantile (nearest rank, so always a measured value) of `samples`.
#[must_use]
pub fn quantile(samples: &[f64], q: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mut rank = 0;
    while rank + 1 < sorted.len() && fraction(rank + 1, sorted.len()) < q {
        rank += 1;
    }
    sorted.get(rank).copied()
}

fn fraction(part: usize, whole: usize) -> f64 {
    let wide = |n| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    wide(part) / wide(whole)
}

/// A figure in milliseconds for a cell; a dash if there is none.
#[must_use]
pub fn ms(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.1}"))
}

/// A Markdown table with columns padded to one width.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(heads: &[&str]) -> Self {
        Self { rows: vec![heads.iter().map(|&head| head.to_owned()).collect()] }
    }

    /// Adds a row; missing cells stay empty.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The table as Markdown, each line ended.
    #[must_use]
    pub fn markdown(&self) -> String {
        let columns = self.rows[0].len();
        let cell = |row: &[String], n: usize| row.get(n).cloned().unwrap_or_default();
        let width = |n| self.rows.iter().map(|row| cell(row, n).chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            for (n, width) in widths.iter().enumerate() {
                let _ = write!(text, "| {:width$} ", cell(row, n));
            }
            text.push_str("|\n");
            if index == 0 {
                for width in &widths {
                    let _ = write!(text, "|{}", "-".repeat(width + 2));
                }
                text.push_str("|\n");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_measured_values() {
        let samples: Vec<_> = (1..=20).map(f64::from).collect();
        for (q, expect) in [(0.0, 1.0), (0.5, 10.0), (0.99, 20.0), (1.0, 20.0)] {
            assert_eq!(quantile(&samples, q), Some(expect), "{q}");
        }
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn a_table_is_padded_markdown() {
        let mut table = Table::new(&["a", "long"]);
        table.row(vec!["xyz".to_owned()]);
        assert_eq!(table.markdown(), "| a   | long |\n|-----|------|\n| xyz |      |\n");
    }
}
