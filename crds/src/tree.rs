//! Text to trees, with bounded effort: whatever the text, reading it ends soon and holds a few times its size at most.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Mapping, Value};

use crate::error::{FieldError, quoted};

/// The most bytes in a policy's body, and in a file of policies: 1 MiB.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// The most bytes in the body of a set of policies: 16 MiB.
pub const SET_BYTES_MAX: usize = 16 << 20;
/// The most documents in one text.
pub const DOCUMENTS_MAX: usize = 10_000;
/// The reader of YAML looks at all open brackets again for each token, and at all directives for each directive. So many
/// in one document take it well under a second; the largest policy has fewer.
const BRACKETS_MAX: usize = 10_000;
/// What a node of a tree costs besides its text.
const NODE_COST: usize = 1;

/// The documents of a YAML text in order, the empty ones as `Null`. Nothing follows an error.
///
/// # Errors
/// The text is too long, too deep or too branched to be read at all.
pub(crate) fn yaml_documents(text: &str) -> Result<impl Iterator<Item = Result<Value, FieldError>>, FieldError> {
    check_size(text.len(), TEXT_BYTES_MAX)?;
    check_brackets(text)?;
    let mut has_failed = false;
    let documents = serde_yaml::Deserializer::from_str(text).enumerate().map_while(move |(i, document)| {
        if has_failed {
            return None;
        }
        let result = if i < DOCUMENTS_MAX {
            let budget = Budget::new(text.len());
            Tree(&budget).deserialize(document).map_err(|e| FieldError::new("", format!("is no YAML: {e}")))
        } else {
            Err(FieldError::new("", format!("is one of more than {DOCUMENTS_MAX} documents; split the text")))
        };
        has_failed = result.is_err();
        Some(result)
    });
    Ok(documents)
}

/// The tree of a YAML text that holds one document, or one and empty ones.
pub(crate) fn yaml_value(body: &[u8]) -> Result<Value, FieldError> {
    check_size(body.len(), TEXT_BYTES_MAX)?;
    let text = std::str::from_utf8(body).map_err(|e| FieldError::new("", format!("is not UTF-8: {e}")))?;
    let mut found = Value::Null;
    for document in yaml_documents(text)? {
        let document = document?;
        if !document.is_null() && !found.is_null() {
            return Err(FieldError::new("", "holds more than one document; send one at a time"));
        }
        if found.is_null() {
            found = document;
        }
    }
    Ok(found)
}

/// The tree of a JSON text.
pub(crate) fn json_value(body: &[u8], bytes_max: usize) -> Result<Value, FieldError> {
    check_size(body.len(), bytes_max)?;
    let invalid = |e: serde_json::Error| FieldError::new("", format!("is no JSON: {e}"));
    let budget = Budget::new(body.len());
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = Tree(&budget).deserialize(&mut reader).map_err(invalid)?;
    reader.end().map_err(invalid)?;
    Ok(value)
}

fn check_size(bytes: usize, bytes_max: usize) -> Result<(), FieldError> {
    if bytes > bytes_max {
        return Err(FieldError::new("", format!("has more than {bytes_max} bytes; split it")));
    }
    Ok(())
}

fn check_brackets(text: &str) -> Result<(), FieldError> {
    let mut count = 0;
    // All that YAML 1.1 takes for the end of a line.
    for line in text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']) {
        // Nothing stays open across the start of a document.
        if line == "---" || line.starts_with("--- ") || line.starts_with("---\t") {
            count = 0;
        }
        count += line.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() + usize::from(line.starts_with('%'));
        if count > BRACKETS_MAX {
            let message = format!("holds a document with more than {BRACKETS_MAX} opening brackets; split it");
            return Err(FieldError::new("", message));
        }
    }
    Ok(())
}

/// What is left to spend on a tree. Without aliases a tree never costs more than its text, give or take a few nodes; with
/// them a short text could stand for a tree without end.
struct Budget(Cell<usize>);

impl Budget {
    fn new(text_bytes: usize) -> Self {
        Self(Cell::new(text_bytes.saturating_mul(4).saturating_add(4096)))
    }

    fn spend<E: Error>(&self, bytes: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(bytes.saturating_add(NODE_COST));
        self.0.set(left.ok_or_else(|| E::custom("its aliases stand for far more than it says; write that out"))?);
        Ok(())
    }
}

/// Reads a [`Value`] within a budget, and refuses a key that is there twice.
struct Tree<'a>(&'a Budget);

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value without tags of its own")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.0.spend(0)?;
        Ok(Value::Null)
    }

    /// What the reader of YAML makes of a document without content.
    fn visit_none<E: Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.0.spend(0)?;
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.0.spend(0)?;
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.0.spend(0)?;
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        self.0.spend(0)?;
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.0.spend(value.len())?;
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.0.spend(0)?;
        let mut sequence = Vec::new();
        while let Some(item) = items.next_element_seed(Tree(self.0))? {
            sequence.push(item);
        }
        Ok(Value::Sequence(sequence))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.0.spend(0)?;
        let mut mapping = Mapping::new();
        while let Some(key) = entries.next_key_seed(Tree(self.0))? {
            let Value::String(name) = &key else {
                return Err(A::Error::custom("a key is no text; put it in quotes"));
            };
            if mapping.contains_key(&key) {
                return Err(A::Error::custom(format!("{} is there twice; keep one of them", quoted(name))));
            }
            let value = entries.next_value_seed(Tree(self.0))?;
            mapping.insert(key, value);
        }
        Ok(Value::Mapping(mapping))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml_error(text: &str) -> String {
        yaml_value(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn text_that_would_never_end_is_refused() {
        let laugh = |i: usize| format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(","));
        let laughs = format!("a0: &a0 [x,x,x]\n{}", (1..30).map(laugh).collect::<Vec<_>>().concat());
        let squared = format!("a: &a [{}]\nb: [{}]", "x,".repeat(100_000), "*a,".repeat(100_000));
        let long_scalar = format!("a: &a {}\nb: [{}]", "x".repeat(400_000), "*a,".repeat(100_000));
        for (text, words) in [
            (laughs, "its aliases stand for far more than it says"),
            (squared, "its aliases stand for far more than it says"),
            (long_scalar, "its aliases stand for far more than it says"),
            ("&a [*a, *a]".to_owned(), "recursion limit exceeded"),
            ("- ".repeat(1 << 19), "recursion limit exceeded"),
            ("? ".repeat(1 << 19), "recursion limit exceeded"),
            ("{a: ".repeat(2_000), "recursion limit exceeded"),
            ("{a: ".repeat(1 << 18), "more than 10000 opening brackets"),
            ("{a: ']', b: ".repeat(80_000), "more than 10000 opening brackets"),
            ("[a,\n---x,".repeat(80_000), "more than 10000 opening brackets"),
            ("%TAG !a! x\n".repeat(90_000), "more than 10000 opening brackets"),
            ("%TAG !a! x\u{85}".repeat(80_000), "more than 10000 opening brackets"),
            ("a".repeat(10 << 20), "has more than 1048576 bytes"),
        ] {
            let start: String = text.chars().take(20).collect();
            let error = yaml_error(&text);
            assert!(error.contains(words), "{start}: {error}");
        }
    }

    #[test]
    fn text_that_is_no_yaml_is_refused_with_its_place() {
        for (text, words) in [
            ("a: b: c", "is no YAML: mapping values are not allowed in this context at line 1 column 5"),
            ("\ta: 1", "found character that cannot start any token"),
            ("a: 1\na: 2", r#""a" is there twice; keep one of them"#),
            ("{1: 2}", "a key is no text; put it in quotes"),
            ("a: 1\n---\nb: 2", "holds more than one document; send one at a time"),
            ("a: !mine 1", "without tags of its own"),
        ] {
            assert!(yaml_error(text).contains(words), "{text}: {}", yaml_error(text));
        }
        assert!(yaml_value(b"a: \xff").unwrap_err().to_string().starts_with("is not UTF-8"));
    }

    #[test]
    fn text_that_is_no_json_is_refused_with_its_place() {
        for (text, words) in [
            ("", "is no JSON: EOF while parsing a value at line 1 column 0"),
            (r#"{"a":1,}"#, "is no JSON: trailing comma at line 1 column 8"),
            (r#"{"a":1} x"#, "is no JSON: trailing characters"),
            (r#"{"a":1,"a":2}"#, r#""a" is there twice"#),
        ] {
            let error = json_value(text.as_bytes(), 100).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(
            json_value("[".repeat(100_000).as_bytes(), 100_000)
                .unwrap_err()
                .to_string()
                .contains("recursion limit exceeded")
        );
        assert!(json_value(&[b' '; 101], 100).unwrap_err().to_string().contains("has more than 100 bytes"));
    }

    #[test]
    fn yaml_with_aliases_anchors_and_empty_documents_is_read() {
        let value = yaml_value(b"# first\n---\na: &x [1, -1, 1.5, null, true, text]\nb: *x\n---\n# last\n").unwrap();
        assert_eq!(value["a"], value["b"]);
        assert_eq!(value["a"][5], Value::from("text"));
    }
}
