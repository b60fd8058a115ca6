//! How big a request may be, whatever door it comes by.

use quorate_limits::{Descriptor, Request};

/// The most bytes in a domain's name.
pub const DOMAIN_BYTES_MAX: usize = 128;
/// The most bytes in an entry's key, and in its value.
pub const ENTRY_BYTES_MAX: usize = 256;
/// The most descriptors in a request.
pub const DESCRIPTORS_MAX: usize = 16;
/// The most entries in a descriptor.
pub const ENTRIES_MAX: usize = 16;
/// The most hits in a request.
pub const HITS_MAX: i64 = 1_000_000_000;

/// Refuses a request that is bigger than any policy has use for.
///
/// # Errors
/// Which field, what is wrong and what is allowed.
pub fn check_bounds(request: &Request) -> Result<(), String> {
    check_bytes("domain", &request.domain, 1, DOMAIN_BYTES_MAX)?;
    if !(0..=HITS_MAX).contains(&request.hits) {
        return Err(format!("hits: {} is out of bounds; give 0 (peek) to {HITS_MAX}", request.hits));
    }
    check_count("descriptors", request.descriptors.len(), DESCRIPTORS_MAX)?;
    request.descriptors.iter().enumerate().try_for_each(|(i, descriptor)| check_descriptor(i, descriptor))
}

fn check_descriptor(index: usize, descriptor: &Descriptor) -> Result<(), String> {
    // The paths are only needed for an error, so this is what a good request costs.
    if let Some(hits) = descriptor.hits.filter(|hits| hits.abs() > HITS_MAX) {
        return Err(format!("descriptors[{index}].hits: {hits} is out of bounds; give {} to {HITS_MAX}", -HITS_MAX));
    }
    let is_key = |key: &String| (1..=ENTRY_BYTES_MAX).contains(&key.len());
    let is_good = |(key, value): &(String, String)| is_key(key) && value.len() <= ENTRY_BYTES_MAX;
    if (1..=ENTRIES_MAX).contains(&descriptor.entries.len()) && descriptor.entries.iter().all(is_good) {
        return Ok(());
    }
    check_count(&format!("descriptors[{index}]"), descriptor.entries.len(), ENTRIES_MAX)?;
    for (j, (key, value)) in descriptor.entries.iter().enumerate() {
        check_bytes(&format!("descriptors[{index}][{j}].key"), key, 1, ENTRY_BYTES_MAX)?;
        check_bytes(&format!("descriptors[{index}][{j}].value"), value, 0, ENTRY_BYTES_MAX)?;
    }
    Ok(())
}

fn check_bytes(field: &str, text: &str, min: usize, max: usize) -> Result<(), String> {
    match text.len() {
        bytes if bytes < min => Err(format!("{field}: is empty; give {min} to {max} bytes")),
        bytes if bytes > max => Err(format!("{field}: has {bytes} bytes; give at most {max}")),
        _ => Ok(()),
    }
}

fn check_count(field: &str, count: usize, max: usize) -> Result<(), String> {
    if (1..=max).contains(&count) {
        return Ok(());
    }
    Err(format!("{field}: has {count} entries; give 1 to {max}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(change: impl FnOnce(&mut Request)) -> Request {
        let mut request = Request::of_client("a");
        change(&mut request);
        request
    }

    #[test]
    fn request_within_bounds_passes() {
        for hits in [0, 1, HITS_MAX] {
            assert_eq!(check_bounds(&request(|r| r.hits = hits)), Ok(()));
            assert_eq!(check_bounds(&request(|r| r.descriptors[0].hits = Some(-hits))), Ok(()));
        }
        let widest = request(|r| {
            r.domain = "d".repeat(128);
            r.descriptors[0].entries = vec![("k".repeat(256), "v".repeat(256)); 16];
            r.descriptors = vec![r.descriptors[0].clone(); 16];
        });
        assert_eq!(check_bounds(&widest), Ok(()));
        assert_eq!(check_bounds(&request(|r| r.descriptors[0].entries[0].1 = String::new())), Ok(()));
    }

    #[test]
    fn request_beyond_bounds_is_refused_by_field() {
        let entry = |i: usize, key: usize, value: usize| {
            move |r: &mut Request| {
                r.descriptors[0].entries = vec![("k".to_owned(), "v".to_owned()); i + 1];
                r.descriptors[0].entries[i] = ("k".repeat(key), "v".repeat(value));
            }
        };
        let cases: Vec<(Request, &str)> = vec![
            (request(|r| r.domain = String::new()), "domain: is empty; give 1 to 128 bytes"),
            (request(|r| r.domain = "d".repeat(129)), "domain: has 129 bytes; give at most 128"),
            (request(|r| r.hits = -1), "hits: -1 is out of bounds; give 0 (peek) to 1000000000"),
            (request(|r| r.hits = HITS_MAX + 1), "hits: 1000000001 is out of bounds; give 0 (peek) to 1000000000"),
            (
                request(|r| r.hits = i64::MIN),
                "hits: -9223372036854775808 is out of bounds; give 0 (peek) to 1000000000",
            ),
            (
                request(|r| r.descriptors[0].hits = Some(-HITS_MAX - 1)),
                "descriptors[0].hits: -1000000001 is out of bounds; give -1000000000 to 1000000000",
            ),
            (request(|r| r.descriptors.clear()), "descriptors: has 0 entries; give 1 to 16"),
            (
                request(|r| r.descriptors = vec![r.descriptors[0].clone(); 17]),
                "descriptors: has 17 entries; give 1 to 16",
            ),
            (request(|r| r.descriptors[0].entries.clear()), "descriptors[0]: has 0 entries; give 1 to 16"),
            (request(entry(16, 1, 1)), "descriptors[0]: has 17 entries; give 1 to 16"),
            (request(entry(1, 0, 1)), "descriptors[0][1].key: is empty; give 1 to 256 bytes"),
            (request(entry(0, 257, 1)), "descriptors[0][0].key: has 257 bytes; give at most 256"),
            (request(entry(2, 1, 257)), "descriptors[0][2].value: has 257 bytes; give at most 256"),
        ];
        for (request, message) in cases {
            assert_eq!(check_bounds(&request), Err(message.to_owned()));
        }
    }
}
