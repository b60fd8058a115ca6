//! Short lists in place. Nearly every request meets one policy with a limit or two, and each decision passes through the
//! memory of every node several times: a list on the heap for each took a quarter of a batch's time.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

/// A list of which the first `N` lie in place.
pub type Few<T, const N: usize> = SmallVec<[T; N]>;

/// As a list is written.
pub(crate) fn serialize<T: Serialize, S: Serializer, const N: usize>(
    list: &Few<T, N>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    list.as_slice().serialize(serializer)
}

/// Grown as it is read: a length alone must not reserve what the bytes cannot hold, as smallvec's own reader would.
pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>, const N: usize>(
    deserializer: D,
) -> Result<Few<T, N>, D::Error> {
    struct Grown<T, const N: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Grown<T, N> {
        type Value = Few<T, N>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Few<T, N>, A::Error> {
            let mut read = Few::new();
            while let Some(item) = list.next_element()? {
                read.push(item);
            }
            Ok(read)
        }
    }

    deserializer.deserialize_seq(Grown(PhantomData))
}
