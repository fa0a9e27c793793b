//! YAML text as `yaml.dump(value)` of PyYAML 6 writes it, so that a run folder reads the same as upstream's.
//!
//! Block style, two spaces, keys sorted by code point, lists not indented under their key, scalars plain where they
//! read back as the same type, wrapped at 80 columns. One deliberate difference: text that only YAML 1.2 takes for a
//! number, such as `1e5`, is quoted as well. Not serde-saphyr's writer: it has `1.0e-5` for PyYAML's `1.0e-05`, other quotes
//! and no wrapping; its reader says what can stand plain.

use std::fmt::Write as _;

use serde_json::{Map, Value};

const BEST_WIDTH: usize = 80;

/// Dumps a mapping. Only the shapes of a configuration occur: mappings, lists of scalars, scalars.
pub(super) fn dump(root: &Value) -> String {
    let mut out = Emitter::default();
    match root {
        Value::Object(map) => out.mapping(map, 0),
        other => {
            out.scalar(other, 0);
            out.text.push('\n');
        }
    }
    out.text.trim_start_matches('\n').to_owned()
}

#[derive(Default)]
struct Emitter {
    text: String,
    /// Characters on the current line.
    column: usize,
}

impl Emitter {
    fn put(&mut self, s: &str) {
        self.text.push_str(s);
        self.column += s.chars().count();
    }

    fn new_line(&mut self, indent: usize) {
        let _ = write!(self.text, "\n{:indent$}", "");
        self.column = indent;
    }

    fn mapping(&mut self, map: &Map<String, Value>, indent: usize) {
        let mut entries: Vec<_> = map.iter().collect();
        entries.sort_by(|a, b| a.0.cmp(b.0));
        for (name, value) in entries {
            self.new_line(indent);
            self.string(name, indent, false);
            self.put(":");
            match value {
                Value::Object(inner) if !inner.is_empty() => self.mapping(inner, indent + 2),
                Value::Array(items) if !items.is_empty() => {
                    for item in items {
                        self.new_line(indent);
                        self.put("- ");
                        self.scalar(item, indent + 2);
                    }
                }
                value => {
                    self.put(" ");
                    self.scalar(value, indent + 2);
                }
            }
        }
        if indent == 0 {
            self.text.push('\n');
        }
    }

    fn scalar(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Null => self.put("null"),
            Value::Bool(b) => self.put(if *b { "true" } else { "false" }),
            Value::Number(n) => match n.as_f64() {
                Some(x) if n.is_f64() => self.put(&float_repr(x)),
                _ => self.put(&n.to_string()),
            },
            Value::String(s) => self.string(s, indent, true),
            Value::Array(_) => self.put("[]"),
            Value::Object(_) => self.put("{}"),
        }
    }

    fn string(&mut self, s: &str, indent: usize, split: bool) {
        let printable = s.chars().all(|c| (' '..='~').contains(&c));
        if printable && reads_as_itself(s) {
            self.plain(s, indent, split);
        } else if printable {
            self.single_quoted(s, indent, split);
        } else {
            self.double_quoted(s, indent, split);
        }
    }

    /// A line may break at a single space once it is beyond the best width; the space is what the break stands for.
    fn plain(&mut self, s: &str, indent: usize, split: bool) {
        let chars: Vec<char> = s.chars().collect();
        self.runs(&chars, |out, run, inner| {
            if split && inner && run == " " && out.column > BEST_WIDTH {
                out.new_line(indent);
            } else {
                out.put(run);
            }
        });
    }

    fn single_quoted(&mut self, s: &str, indent: usize, split: bool) {
        self.put("'");
        let chars: Vec<char> = s.chars().collect();
        self.runs(&chars, |out, run, inner| {
            if split && inner && run == " " && out.column > BEST_WIDTH {
                out.new_line(indent);
            } else {
                out.put(&run.replace('\'', "''"));
            }
        });
        self.put("'");
    }

    /// Calls `f` for each run of spaces and each run of other characters; the flag says that it touches neither end.
    fn runs(&mut self, chars: &[char], mut f: impl FnMut(&mut Self, &str, bool)) {
        let mut start = 0;
        while start < chars.len() {
            let space = chars[start] == ' ';
            let len = chars[start..].iter().take_while(|c| (**c == ' ') == space).count();
            let run: String = chars[start..start + len].iter().collect();
            f(self, &run, start > 0 && start + len < chars.len());
            start += len;
        }
    }

    fn double_quoted(&mut self, s: &str, indent: usize, split: bool) {
        let chars: Vec<char> = s.chars().collect();
        self.put("\"");
        let (mut start, mut end) = (0, 0);
        while end <= chars.len() {
            let c = chars.get(end).copied();
            let verbatim = |c: char| (' '..='~').contains(&c) && c != '"' && c != '\\';
            if !c.is_some_and(verbatim) {
                if start < end {
                    self.put(&chars[start..end].iter().collect::<String>());
                    start = end;
                }
                if let Some(c) = c {
                    self.put(&escape(c));
                    start = end + 1;
                }
            }
            let breakable = c == Some(' ') || start >= end;
            if split && 0 < end && end + 1 < chars.len() && breakable && self.column + end > BEST_WIDTH + start {
                let run: String = chars.get(start..end).unwrap_or_default().iter().collect();
                self.put(&format!("{run}\\"));
                start = start.max(end);
                self.new_line(indent);
                if chars.get(start) == Some(&' ') {
                    self.put("\\");
                }
            }
            end += 1;
        }
        self.put("\"");
    }
}

fn escape(c: char) -> String {
    let short = match c {
        '\0' => '0',
        '\x07' => 'a',
        '\x08' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\x0b' => 'v',
        '\x0c' => 'f',
        '\r' => 'r',
        '\x1b' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{a0}' => '_',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        c if c <= '\u{ff}' => return format!("\\x{:02X}", c as u32),
        c if c <= '\u{ffff}' => return format!("\\u{:04X}", c as u32),
        c => return format!("\\U{:08X}", c as u32),
    };
    format!("\\{short}")
}

/// Whether a text can stand plain: it is read back as itself, here and by PyYAML, whose YAML 1.1 takes more for numbers,
/// booleans and dates than the 1.2 of our reader.
fn reads_as_itself(s: &str) -> bool {
    let here = serde_saphyr::from_str_with_options::<Value>(s, serde_saphyr::options! { strict_booleans: true });
    here.is_ok_and(|value| value == s)
        && !["---", "..."].iter().any(|mark| s.starts_with(mark))
        && !["yes", "no", "on", "off"].iter().any(|word| is_cased(s, word))
        && !matches!(s, "<<" | "=")
        && !is_yaml_11_number(s)
        && !is_timestamp(s)
}

/// `yes`, `YES` or `Yes`.
fn is_cased(s: &str, word: &str) -> bool {
    s.eq_ignore_ascii_case(word) && (s == word || s == word.to_uppercase() || s[1..] == word[1..])
}

fn all(s: &str, ok: impl Fn(char) -> bool) -> bool {
    !s.is_empty() && s.chars().all(ok)
}

/// Digits with `_` among them, octals such as `017`, and numbers to the base of 60 such as `1:30` or `1:30.5`.
fn is_yaml_11_number(s: &str) -> bool {
    let body = s.strip_prefix(['+', '-']).unwrap_or(s);
    if !s.strip_prefix('.').unwrap_or(body).starts_with(|c: char| c.is_ascii_digit()) {
        return false;
    }
    let digits = |c: char| c.is_ascii_digit() || c == '_';
    match body.split_once(':') {
        Some((head, rest)) => {
            let (whole, fraction) = rest.split_once('.').unwrap_or((rest, ""));
            let head_ok = all(head, digits) && (whole != rest || !head.starts_with('0'));
            head_ok && whole.split(':').all(is_sixty) && fraction.chars().all(digits)
        }
        None => {
            let bare = body.replace('_', "");
            let octal = body.starts_with('0') && all(&bare, |c| matches!(c, '0'..='7'));
            octal
                || (body.contains('_') && (!bare.starts_with('0') || bare.contains('.')) && bare.parse::<f64>().is_ok())
        }
    }
}

/// `[0-5]?[0-9]`
fn is_sixty(s: &str) -> bool {
    s.parse::<u8>().is_ok_and(|n| n < 60) && s.len() <= 2 && all(s, |c| c.is_ascii_digit())
}

/// `2024-01-31`, or a date with a time of day behind it.
fn is_timestamp(s: &str) -> bool {
    let short =
        |p: &str, low: usize, high: usize| (low..=high).contains(&p.len()) && p.chars().all(|c| c.is_ascii_digit());
    let date_end = s.find(['T', 't', ' ', '\t']).unwrap_or(s.len());
    let mut date = s[..date_end].splitn(3, '-');
    let (Some(y), Some(m), Some(d)) = (date.next(), date.next(), date.next()) else { return false };
    if date_end == s.len() {
        return short(y, 4, 4) && short(m, 2, 2) && short(d, 2, 2);
    }
    let time = s[date_end..].trim_start_matches([' ', '\t', 'T', 't']);
    let mut clock = time.splitn(3, ':');
    let (Some(hour), Some(minute), Some(second)) = (clock.next(), clock.next(), clock.next()) else { return false };
    short(y, 4, 4)
        && short(m, 1, 2)
        && short(d, 1, 2)
        && short(hour, 1, 2)
        && short(minute, 2, 2)
        && second.get(..2).is_some_and(|p| short(p, 2, 2))
        && second.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | ' ' | '\t' | 'Z' | '+' | '-' | ':'))
}

/// Python's `repr(float)`, with the point that PyYAML adds before an exponent: `0.0001`, `1.0e-05`.
fn float_repr(x: f64) -> String {
    if x.is_nan() {
        return ".nan".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { ".inf" } else { "-.inf" }.into();
    }
    let scientific = format!("{x:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if x != 0.0 && !(-4..16).contains(&exponent) {
        let point = if mantissa.contains('.') { "" } else { ".0" };
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}{point}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{x}");
    if plain.contains('.') { plain } else { format!("{plain}.0") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    // Every expected text below was printed by yaml.dump of PyYAML 6.0.3.
    #[test]
    fn floats_as_pyyaml() {
        let cases = [
            (1e-4, "0.0001"),
            (1e-5, "1.0e-05"),
            (1.5e-5, "1.5e-05"),
            (1.0, "1.0"),
            (0.95, "0.95"),
            (7e-5, "7.0e-05"),
            (1e16, "1.0e+16"),
            (123456789.0, "123456789.0"),
            (0.1, "0.1"),
            (0.0, "0.0"),
            (1e-100, "1.0e-100"),
            (1e15, "1000000000000000.0"),
        ];
        for (x, text) in cases {
            assert_eq!(dump(&json!({ "a": x })), format!("a: {text}\n"));
        }
    }

    #[test]
    fn text_as_pyyaml() {
        let cases = [
            ("plain words", "plain words"),
            ("", "''"),
            ("2024", "'2024'"),
            ("no", "'no'"),
            ("y", "y"),
            ("null", "'null'"),
            ("a: b", "'a: b'"),
            ("a:b", "a:b"),
            ("a #b", "'a #b'"),
            ("a#b", "a#b"),
            ("it's", "it's"),
            ("'quoted'", "'''quoted'''"),
            ("[x]", "'[x]'"),
            ("x[1]", "x[1]"),
            (" lead", "' lead'"),
            ("- x", "'- x'"),
            ("-x", "-x"),
            ("caf\u{e9}", "\"caf\\xE9\""),
            ("tab\there", "\"tab\\there\""),
            ("2024-01-31", "'2024-01-31'"),
            ("0x1f", "'0x1f'"),
            ("1:30", "'1:30'"),
            ("losses@ACTLossHead", "losses@ACTLossHead"),
            ("@x", "'@x'"),
            ("---", "'---'"),
            ("1_000", "'1_000'"),
            ("-.1_8", "-.1_8"),
            ("017", "'017'"),
            ("1:30.5", "'1:30.5'"),
            ("1.2.3", "1.2.3"),
            ("2024-1-1 10:20:30", "'2024-1-1 10:20:30'"),
        ];
        for (s, text) in cases {
            assert_eq!(dump(&json!({ "a": s })), format!("a: {text}\n"), "{s:?}");
        }
    }

    #[test]
    fn long_text_wraps_as_pyyaml() {
        let path = "checkpoints/Sudoku-extreme-1k-aug-1000 ACT-torch/HierarchicalReasoningModel_ACTV1 pastel-lorikeet";
        let folded = "checkpoint_path: checkpoints/Sudoku-extreme-1k-aug-1000 ACT-torch/HierarchicalReasoningModel_ACTV1\n  \
                      pastel-lorikeet\n";
        assert_eq!(dump(&json!({ "checkpoint_path": path })), folded);
    }

    #[test]
    fn lists_and_groups_as_pyyaml() {
        let value = json!({ "b": { "c": ["x", "y"], "A": null }, "a": [], "l": ["p", true] });
        assert_eq!(dump(&value), "a: []\nb:\n  A: null\n  c:\n  - x\n  - y\nl:\n- p\n- true\n");
    }
}
