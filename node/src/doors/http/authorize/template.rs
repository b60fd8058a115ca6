//! `AUTHORIZE_DESCRIPTORS`: what of a request's head becomes the descriptor that it is counted by.

use std::fmt;
use std::str::FromStr;

use axum::http::{HeaderMap, HeaderName};
use quorate_limits::Descriptor;

use crate::doors::request_bounds::{ENTRIES_MAX, ENTRY_BYTES_MAX};

/// Where gateways put the path and query of the request that they ask about.
const FORWARDED_URI: &str = "x-forwarded-uri";

/// One descriptor, entry by entry, each with where its value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescriptorTemplate {
    entries: Vec<(String, Source)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Header(HeaderName),
    /// The path.
    Uri,
}

/// Which entry is wrong, and what is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// Its text.
    pub entry: String,
    /// What is wrong with it.
    pub why: String,
}

impl Default for DescriptorTemplate {
    /// `client_id=header:X-Client-Id`.
    fn default() -> Self {
        Self { entries: vec![("client_id".to_owned(), Source::Header(HeaderName::from_static("x-client-id")))] }
    }
}

impl FromStr for DescriptorTemplate {
    type Err = TemplateError;

    /// `key=header:NAME` or `key=uri`, comma separated.
    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut entries: Vec<(String, Source)> = Vec::new();
        for entry in text.split(',').map(str::trim) {
            let wrong = |why: &str| TemplateError { entry: entry.to_owned(), why: why.to_owned() };
            let (key, source) = entry.split_once('=').ok_or_else(|| wrong("is no key=source"))?;
            if key.is_empty() || key.len() > ENTRY_BYTES_MAX {
                return Err(wrong(&format!("has a key of {} bytes, not of 1 to {ENTRY_BYTES_MAX}", key.len())));
            }
            if entries.iter().any(|(other, _)| other == key) {
                return Err(wrong("has the key of another"));
            }
            if entries.len() == ENTRIES_MAX {
                return Err(wrong(&format!("is one more than {ENTRIES_MAX}")));
            }
            let source = match source.split_once(':') {
                None if source == "uri" => Source::Uri,
                Some(("header", name)) => {
                    Source::Header(name.parse().map_err(|_| wrong("names something that is no header"))?)
                }
                _ => return Err(wrong("has a source that is neither header:NAME nor uri")),
            };
            entries.push((key.to_owned(), source));
        }
        Ok(Self { entries })
    }
}

impl fmt::Display for DescriptorTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (key, source)) in self.entries.iter().enumerate() {
            let separator = if i == 0 { "" } else { "," };
            match source {
                Source::Header(name) => write!(f, "{separator}{key}=header:{name}")?,
                Source::Uri => write!(f, "{separator}{key}=uri")?,
            }
        }
        Ok(())
    }
}

impl DescriptorTemplate {
    /// The headers that it takes values from.
    pub(super) fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.entries.iter().filter_map(|(_, source)| match source {
            Source::Header(name) => Some(name),
            Source::Uri => None,
        })
    }

    /// The descriptor of a request with this head. A header that is not there counts as empty, so that nobody escapes by
    /// leaving it out: all without it share one counter.
    ///
    /// # Errors
    /// A header came more than once, or is not UTF-8.
    pub(super) fn fill(&self, headers: &HeaderMap, original: Option<&str>) -> Result<Descriptor, String> {
        let value = |source: &Source| match source {
            Source::Header(name) => header(headers, name),
            Source::Uri => match original {
                Some(original) => Ok(path(original)),
                None => header(headers, &HeaderName::from_static(FORWARDED_URI)).map(path),
            },
        };
        let entries: Result<Vec<_>, _> =
            self.entries.iter().map(|(key, source)| Ok::<_, String>((key.as_str(), value(source)?))).collect();
        Ok(Descriptor::of(entries?))
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a str, String> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok("") };
    if values.next().is_some() {
        return Err(format!("the header {name} came more than once"));
    }
    str::from_utf8(value.as_bytes()).map_err(|_| format!("the header {name} is not UTF-8"))
}

/// A path without its query, as the gateway sent it; of a long one the beginning, since it is the client who makes it long.
fn path(uri: &str) -> &str {
    let path = uri.split(['?', '#']).next().unwrap_or_default();
    &path[..path.floor_char_boundary(ENTRY_BYTES_MAX)]
}
