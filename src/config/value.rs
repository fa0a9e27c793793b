//! `key=value` as Hydra reads it.

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// One override from the command line.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    pub key: String,
    pub value: Value,
}

/// Reads `[+|++]key=value`.
///
/// # Errors
/// Where there is no `=`, the key is empty, the form is one of Hydra's that means nothing here (`~key`), or a quote or
/// a bracket stays open.
pub fn parse_override(text: &str) -> Result<Override> {
    if text.starts_with('~') {
        bail!("'{text}': a key cannot be deleted; to remove a default, set it to null (KEY=null)");
    }
    let Some((key, value)) = text.split_once('=') else {
        bail!("'{text}': expected KEY=VALUE, for example lr=1e-4 or arch.hidden_size=256");
    };
    let key = key.trim().trim_start_matches('+');
    if key.is_empty() {
        bail!("'{text}': no key before the '='; expected KEY=VALUE, for example lr=1e-4");
    }
    let value = parse_value(value).with_context(|| format!("'{text}'"))?;
    Ok(Override { key: key.to_owned(), value })
}

/// A value in Hydra's grammar: null, booleans, numbers, 'quoted', "quoted", `[lists]`, else text.
fn parse_value(text: &str) -> Result<Value> {
    let text = text.trim();
    if let Some(inner) = text.strip_prefix('[') {
        let Some(inner) = inner.strip_suffix(']') else { bail!("the list has no closing ']'") };
        return Ok(Value::Array(split_items(inner)?.into_iter().map(parse_item).collect::<Result<_>>()?));
    }
    parse_item(text)
}

fn parse_item(text: &str) -> Result<Value> {
    let text = text.trim();
    if let Some(quote @ ('\'' | '"')) = text.chars().next() {
        let inner = text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
        if text.len() < 2 || !text.ends_with(quote) {
            bail!("the {quote} has no partner");
        }
        return Ok(Value::String(inner.replace(&format!("\\{quote}"), &quote.to_string())));
    }
    if text.starts_with('[') || text.starts_with('{') {
        bail!("only a flat list can be given here");
    }
    Ok(match text.to_ascii_lowercase().as_str() {
        "null" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => number(text).unwrap_or_else(|| Value::String(text.to_owned())),
    })
}

/// Integers, floats and Python's `1_000`; nothing that is only a number to Rust, such as `inf`.
fn number(text: &str) -> Option<Value> {
    let starts = text.trim_start_matches(['+', '-', '.']).starts_with(|c: char| c.is_ascii_digit());
    if !starts || text.starts_with('_') || text.ends_with('_') || text.contains("__") {
        return None;
    }
    let plain = text.replace('_', "");
    if let Ok(i) = plain.parse::<i64>() {
        return Some(Value::from(i));
    }
    if let Ok(u) = plain.parse::<u64>() {
        return Some(Value::from(u));
    }
    plain.parse::<f64>().ok().filter(|x| x.is_finite()).map(Value::from)
}

/// Splits at the commas that stand outside quotes. Nothing between the brackets is an empty list.
fn split_items(text: &str) -> Result<Vec<&str>> {
    let (mut items, mut start, mut quote) = (Vec::new(), 0, None);
    for (i, c) in text.char_indices() {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c == ',' => {
                items.push(&text[start..i]);
                start = i + 1;
            }
            None => {}
        }
    }
    if let Some(q) = quote {
        bail!("the {q} is not closed");
    }
    if !text.trim().is_empty() {
        items.push(&text[start..]);
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_follow_hydras_grammar() {
        let cases = [
            ("a=3", json!(3)),
            ("+a=-3", json!(-3)),
            ("++a=1e-4", json!(1e-4)),
            ("a=1_000", json!(1000)),
            ("a=null", json!(null)),
            ("a=True", json!(true)),
            ("a=data/x y", json!("data/x y")),
            ("a='null'", json!("null")),
            ("a=\"7\"", json!("7")),
            ("a=[]", json!([])),
            ("a=[x, y]", json!(["x", "y"])),
            ("a=['x,y',3]", json!(["x,y", 3])),
            ("a=", json!("")),
            ("a=x=y", json!("x=y")),
            ("a=inf", json!("inf")),
            ("a=18446744073709551615", json!(u64::MAX)),
        ];
        for (text, value) in cases {
            assert_eq!(parse_override(text).unwrap(), Override { key: "a".into(), value }, "{text}");
        }
    }

    #[test]
    fn malformed_overrides_are_refused() {
        for text in ["epochs", "=3", "+=3", "~a", "a=[1", "a='x", "a=[[1]]", "a=['x]", "a={b:1}"] {
            assert!(parse_override(text).is_err(), "{text}");
        }
    }
}
