//! YAML and JSON into JSON values.

use std::io::Read;
use std::path::Path;

use serde_json::Value;
use serde_saphyr::UserMessageFormatter;

use crate::LoadError;

/// Reads the one document of a YAML or JSON file; `-` is the standard input. A key that stands
/// twice in a mapping is an error.
///
/// # Errors
/// The file cannot be read, is not YAML (the message says file, line and column), or holds no
/// document or several.
pub fn read_document(path: &Path) -> Result<Value, LoadError> {
    let mut documents = read_documents(path)?;
    let count = documents.len();
    match documents.pop() {
        Some(document) if count == 1 => Ok(document),
        _ => Err(LoadError::Unreadable {
            place: file_name(path),
            reason: format!("{count} documents: a file with one document"),
        }),
    }
}

/// Reads all documents of a YAML or JSON file, but for empty ones; `-` is the standard input.
///
/// # Errors
/// The file cannot be read, or is not YAML.
pub fn read_documents(path: &Path) -> Result<Vec<Value>, LoadError> {
    parse(&file_name(path), &read_text(path)?)
}

/// Reads a text file; `-` is the standard input.
///
/// # Errors
/// The file cannot be read, or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, LoadError> {
    let unreadable = |reason: String| LoadError::Unreadable {
        place: file_name(path),
        reason,
    };
    let mut bytes = Vec::new();
    let read = if is_stdin(path) {
        std::io::stdin().read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes))
    };
    read.map_err(|error| unreadable(format!("cannot be read: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let text = error.as_bytes().get(..error.utf8_error().valid_up_to());
        let line = text.unwrap_or_default().split(|b| *b == b'\n').count();
        LoadError::Unreadable {
            place: format!("{}:{line}", file_name(path)),
            reason: "not text: a byte that is not UTF-8".to_owned(),
        }
    })
}

/// The documents of a text, empty ones left out.
pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<Value>, LoadError> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| {
        let error = error.without_snippet();
        let reason = error.render_with_formatter(&UserMessageFormatter);
        let (place, told) = match error.location().filter(|location| location.line() > 0) {
            Some(location) => {
                let (line, column) = (location.line(), location.column());
                (
                    format!("{file}:{line}:{column}"),
                    format!(" at line {line}, column {column}"),
                )
            }
            None => (file.to_owned(), String::new()),
        };
        LoadError::Unreadable {
            place,
            reason: format!("not YAML: {}", reason.trim_end_matches(&told)),
        }
    })?;
    let documents = documents.into_iter().filter(|document| !document.is_null());
    Ok(documents.map(whole_numbers).collect())
}

/// Writes 90.0 as 90, as Istio does when it hands a policy on (a google.protobuf.Struct, where both
/// are one number): the hash of a policy must not tell them apart.
fn whole_numbers(value: Value) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT => {
                Value::from(float as i64)
            }
            _ => Value::Number(number),
        },
        Value::Array(items) => items.into_iter().map(whole_numbers).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(key, value)| (key, whole_numbers(value)))
            .collect(),
        other => other,
    }
}

/// How messages call a file.
pub fn file_name(path: &Path) -> String {
    if is_stdin(path) {
        "<stdin>".to_owned()
    } else {
        path.display().to_string()
    }
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}
