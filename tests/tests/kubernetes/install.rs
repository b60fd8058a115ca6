//! Installing, as the README and the manifests have it.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::StatefulSet;
use quorate_tests::cluster::figure;
use quorate_tests::kubernetes::lab::{HELM_UPGRADE, INSTALL, Lab, PATIENCE};
use quorate_tests::kubernetes::objects::{cluster, has_condition};
use quorate_tests::kubernetes::space::Space;
use quorate_tests::readme;

/// From the cluster's `kubectl apply` to the first decision, with the images on the nodes.
const FIRST_DECISION_WITHIN: Duration = Duration::from_mins(1);

pub async fn readme_typed_word_for_word_serves_from_a_pod_through_the_service(lab: &Lab) {
    // On a cluster that somebody works on, it may be there already.
    lab.take_rights_away("helm uninstall quorate --namespace quorate-system --wait --ignore-not-found").await;
    // As strict as a namespace can be, from the beginning.
    lab.apply("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: quorate-system\n  labels: {pod-security.kubernetes.io/enforce: restricted}");
    let mut applied = None;
    let mut first_decision = None;
    for command in readme::commands(&lab.file("README.md"), INSTALL) {
        println!("$ {command}");
        if command.contains("cluster.yaml") {
            applied = Some(Instant::now());
        }
        let said = lab.type_in(&command).unwrap_or_else(|error| panic!("{error}"));
        println!("{}", said.trim_end());
        if said.trim() == r#"{"result":true}"# {
            first_decision = applied.map(|applied| applied.elapsed());
        }
    }
    let took = first_decision.expect("a decision, and a cluster that was applied before");
    figure(&format!("README typed word for word: {:.1} s from apply to the first decision", took.as_secs_f64()));
    assert!(took < FIRST_DECISION_WITHIN, "{took:?}");
    lab.kubectl("delete pod client --wait=false");
    lab.kubectl("delete quotapolicies,ratelimitclusters,persistentvolumeclaims --all --wait=false");
}

pub async fn everything_in_every_form_passes_the_api_servers_own_checks(lab: &Lab) {
    lab.install_operator().await;
    let space = lab.space("dry-run").await;
    let dry_run = "kubectl apply --server-side --force-conflicts --dry-run=server";
    for command in [
        format!("{dry_run} -f manifests/install.yaml"),
        format!("{dry_run} -f manifests/crds -f manifests/samples/kubernetes"),
        format!("helm template quorate helm/quorate --namespace {} | {dry_run} -f -", space.name()),
        format!(
            "helm template quorate helm/quorate --namespace {0} --set watchNamespaces='{{{0},default}}',replicas=3 \
             --set crds.install=false,metrics.service=false,priorityClassName=system-cluster-critical \
             --set-json 'podLabels={{\"a\":\"b\"}}' --set-json 'podAnnotations={{\"a\":\"b\"}}' \
             --set-json 'nodeSelector={{\"a\":\"b\"}}' --set-json 'tolerations=[{{\"operator\":\"Exists\"}}]' \
             --set-json 'affinity={{\"podAntiAffinity\":{{}}}}' --set-json 'imagePullSecrets=[{{\"name\":\"registry\"}}]' \
             | {dry_run} -f -",
            space.name()
        ),
    ] {
        let said = lab.type_in(&command).unwrap_or_else(|error| panic!("{error}"));
        assert!(said.contains("(server dry run)"), "{command}: {said}");
    }
    let slip = lab.type_in("helm template quorate helm/quorate --set replica=3").unwrap_err();
    assert!(slip.contains("'replica' not allowed"), "{slip}");
}

pub async fn operator_of_one_namespace_needs_rights_in_that_one_alone(lab: &Lab) {
    lab.install_operator().await;
    let (own, other) = (lab.space("watched").await, lab.space("unwatched").await);
    for space in [&own, &other] {
        space.apply(&cluster("edge", 1)).await;
    }
    lab.take_rights_away(&format!("{HELM_UPGRADE} --set watchNamespaces='{{{}}}'", own.name())).await;
    // Changed after the change, so that it is this operator's work.
    for space in [&own, &other] {
        space.kubectl("patch ratelimitcluster edge --type merge --patch {\"spec\":{\"allowedNamespaces\":[\"shop\"]}}");
    }
    own.until_condition(PATIENCE, ("RateLimitCluster", "edge"), "Ready", "True").await;
    lab.assert_allowed();
    // What the chart says to do next, word for word.
    let notes =
        lab.type_in("helm get notes quorate --namespace quorate-system").unwrap_or_else(|error| panic!("{error}"));
    for command in indented(&notes) {
        println!("$ {command}");
        println!("{}", lab.type_in(&command).unwrap_or_else(|error| panic!("{error}")).trim_end());
    }
    let policy = own.get("QuotaPolicy", "clients").await.expect("in the namespace that is watched");
    assert_eq!(has_condition(&policy, "Enforced", "True"), Ok(()));
    let unwatched = other.get("RateLimitCluster", "edge").await.expect("it is there");
    assert!(unwatched["status"]["observedGeneration"] != unwatched["metadata"]["generation"], "{unwatched}");
    let rights = lab.try_kubectl("get clusterroles quorate-operator", "").unwrap_err();
    assert!(rights.contains("NotFound"), "{rights}");

    lab.take_rights_away(HELM_UPGRADE).await;
    other.until_condition(PATIENCE, ("RateLimitCluster", "edge"), "Ready", "True").await;
}

pub async fn operator_upgraded_uninstalled_and_applied_as_plain_yaml_restarts_no_limiter(lab: &Lab) {
    lab.install_operator().await;
    let space = lab.space("upgrade").await;
    space.apply(&cluster("edge", 3)).await;
    space.until_steady(PATIENCE, "edge").await;
    let before = containers(&space).await;
    assert_eq!(before.len(), 3);

    lab.type_in(&format!("{HELM_UPGRADE} --set replicas=2,podAnnotations.changed=yes"))
        .unwrap_or_else(|error| panic!("{error}"));
    let mut changes = Changes::new(&space);
    changes.are_acted_upon().await;
    assert_eq!(containers(&space).await, before, "after helm upgrade");

    lab.take_rights_away("helm uninstall quorate --namespace quorate-system --wait").await;
    let kept = lab.kubectl("get crds --output name");
    for definition in ["ratelimitclusters.quorate.dev", "quotapolicies.quorate.dev"] {
        assert!(kept.contains(definition), "helm uninstall took {definition} away: {kept}");
    }
    assert!(space.get("RateLimitCluster", "edge").await.is_some(), "helm uninstall took the cluster away");

    for command in [
        "kubectl apply --server-side -f manifests/install.yaml",
        "kubectl --namespace quorate-system rollout status deployment quorate-operator --timeout 60s",
    ] {
        lab.type_in(command).unwrap_or_else(|error| panic!("{error}"));
    }
    changes.are_acted_upon().await;
    assert_eq!(containers(&space).await, before, "after kubectl apply");

    // And back: what was applied by hand becomes the chart's.
    let back = "helm upgrade --install quorate helm/quorate --namespace quorate-system --take-ownership --wait";
    lab.type_in(back).unwrap_or_else(|error| panic!("{error}"));
    changes.are_acted_upon().await;
    assert_eq!(containers(&space).await, before, "after helm install");
    figure("helm upgrade, helm uninstall, kubectl apply of the manifest and helm install again: no limiter restarted");
}

/// The commands of a text, which stand two spaces in; one that ends in a pipe goes on in the next line.
fn indented(text: &str) -> Vec<String> {
    let mut commands: Vec<String> = vec![];
    for line in text.lines().filter_map(|line| line.strip_prefix("  ")) {
        match commands.last_mut() {
            Some(last) if last.ends_with('|') => last.push_str(line),
            _ => commands.push(line.to_owned()),
        }
    }
    assert!(commands.len() > 4, "{text}");
    commands
}

/// Every container of a limiter's pod that was ever started: the pod, which container, and how many came before it.
async fn containers(space: &Space<'_>) -> Vec<(String, String, i32)> {
    let set = space.api::<StatefulSet>().get("edge").await.unwrap();
    assert_eq!(set.status.map(|status| status.replicas), Some(3));
    let pods = space.pods("edge").await.into_iter();
    pods.map(|pod| {
        let status = pod.status.and_then(|status| status.container_statuses).unwrap_or_default().remove(0);
        (pod.metadata.uid.unwrap(), status.container_id.unwrap(), status.restart_count)
    })
    .collect()
}

/// Changes of a cluster that move no pod, each of which an operator answers with its status.
struct Changes<'a> {
    space: &'a Space<'a>,
    made: usize,
}

impl<'a> Changes<'a> {
    fn new(space: &'a Space<'a>) -> Self {
        Self { space, made: 0 }
    }

    async fn are_acted_upon(&mut self) {
        self.made += 1;
        let patch = format!("{{\"spec\":{{\"allowedNamespaces\":[\"shop-{}\"]}}}}", self.made);
        self.space.kubectl(&format!("patch ratelimitcluster edge --type merge --patch {patch}"));
        self.space.until_condition(PATIENCE, ("RateLimitCluster", "edge"), "Ready", "True").await;
    }
}
