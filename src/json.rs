//! JSON documents as every command writes them.

use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};

use crate::escape::is_control;

/// A document and a newline: an object's keys on lines of their own, an array on one line, as most hold a number for
/// every cell or puzzle. Every character that a terminal would act on is written as an escape.
pub fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, Layout(PrettyFormatter::new())))?;
    text.push(b'\n');
    Ok(text)
}

struct Layout(PrettyFormatter<'static>);

impl Formatter for Layout {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        for part in fragment.split_inclusive(is_control) {
            match part.char_indices().next_back() {
                // All of them lie below U+10000.
                Some((at, c)) if is_control(c) => write!(writer, "{}\\u{:04x}", &part[..at], u32::from(c))?,
                _ => writer.write_all(part.as_bytes())?,
            }
        }
        Ok(())
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::to_json;

    #[test]
    fn what_a_terminal_would_act_on_is_escaped() {
        let value = json!({"a\u{9b}": "x\u{7f}\u{1b}\u{202e}y\nÄ"});
        let text = String::from_utf8(to_json(&value).unwrap()).unwrap();
        assert_eq!(text, "{\n  \"a\\u009b\": \"x\\u007f\\u001b\\u202ey\\nÄ\"\n}\n");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn arrays_stand_on_one_line_and_keys_on_their_own() {
        let value = json!({"a": [1, [2, 3]], "b": [{"c": [], "d": {}}, {"e": 4}], "f": null});
        let text = String::from_utf8(to_json(&value).unwrap()).unwrap();
        let wanted = r#"{
  "a": [1, [2, 3]],
  "b": [{
    "c": [],
    "d": {}
  }, {
    "e": 4
  }],
  "f": null
}
"#;
        assert_eq!(text, wanted);
    }
}
