//! openraft behind one facade: propose, read barrier, members.

mod convert;
mod types;

pub use convert::{decode_payload, encode_payload, log_id_from_raft, log_id_to_raft, vote_from_raft, vote_to_raft};
pub use types::{Applied, Member, Proposal, Types};
