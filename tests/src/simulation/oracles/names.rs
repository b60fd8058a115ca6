//! Names of buckets: what the log comes to, and what clients were told.

use std::collections::BTreeMap;

use quorate_limits::{BucketCommand, BucketId, BucketOutcome};

/// Names that nobody gives back begin with this.
const KEPT: &str = "k";

/// So many names are kept, and as many are given back now and then: few and short, since they are in every snapshot.
const NAMES: usize = 4;

/// Any name.
#[must_use]
pub fn any() -> String {
    let number = super::super::chance::index(2 * NAMES);
    if number < NAMES { format!("{KEPT}{number}") } else { given_back(number) }
}

/// Any of those that are given back.
#[must_use]
pub fn any_given_back() -> String {
    given_back(NAMES + super::super::chance::index(NAMES))
}

fn given_back(number: usize) -> String {
    format!("b{number}")
}

/// Names by what the log says.
#[derive(Default)]
pub struct Registered(BTreeMap<String, BucketId>);

impl Registered {
    /// Takes a command of the log; whether it was new.
    ///
    /// # Errors
    /// It came to something else than it must.
    pub fn apply(&mut self, command: &BucketCommand, outcome: &BucketOutcome) -> Result<bool, String> {
        let (expected, is_new) = match command {
            BucketCommand::Create { name, .. } if self.0.contains_key(name) => (BucketOutcome::NameTaken, false),
            BucketCommand::Create { name, id } => {
                self.0.insert(name.clone(), *id);
                (BucketOutcome::Created(*id), true)
            }
            BucketCommand::Delete { name } => {
                self.0.remove(name);
                (BucketOutcome::Deleted, false)
            }
            BucketCommand::Find { .. } => return Err("a question in the log".to_owned()),
        };
        if *outcome == expected { Ok(is_new) } else { Err(format!("{command:?} came to {outcome:?}")) }
    }
}

/// Names by what clients were told.
#[derive(Default)]
pub struct Told(BTreeMap<BucketId, String>);

impl Told {
    /// A client was told that a name is its own, under this id.
    ///
    /// # Errors
    /// Another was told so before.
    pub fn created(&mut self, name: &str, id: BucketId) -> Result<(), String> {
        if name.starts_with(KEPT)
            && let Some((first, _)) = self.0.iter().find(|(_, other)| *other == name)
        {
            return Err(format!("{name} was given twice, as {first} and as {id}"));
        }
        match self.0.insert(id, name.to_owned()) {
            Some(other) => Err(format!("{id} was given twice, for {other} and for {name}")),
            None => Ok(()),
        }
    }

    /// Any id that a client was told.
    #[must_use]
    pub fn any_id(&self) -> Option<BucketId> {
        if self.0.is_empty() {
            return None;
        }
        self.0.keys().nth(super::super::chance::index(self.0.len())).copied()
    }

    /// A client asked for an id that was told before it asked.
    ///
    /// # Errors
    /// It was not found although nobody gave the name back, or with another name.
    pub fn found(&self, id: BucketId, found: Option<&str>) -> Result<(), String> {
        let name = self.0.get(&id).map_or("", String::as_str);
        match found {
            Some(found) if found == name => Ok(()),
            None if !name.starts_with(KEPT) => Ok(()),
            other => Err(format!("{id} is {name}, and was found as {other:?}")),
        }
    }
}
