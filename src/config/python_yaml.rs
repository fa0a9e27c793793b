//! YAML text as `yaml.dump(value)` of PyYAML 6 writes it, so that a run folder reads the same as upstream's.
//!
//! Block style, two spaces, keys sorted by code point, lists not indented under their key, scalars plain where they
//! read back as the same type, wrapped at 80 columns. One deliberate difference: text that only YAML 1.2 takes for a
//! number, such as `1e5`, is quoted as well.

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
        let look = Look::of(s);
        if look.plain && !reads_as_other_type(s) {
            self.plain(s, indent, split);
        } else if look.single_quoted {
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

/// Which styles can hold a text.
struct Look {
    plain: bool,
    single_quoted: bool,
}

impl Look {
    fn of(s: &str) -> Self {
        let chars: Vec<char> = s.chars().collect();
        let is_break = |c: char| matches!(c, '\n' | '\u{85}' | '\u{2028}' | '\u{2029}');
        let is_space = |c: Option<&char>| c.is_none_or(|c| matches!(c, '\0' | ' ' | '\t' | '\r') || is_break(*c));
        let mut plain = !s.starts_with("---") && !s.starts_with("...") && !s.starts_with(' ') && !s.ends_with(' ');
        let mut special = false;
        for (i, c) in chars.iter().copied().enumerate() {
            let before = i == 0 || is_space(chars.get(i - 1));
            let after = is_space(chars.get(i + 1));
            plain &= match c {
                '#' if before => false,
                ':' if after => false,
                '?' | '-' if i == 0 && after => false,
                ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' => i != 0,
                _ => true,
            };
            special |= !(' '..='~').contains(&c);
        }
        Self { plain: plain && !special, single_quoted: !special }
    }
}

/// Whether plain text would be read back as something that is no text.
fn reads_as_other_type(s: &str) -> bool {
    let words = ["yes", "no", "true", "false", "on", "off", "null"];
    let lower = s.to_ascii_lowercase();
    let cased = |w: &str| s == w || s == w.to_uppercase() || (s.starts_with(char::is_uppercase) && s[1..] == w[1..]);
    matches!(s, "" | "~" | "<<" | "=")
        || words.iter().any(|w| lower == *w && cased(w))
        || s.parse::<f64>().is_ok()
        || is_yaml_int(s)
        || is_yaml_float(s)
        || is_timestamp(s)
}

fn unsigned(s: &str) -> &str {
    s.strip_prefix(['+', '-']).unwrap_or(s)
}

fn all(s: &str, ok: impl Fn(char) -> bool) -> bool {
    !s.is_empty() && s.chars().all(ok)
}

fn is_yaml_int(s: &str) -> bool {
    let body = unsigned(s);
    let digits = |c: char| c.is_ascii_digit() || c == '_';
    if let Some(bits) = body.strip_prefix("0b") {
        return all(bits, |c| matches!(c, '0' | '1' | '_'));
    }
    if let Some(hex) = body.strip_prefix("0x") {
        return all(hex, |c| c.is_ascii_hexdigit() || c == '_');
    }
    let octal = body.len() > 1 && body.starts_with('0') && all(&body[1..], |c| matches!(c, '0'..='7' | '_'));
    let decimal = body == "0" || (body.starts_with(|c| ('1'..='9').contains(&c)) && all(body, digits));
    let base60 = body.split_once(':').is_some_and(|(head, rest)| {
        head.starts_with(|c| ('1'..='9').contains(&c)) && all(head, digits) && rest.split(':').all(is_sixty)
    });
    octal || decimal || base60
}

/// `[0-5]?[0-9]`
fn is_sixty(s: &str) -> bool {
    match s.as_bytes() {
        [b] => b.is_ascii_digit(),
        [a, b] => (b'0'..=b'5').contains(a) && b.is_ascii_digit(),
        _ => false,
    }
}

fn is_yaml_float(s: &str) -> bool {
    let body = unsigned(s);
    if matches!(body, ".inf" | ".Inf" | ".INF") || matches!(s, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let digits = |c: char| c.is_ascii_digit() || c == '_';
    let Some((whole, fraction)) = body.split_once('.') else { return false };
    if let Some((head, rest)) = whole.split_once(':') {
        return head.starts_with(|c: char| c.is_ascii_digit())
            && all(head, digits)
            && rest.split(':').all(is_sixty)
            && fraction.chars().all(digits);
    }
    let (fraction, exponent_ok) = match fraction.split_once(['e', 'E']) {
        Some((f, e)) => (f, e.starts_with(['+', '-']) && all(&e[1..], |c| c.is_ascii_digit())),
        None => (fraction, true),
    };
    let whole_ok = whole.starts_with(|c: char| c.is_ascii_digit()) && whole.chars().all(digits);
    let bare_ok = whole.is_empty() && s.starts_with('.') && fraction.starts_with(|c: char| c.is_ascii_digit());
    exponent_ok && fraction.chars().all(digits) && (whole_ok || bare_ok)
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
