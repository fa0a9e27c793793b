//! Text from elsewhere, made safe to show: without control characters for a terminal, in quotes for a shell.

use std::{borrow::Cow, ffi::OsStr, fmt::Write, os::unix::ffi::OsStrExt};

/// Whether a terminal would act on the character, or show what follows in another order, instead of showing it.
pub fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text as a terminal may be shown it, whatever file it quotes: control characters are written as escapes (`\u{1b}`).
/// Newlines and tabs stay.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_control(c) && !matches!(c, '\n' | '\t'))
}

/// [`printable`] on one line: newlines are escaped too.
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_control(c) && c != '\t')
}

fn escaped(text: &str, escape: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&escape) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if escape(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// A word of a command that the user may paste into a shell: in quotes, whatever it holds.
pub fn shell_word(word: impl AsRef<OsStr>) -> String {
    let bytes = word.as_ref().as_bytes();
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(is_control) => format!("'{}'", text.replace('\'', "'\\''")),
        _ => {
            let mut out = "$'".to_owned();
            for &byte in bytes {
                match byte {
                    b'\'' | b'\\' => out.extend(['\\', byte as char]),
                    0x20..=0x7e => out.push(byte as char),
                    // Three digits, so that what follows is not read as part of the number.
                    _ => {
                        let _ = write!(out, "\\{byte:03o}");
                    }
                }
            }
            out + "'"
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn control_characters_are_escaped_and_text_stays() {
        assert_eq!(printable("a\x1b]0;x\x07\u{9b}2J\u{202e}\r\n\tÄ"), "a\\u{1b}]0;x\\u{7}\\u{9b}2J\\u{202e}\\r\n\tÄ");
        assert_eq!(one_line("a\nb\tc"), "a\\nb\tc");
        assert!(matches!(printable("plain · text ✓"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        let words: [&[u8]; 8] = [
            b"plain",
            b"two words",
            b"it's $HOME `id` \"x\" \\n",
            b"line\nbreak",
            b"\x1b[2J\x077",
            b"",
            b"\xff\xfe'\\",
            "Größe".as_bytes(),
        ];
        for word in words {
            let quoted = shell_word(OsStr::from_bytes(word));
            assert!(!quoted.contains(is_control), "{quoted}");
            let output = Command::new("bash").args(["-c", &format!("printf %s {quoted}")]).output().unwrap();
            assert_eq!(output.stdout, word, "{quoted}");
        }
        assert_eq!(shell_word("my run"), "'my run'");
    }
}
