//! The template of a pod. It depends on the spec alone, and on nothing of the spec that a running pod need not know:
//! a change of it replaces every pod.

use std::collections::BTreeMap;
use std::hash::Hasher;

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, LocalObjectReference,
    ObjectFieldSelector, PodAffinityTerm, PodAntiAffinity, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
    ResourceRequirements, SeccompProfile, SecurityContext, VolumeMount, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use quorate_crds::cluster::Spread;
use siphasher::sip::SipHasher13;

use super::{ADMIN_PORT, GOSSIP_PORT, GRPC_PORT, HTTP_PORT, RAFT_PORT, pods, some_map};
use crate::cluster::names::{TEMPLATE_ANNOTATION, VOLUME};
use crate::cluster::validate::Wanted;

const DATA_DIR: &str = "/data";
/// Nobody's user on any node.
const USER: i64 = 65532;
/// A node that is told to stop goes on for `DRAIN_DELAY` (10 s), then lets requests end (4 s); see docs/operation.md.
const GRACE_SECONDS: i64 = 30;

/// The template with its name on it.
pub(super) fn template(wanted: &Wanted) -> PodTemplateSpec {
    let mut template = unnamed(wanted);
    let name = name_of(&template);
    let metadata = template.metadata.get_or_insert_default();
    metadata.annotations.get_or_insert_default().insert(TEMPLATE_ANNOTATION.to_owned(), name);
    template
}

/// The name of the template that pods should be made from: a hash of it.
#[must_use]
pub fn template_name(wanted: &Wanted) -> String {
    name_of(&unnamed(wanted))
}

fn name_of(template: &PodTemplateSpec) -> String {
    // A template holds texts and numbers in maps with an order, so it always has one and the same JSON.
    let json = serde_json::to_vec(template).unwrap_or_default();
    let mut hasher = SipHasher13::new();
    hasher.write(&json);
    format!("{:016x}", hasher.finish())
}

fn unnamed(wanted: &Wanted) -> PodTemplateSpec {
    let spec = &wanted.spec;
    let mut labels = spec.pod_template.labels.clone();
    labels.extend(wanted.names.labels());
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: some_map(&spec.pod_template.annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            affinity: Some(Affinity { pod_anti_affinity: Some(apart(wanted)), ..Affinity::default() }),
            // Nothing in the pod speaks to the API server.
            automount_service_account_token: Some(false),
            // Kubernetes would set variables after Services' names, and one called `server` would be SERVER_PORT.
            enable_service_links: Some(false),
            containers: vec![container(wanted)],
            image_pull_secrets: (!spec.image.pull_secrets.is_empty()).then(|| {
                spec.image.pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect()
            }),
            node_selector: some_map(&spec.placement.node_selector),
            priority_class_name: spec.pod_template.priority_class_name.clone(),
            security_context: Some(PodSecurityContext {
                fs_group: Some(USER),
                fs_group_change_policy: Some("OnRootMismatch".to_owned()),
                run_as_group: Some(USER),
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
                ..PodSecurityContext::default()
            }),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            tolerations: (!spec.placement.tolerations.is_empty()).then(|| spec.placement.tolerations.clone()),
            ..PodSpec::default()
        }),
    }
}

/// Keeps the pods apart. No `topologySpreadConstraints`: the scheduler passes over all of them on nodes that lack a label of
/// one, as every node without a zone does, and their skew says nothing about two on one node.
fn apart(wanted: &Wanted) -> PodAntiAffinity {
    let term = |topology_key: &str| PodAffinityTerm {
        label_selector: Some(pods(wanted)),
        topology_key: topology_key.to_owned(),
        ..PodAffinityTerm::default()
    };
    let preferred = |weight, topology_key| WeightedPodAffinityTerm { weight, pod_affinity_term: term(topology_key) };
    let (node, zone) = ("kubernetes.io/hostname", "topology.kubernetes.io/zone");
    match wanted.spec.placement.spread {
        Spread::Preferred => PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![preferred(100, node), preferred(50, zone)]),
            required_during_scheduling_ignored_during_execution: None,
        },
        Spread::Required => PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![preferred(50, zone)]),
            required_during_scheduling_ignored_during_execution: Some(vec![term(node)]),
        },
    }
}

fn container(wanted: &Wanted) -> Container {
    let image = &wanted.spec.image;
    Container {
        name: "limiter".to_owned(),
        image: Some(format!("{}:{}", image.repository, wanted.spec.version)),
        image_pull_policy: Some(image.pull_policy.as_str().to_owned()),
        env: Some(environment(wanted)),
        ports: Some(vec![
            port("http", "TCP", HTTP_PORT),
            port("grpc", "TCP", GRPC_PORT),
            port("admin", "TCP", ADMIN_PORT),
            port("raft", "TCP", RAFT_PORT),
            port("gossip", "UDP", GOSSIP_PORT),
        ]),
        resources: Some(ResourceRequirements {
            limits: quantities(&wanted.spec.resources.limits),
            requests: quantities(&wanted.spec.resources.requests),
            claims: None,
        }),
        // A long log may take minutes to read back.
        startup_probe: Some(probe("/health", 2, 150)),
        // The process answers at all; whether it has a quorum is nothing that a restart would mend.
        liveness_probe: Some(probe("/health", 10, 3)),
        // Two seconds after it begins to drain it is out of the Service, which the drain waits for.
        readiness_probe: Some(probe("/ready", 2, 1)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            read_only_root_filesystem: Some(true),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![VolumeMount {
            name: VOLUME.to_owned(),
            mount_path: DATA_DIR.to_owned(),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    }
}

/// The settings of docs/configuration.md. `NODE_ID` is the host name, which is the pod's.
fn environment(wanted: &Wanted) -> Vec<EnvVar> {
    let pod_ip = EnvVar {
        name: "POD_IP".to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { api_version: None, field_path: "status.podIP".to_owned() }),
            ..EnvVarSource::default()
        }),
    };
    let contacts = format!("{}.{}.svc:{GOSSIP_PORT}", wanted.names.peers(), wanted.namespace);
    let settings = [
        // A pod that comes back has another address; gossip tells it, and no DNS answer needs to be fresh.
        ("ADVERTISE_HOST", "$(POD_IP)".to_owned()),
        ("ADMIN_HOST", "$(POD_IP)".to_owned()),
        ("ADMIN_PORT", ADMIN_PORT.to_string()),
        // The operator founds, from a record that can be made only once.
        ("BOOTSTRAP_EXPECT", "0".to_owned()),
        ("CLUSTERS", contacts),
        ("DATA_DIR", DATA_DIR.to_owned()),
        ("DEFAULT_LIMIT", wanted.spec.default_limit.clone()),
        ("DISCOVERY_PORT", GOSSIP_PORT.to_string()),
        ("GRPC_PORT", GRPC_PORT.to_string()),
        ("LOG_FORMAT", "json".to_owned()),
        ("RAFT_PORT", RAFT_PORT.to_string()),
        ("RATE_RESET", "false".to_owned()),
        ("REPLACE_LOST_DISK_AFTER", wanted.spec.recovery.replace_lost_disk_after.to_string()),
        ("SERVER_PORT", HTTP_PORT.to_string()),
    ];
    let settings = settings.map(|(name, value)| EnvVar { name: name.to_owned(), value: Some(value), value_from: None });
    [pod_ip].into_iter().chain(settings).collect()
}

fn port(name: &str, protocol: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number.into(),
        protocol: Some(protocol.to_owned()),
        ..ContainerPort::default()
    }
}

fn probe(path: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("http".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(2),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn quantities(given: &BTreeMap<String, String>) -> Option<BTreeMap<String, Quantity>> {
    (!given.is_empty()).then(|| given.iter().map(|(name, q)| (name.clone(), Quantity(q.clone()))).collect())
}
