//! The two Services.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{ADMIN_PORT, GOSSIP_PORT, GRPC_PORT, HTTP_PORT, RAFT_PORT, owned};
use crate::cluster::validate::Wanted;

/// For clients: pods that are ready.
pub(super) fn clients(wanted: &Wanted) -> Service {
    let mut grpc = port("grpc", "TCP", GRPC_PORT);
    grpc.app_protocol = Some("kubernetes.io/h2c".to_owned());
    Service {
        metadata: owned(wanted, wanted.names.cluster()),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(wanted.names.selector()),
            ports: Some(vec![port("http", "TCP", HTTP_PORT), grpc]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// For nodes and the operator: every pod. Nodes find each other before any of them is ready.
pub(super) fn peers(wanted: &Wanted) -> Service {
    Service {
        metadata: owned(wanted, wanted.names.peers()),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(wanted.names.selector()),
            ports: Some(vec![
                port("raft", "TCP", RAFT_PORT),
                port("gossip", "UDP", GOSSIP_PORT),
                port("admin", "TCP", ADMIN_PORT),
            ]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn port(name: &str, protocol: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        protocol: Some(protocol.to_owned()),
        port: number.into(),
        target_port: Some(IntOrString::String(name.to_owned())),
        ..ServicePort::default()
    }
}
