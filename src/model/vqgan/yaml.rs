//! YAML as configuration files use it, read into a JSON value.
//!
//! Built on a parser of events rather than a loader, so that nothing recurses and no alias is expanded: a file of a
//! few hundred bytes can otherwise blow up to gigabytes or exhaust the stack.

use crate::{Error, Result};
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};
use std::path::Path;

/// Published files are below 2 kB.
const MAX_BYTES: usize = 1 << 20;
const MAX_DEPTH: usize = 32;

/// A collection whose end has not come yet.
enum Open {
    Sequence(Vec<Value>),
    /// The entries so far, and the key that waits for its value.
    Mapping(Map<String, Value>, Option<String>),
}

/// The first document of `text`. Tags are ignored; an alias reads as the text `*`.
pub(super) fn parse(text: &str, file: &Path) -> Result<Value> {
    let bad = |m: String| Error::bad_format(file, m);
    if text.len() > MAX_BYTES {
        return Err(bad(format!("{} bytes are too many for a configuration", text.len())));
    }
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| bad(format!("is not YAML: {e}")))?;
        let finished = match event {
            Event::SequenceStart(..) => {
                open.push(Open::Sequence(Vec::new()));
                None
            }
            Event::MappingStart(..) => {
                open.push(Open::Mapping(Map::new(), None));
                None
            }
            Event::Scalar(text, ScalarStyle::Plain, ..) => Some(plain(&text)),
            Event::Scalar(text, ..) => Some(Value::String(text.into_owned())),
            Event::Alias(_) => Some(Value::String("*".into())),
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::Sequence(items)) => Some(Value::Array(items)),
                Some(Open::Mapping(entries, _)) => Some(Value::Object(entries)),
                None => None,
            },
            Event::DocumentEnd => break,
            _ => None,
        };
        if open.len() > MAX_DEPTH {
            return Err(bad(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let Some(value) = finished else { continue };
        match open.last_mut() {
            None => return Ok(value),
            Some(Open::Sequence(items)) => items.push(value),
            Some(Open::Mapping(entries, waiting)) => match waiting.take() {
                None => *waiting = Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
                Some(key) => {
                    if entries.contains_key(&key) {
                        return Err(bad(format!("line {}: the key {key:?} stands there twice", span.start.line())));
                    }
                    entries.insert(key, value);
                }
            },
        }
    }
    Err(bad("the file is empty".into()))
}

/// A scalar without quotes: null, a boolean, a number or text.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    if let Ok(n) = text.parse::<i64>() {
        return n.into();
    }
    // Rust would also read "inf" and "nan", which are words in YAML.
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    match text.parse::<f64>() {
        Ok(f) if numeric && f.is_finite() => f.into(),
        _ => Value::String(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Result<Value> {
        parse(text, Path::new("x.yaml"))
    }

    #[test]
    fn block_and_flow_styles_are_the_same() {
        let wanted = json!({"a": {"b": [1, 2.5, -3], "c": "x y", "d": "7"}, "e": null, "f": true, "3": 1e-6});
        let block = "a:\n  b:\n  - 1\n  - 2.5\n  - -3\n  c: x y\n  d: '7'\ne:\nf: True\n3: 1e-06 # comment\n";
        assert_eq!(read(block).unwrap(), wanted);
        assert_eq!(read("{a: {b: [1, 2.5, -3], c: x y, d: \"7\"}, e: ~, f: true, 3: 1e-6}").unwrap(), wanted);
    }

    #[test]
    fn hostile_files_are_errors_not_crashes() {
        assert!(read("").is_err());
        assert!(read("a: [1, 2").is_err());
        assert!(read("a: 1\na: 2").unwrap_err().to_string().contains("twice"));
        assert!(read(&"[".repeat(100_000)).is_err());
        assert!(read(&"- ".repeat(100_000)).is_err());
        assert!(read(&"{a: ".repeat(1000)).is_err());
        assert!(read(&" ".repeat(MAX_BYTES + 1)).is_err());
        assert!(read("\u{0}\u{1}\u{fffd}: [").is_err());
    }

    #[test]
    fn aliases_are_not_expanded() {
        let bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n";
        assert_eq!(read(bomb).unwrap()["c"], json!(["*", "*"]));
    }
}
