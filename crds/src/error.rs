//! Errors that name a field.

use std::fmt;

const SERDE_TEXT_CHARS_MAX: usize = 512;
const QUOTED_CHARS_MAX: usize = 64;

/// What somebody wrote, quoted for a message and cut to a length that a line can bear.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// What is wrong with one field, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The path from the document's root, as in `spec.limits[1].window`. Empty: the document as a whole.
    pub path: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl FieldError {
    /// An error at `path`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }

    /// The same error in a document that lies at `prefix` within a larger one.
    #[must_use]
    pub fn within(mut self, prefix: &str) -> Self {
        self.path = match self.path.as_str() {
            "" => prefix.to_owned(),
            path => format!("{prefix}.{path}"),
        };
        self
    }

    /// What serde said, at the path where it said it.
    pub(crate) fn from_serde<E: fmt::Display>(error: &serde_path_to_error::Error<E>) -> Self {
        let path = error.path().to_string();
        // `?` is a step that serde did not name; what lies above it is the place to look at.
        let path = path.trim_end_matches(['.', '?']);
        // What was read may be quoted in both, and may be as long as the text.
        let path: String = path.chars().take(SERDE_TEXT_CHARS_MAX).collect();
        let mut message: String = error.inner().to_string().chars().take(SERDE_TEXT_CHARS_MAX).collect();
        if message.ends_with("expected a string") {
            message.push_str("; put it in quotes");
        }
        Self::new(path, message)
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

impl std::error::Error for FieldError {}

/// A policy that breaks rules: all of them, in the order of its fields; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPolicy(pub Vec<FieldError>);

impl fmt::Display for InvalidPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for InvalidPolicy {}
