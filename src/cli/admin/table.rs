//! An answer for people: names and values, and a table for each list. Whatever the answer holds: nothing of it moves the
//! cursor.

use serde_json::{Map, Value};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::model::printable;

/// Columns that one value may take, so that the ones after it are seen; the last may take what is left.
const CELL_COLUMNS_MAX: usize = 40;
/// Of a longer text so much is looked at.
const CELL_CHARS_MAX: usize = 400;
const GAP: &str = "  ";
const NOTHING: &str = "-";

/// One text of a table.
struct Cell {
    text: String,
    is_number: bool,
}

/// Lines of at most so many columns.
pub(super) fn of(answer: &Value, columns: usize) -> String {
    let Value::Object(members) = answer else { return cut(&text_of(answer), columns) + "\n" };
    let mut single = Vec::new();
    let mut lists = Vec::new();
    sort_out("", members, &mut single, &mut lists);
    let mut lines = rows(&single);
    for (name, list) in lists {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.push(format!("{name} ({})", list.len()));
        lines.extend(table(list));
    }
    lines.iter().map(|line| cut(line.trim_end(), columns) + "\n").collect()
}

/// Maps in maps by names with dots; lists of maps are tables of their own.
fn sort_out<'a>(
    before: &str,
    members: &'a Map<String, Value>,
    single: &mut Vec<Vec<Cell>>,
    lists: &mut Vec<(String, &'a [Value])>,
) {
    for (name, value) in members {
        let name = format!("{before}{}", printable(name));
        match value {
            Value::Object(inner) if !inner.is_empty() => sort_out(&format!("{name}."), inner, single, lists),
            Value::Array(list) if list.iter().any(Value::is_object) => lists.push((name, list)),
            value => single
                .push(vec![Cell { text: name, is_number: false }, Cell { text: text_of(value), is_number: false }]),
        }
    }
}

/// A line of names, then one for each. A member that is missing somewhere has its column all the same.
fn table(list: &[Value]) -> Vec<String> {
    let mut names: Vec<&String> = Vec::new();
    for name in list.iter().filter_map(Value::as_object).flat_map(Map::keys) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let is_number = |name: &String| list.iter().all(|row| matches!(row.get(name), None | Some(Value::Number(_))));
    let numbers: Vec<bool> = names.iter().map(|name| is_number(name)).collect();
    let head =
        names.iter().zip(&numbers).map(|(name, is_number)| Cell { text: printable(name), is_number: *is_number });
    let mut cells: Vec<Vec<Cell>> = vec![head.collect()];
    for row in list {
        let row = names.iter().zip(&numbers).map(|(name, is_number)| Cell {
            text: text_of(row.get(*name).unwrap_or(&Value::Null)),
            is_number: *is_number,
        });
        cells.push(row.collect());
    }
    rows(&cells)
}

/// Under each other, numbers to the right. The last column is not padded.
fn rows(cells: &[Vec<Cell>]) -> Vec<String> {
    let count = cells.iter().map(Vec::len).max().unwrap_or_default();
    let width = |at: usize| cells.iter().filter_map(|row| row.get(at)).map(|cell| cell.text.width()).max();
    let widths: Vec<usize> = (0..count).map(|at| width(at).unwrap_or_default().min(CELL_COLUMNS_MAX)).collect();
    let line = |row: &Vec<Cell>| {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let is_last = at + 1 == count;
            let text = if is_last { cell.text.clone() } else { cut(&cell.text, widths[at]) };
            let padding = " ".repeat(widths[at].saturating_sub(text.width()));
            line += if at == 0 { "" } else { GAP };
            line += &if cell.is_number { padding + &text } else { text + &padding };
        }
        line
    };
    cells.iter().map(line).collect()
}

fn text_of(value: &Value) -> String {
    let text = match value {
        Value::Null => NOTHING.to_owned(),
        Value::String(text) if text.is_empty() => NOTHING.to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.is_empty() => NOTHING.to_owned(),
        Value::Array(list) => list.iter().map(text_of).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    };
    let mut chars = text.chars();
    let short: String = chars.by_ref().take(CELL_CHARS_MAX).collect();
    printable(&if chars.next().is_some() { short + "…" } else { short })
}

fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut left = columns.saturating_sub(1);
    let fits = |c: &char| {
        let width = c.width().unwrap_or(0);
        let fits = width <= left;
        left = if fits { left - width } else { 0 };
        fits
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_tables_and_the_rest_is_names_and_values() {
        let answer = json!({
            "streams": {"in_use": 3, "limit": 65536},
            "keys": [
                {"key": "192.0.2.7", "count": 12, "streams": ["recentchange", "x"], "user_agent": "curl/8"},
                {"key": "2001:db8::/64", "count": 3, "streams": [], "user_agent": null, "until": "soon"},
            ],
            "clients": [],
            "truncated": false,
        });
        let expected = "\
streams.in_use  3
streams.limit   65536
clients         -
truncated       false

keys (2)
key            count  streams         user_agent  until
192.0.2.7         12  recentchange,x  curl/8      -
2001:db8::/64      3  -               -           soon
";
        assert_eq!(of(&answer, 100), expected);
    }

    #[test]
    fn a_line_is_no_wider_than_the_terminal_and_no_value_takes_it_all() {
        let answer = json!({"list": [{"a": "x".repeat(2_000), "b": "漢字漢字", "c": 1}]});
        let table = of(&answer, 50);
        assert!(table.lines().all(|line| line.width() <= 50), "{table}");
        assert!(table.contains("…  漢字"), "{table}");
        for columns in 1..60 {
            assert!(of(&answer, columns).lines().all(|line| line.width() <= columns), "{columns}");
        }
    }

    #[test]
    fn what_clients_say_of_themselves_moves_no_cursor() {
        let evil = "\u{1b}[2J\u{9b}1m\r\n\u{7}\u{202e}x";
        let table = of(&json!({ evil: evil, "list": [{ evil: evil }], "m": { evil: [evil] } }), 100);
        let hidden = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!table.contains(hidden), "{table:?}");
        assert_eq!(table.lines().count(), 6, "{table}");
    }
}
