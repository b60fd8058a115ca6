use axum::http::HeaderName;

use super::*;
use crate::doors::http::testing::{admits, exceeded, policy, verdict, whole};

fn asked(path: &str) -> Result<Asked<'static>, String> {
    Asked::read(Box::leak(Box::new(path.parse().unwrap())))
}

fn headers(pairs: &[(&'static str, &'static [u8])]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &'static [u8])| {
        (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap())
    };
    let mut headers = HeaderMap::new();
    for (name, value) in pairs.iter().map(pair) {
        headers.append(name, value);
    }
    headers
}

fn filled(template: &str, head: &[(&'static str, &'static [u8])], original: Option<&str>) -> Result<String, String> {
    let descriptor = template.parse::<DescriptorTemplate>().unwrap().fill(&headers(head), original)?;
    Ok(descriptor.entries.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" "))
}

#[test]
fn path_says_domain_status_timeout_and_the_original() {
    let with = |domain: &str, status: u16, millis, original| Asked {
        domain: domain.to_owned(),
        deny_status: StatusCode::from_u16(status).unwrap(),
        deadline: Duration::from_millis(millis),
        original,
    };
    for (path, expected) in [
        ("/v1/authorize", with("default", 429, 15, None)),
        ("/v1/authorize?domain=edge&deny_status=403&timeout=2s", with("edge", 403, 2000, None)),
        ("/v1/authorize?other=1", with("default", 429, 15, None)),
        ("/v1/authorize/", with("default", 429, 15, Some("/"))),
        ("/v1/authorize/a/b?domain=evil&deny_status=x&timeout=1ms", with("default", 429, 15, Some("/a/b"))),
        ("/v1/authorize?uri=/a?domain=evil&timeout=1ms", with("default", 429, 15, Some("/a?domain=evil&timeout=1ms"))),
        ("/v1/authorize?domain=e&uri=/a&uri=/b&domain=x", with("e", 429, 15, Some("/a&uri=/b&domain=x"))),
    ] {
        assert_eq!(asked(path), Ok(expected), "{path}");
    }
}

#[test]
fn wrong_parameter_is_refused_by_name() {
    for (query, name) in [
        ("deny_status=200", "deny_status"),
        ("deny_status=", "deny_status"),
        ("timeout=4s", "timeout"),
        ("timeout=fast", "timeout"),
        ("timeout=%", "timeout"),
        ("domain=%ff", "domain"),
    ] {
        let error = asked(&format!("/v1/authorize?{query}")).unwrap_err();
        assert!(error.starts_with(name), "{query}: {error}");
    }
}

#[test]
fn descriptor_is_filled_from_headers_and_path() {
    let template = "client_id=header:X-Client-Id, path=uri";
    for (head, original, expected) in [
        (&[("x-client-id", &b"a b"[..])][..], Some("/x/y?z=1"), "client_id=a b path=/x/y"),
        (&[("x-client-id", b"a"), ("x-forwarded-uri", b"/z?q")], None, "client_id=a path=/z"),
        (&[("x-forwarded-uri", b"/evil")], Some("/real"), "client_id= path=/real"),
        (&[("x-client-id", "é".as_bytes())], Some("/#f"), "client_id=é path=/"),
        (&[], None, "client_id= path="),
    ] {
        assert_eq!(filled(template, head, original), Ok(expected.to_owned()));
    }
    let long = format!("/{}é", "x".repeat(254));
    assert_eq!(filled("path=uri", &[], Some(&long)), Ok(format!("path=/{}", "x".repeat(254))), "cut at a character");
}

#[test]
fn header_that_cannot_be_counted_is_an_error() {
    let twice = [("x-client-id", &b"a"[..]), ("x-client-id", b"b")];
    assert!(filled("c=header:X-Client-Id", &twice, None).unwrap_err().contains("more than once"));
    assert!(filled("c=header:X-Client-Id", &[("x-client-id", b"\xff")], None).unwrap_err().contains("not UTF-8"));
    assert_eq!(filled("c=header:X-Other", &twice, None), Ok("c=".to_owned()), "only what is counted matters");
}

#[test]
fn template_is_read_as_it_is_written_or_refused_by_entry() {
    let text = "client_id=header:x-client-id,path=uri";
    assert_eq!(text.parse::<DescriptorTemplate>().unwrap().to_string(), text);
    assert_eq!("client_id=header:X-Client-Id".parse(), Ok(DescriptorTemplate::default()));
    let many = (0..17).map(|i| format!("k{i}=uri")).collect::<Vec<_>>().join(",");
    for (text, entry, why) in [
        ("client_id", "client_id", "is no key=source"),
        ("a=uri,", "", "is no key=source"),
        ("=uri", "=uri", "has a key of 0 bytes"),
        ("a=uri,a=header:b", "a=header:b", "has the key of another"),
        ("a=cookie:b", "a=cookie:b", "has a source"),
        ("a=uri:b", "a=uri:b", "has a source"),
        ("a=header:b c", "a=header:b c", "names something that is no header"),
        ("a=header:", "a=header:", "names something that is no header"),
        (many.as_str(), "k16=uri", "is one more than 16"),
    ] {
        let error = text.parse::<DescriptorTemplate>().unwrap_err();
        assert_eq!(error.entry, entry);
        assert!(error.why.starts_with(why), "{error:?}");
    }
}

#[tokio::test]
async fn denial_has_the_status_asked_for_and_names_the_limits_that_deny() {
    let limits = [("minute", 1, 60_000), ("day", 9, 86_400_000)];
    let denied = verdict(vec![policy("p", &limits)], vec![exceeded(0, Some(7_000)), admits(3, 1)]);
    for status in [StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS] {
        let answer = whole(decided(&denied, status)).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.json()["violated-policies"], json!(["test/p/minute"]));
        assert_eq!(answer.json()["type"], QUOTA_EXCEEDED);
        assert_eq!((answer.header("retry-after"), answer.header("x-ratelimit-decision")), ("7", "deny"));
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    let admitted =
        whole(decided(&verdict(vec![policy("p", &limits)], vec![admits(0, 1), admits(3, 1)]), StatusCode::FORBIDDEN))
            .await;
    assert_eq!((admitted.status, admitted.header("x-ratelimit-decision")), (StatusCode::OK, "admit"));
    assert_ne!(admitted.header("ratelimit"), "");
}

#[tokio::test]
async fn no_decision_is_the_status_of_a_denial_unless_the_policies_allow_or_there_is_no_state() {
    let (deny, allow) = (OnUnavailable::Deny, OnUnavailable::Allow);
    for (reason, on_unavailable, status, decision) in [
        (UnavailableReason::Deadline, deny, StatusCode::FORBIDDEN, "unavailable"),
        (UnavailableReason::CountersFull, deny, StatusCode::FORBIDDEN, "unavailable"),
        (UnavailableReason::Removed, deny, StatusCode::FORBIDDEN, "unavailable"),
        (UnavailableReason::Deadline, allow, StatusCode::OK, "allow-unavailable"),
        (UnavailableReason::NotJoined, deny, StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    ] {
        let answer = whole(undecided(&Unavailable { reason, on_unavailable }, StatusCode::FORBIDDEN)).await;
        assert_eq!((answer.status, answer.header("x-ratelimit-decision")), (status, decision), "{reason:?}");
    }
}
