//! What people read: tables of what is listed, a page of what is inspected.
//!
//! Pure: an answer and a [`Look`] in, text without its last line end out. Names and numbers stand
//! as the API gives them, so that what is seen can be typed again.

mod event;
mod node;
mod pool;
mod shared;
mod status;
mod task;
mod token;
mod volume;

use comfy_table::{Attribute, Cell, Color, Row, Table};
use mooring_api::{Health, Labels};
use serde::Serialize;

pub use event::event;
pub use node::{node, nodes};
pub use pool::{pool, pools};
pub use shared::shared_clients;
pub use status::status;
pub use task::{amounts, task, title};
pub use token::tokens;
pub use volume::{policy, volume, volumes};

/// How text may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// For programs, files and pipes: no escape sequences.
    Plain,
    /// For a person at a terminal.
    Coloured,
}

/// What stands where there is nothing.
const NONE: &str = "-";

/// The word of an enum, as it stands in JSON.
pub fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        // An enum without data is a word; what this shows otherwise says what is wrong.
        other => format!("{other:?}"),
    }
}

/// `key=value`, separated by commas.
pub fn labels(labels: &Labels) -> String {
    let each: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    or_none(&each.join(","))
}

/// `text`, or the sign for nothing.
fn or_none(text: &str) -> String {
    if text.is_empty() { NONE.to_owned() } else { text.to_owned() }
}

/// `done` of `of` in whole per cent; all of nothing is 100.
pub fn percent(done: u64, of: u64) -> u64 {
    let percent = (u128::from(done.min(of)) * 100).checked_div(u128::from(of));
    percent.map_or(100, |percent| u64::try_from(percent).expect("no more than 100"))
}

/// An optional value, or the sign for nothing.
fn optional<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| NONE.to_owned(), T::to_string)
}

/// An empty table with these columns.
fn table(look: Look, columns: &[&str]) -> Table {
    let mut table = Table::new();
    match look {
        Look::Plain => table.force_no_tty(),
        Look::Coloured => table.enforce_styling(),
    };
    table.load_style(comfy_table::presets::NOTHING);
    let header = columns.iter().map(|column| Cell::new(column).add_attribute(Attribute::Bold));
    table.set_header(Row::from(header.collect::<Vec<_>>()));
    table
}

/// The table as text: two spaces between columns, none at the ends of lines.
fn finish(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// A cell that is coloured by how well what it tells of is.
fn health_cell(text: impl ToString, health: Health) -> Cell {
    let cell = Cell::new(text.to_string());
    match health {
        Health::Ok => cell,
        Health::Degraded => cell.fg(Color::Yellow),
        Health::Down => cell.fg(Color::Red),
    }
}

/// `text`, coloured by how well what it tells of is.
fn paint(look: Look, health: Health, text: &str) -> String {
    // The colours of the standard palette (ECMA-48, SGR): 32 green, 33 yellow, 31 red; 0 ends.
    let colour = match health {
        Health::Ok => 32,
        Health::Degraded => 33,
        Health::Down => 31,
    };
    match look {
        Look::Plain => text.to_owned(),
        Look::Coloured => format!("\x1b[{colour}m{text}\x1b[0m"),
    }
}

/// Lines of `name  value`, the values below each other.
fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<_> =
        pairs.iter().map(|(name, value)| format!("{name:width$}  {value}")).collect();
    lines.join("\n")
}

/// A list under a title, indented; nothing if the list is empty.
fn section(title: &str, body: &str) -> String {
    match body {
        "" => String::new(),
        body => format!("\n\n{title}\n  {}", body.replace('\n', "\n  ")),
    }
}

#[cfg(test)]
mod tests;
