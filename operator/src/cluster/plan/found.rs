//! From nothing to a cluster. It is founded once: the nodes' ids go into a `ConfigMap` that can be created only once, and
//! only the founding that is in there is ever asked for.

use std::collections::{BTreeMap, BTreeSet};

use quorate_crds::Reason;

use super::{Founding, InFlight, Plan, Step, View};

impl View<'_> {
    /// The plan until the cluster is there; `None` from then on.
    pub(super) fn found(&self) -> Option<Plan> {
        let ids = self.clusters_seen();
        if ids.len() > 1 {
            let ids: Vec<_> = ids.into_iter().collect();
            let what = format!("the data of one cluster only; there are {}", ids.join(" and "));
            let plan = Plan::hands_off(self.seen.operation, Reason::ForeignClaims);
            return Some(plan.waiting(Reason::ForeignClaims, what));
        }
        match &self.seen.founding {
            None => Some(self.gather()),
            Some(Founding::Unreadable) => {
                let what = format!("ConfigMap {} to say who founds the cluster", self.wanted.names.founding());
                let plan = Plan::hands_off(self.seen.operation, Reason::FounderLost);
                Some(plan.waiting(Reason::FounderLost, what))
            }
            Some(how) if self.seen.cluster_id().is_none() && self.seen.membership.is_none() => match how {
                Founding::With(members) if !self.seen.was_founded => Some(self.bootstrap(members)),
                // Asked again, the very disks that were to found it are none the worse.
                Founding::With(members) if self.is_all_empty() && self.are_there(members) => {
                    Some(self.bootstrap(members))
                }
                _ if self.is_all_empty() => {
                    let plan = Plan::of(self.seen.operation, self.pods(), Reason::FounderLost);
                    Some(plan.waiting(Reason::FounderLost, "the cluster's data; every pod has an empty disk"))
                }
                // It is founded, and nobody answers who could say so: what is in flight goes on.
                _ => None,
            },
            Some(_) => None,
        }
    }

    /// Every pod there should be answers, and none has ever belonged to a cluster.
    fn is_all_empty(&self) -> bool {
        (0..self.pods()).all(|ordinal| {
            let node = self.seen.pods.get(&ordinal).filter(|pod| !pod.terminating).and_then(|pod| pod.node.as_ref());
            node.is_some_and(|node| node.cluster.is_none())
        })
    }

    /// The pods of all founders are there, on whatever disks.
    fn are_there(&self, founders: &BTreeMap<u64, String>) -> bool {
        let mut ordinals = founders.values().map(|name| self.wanted.names.ordinal_of_pod(name));
        ordinals.all(|ordinal| ordinal.is_some_and(|ordinal| self.seen.pods.contains_key(&ordinal)))
    }

    /// All ids of clusters whose data is there.
    fn clusters_seen(&self) -> BTreeSet<String> {
        let nodes = self.seen.pods.values().filter_map(|pod| pod.node.as_ref()?.cluster.clone());
        let claims = self.seen.claims.values().filter_map(|claim| claim.cluster.clone());
        let adopted = match &self.seen.founding {
            Some(Founding::Adopted(id)) => Some(id.clone()),
            _ => None,
        };
        nodes.chain(claims).chain(adopted).collect()
    }

    /// Until all pods are up, and either all are empty or one knows its cluster.
    fn gather(&self) -> Plan {
        // Data that was there before is served as a whole; what is too much leaves the ordinary way.
        let marked =
            self.seen.claims.iter().filter(|(_, claim)| claim.cluster.is_some()).map(|(ordinal, _)| ordinal + 1);
        let pods = marked.max().unwrap_or(0).max(self.pods());
        let plan = Plan::of(Some(InFlight::Found), pods, Reason::Founding);
        if let Some(id) = self.seen.cluster_id() {
            return plan.step(Step::RecordFounding(Founding::Adopted(id.to_owned())));
        }
        let mut members = BTreeMap::new();
        for ordinal in 0..pods {
            let node = self.seen.pods.get(&ordinal).filter(|pod| !pod.terminating).and_then(|pod| pod.node.as_ref());
            let Some(node) = node else {
                return self.waits_for_pod(plan, ordinal);
            };
            members.insert(node.id, self.wanted.names.pod(ordinal));
        }
        // Not a cluster to found anew: every node says that its disk is empty, and its claim says otherwise.
        if self.seen.claims.values().any(|claim| claim.cluster.is_some()) {
            return plan.waiting(Reason::WaitingForMembers, "a pod to find the data that its claim is marked with");
        }
        if members.len() != pods {
            return plan.waiting(Reason::WaitingForMembers, "pods with ids of their own; two answer with the same");
        }
        if self.seen.replicas != Some(pods) {
            return plan;
        }
        plan.step(Step::RecordFounding(Founding::With(members)))
    }

    /// The founding is recorded: this one, and no other.
    fn bootstrap(&self, members: &BTreeMap<u64, String>) -> Plan {
        // Never fewer than there are: the cluster may have grown since, and just not answer.
        let pods = self.seen.replicas.unwrap_or(0).max(members.len());
        let operation = if self.seen.was_founded { self.seen.operation } else { Some(InFlight::Found) };
        let plan = Plan::of(operation, pods, Reason::Founding);
        let mut founders = BTreeMap::new();
        for (id, name) in members {
            let Some(ordinal) = self.wanted.names.ordinal_of_pod(name) else {
                let what = format!("ConfigMap {} to name pods of this cluster", self.wanted.names.founding());
                return plan.waiting(Reason::FounderLost, what);
            };
            let pod = self.seen.pods.get(&ordinal).filter(|pod| !pod.terminating);
            match pod.and_then(|pod| pod.node.as_ref()) {
                Some(node) => founders.insert(ordinal, (*id, node.id)),
                None => return self.waits_for_pod(plan, ordinal),
            };
        }
        if let Some((ordinal, (id, found))) = founders.iter().find(|(_, (id, found))| id != found) {
            let name = self.wanted.names.pod(*ordinal);
            let what = format!("pod {name} with id {id:016x}; it has {found:016x}, so its disk is another");
            return plan.waiting(Reason::FounderLost, what);
        }
        match founders.keys().next() {
            Some(&pod) => plan.step(Step::Bootstrap { pod, members: members.clone() }),
            None => plan,
        }
    }
}
