//! What differs between two JSON documents, told in words that a person can look for.

use serde_json::Value;

/// The first place in which two documents differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// `a.b` is b within a; an entry of a list is its number from 1.
    pub at: String,
    /// What the first document has there; none where it has nothing.
    pub first: Option<Value>,
    pub second: Option<Value>,
}

impl Difference {
    /// Both values as text, `missing` where there is none.
    pub fn values(&self) -> [String; 2] {
        [&self.first, &self.second].map(|v| v.as_ref().map_or_else(|| "missing".to_owned(), Value::to_string))
    }
}

/// The first difference, in the order of the second document's keys, then those that the first alone has.
pub fn first_difference(first: &Value, second: &Value) -> Option<Difference> {
    look(String::new(), Some(first), Some(second))
}

fn look(at: String, first: Option<&Value>, second: Option<&Value>) -> Option<Difference> {
    let within = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
    match (first, second) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let keys = b.keys().chain(a.keys().filter(|key| !b.contains_key(*key)));
            keys.into_iter().find_map(|key| look(within(key), a.get(key), b.get(key)))
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) if a.len() == b.len() => {
            (0..a.len()).find_map(|i| look(within(&(i + 1).to_string()), a.get(i), b.get(i)))
        }
        _ => (first != second).then(|| Difference { at, first: first.cloned(), second: second.cloned() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_difference_is_named_with_its_place() {
        let a = json!({"what": "runs", "puzzles": {"data": "d", "first": 0}, "list": [1, {"x": 2}], "old": null});
        assert_eq!(first_difference(&a, &a), None);
        for (change, at, values) in [
            (json!({"puzzles": {"data": "d", "first": 5}}), "puzzles.first", ["0", "5"]),
            (json!({"puzzles": {"data": "d"}}), "puzzles.first", ["0", "missing"]),
            (json!({"list": [1, {"x": 3}]}), "list.2.x", ["2", "3"]),
            (json!({"list": [1]}), "list", ["[1,{\"x\":2}]", "[1]"]),
            (json!({"new": 1}), "new", ["missing", "1"]),
            (json!({"old": 1}), "old", ["null", "1"]),
        ] {
            let mut b = a.clone();
            for (key, value) in change.as_object().unwrap() {
                b[key] = value.clone();
            }
            let found = first_difference(&a, &b).unwrap();
            assert_eq!((found.at.as_str(), found.values()), (at, values.map(str::to_owned)));
        }
        assert_eq!(first_difference(&json!({"a": 1, "b": 2}), &json!({"a": 1})).unwrap().at, "b");
        assert_eq!(first_difference(&json!(1), &json!("1")).unwrap().at, "");
    }
}
