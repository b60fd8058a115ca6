use super::*;

const POLICY: &str = "apiVersion: quorate.dev/v1alpha1
kind: QuotaPolicy
metadata: {name: search, namespace: shop}
spec:
  limits:
  - {name: daily, algorithm: FixedWindow, limit: 10, window: 24h}
";

fn named(name: &str) -> String {
    POLICY.replace("search", name)
}

fn names(policies: &[Policy]) -> Vec<String> {
    policies.iter().map(|policy| policy_ref(&policy.name)).collect()
}

fn words(errors: &[FileError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn files_with_many_documents_give_their_policies_in_order() {
    let first = format!("# a comment\n---\n{}---\n---\n# empty\n---\n{}", named("a"), named("b"));
    let second = named("c");
    let policies = parse_files([("1.yaml", first.as_str()), ("2.yaml", &second), ("3.yaml", "")]).unwrap();
    assert_eq!(names(&policies), ["shop/a", "shop/b", "shop/c"]);
}

#[test]
fn files_with_faults_give_all_of_them_with_their_places() {
    let first = format!(
        "{}---\n{}---\n{}",
        named("a").replace("24h", "60"),
        named("b").replace("QuotaPolicy", "Secret"),
        named("c").replace("limit: 10", "limit: -1").replace("name: daily", "name: Daily")
    );
    let second = format!("{}---\na: b: c\n---\n{}", named("d"), named("e").replace("24h", "60"));
    assert_eq!(
        words(&parse_files([("1.yaml", first.as_str()), ("2.yaml", &second)]).unwrap_err()),
        [
            r#"1.yaml: document 1: spec.limits[0].window: "60" is not a duration; write it like 90s, 1h30m or 500ms"#,
            r#"1.yaml: document 2: kind: "Secret" is not read here; write QuotaPolicy"#,
            "1.yaml: document 3: spec.limits[0].name: \"Daily\" is not a limit's name; use at most 63 lower case letters, \
             digits and '-', with a letter or digit at both ends",
            "1.yaml: document 3: spec.limits[0].limit: -1 is out of bounds; give 0 to 1000000000000000",
            "2.yaml: document 2: is no YAML: mapping values are not allowed in this context at line 8 column 5",
        ]
    );
}

#[test]
fn policy_that_is_there_twice_is_refused_with_both_places() {
    let two = format!("{}---\n{}", named("other"), named("search"));
    assert_eq!(
        words(&parse_files([("1.yaml", two.as_str()), ("2.yaml", POLICY)]).unwrap_err()),
        ["2.yaml: document 1: metadata.name: shop/search is already in 1.yaml, document 2; keep one of them"]
    );
    let elsewhere = POLICY.replace("namespace: shop", "namespace: mall");
    assert_eq!(parse_files([("1.yaml", POLICY), ("2.yaml", &elsewhere)]).unwrap().len(), 2);
}

#[test]
fn file_beyond_its_bounds_is_refused() {
    let long = "a".repeat(TEXT_BYTES_MAX + 1);
    let many = "---\n".repeat(10_001);
    assert_eq!(
        words(&parse_files([("long.yaml", long.as_str()), ("many.yaml", &many)]).unwrap_err()),
        [
            "long.yaml: has more than 1048576 bytes; split it",
            "many.yaml: document 10001: is one of more than 10000 documents; split the text"
        ]
    );
}

#[test]
fn folder_gives_the_policies_of_its_yaml_files_in_order_of_names() {
    let folder = tempfile::tempdir().unwrap();
    for (file, text) in [
        ("b.yaml", named("b")),
        ("a.yml", named("a")),
        ("notes.txt", "not: yaml: at all".to_owned()),
        (".hidden.yaml", "not: yaml: at all".to_owned()),
    ] {
        fs::write(folder.path().join(file), text).unwrap();
    }
    fs::create_dir(folder.path().join("nested")).unwrap();
    fs::write(folder.path().join("nested/c.yaml"), named("c")).unwrap();
    assert_eq!(names(&read_directory(folder.path()).unwrap()), ["shop/a", "shop/b"]);
}

#[test]
fn folder_with_unreadable_files_gives_all_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("a.yaml")).unwrap();
    fs::write(folder.path().join("b.yaml"), b"a: \xff").unwrap();
    fs::write(folder.path().join("c.yaml"), "a: 1").unwrap();
    let errors = words(&read_directory(folder.path()).unwrap_err());
    assert_eq!(errors.len(), 4, "{errors:?}");
    for (error, file, message) in [
        (&errors[0], "a.yaml", "cannot be read: "),
        (&errors[1], "b.yaml", "cannot be read: stream did not contain valid UTF-8"),
        (&errors[2], "c.yaml", "document 1: apiVersion: is missing"),
        (&errors[3], "c.yaml", "document 1: kind: is missing"),
    ] {
        assert!(error.starts_with(&format!("{}: {message}", folder.path().join(file).display())), "{error}");
    }
    let missing = folder.path().join("missing");
    let errors = words(&read_directory(&missing).unwrap_err());
    assert!(errors[0].starts_with(&format!("{}: cannot be read: ", missing.display())), "{errors:?}");
}

#[test]
fn file_of_ten_megabytes_is_refused_without_being_held() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), "#".repeat(10 << 20)).unwrap();
    let errors = words(&read_directory(folder.path()).unwrap_err());
    assert!(errors[0].ends_with("a.yaml: has more than 1048576 bytes; split it"), "{errors:?}");
}

#[test]
fn samples_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/samples/policies");
    let policies = read_directory(&folder).unwrap();
    assert_eq!(names(&policies), ["shop/search", "shop/acme-hourly", "shop/acme-uploads", "default/per-client"]);
    assert_eq!(policies[0].overrides[1].limits[0].burst, 200);
}
