//! Who may reach which port of a pod.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{owned, pods};
use crate::cluster::validate::Wanted;

/// Clients: anybody. Between nodes: this cluster's. Changes: the operator. What a pod itself reaches is not narrowed down;
/// it needs its peers and the cluster's DNS, which runs in another place everywhere.
pub(super) fn policy(wanted: &Wanted) -> NetworkPolicy {
    let own = NetworkPolicyPeer { pod_selector: Some(pods(wanted)), ..NetworkPolicyPeer::default() };
    let operator = NetworkPolicyPeer {
        // Every namespace.
        namespace_selector: Some(LabelSelector::default()),
        pod_selector: Some(LabelSelector {
            match_labels: Some(BTreeMap::from([("app.kubernetes.io/name".to_owned(), "quorate-operator".to_owned())])),
            match_expressions: None,
        }),
        ip_block: None,
    };
    let rule = |from: Option<NetworkPolicyPeer>, ports: &[(&str, &str)]| NetworkPolicyIngressRule {
        from: from.map(|peer| vec![peer]),
        ports: Some(
            ports
                .iter()
                .map(|(name, protocol)| NetworkPolicyPort {
                    port: Some(IntOrString::String((*name).to_owned())),
                    protocol: Some((*protocol).to_owned()),
                    end_port: None,
                })
                .collect(),
        ),
    };
    NetworkPolicy {
        metadata: owned(wanted, wanted.names.cluster()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(pods(wanted)),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![
                rule(None, &[("http", "TCP"), ("grpc", "TCP")]),
                rule(Some(own), &[("raft", "TCP"), ("gossip", "UDP")]),
                rule(Some(operator), &[("admin", "TCP")]),
            ]),
            egress: None,
        }),
    }
}
