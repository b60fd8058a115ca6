//! What autopilot waits for, worded for people.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// Why a change of the membership is not made yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waits {
    /// Too few of the voters, of today or of those that would be, can take part.
    Quorum {
        /// Voters that are reachable and have caught up.
        ready: usize,
        /// The majority.
        needed: usize,
        /// All of them.
        voters: usize,
    },
    /// A member whose name came back on an empty disk may only be cut off for a moment.
    Silence {
        /// The member.
        id: u64,
        /// Its name.
        name: String,
        /// How much longer it must be silent.
        left: Duration,
    },
    /// Another lost disk was replaced not long ago.
    Interval {
        /// The name of the member to be replaced.
        name: String,
        /// Cluster time until it may be.
        left: Duration,
    },
    /// A member that is to leave still answers, until its clients ask others.
    Draining {
        /// Its name.
        name: String,
        /// Cluster time until it goes.
        left: Duration,
    },
    /// A learner has not got the whole log yet.
    CatchingUp {
        /// The learner.
        id: u64,
        /// Its name.
        name: String,
    },
    /// Several nodes of one name are alive.
    NameTwice {
        /// The name.
        name: String,
        /// Their ids.
        ids: BTreeSet<u64>,
    },
    /// No voter would be left.
    NobodyLeft {
        /// The name of the member that is to leave.
        name: String,
    },
}

impl Waits {
    /// One word for programs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Quorum { .. } => "Quorum",
            Self::Silence { .. } => "Silence",
            Self::Interval { .. } => "Interval",
            Self::Draining { .. } => "Draining",
            Self::CatchingUp { .. } => "CatchingUp",
            Self::NameTwice { .. } => "NameTwice",
            Self::NobodyLeft { .. } => "NobodyLeft",
        }
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quorum { ready, needed, voters } => write!(
                f,
                "{ready} of {voters} voters can be reached and have caught up, {needed} are needed; bring the others back"
            ),
            Self::Silence { id, name, left } => write!(
                f,
                "{name} is back on an empty disk; its former self {id:016x} must be silent for {}s more before it is taken \
                 for lost (or decommission {id:016x})",
                seconds(*left)
            ),
            Self::Interval { name, left } => write!(
                f,
                "{name} can take its own place in {}s: another lost disk was replaced not long ago (or decommission the \
                 former {name})",
                seconds(*left)
            ),
            Self::Draining { name, left } => {
                write!(
                    f,
                    "{name} is to leave, and goes on answering for {}s while its clients find others",
                    seconds(*left)
                )
            }
            Self::CatchingUp { id, name } => write!(f, "{name} ({id:016x}) catches up"),
            Self::NameTwice { name, ids } => {
                write!(f, "several nodes named {name} are alive:")?;
                ids.iter().try_for_each(|id| write!(f, " {id:016x}"))?;
                write!(f, "; give each its own NODE_ID")
            }
            Self::NobodyLeft { name } => {
                write!(f, "no voter would be left without {name}; add another member that can take over first")
            }
        }
    }
}

/// Rounded up.
fn seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}
