//! JSON documents as every command writes them.

use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};

/// A document and a newline: an object's keys on lines of their own, an array on one line, as most hold a number for
/// every cell or puzzle.
pub fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, Layout(PrettyFormatter::new())))?;
    text.push(b'\n');
    Ok(text)
}

struct Layout(PrettyFormatter<'static>);

impl Formatter for Layout {
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
    use serde_json::json;

    use super::to_json;

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
