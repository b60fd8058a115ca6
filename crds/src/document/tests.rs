use super::*;

const POLICY: &str = r#"{"apiVersion":"quorate.dev/v1alpha1","kind":"QuotaPolicy","metadata":{"name":"search"},
    "spec":{"limits":[{"name":"daily","algorithm":"FixedWindow","limit":100,"window":"24h"}]}}"#;

fn errors(text: &str, is_yaml: bool) -> Vec<String> {
    parse_policy(text.as_bytes(), is_yaml).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn document_in_another_shape_is_refused_by_field_in_json_as_in_yaml() {
    for (old, new, message) in [
        (
            r#""kind":"QuotaPolicy""#,
            r#""kind":"ConfigMap""#,
            r#"kind: "ConfigMap" is not read here; write QuotaPolicy"#,
        ),
        ("v1alpha1", "v1", r#"apiVersion: "quorate.dev/v1" is not read here; write quorate.dev/v1alpha1"#),
        (r#""kind":"QuotaPolicy","#, "", "kind: is missing; write QuotaPolicy"),
        (r#""kind":"QuotaPolicy""#, r#""kind":7"#, "kind: is no text; write QuotaPolicy"),
        (r#""metadata":{"name":"search"},"#, "", "missing field `metadata`"),
        (r#""spec":"#, r#""specs":"#, "specs: unknown field `specs`, expected one of"),
        (
            r#"{"name":"search"}"#,
            r#"{"name":"search","namspace":"a"}"#,
            "metadata.namspace: unknown field `namspace`, expected one of",
        ),
        (
            r#"{"name":"search"}"#,
            r#"{"name":5}"#,
            "metadata.name: invalid type: integer `5`, expected a string; put it in quotes",
        ),
        (r#"{"limits":"#, r#"{"limit":1,"limits":"#, "spec.limit: unknown field `limit`, expected one of"),
        (r#""limit":100"#, r#""limit":100,"brust":1"#, "spec.limits[0].brust: unknown field `brust`, expected one of"),
        (r#""limit":100"#, r#""limit":"100""#, "spec.limits[0].limit: invalid type: string \"100\", expected i64"),
        (r#""limit":100"#, r#""limit":1.5"#, "spec.limits[0].limit: invalid type: floating point `1.5`, expected i64"),
        (r#""limit":100,"#, "", "spec.limits[0]: missing field `limit`"),
        (
            r#""24h""#,
            r#""1 day""#,
            r#"spec.limits[0].window: "1 day" is not a duration; write it like 90s, 1h30m or 500ms"#,
        ),
        (
            "FixedWindow",
            "Fixed",
            "spec.limits[0].algorithm: unknown variant `Fixed`, expected one of `FixedWindow`, `SlidingWindow`, `TokenBucket`",
        ),
        (
            r#"{"limits":"#,
            r#"{"clusterRef":{"nme":"a"},"limits":"#,
            "spec.clusterRef.nme: unknown field `nme`, expected `name`",
        ),
        (
            r#"{"limits":"#,
            r#"{"match":["acme"],"limits":"#,
            "spec.match[0]: invalid type: string \"acme\", expected an object like {key: client_id, exact: acme}",
        ),
        (r#"{"limits":"#, r#"{"match":[{"key":"a","exat":"a"}],"limits":"#, "spec.match[0].exat: unknown field `exat`"),
        (
            r#"{"limits":"#,
            r#"{"overrides":[{"match":[],"limits":[{"name":"a","algorithm":"FixedWindow"}]}],"limits":"#,
            "spec.overrides[0].limits[0].algorithm: unknown field `algorithm`",
        ),
        (r#"{"limits":"#, r#"{"overrides":[{"mtch":[]}],"limits":"#, "spec.overrides[0].mtch: unknown field `mtch`"),
    ] {
        assert!(POLICY.contains(old), "{old}");
        let text = POLICY.replacen(old, new, 1);
        for is_yaml in [false, true] {
            let errors = errors(&text, is_yaml);
            assert!(errors.len() == 1 && errors[0].starts_with(message), "{new}, YAML {is_yaml}: {errors:?}");
        }
    }
}

#[test]
fn body_that_is_no_object_is_refused() {
    for text in ["", "null", "[]", "7", "# only a comment"] {
        let message = "is no object; write a QuotaPolicy with apiVersion, kind, metadata and spec";
        assert_eq!(errors(text, true), [message], "{text}");
    }
    assert!(errors("", false)[0].starts_with("is no JSON"));
}

#[test]
fn long_text_in_a_body_is_cut_in_the_message() {
    let text = POLICY.replace("\"limit\":", &format!("\"{}\":", "x".repeat(500_000)));
    let errors = errors(&text, false);
    assert!(errors[0].len() < 2_000, "{} bytes", errors[0].len());
}

#[test]
fn object_as_the_api_server_prints_it_is_read() {
    let metadata = r#"{"name":"search","uid":"u","generation":1,"resourceVersion":"7","creationTimestamp":"2026-01-01T00:00:00Z",
        "labels":{"a":"b"},"annotations":{"c":"d"},"managedFields":[{"manager":"kubectl"}]}"#;
    let text = POLICY.replace(r#"{"name":"search"}"#, metadata).replace(r#""spec":"#, r#""status":{"x":[]},"spec":"#);
    assert_eq!(parse_policy(text.as_bytes(), false).unwrap(), parse_policy(POLICY.as_bytes(), false).unwrap());
}

#[test]
fn set_is_read_with_its_owner() {
    for (owner, expected) in
        [("", Owner::Api), (r#""owner":"operator","#, Owner::Operator), (r#""owner":"files","#, Owner::Files)]
    {
        let other = POLICY.replace("search", "other");
        let ParsedSet { owner, policies, .. } =
            parse_policy_set(format!(r#"{{{owner}"policies":[{POLICY},{other}]}}"#).as_bytes()).unwrap();
        let names: Vec<_> = policies.iter().map(|policy| policy.name.name.as_str()).collect();
        assert_eq!((owner, names), (expected, vec!["search", "other"]));
    }
    let set = parse_policy_set(br#"{"policies":[],"clusterId":"c1"}"#).unwrap();
    assert_eq!((set.owner, set.cluster_id.as_deref(), set.policies.len()), (Owner::Api, Some("c1"), 0));
}

#[test]
fn set_with_faults_is_refused_with_all_of_them() {
    let slow = POLICY.replace("24h", "0s").replace("search", "slow");
    let set = format!(r#"{{"owner":"builtin","policies":[{POLICY},{slow},7,{POLICY}]}}"#);
    let errors: Vec<_> = parse_policy_set(set.as_bytes()).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "owner: builtin is the limiter's own; use api, files or operator",
            "policies[1].spec.limits[0].window: 0s is too short; give at least 1ms",
            "policies[2]: is no object; write a QuotaPolicy with apiVersion, kind, metadata and spec",
            "policies[3].metadata.name: default/search is there twice; keep one of them",
        ]
    );
    for (set, message) in [
        (
            r#"{"policies":[],"force":true}"#,
            "force: unknown field `force`, expected one of `owner`, `clusterId`, `policies`",
        ),
        (r#"{"owner":"me","policies":[]}"#, "owner: unknown variant `me`"),
        ("{}", "missing field `policies`"),
        ("[]", "invalid type: sequence, expected an object with `owner`, `clusterId` and `policies`"),
    ] {
        let errors = parse_policy_set(set.as_bytes()).unwrap_err();
        assert!(errors[0].to_string().starts_with(message), "{set}: {errors:?}");
    }
}
