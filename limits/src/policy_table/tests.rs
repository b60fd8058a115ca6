//! Owners, revisions and ids.

use super::*;
use crate::command::PolicyOutcome::{Applied, Conflict};
use crate::testing::{policy, policy_name};

struct Table {
    table: PolicyTable,
    touched: BTreeSet<String>,
}

impl Table {
    fn new() -> Self {
        Self { table: PolicyTable::default(), touched: BTreeSet::new() }
    }

    fn change(&mut self, change: &PolicyChange) -> PolicyOutcome {
        self.touched.clear();
        self.table.change(change, &mut self.touched)
    }

    fn put(&mut self, owner: Owner, policies: &[Policy]) -> PolicyOutcome {
        self.change(&PolicyChange::Put(owner, policies.to_vec()))
    }

    fn delete(&mut self, owner: Owner, name: &str) -> PolicyOutcome {
        self.change(&PolicyChange::Delete(owner, vec![policy_name(name)]))
    }

    fn id(&self, name: &str) -> Option<PolicyId> {
        self.table.find(&policy_name(name)).map(|(id, _)| id)
    }

    fn domain_revision(&self, domain: &str) -> u64 {
        let (revision, rows) = self.table.domain(domain).unwrap();
        for (_, row) in rows {
            assert_eq!((row.domain_revision, row.policy.domain.as_str()), (revision, domain));
        }
        revision
    }

    fn names(&self) -> Vec<(&str, Owner)> {
        self.table.rows().map(|(_, row)| (row.policy.name.name.as_str(), row.owner)).collect()
    }
}

fn in_domain(name: &str, domain: &str) -> Policy {
    Policy { domain: domain.to_owned(), ..policy(name) }
}

fn changed(name: &str) -> Policy {
    Policy { fallback: true, ..policy(name) }
}

#[test]
fn identical_content_keeps_the_revision() {
    let mut table = Table::new();
    let both = [policy("a"), policy("b")];
    assert_eq!(table.put(Owner::Api, &both), Applied { revision: 1 });
    assert_eq!(table.put(Owner::Api, &both), Applied { revision: 1 });
    assert!(table.touched.is_empty());
    assert_eq!(table.change(&PolicyChange::ReplaceAll(Owner::Api, both.to_vec())), Applied { revision: 1 });
    assert_eq!(table.delete(Owner::Api, "none"), Applied { revision: 1 });
    assert_eq!(table.put(Owner::Api, &[changed("b")]), Applied { revision: 2 });
    let revisions: Vec<u64> = table.table.rows().map(|(_, row)| row.revision).collect();
    assert_eq!(revisions, [1, 2], "only the policy that differs has a new revision");
}

#[test]
fn change_revises_only_the_domains_it_touches() {
    let mut table = Table::new();
    table.put(Owner::Api, &[in_domain("a", "x"), in_domain("b", "y")]);
    table.put(Owner::Api, &[in_domain("c", "y")]);
    assert_eq!((table.domain_revision("x"), table.domain_revision("y")), (1, 2));
    table.delete(Owner::Api, "c");
    assert_eq!((table.domain_revision("x"), table.domain_revision("y")), (1, 3));
}

#[test]
fn policy_moved_revises_both_domains() {
    let mut table = Table::new();
    table.put(Owner::Api, &[in_domain("a", "x"), in_domain("b", "x"), in_domain("c", "y"), in_domain("d", "z")]);
    let id = table.id("b");
    table.put(Owner::Api, &[in_domain("b", "y")]);
    assert_eq!(["x", "y", "z"].map(|domain| table.domain_revision(domain)), [2, 2, 1]);
    assert_eq!(table.touched, BTreeSet::from(["x".to_owned(), "y".to_owned()]));
    assert_eq!(table.id("b"), id);
}

#[test]
fn last_policy_gone_ends_the_domain() {
    let mut table = Table::new();
    table.put(Owner::Api, &[in_domain("a", "x")]);
    table.delete(Owner::Api, "a");
    assert!(table.table.domain("x").is_none());
    assert_eq!(table.touched, BTreeSet::from(["x".to_owned()]));
}

#[test]
fn another_owners_policy_refuses_the_whole_change() {
    let mut table = Table::new();
    table.put(Owner::Files, &[policy("a")]);
    let refused = Conflict(PolicyConflict::OwnedBy(policy_name("a"), Owner::Files));
    let before = table.table.clone().to_stored();
    assert_eq!(table.put(Owner::Api, &[policy("new"), policy("a")]), refused);
    assert_eq!(table.delete(Owner::Operator, "a"), refused);
    assert_eq!(table.change(&PolicyChange::ReplaceAll(Owner::Builtin, vec![changed("a")])), refused);
    let bytes = |stored| postcard::to_stdvec(&stored).unwrap();
    assert_eq!(bytes(table.table.to_stored()), bytes(before));
    assert!(table.touched.is_empty());
}

#[test]
fn builtin_policy_taken_over_by_anyone() {
    let mut table = Table::new();
    table.put(Owner::Builtin, &[policy("a"), policy("b")]);
    let id = table.id("a");
    assert_eq!(table.put(Owner::Operator, &[policy("a")]), Applied { revision: 2 });
    assert_eq!(table.id("a"), id);
    assert_eq!(table.delete(Owner::Files, "b"), Applied { revision: 3 });
    assert_eq!(table.names(), [("a", Owner::Operator)]);
    let refused = Conflict(PolicyConflict::OwnedBy(policy_name("a"), Owner::Operator));
    assert_eq!(table.put(Owner::Builtin, &[policy("a")]), refused);
}

#[test]
fn replace_all_removes_what_the_owner_left_out_and_nobody_elses() {
    let mut table = Table::new();
    table.put(Owner::Api, &[policy("a"), policy("b")]);
    table.put(Owner::Files, &[policy("c")]);
    table.put(Owner::Builtin, &[policy("d")]);
    table.change(&PolicyChange::ReplaceAll(Owner::Api, vec![changed("b"), policy("e")]));
    assert_eq!(table.names(), [("b", Owner::Api), ("c", Owner::Files), ("d", Owner::Builtin), ("e", Owner::Api)]);
    table.change(&PolicyChange::ReplaceAll(Owner::Api, vec![]));
    assert_eq!(table.names(), [("c", Owner::Files), ("d", Owner::Builtin)]);
}

#[test]
fn id_never_used_again() {
    let mut table = Table::new();
    table.put(Owner::Api, &[policy("a")]);
    let first = table.id("a");
    table.delete(Owner::Api, "a");
    table.put(Owner::Api, &[policy("a")]);
    assert!(table.id("a") > first);
}

#[test]
fn of_two_policies_with_one_name_the_later_holds() {
    let mut table = Table::new();
    table.put(Owner::Api, &[policy("a"), changed("a")]);
    assert_eq!(*table.table.find(&policy_name("a")).unwrap().1.policy, changed("a"));
}

#[test]
fn too_many_policies_refused_as_a_whole() {
    let mut table = Table::new();
    let many: Vec<Policy> = (0..Policy::COUNT_MAX).map(|number| policy(&number.to_string())).collect();
    assert_eq!(table.put(Owner::Api, &many), Applied { revision: 1 });
    let refused = Conflict(PolicyConflict::TooMany { max: Policy::COUNT_MAX });
    assert_eq!(table.put(Owner::Files, &[policy("one-more")]), refused);
    assert_eq!(table.id("one-more"), None);
    assert_eq!(table.put(Owner::Api, &[changed("7")]), Applied { revision: 2 });
    let swapped = [many[1..].to_vec(), vec![policy("one-more")]].concat();
    assert_eq!(table.change(&PolicyChange::ReplaceAll(Owner::Api, swapped)), Applied { revision: 3 });
}

#[test]
fn stored_table_that_contradicts_itself_refused() {
    let mut table = Table::new();
    table.put(Owner::Api, &[in_domain("a", "x"), in_domain("b", "x")]);
    let refusal = |spoil: fn(&mut StoredTable)| {
        let mut stored = table.table.to_stored();
        spoil(&mut stored);
        PolicyTable::from_stored(stored).err()
    };
    assert_eq!(refusal(|_| ()), None);
    assert_eq!(refusal(|stored| stored.rows.swap(0, 1)), Some("policies out of order"));
    assert_eq!(refusal(|stored| stored.next_id = 1), Some("policies out of order"));
    assert_eq!(refusal(|stored| stored.rows[1].domain_revision = 7), Some("two revisions of one domain"));
    assert_eq!(
        refusal(|stored| stored.rows[1].policy = stored.rows[0].policy.clone()),
        Some("two policies of one name")
    );
}
