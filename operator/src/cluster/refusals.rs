//! What the API server refuses, and when it is told: what waiting does not mend at once, the rest once it lasts, and each in
//! the words it was told in first. A status that is written is a reason to look, so words that differ each time, as those of
//! a webhook's errors may, would be told and tried again without end.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::sync::lock;

/// Anything that has failed for this long is told.
const LASTING: Duration = Duration::from_secs(30);
/// After this long the same trouble is told in new words.
const REWORDED: Duration = Duration::from_mins(1);

/// The failures of each object since it went well last.
pub struct Refusals<K>(Mutex<HashMap<K, Failing>>);

/// What was refused is a thing of one generation of the spec; another is tried before anything is told of it.
struct Failing {
    generation: Option<i64>,
    since: Instant,
    /// What is told, and since when.
    told: Option<(String, Instant)>,
}

impl<K> Default for Refusals<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Refusals<K> {
    /// It failed. What is to be told of it from now on; `None` as long as it may pass.
    pub fn failed(&self, key: K, error: &Error, generation: Option<i64>, now: Instant) -> Option<String> {
        let mut all = lock(&self.0);
        let fresh = || Failing { generation, since: now, told: None };
        let failing = all.entry(key).or_insert_with(fresh);
        if failing.generation != generation {
            *failing = fresh();
        }
        if error.is_refusal() || now.duration_since(failing.since) >= LASTING {
            let what = error.told();
            let is_said = |(said, at): &(String, Instant)| *said == what || now.duration_since(*at) < REWORDED;
            if !failing.told.as_ref().is_some_and(is_said) {
                failing.told = Some((what, now));
            }
        }
        failing.told.as_ref().map(|(what, _)| what.clone())
    }

    /// What stands in the status of this generation.
    pub fn told(&self, key: &K, generation: Option<i64>) -> Option<String> {
        let all = lock(&self.0);
        let (what, _) = all.get(key).filter(|failing| failing.generation == generation)?.told.as_ref()?;
        Some(what.clone())
    }

    /// It went well, or is gone. Whether anything was told, which is to be taken back.
    pub fn forget(&self, key: &K) -> bool {
        lock(&self.0).remove(key).is_some_and(|failing| failing.told.is_some())
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn error(code: u16, message: &str) -> Error {
        Error::api("applying Service shop/edge")(kube::Error::Api(Box::new(
            Status::failure(message, "").with_code(code),
        )))
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn refusal_is_told_at_once_and_what_may_pass_only_once_it_lasts() {
        for (code, after) in [(403, 0), (422, 0), (400, 0), (409, 30), (410, 30), (429, 30), (500, 30), (503, 30)] {
            let (refusals, start) = (Refusals::default(), Instant::now());
            let told = |second| refusals.failed("a", &error(code, "no"), Some(1), at(start, second)).is_some();
            assert_eq!((told(0), told(29), told(30)), (after == 0, after == 0, true), "{code}");
        }
    }

    #[test]
    fn owner_whose_definition_the_api_server_has_just_heard_of_is_no_refusal() {
        let message = "services \"edge\" is forbidden: cannot set blockOwnerDeletion in this case because cannot find RESTMapping \
                       for APIVersion quorate.dev/v1alpha1 Kind RateLimitCluster: no matches for kind \"RateLimitCluster\"";
        let (refusals, start) = (Refusals::default(), Instant::now());
        assert_eq!(refusals.failed("a", &error(403, message), Some(1), start), None);
        assert!(refusals.failed("a", &error(403, message), Some(1), at(start, 30)).is_some());
    }

    #[test]
    fn refusal_in_other_words_is_told_anew_after_a_minute() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        let told = |second, message| refusals.failed("a", &error(422, message), Some(1), at(start, second)).unwrap();
        let first = told(0, "port 1");
        assert!(first.contains("applying Service shop/edge: port 1"), "{first}");
        assert_eq!((told(1, "port 2"), told(59, "port 3")), (first.clone(), first));
        assert!(told(60, "port 4").contains("port 4"));
        assert!(told(61, "port 5").contains("port 4"));
    }

    #[test]
    fn refusal_of_another_generation_says_nothing_of_this_one() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        refusals.failed("a", &error(422, "no"), Some(1), start);
        assert_eq!((refusals.told(&"a", Some(1)).is_some(), refusals.told(&"a", Some(2))), (true, None));
        assert_eq!(refusals.failed("a", &error(500, "hm"), Some(2), start), None);
        assert!(refusals.failed("a", &error(422, "nor this"), Some(2), start).unwrap().contains("nor this"));
    }

    #[test]
    fn what_went_well_is_forgotten_and_says_whether_it_was_told() {
        let refusals = Refusals::default();
        assert!(!refusals.forget(&"a"));
        refusals.failed("a", &error(500, "hm"), None, Instant::now());
        assert!(!refusals.forget(&"a"));
        refusals.failed("a", &error(422, "no"), None, Instant::now());
        assert!(refusals.forget(&"a") && !refusals.forget(&"a"));
    }
}
