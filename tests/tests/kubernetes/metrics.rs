//! What the operator tells Prometheus, and how Prometheus is told where.

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::ListParams;
use quorate_tests::cluster::eventually;
use quorate_tests::kubernetes::lab::{HELM_UPGRADE, Lab, PATIENCE};
use quorate_tests::kubernetes::rights::NAMESPACE;
use serde_json::Value;

/// What the chart uses of the Prometheus operator's definition.
const SERVICE_MONITORS: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: servicemonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  names: {kind: ServiceMonitor, listKind: ServiceMonitorList, plural: servicemonitors, singular: servicemonitor}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            required: [endpoints, selector]
            properties:
              selector: {type: object, properties: {matchLabels: {type: object, additionalProperties: {type: string}}}}
              endpoints:
                type: array
                items:
                  type: object
                  properties:
                    port: {type: string}
                    path: {type: string}
                    interval: {type: string, pattern: '^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$'}
";

pub async fn servicemonitor_selects_the_service_that_has_the_operators_metrics(lab: &Lab) {
    lab.install_operator().await;
    lab.apply(SERVICE_MONITORS);
    lab.kubectl("wait --for condition=Established crd servicemonitors.monitoring.coreos.com --timeout 30s");
    let enabled =
        format!("{HELM_UPGRADE} --set metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.labels.team=edge");
    eventually(Duration::from_secs(30), "the chart to find the definition", async || lab.type_in(&enabled)).await;
    let told = lab.kubectl("--namespace quorate-system get servicemonitor quorate-operator --output json");
    let monitor: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(monitor["metadata"]["labels"]["team"], "edge");

    // What Prometheus does with it: the Services with these labels, the port of this name, this path.
    let labels: Vec<_> = monitor["spec"]["selector"]["matchLabels"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap()))
        .collect();
    let services = Api::<Service>::namespaced(lab.client.clone(), NAMESPACE);
    let found = services.list(&ListParams::default().labels(&labels.join(","))).await.unwrap().items;
    let [service] = &found[..] else { panic!("one Service: {found:?}") };
    let [port, path] = ["port", "path"].map(|key| monitor["spec"]["endpoints"][0][key].as_str().unwrap());
    let name = service.metadata.name.as_deref().unwrap();
    let metrics = format!("get --raw /api/v1/namespaces/{NAMESPACE}/services/{name}:{port}/proxy{path}");
    let text = eventually(PATIENCE, "metrics", async || lab.try_kubectl(&metrics, "")).await;
    assert!(text.contains("quorate_operator_build_info{version="), "{text}");
    assert!(text.contains("quorate_operator_leading 1"), "{text}");

    lab.type_in(HELM_UPGRADE).unwrap_or_else(|error| panic!("{error}"));
    lab.kubectl("delete crd servicemonitors.monitoring.coreos.com");
}
