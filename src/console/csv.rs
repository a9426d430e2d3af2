//! Rows as comma-separated values (RFC 4180), for spreadsheets.
//!
//! A spreadsheet takes a cell that begins with `=`, `+`, `-`, `@`, a tab or a line end for a formula, and runs it. Such a
//! cell begins with an apostrophe here; every cell is quoted, and control characters are visible.

use serde_json::Value;

use super::inert;

/// Columns: title, and the member of a row.
const COLUMNS: [(&str, &str); 18] = [
    ("id", "id"),
    ("started", "started_ms"),
    ("duration_ms", "duration_ms"),
    ("wait_ms", "wait_ms"),
    ("method", "method"),
    ("scheme", "scheme"),
    ("host", "host"),
    ("path", "path"),
    ("outcome", "outcome"),
    ("status", "status"),
    ("error", "error"),
    ("sends", "sends"),
    ("sent_bytes", "sent_bytes"),
    ("received_bytes", "received_bytes"),
    ("rule", "rule"),
    ("credentials", "credentials"),
    ("content_type", "content_type"),
    ("client", "client"),
];

/// The first line.
pub fn head() -> String {
    let names: Vec<String> = COLUMNS.iter().map(|(title, _)| cell(title)).collect();
    names.join(",") + "\r\n"
}

/// The line of one row as `/api/exchanges` gives it. Times are milliseconds, `started` since 1970.
pub fn line(row: &Value) -> String {
    let cells: Vec<String> = COLUMNS
        .iter()
        .map(|(_, name)| match &row[*name] {
            Value::Null => cell(""),
            Value::String(text) => cell(text),
            Value::Array(texts) => cell(&texts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" + ")),
            // Numbers are no formulas, negative ones neither.
            number => number.to_string(),
        })
        .collect();
    cells.join(",") + "\r\n"
}

fn cell(text: &str) -> String {
    let inert = inert::line(text);
    let begins = inert.trim_start().chars().next();
    // The wide forms too: some spreadsheets fold them.
    let runs = begins.is_some_and(|c| matches!(c, '=' | '+' | '-' | '@' | '|' | '%' | '＝' | '＋' | '－' | '＠'));
    format!("\"{}{}\"", if runs { "'" } else { "" }, inert.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells_stay_cells() {
        assert_eq!(cell("a,\"b\"\r\nc"), "\"a,\"\"b\"\"\\r\\nc\"");
        for formula in ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", " =1", "\t=1", "＝1"] {
            assert!(!cell(formula)[1..].starts_with(['=', '+', '-', '@', ' ', '＝']), "{formula}");
        }
        assert_eq!(head().matches(',').count(), COLUMNS.len() - 1);
        let row = line(&json!({"id": 7, "method": "=X", "credentials": ["a", "b"], "wait_ms": null}));
        assert!(row.starts_with("7,\"\",\"\",\"\",\"'=X\",") && row.contains("\"a + b\""), "{row}");
        assert_eq!(row.matches(',').count(), COLUMNS.len() - 1);
    }
}
