//! As much as goes: wrk on each target at once, each connection with one request on its way.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::rows::Row;

/// What all wrks of one measurement counted together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counted {
    /// Requests answered.
    pub requests: u64,
    /// Requests answered a second.
    pub rate: f64,
}

/// Puts a row's load on the targets for as long as told.
///
/// # Errors
/// wrk is missing, or a single request was not answered with 200.
pub fn load(targets: &[SocketAddr], row: Row, span: Duration) -> Result<Counted, String> {
    let running: Vec<_> = targets.iter().zip(0..).map(|(target, nth)| start(*target, nth, row, span)).collect();
    let mut counted = Counted::default();
    for wrk in running {
        let output = wrk?.wait_with_output().map_err(|error| format!("wrk: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let one = read(&text).ok_or_else(|| {
            format!("wrk ended with {}:\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr))
        })??;
        counted.requests += one.requests;
        counted.rate += one.rate;
    }
    Ok(counted)
}

fn start(target: SocketAddr, nth: u32, row: Row, span: Duration) -> Result<Child, String> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("bench/load.lua");
    // Each begins elsewhere among the keys.
    let first = (row.keys / 3 * nth).to_string();
    Command::new("wrk")
        .args(["--threads", "1", "--connections", &row.connections.to_string()])
        .args(["--duration", &format!("{}s", span.as_secs()), "--timeout", "10s"])
        .arg("--script")
        .arg(script)
        .arg(format!("http://{target}"))
        .args(["--", row.ask.kind(), row.ask.prefix(), &row.keys.to_string(), &first])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("wrk does not start ({error}); install it: apt-get install wrk"))
}

/// The line that the script prints at its end; the inner error is a request that went wrong.
fn read(output: &str) -> Option<Result<Counted, String>> {
    let line = output.lines().find_map(|line| line.strip_prefix("counted "))?;
    let figure = |name: &str| {
        let mut fields = line.split(' ').filter_map(|field| field.split_once('='));
        fields.find(|(found, _)| *found == name)?.1.parse::<u64>().ok()
    };
    let (requests, span) = (figure("requests")?, Duration::from_micros(figure("microseconds")?));
    let (refused, failed) = (figure("refused")?, figure("failed")?);
    if refused + failed > 0 || requests == 0 {
        return Some(Err(format!("of {requests} requests {refused} were refused, and {failed} got no answer")));
    }
    Some(Ok(Counted { requests, rate: requests as f64 / span.as_secs_f64() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_of_the_script_is_read() {
        let text = "Running 2s test\n  10 requests\ncounted requests=10 microseconds=2000000 refused=0 failed=0\n";
        assert_eq!(read(text), Some(Ok(Counted { requests: 10, rate: 5.0 })));
        assert_eq!(read("unable to connect"), None);
    }

    #[test]
    fn single_refused_request_fails_the_measurement() {
        for (refused, failed) in [(1, 0), (0, 1)] {
            let text = format!("counted requests=10 microseconds=2000000 refused={refused} failed={failed}");
            let error = read(&text).unwrap().unwrap_err();
            assert!(error.contains(&format!("{refused} were refused, and {failed} got no answer")), "{error}");
        }
    }
}
