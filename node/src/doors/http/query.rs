//! The query string: `application/x-www-form-urlencoded`, read by hand because every request of the simple API passes
//! through here. It allocates only for what is percent-encoded.

use std::borrow::Cow;

/// A parameter whose percent-encoding is broken or is not UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadEncoding;

/// The first parameter of this name.
pub(super) fn parameter<'a>(query: Option<&'a str>, name: &str) -> Result<Option<Cow<'a, str>>, BadEncoding> {
    for pair in query.unwrap_or_default().split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let is_named = key == name || (key.contains(['%', '+']) && decode(key).is_ok_and(|key| key == name));
        if is_named {
            return decode(value).map(Some);
        }
    }
    Ok(None)
}

fn decode(text: &str) -> Result<Cow<'_, str>, BadEncoding> {
    if !text.contains(['%', '+']) {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or(BadEncoding);
                u8::try_from(digit()? * 16 + digit()?).map_err(|_| BadEncoding)?
            }
            other => other,
        });
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| BadEncoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_id(query: &str) -> Result<Option<String>, BadEncoding> {
        parameter(Some(query), "client_id").map(|value| value.map(Cow::into_owned))
    }

    #[test]
    fn parameter_is_found_and_decoded() {
        for (query, value) in [
            ("client_id=a", "a"),
            ("client_id=", ""),
            ("client_id", ""),
            ("x=1&client_id=a&client_id=b", "a"),
            ("client_id=a=b", "a=b"),
            ("client_id=a%20b+c%2B", "a b c+"),
            ("client_id=%C3%A9%e2%82%ac", "é€"),
            ("client%5Fid=a", "a"),
            ("&&client_id=%00", "\0"),
        ] {
            assert_eq!(client_id(query), Ok(Some(value.to_owned())), "{query}");
        }
    }

    #[test]
    fn absent_parameter_is_none() {
        assert_eq!(parameter(None, "client_id"), Ok(None));
        for query in ["", "client=a", "xclient_id=a", "a=client_id", "CLIENT_ID=a", "%zz=a", "other=%zz"] {
            assert_eq!(client_id(query), Ok(None), "{query}");
        }
    }

    #[test]
    fn broken_encoding_is_refused() {
        for query in
            ["client_id=%", "client_id=%4", "client_id=%zz", "client_id=%+1", "client_id=%ff", "client_id=%C3a"]
        {
            assert_eq!(client_id(query), Err(BadEncoding), "{query}");
        }
    }
}
