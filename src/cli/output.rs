//! What tools print: rows, as aligned text or as one JSON object a line.

use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::CommandError;

/// Columns are this far apart.
const GAP: &str = "  ";
/// What stands where there is nothing to say.
pub(super) const NOTHING: &str = "-";

/// A thing that is printed as a row of a table, or as the JSON object that it serializes to.
pub(super) trait Row: Serialize {
    /// Heads of the columns.
    const TITLES: &'static [&'static str];

    /// As many cells as titles.
    fn cells(&self) -> Vec<String>;
}

/// Prints rows: with `json` one object a line, else a table, of which the head is printed even if it has no row.
///
/// # Errors
/// The writer's.
pub(super) fn print<R: Row>(out: &mut impl Write, rows: &[R], json: bool) -> io::Result<()> {
    match json {
        true => rows.iter().try_for_each(|row| print_json(out, row)),
        false => print_table(out, R::TITLES, rows.iter().map(Row::cells).collect(), ""),
    }
}

/// Prints one object on a line.
///
/// # Errors
/// The writer's.
pub(super) fn print_json(out: &mut impl Write, object: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, object)?;
    out.write_all(b"\n")
}

/// Prints cells below their titles, each line behind `indent`; columns of nothing but numbers are aligned at the right.
///
/// # Errors
/// The writer's.
pub(super) fn print_table(
    out: &mut impl Write,
    titles: &[&str],
    rows: Vec<Vec<String>>,
    indent: &str,
) -> io::Result<()> {
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let is_number = |cell: &String| cell == NOTHING || cell.parse::<i64>().is_ok();
    let mut columns: Vec<(usize, bool)> = Vec::with_capacity(titles.len());
    for (at, title) in titles.iter().enumerate() {
        let cells = || rows.iter().filter_map(|row| row.get(at));
        let width = cells().map(|cell| cell.width()).max().unwrap_or(0).max(title.width());
        columns.push((width, cells().count() > 0 && cells().all(is_number)));
    }
    let titles = titles.iter().map(ToString::to_string).collect();
    for row in std::iter::once(&titles).chain(&rows) {
        let mut line = indent.to_owned();
        for (cell, (width, is_right)) in row.iter().zip(&columns) {
            let pad = " ".repeat(width - cell.width());
            let (before, after) = if *is_right { (pad.as_str(), "") } else { ("", pad.as_str()) };
            line.extend([before, cell, after, GAP]);
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// A text without characters that would do something to a terminal or break a table.
fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// Prints a line.
///
/// # Errors
/// Nobody reads it.
pub(super) fn say(line: &str) -> Result<(), CommandError> {
    writeln!(io::stdout(), "{line}").map_err(CommandError::Output)
}

/// A number, or [`NOTHING`].
pub(super) fn or_nothing(value: Option<impl ToString>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), |value| value.to_string())
}

/// A bar on stderr towards `total` bytes, if that is a terminal.
pub(super) fn byte_bar(total: u64) -> ProgressBar {
    bar(total, "{bar:40} {bytes} of {total_bytes}, {binary_bytes_per_sec}, {eta} left")
}

/// A bar on stderr towards `total` records, if that is a terminal.
pub(super) fn record_bar(total: u64) -> ProgressBar {
    bar(total, "{bar:40} {human_pos} of {human_len} records, {per_sec}, {eta} left")
}

fn bar(total: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("the templates are those above");
    // Draws on stderr, and nothing at all where that is no terminal.
    ProgressBar::new(total).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Pair {
        name: &'static str,
        count: Option<i64>,
    }

    impl Row for Pair {
        const TITLES: &'static [&'static str] = &["NAME", "COUNT"];

        fn cells(&self) -> Vec<String> {
            vec![self.name.to_owned(), or_nothing(self.count)]
        }
    }

    fn printed(rows: &[Pair], json: bool) -> String {
        let mut out = Vec::new();
        print(&mut out, rows, json).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_as_wide_as_what_is_seen_and_numbers_stand_right() {
        let rows = [
            Pair { name: "letters", count: Some(7) },
            Pair { name: "手紙", count: None },
            Pair { name: "a\x1b[2Jb", count: Some(1_000_000) },
        ];
        let expected =
            ["NAME           COUNT", "letters            7", "手紙               -", "a\\u{1b}[2Jb  1000000"];
        assert_eq!(printed(&rows, false).lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn json_is_an_object_a_line() {
        let rows = [Pair { name: "a", count: None }, Pair { name: "b", count: Some(2) }];
        assert_eq!(printed(&rows, true), "{\"name\":\"a\",\"count\":null}\n{\"name\":\"b\",\"count\":2}\n");
        assert_eq!(printed(&[], false), "NAME  COUNT\n");
        assert_eq!(printed(&[], true), "");
    }
}
