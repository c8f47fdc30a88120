//! Columns of text for terminals, and tables for pages. PURE. Writing to a String cannot fail.

use std::fmt::Write as _;

/// Rows as columns, separated by two spaces; no spaces at the ends of lines.
pub fn text<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

/// Rows as a table in Markdown; the first row is the head.
pub fn markdown<const N: usize>(rows: &[[String; N]]) -> String {
    let mut out = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<_> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        let _ = writeln!(out, "| {} |", cells.join(" | "));
        if number == 0 {
            let _ = writeln!(out, "|{}", "---|".repeat(N));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<[String; 2]> {
        [["name", "value"], ["a", "1 | 2"]].map(|row| row.map(str::to_owned)).to_vec()
    }

    #[test]
    fn columns_are_aligned() {
        assert_eq!(text(&rows()), "name  value\na     1 | 2\n");
        assert_eq!(markdown(&rows()), "| name | value |\n|---|---|\n| a | 1 \\| 2 |\n");
    }
}
