//! Requests to decisions: parts, forwarding to the leader, deadlines.
