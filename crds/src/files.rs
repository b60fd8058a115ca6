//! Policies out of files: all policies of a set, or everything that is wrong with it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use quorate_limits::{Policy, PolicyName};
use serde_yaml::Value;

use crate::api::policy_ref;
use crate::document::policy_from_value;
use crate::error::FieldError;
use crate::tree::{TEXT_BYTES_MAX, yaml_documents};

/// What is wrong with one file of policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The file's name, or the folder's if it could not be read.
    pub file: String,
    /// Which document of it, counted from 1; `None`: the file as a whole.
    pub document: Option<usize>,
    /// What is wrong, and what to do.
    pub error: FieldError,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file)?;
        if let Some(document) = self.document {
            write!(f, "document {document}: ")?;
        }
        self.error.fmt(f)
    }
}

impl std::error::Error for FileError {}

/// Reads every `*.yaml` and `*.yml` of a folder, in the order of their names. Folders within it are not entered, and
/// names that start with a dot are left alone (a mounted `ConfigMap` keeps its own there).
///
/// # Errors
/// All that is wrong, file by file; a folder that cannot be read is one error.
pub fn read_directory(path: &Path) -> Result<Vec<Policy>, Vec<FileError>> {
    let paths = policy_paths(path).map_err(|e| vec![io_error(path, &e)])?;
    let mut files = Vec::with_capacity(paths.len());
    let mut errors = Vec::new();
    for path in paths {
        match read_text(&path) {
            Ok(text) => files.push((path.display().to_string(), text)),
            Err(error) => errors.push(io_error(&path, &error)),
        }
    }
    let parsed = parse_files(files.iter().map(|(name, text)| (name.as_str(), text.as_str())));
    match parsed {
        Ok(policies) if errors.is_empty() => Ok(policies),
        Ok(_) => Err(errors),
        Err(found) => {
            errors.extend(found);
            Err(errors)
        }
    }
}

/// Reads policies from files given as names and texts, each of which may hold many documents. Empty documents are skipped.
///
/// # Errors
/// All that is wrong, in the order of the files. A policy that is there twice is refused, with both places named.
pub fn parse_files<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Vec<Policy>, Vec<FileError>> {
    let mut set = Set::default();
    for (file, text) in files {
        set.add_file(file, text);
    }
    if set.errors.is_empty() { Ok(set.policies) } else { Err(set.errors) }
}

#[derive(Default)]
struct Set {
    policies: Vec<Policy>,
    places: BTreeMap<PolicyName, (String, usize)>,
    errors: Vec<FileError>,
}

impl Set {
    fn add_file(&mut self, file: &str, text: &str) {
        let documents = match yaml_documents(text) {
            Ok(documents) => documents,
            Err(error) => return self.add_error(file, None, error),
        };
        for (i, document) in documents.enumerate() {
            match document {
                Ok(Value::Null) => {}
                Ok(value) => self.add_document(file, i + 1, value),
                Err(error) => self.add_error(file, Some(i + 1), error),
            }
        }
    }

    fn add_document(&mut self, file: &str, number: usize, value: Value) {
        let policy = match policy_from_value(value) {
            Ok(policy) => policy,
            Err(errors) => {
                for error in errors {
                    self.add_error(file, Some(number), error);
                }
                return;
            }
        };
        if let Some((other, at)) = self.places.get(&policy.name) {
            let message =
                format!("{} is already in {other}, document {at}; keep one of them", policy_ref(&policy.name));
            self.add_error(file, Some(number), FieldError::new("metadata.name", message));
            return;
        }
        self.places.insert(policy.name.clone(), (file.to_owned(), number));
        self.policies.push(policy);
    }

    fn add_error(&mut self, file: &str, document: Option<usize>, error: FieldError) {
        self.errors.push(FileError { file: file.to_owned(), document, error });
    }
}

fn policy_paths(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if is_yaml && !is_hidden {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Reads one byte more than is allowed at most, so that a file that is too long is seen without being held.
fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(TEXT_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

fn io_error(path: &Path, error: &io::Error) -> FileError {
    let error = FieldError::new("", format!("cannot be read: {error}"));
    FileError { file: path.display().to_string(), document: None, error }
}

#[cfg(test)]
mod tests;
