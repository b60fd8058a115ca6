//! The names of the `/bucket` API: each is registered once and has an id, which its requests carry.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hasher;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher13};
use uuid::{Builder, Uuid};

/// The most names there may be. With the longest of them they take about 3 MB, in memory and in a snapshot.
pub const BUCKETS_MAX: usize = 10_000;
/// The most bytes in a name; doors refuse a longer one.
pub const BUCKET_NAME_BYTES_MAX: usize = 256;

/// What stands for a name in requests: a random UUID, drawn by the node that was asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BucketId(pub u128);

impl BucketId {
    /// The id made of a random number: a UUID of version 4, which keeps 122 bits of it.
    #[must_use]
    pub fn of_random(number: u128) -> Self {
        Self(Builder::from_random_bytes(number.to_be_bytes()).into_uuid().as_u128())
    }
}

impl fmt::Display for BucketId {
    /// In the one form that is read: hyphens, and small letters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_u128(self.0).hyphenated().fmt(f)
    }
}

/// The text is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnId;

impl FromStr for BucketId {
    type Err = NotAnId;

    /// Reads what [`Display`](fmt::Display) writes and nothing else, so that an id has one spelling.
    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let id = Self(Uuid::try_parse(text).map_err(|_| NotAnId)?.as_u128());
        if id.to_string() == text { Ok(id) } else { Err(NotAnId) }
    }
}

/// Something to do with the names, or to ask of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BucketCommand {
    /// Register a name under an id.
    Create {
        /// The name.
        name: String,
        /// Its id from now on.
        id: BucketId,
    },
    /// Give a name back; one that is not registered is no error.
    Delete {
        /// The name.
        name: String,
    },
    /// Ask which name an id stands for. Changes nothing.
    Find {
        /// The id.
        id: BucketId,
    },
}

/// What came of a [`BucketCommand`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BucketOutcome {
    /// The name is registered under this id.
    Created(BucketId),
    /// The name was registered already; nothing was changed.
    NameTaken,
    /// Another name has this id; nothing was changed.
    IdTaken,
    /// There are [`BUCKETS_MAX`] names already; nothing was changed.
    Full,
    /// The name is not registered (any more).
    Deleted,
    /// The id stands for this name.
    Found(String),
    /// The id stands for no name.
    Unknown,
}

/// All names and their ids. A clone shares them until one of the two changes.
#[derive(Clone, Debug, Default)]
pub struct Buckets(Arc<Maps>);

#[derive(Clone, Debug, Default)]
struct Maps {
    ids: BTreeMap<Arc<str>, BucketId>,
    names: BTreeMap<BucketId, Arc<str>>,
    /// Of the digests of all entries, so that the state's hash costs no walk over them.
    sum: u128,
}

impl Buckets {
    /// Every name with its id, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, BucketId)> {
        self.0.ids.iter().map(|(name, id)| (&**name, *id))
    }

    /// The name that an id stands for.
    #[must_use]
    pub fn name(&self, id: BucketId) -> Option<&str> {
        self.0.names.get(&id).map(|name| &**name)
    }

    /// What a command comes to; changes nothing.
    pub(crate) fn evaluate(&self, command: &BucketCommand) -> BucketOutcome {
        match command {
            BucketCommand::Create { name, .. } if self.0.ids.contains_key(name.as_str()) => BucketOutcome::NameTaken,
            BucketCommand::Create { id, .. } if self.0.names.contains_key(id) => BucketOutcome::IdTaken,
            BucketCommand::Create { .. } if self.0.ids.len() >= BUCKETS_MAX => BucketOutcome::Full,
            BucketCommand::Create { id, .. } => BucketOutcome::Created(*id),
            BucketCommand::Delete { .. } => BucketOutcome::Deleted,
            BucketCommand::Find { id } => {
                self.name(*id).map_or(BucketOutcome::Unknown, |name| BucketOutcome::Found(name.to_owned()))
            }
        }
    }

    pub(crate) fn apply(&mut self, command: &BucketCommand) -> BucketOutcome {
        let outcome = self.evaluate(command);
        match command {
            BucketCommand::Create { name, id } if matches!(outcome, BucketOutcome::Created(_)) => {
                Arc::make_mut(&mut self.0).insert(name, *id);
            }
            BucketCommand::Delete { name } if self.0.ids.contains_key(name.as_str()) => {
                Arc::make_mut(&mut self.0).remove(name);
            }
            _ => {}
        }
        outcome
    }

    pub(crate) fn hash(&self, hasher: &mut SipHasher13) {
        hasher.write_u64(self.0.ids.len() as u64);
        hasher.write(&self.0.sum.to_le_bytes());
    }

    pub(crate) fn to_stored(&self) -> StoredBuckets {
        StoredBuckets(self.iter().map(|(name, id)| (name.to_owned(), id)).collect())
    }

    /// The names as they were stored; the error says what does not fit together.
    pub(crate) fn from_stored(stored: StoredBuckets) -> Result<Self, &'static str> {
        if stored.0.len() > BUCKETS_MAX {
            return Err("more buckets than there may be");
        }
        let mut maps = Maps::default();
        for (name, id) in stored.0 {
            if maps.ids.last_key_value().is_some_and(|(last, _)| **last >= *name) {
                return Err("buckets out of order");
            }
            if maps.names.contains_key(&id) {
                return Err("two buckets of one id");
            }
            maps.insert(&name, id);
        }
        Ok(Self(Arc::new(maps)))
    }
}

impl Maps {
    fn insert(&mut self, name: &str, id: BucketId) {
        let name: Arc<str> = name.into();
        self.sum = self.sum.wrapping_add(digest(&name, id));
        self.names.insert(id, Arc::clone(&name));
        self.ids.insert(name, id);
    }

    fn remove(&mut self, name: &str) {
        if let Some(id) = self.ids.remove(name) {
            self.sum = self.sum.wrapping_sub(digest(name, id));
            self.names.remove(&id);
        }
    }
}

fn digest(name: &str, id: BucketId) -> u128 {
    let mut hasher = SipHasher13::new();
    hasher.write(name.as_bytes());
    hasher.write(&id.0.to_le_bytes());
    hasher.finish128().as_u128()
}

/// The names' form in a snapshot.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredBuckets(Vec<(String, BucketId)>);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::command::{Command, Outcome};
    use crate::machine::StateMachine;
    use crate::testing::World;
    use crate::time::ClusterTime;

    fn create(name: &str, id: u128) -> BucketCommand {
        BucketCommand::Create { name: name.to_owned(), id: BucketId(id) }
    }

    fn delete(name: &str) -> BucketCommand {
        BucketCommand::Delete { name: name.to_owned() }
    }

    fn created(id: u128) -> BucketOutcome {
        BucketOutcome::Created(BucketId(id))
    }

    fn found(name: &str) -> BucketOutcome {
        BucketOutcome::Found(name.to_owned())
    }

    fn hash(buckets: &Buckets) -> u128 {
        let mut hasher = SipHasher13::new();
        buckets.hash(&mut hasher);
        hasher.finish128().as_u128()
    }

    #[test]
    fn id_is_a_random_uuid_with_one_spelling() {
        let id = BucketId::of_random(u128::MAX);
        assert_eq!(id.to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(BucketId::of_random(0).to_string(), "00000000-0000-4000-8000-000000000000");
        assert_eq!(id.to_string().parse(), Ok(id));
        for other in [
            "",
            "1",
            "FFFFFFFF-FFFF-4FFF-BFFF-FFFFFFFFFFFF",
            "ffffffffffff4fffbfffffffffffffff",
            "{ffffffff-ffff-4fff-bfff-ffffffffffff}",
            "urn:uuid:ffffffff-ffff-4fff-bfff-ffffffffffff",
            "ffffffff-ffff-4fff-bfff-fffffffffffg",
            " ffffffff-ffff-4fff-bfff-ffffffffffff",
        ] {
            assert_eq!(other.parse::<BucketId>(), Err(NotAnId), "{other:?}");
        }
    }

    #[test]
    fn name_and_id_are_given_once() {
        let mut buckets = Buckets::default();
        for (command, outcome) in [
            (create("a", 1), created(1)),
            (create("a", 2), BucketOutcome::NameTaken),
            (create("a", 1), BucketOutcome::NameTaken),
            (create("b", 1), BucketOutcome::IdTaken),
            (BucketCommand::Find { id: BucketId(1) }, found("a")),
            (BucketCommand::Find { id: BucketId(2) }, BucketOutcome::Unknown),
            (delete("b"), BucketOutcome::Deleted),
            (delete("a"), BucketOutcome::Deleted),
            (BucketCommand::Find { id: BucketId(1) }, BucketOutcome::Unknown),
            (create("b", 1), created(1)),
        ] {
            assert_eq!(buckets.apply(&command), outcome, "{command:?}");
        }
        assert_eq!(buckets.iter().collect::<Vec<_>>(), [("b", BucketId(1))]);
    }

    #[test]
    fn no_more_names_than_the_bound_until_one_is_given_back() {
        let mut buckets = Buckets::default();
        for number in 0..BUCKETS_MAX {
            let id = number as u128;
            assert_eq!(buckets.apply(&create(&format!("client-{number}"), id)), created(id));
        }
        assert_eq!(buckets.apply(&create("late", u128::MAX)), BucketOutcome::Full);
        assert_eq!(buckets.apply(&create("client-7", u128::MAX)), BucketOutcome::NameTaken, "which is said first");
        assert_eq!(Buckets::from_stored(buckets.to_stored()).map(|read| hash(&read)), Ok(hash(&buckets)));
        buckets.apply(&delete("client-7"));
        assert_eq!(buckets.apply(&create("late", u128::MAX)), created(u128::MAX));
    }

    #[test]
    fn names_are_in_the_state_its_hash_and_its_snapshot() {
        let mut world = World::new(vec![]);
        let empty = world.machine.state_hash();
        let command = |command| vec![Command::Bucket(command)];
        assert_eq!(world.send(command(create("a", 5))), [Outcome::Bucket(created(5))]);
        let bytes = world.bytes();
        assert_ne!(world.machine.state_hash(), empty);

        let find = Command::Bucket(BucketCommand::Find { id: BucketId(5) });
        let look = |machine: &StateMachine, command: &Command| machine.evaluate(ClusterTime(world.now), command);
        let mut read = StateMachine::decode(&bytes).unwrap();
        assert_eq!(look(&read, &find), Outcome::Bucket(found("a")));
        assert_eq!(look(&read, &Command::Bucket(create("a", 6))), Outcome::Bucket(BucketOutcome::NameTaken));
        look(&read, &Command::Bucket(create("b", 6)));
        look(&read, &Command::Bucket(delete("a")));
        assert_eq!(read.freeze().encode(), bytes, "a look changes nothing");
        // What was frozen before stays as it was.
        let frozen = read.freeze();
        read.apply(&world.batch(vec![]));
        world.send(command(delete("a")));
        assert_eq!(frozen.encode(), bytes);
    }

    #[test]
    fn stored_names_that_contradict_themselves_are_refused() {
        let stored = |entries: &[(&str, u128)]| {
            Buckets::from_stored(StoredBuckets(
                entries.iter().map(|(name, id)| ((*name).to_owned(), BucketId(*id))).collect(),
            ))
            .map(|_| ())
        };
        assert_eq!(stored(&[("a", 1), ("b", 2)]), Ok(()));
        assert_eq!(stored(&[("b", 1), ("a", 2)]), Err("buckets out of order"));
        assert_eq!(stored(&[("a", 1), ("a", 2)]), Err("buckets out of order"));
        assert_eq!(stored(&[("a", 1), ("b", 1)]), Err("two buckets of one id"));
        let many: Vec<_> = (0..=BUCKETS_MAX).map(|number| (format!("{number:05}"), BucketId(number as u128))).collect();
        assert_eq!(Buckets::from_stored(StoredBuckets(many)).err(), Some("more buckets than there may be"));
    }

    proptest! {
        /// A list of pairs, told again each time.
        #[test]
        fn names_follow_the_obvious_list(steps in prop::collection::vec((0..3_u8, 0..6_u8, 0..6_u8), 0..60)) {
            let mut buckets = Buckets::default();
            let mut list: Vec<(String, BucketId)> = vec![];
            for (what, name, id) in steps {
                let (name, id) = (format!("name-{name}"), BucketId(id.into()));
                let expected = match what {
                    0 if list.iter().any(|(other, _)| *other == name) => BucketOutcome::NameTaken,
                    0 if list.iter().any(|(_, other)| *other == id) => BucketOutcome::IdTaken,
                    0 => {
                        list.push((name.clone(), id));
                        BucketOutcome::Created(id)
                    }
                    1 => {
                        list.retain(|(other, _)| *other != name);
                        BucketOutcome::Deleted
                    }
                    _ => list.iter().find(|(_, other)| *other == id).map_or(BucketOutcome::Unknown, |(name, _)| found(name)),
                };
                let command = match what {
                    0 => BucketCommand::Create { name, id },
                    1 => BucketCommand::Delete { name },
                    _ => BucketCommand::Find { id },
                };
                prop_assert_eq!(buckets.evaluate(&command), expected.clone());
                prop_assert_eq!(buckets.apply(&command), expected);
                let read = Buckets::from_stored(buckets.to_stored()).unwrap();
                prop_assert_eq!(hash(&read), hash(&buckets), "the sum is that of the entries");
            }
            list.sort();
            let held: Vec<_> = buckets.iter().map(|(name, id)| (name.to_owned(), id)).collect();
            prop_assert_eq!(held, list);
        }
    }
}
