//! What decides the results of long work: what was asked, the fingerprint of the data, the digest of the weights. Results
//! are gone on with only where all of it is the same.

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use crate::difference::{Difference, first_difference};

/// The first line of a journal.
pub trait Identity: Serialize {
    /// What such a journal is called, as in "this is not ...".
    const IS: &'static str;
    /// What is stored for people to read and does not decide about anything.
    const NAMES: &'static [Name] = &[];
    /// Whether each record builds on those before it.
    const SEQUENTIAL: bool = false;

    /// Whether it can be true.
    ///
    /// # Errors
    /// What contradicts itself or is of another version.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// The first key in which a journal's first line differs, [`Identity::NAMES`] aside.
    ///
    /// # Errors
    /// An identity that has no JSON form.
    fn difference(&self, mut found: Value) -> Result<Option<Difference>> {
        let mut wanted = serde_json::to_value(self).with_context(|| format!("the identity of {}", Self::IS))?;
        for name in Self::NAMES {
            let within: Vec<&str> = name.within.split('.').filter(|key| !key.is_empty()).collect();
            name.forget(&mut found, &mut wanted, &within);
        }
        Ok(first_difference(&found, &wanted))
    }
}

/// A key that is stored beside the digest of what it names. The digest is compared instead.
///
/// Journals of earlier versions may lack the digest: there the names are compared.
#[derive(Clone, Copy, Debug)]
pub struct Name {
    /// Where both are, as `a.b`; `*` is every entry of a list.
    pub within: &'static str,
    pub key: &'static str,
    pub digest: &'static str,
}

impl Name {
    fn forget(&self, found: &mut Value, wanted: &mut Value, within: &[&str]) {
        match (within, found, wanted) {
            (["*", rest @ ..], Value::Array(found), Value::Array(wanted)) => {
                found.iter_mut().zip(wanted).for_each(|(f, w)| self.forget(f, w, rest));
            }
            ([key, rest @ ..], Value::Object(found), Value::Object(wanted)) => {
                if let (Some(f), Some(w)) = (found.get_mut(*key), wanted.get_mut(*key)) {
                    self.forget(f, w, rest);
                }
            }
            ([], Value::Object(found), Value::Object(wanted)) => {
                if found.contains_key(self.digest) {
                    found.shift_remove(self.key);
                    wanted.shift_remove(self.key);
                } else {
                    wanted.shift_remove(self.digest);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Serializer;
    use serde_json::json;

    use super::*;

    #[derive(Serialize)]
    #[serde(transparent)]
    struct Asked(Value);

    impl Identity for Asked {
        const IS: &'static str = "a test's journal";
        const NAMES: &'static [Name] = &[
            Name { within: "run", key: "data", digest: "fingerprint" },
            Name { within: "run.parts.*", key: "path", digest: "weights" },
        ];
    }

    fn asked(fingerprint: &str, data: &str, path: &str) -> Value {
        let parts = json!([{"weights": "w", "path": path}]);
        json!({"run": {"fingerprint": fingerprint, "data": data, "parts": parts}, "first": 0})
    }

    #[test]
    fn content_is_compared_and_names_are_not() {
        let wanted = Asked(asked("a", "here", "x"));
        assert_eq!(wanted.difference(asked("a", "moved", "y")).unwrap(), None);
        let other = wanted.difference(asked("b", "here", "x")).unwrap().unwrap();
        assert_eq!((other.at.as_str(), other.values()), ("run.fingerprint", ["\"b\"".into(), "\"a\"".into()]));
        assert_eq!(wanted.difference(json!({"run": 1, "first": 0})).unwrap().unwrap().at, "run");
    }

    #[test]
    fn without_a_fingerprint_the_names_are_compared() {
        let old = |data: &str| {
            let mut value = asked("", data, "x");
            value["run"].as_object_mut().unwrap().shift_remove("fingerprint");
            value
        };
        let wanted = Asked(asked("a", "here", "x"));
        assert_eq!(wanted.difference(old("here")).unwrap(), None);
        assert_eq!(wanted.difference(old("there")).unwrap().unwrap().at, "run.data");
    }

    #[test]
    fn an_identity_without_json_form_equals_nothing() {
        struct Broken;
        impl Serialize for Broken {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("no form"))
            }
        }
        impl Identity for Broken {
            const IS: &'static str = "a broken journal";
        }
        assert!(Broken.difference(Value::Null).is_err());
    }
}
