//! A load at a fixed rate, to measure how long answers take.
//!
//! Requests are due at fixed instants, whether earlier ones are answered or not, and a time counts from the instant its
//! request was due. So a stall is felt by all requests that fall into it, not only by those that were on their way
//! ("coordinated omission"). One thread a target, sockets without blocking: a runtime's timers tick in milliseconds, and
//! its scheduling would be measured with the rest.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use super::rows::{Ask, PER_BATCH};

/// Connections to each target. More requests than that wait for a free one, and their clock runs.
const CONNECTIONS: usize = 64;
/// Requests unanswered for so long fail the measurement.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between neighbours in time, so that they are none in the table of counters; a prime.
const STEP: u32 = 7919;

/// What to send.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Each gets an equal share.
    pub targets: Vec<SocketAddr>,
    /// What is asked.
    pub ask: Ask,
    /// Of how many clients.
    pub keys: u32,
    /// Requests a second, in all.
    pub rate: f64,
    /// For how long.
    pub span: Duration,
}

impl Pace {
    /// Sends all, and returns the milliseconds that each answer took, in order of length.
    ///
    /// # Errors
    /// A request was not answered, or not with an admission.
    pub fn run(&self) -> Result<Vec<f64>, String> {
        let threads = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.targets.len()).map(|nth| scope.spawn(move || self.drive(nth))).collect();
            threads.into_iter().map(|thread| thread.join().expect("it returns errors")).collect::<Vec<_>>()
        });
        let mut all = Vec::new();
        for spans in threads {
            all.extend(spans?);
        }
        all.sort_by(f64::total_cmp);
        Ok(all)
    }

    fn drive(&self, nth: usize) -> Result<Vec<f64>, String> {
        let targets = self.targets.len() as f64;
        let gap = Duration::from_secs_f64(targets / self.rate);
        let count = (self.span.as_secs_f64() / gap.as_secs_f64()) as u32;
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| error.to_string())?;
        let mut connections =
            (0..CONNECTIONS).map(|at| Connection::open(self.targets[nth], &poll, at)).collect::<Result<Vec<_>, _>>()?;
        // In turn, so that none is idle for so long that the node closes it.
        let mut free: VecDeque<usize> = (0..CONNECTIONS).collect();
        let mut key = (self.keys / 3 * nth as u32) % self.keys;
        // The targets take turns.
        let start = Instant::now() + Duration::from_millis(10) + gap.mul_f64(nth as f64 / targets);
        let mut waiting = VecDeque::new();
        let (mut next, mut spans) = (0, Vec::with_capacity(count as usize));
        let mut events = Vec::with_capacity(CONNECTIONS);
        while spans.len() < count as usize {
            let now = Instant::now();
            while next < count && start + gap * next <= now {
                waiting.push_back(start + gap * next);
                next += 1;
            }
            while !waiting.is_empty()
                && let Some(at) = free.pop_front()
                && let Some(due) = waiting.pop_front()
            {
                connections[at].send(&request(self.ask, self.keys, &mut key), due)?;
            }
            if now > start + gap * count + PATIENCE {
                return Err(format!("{} of {count} requests were not answered", count as usize - spans.len()));
            }
            let until = if next < count { (start + gap * next).saturating_duration_since(now) } else { PATIENCE };
            let until = Timespec::try_from(until).map_err(|error| error.to_string())?;
            events.clear();
            epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&until))
                .map_err(|error| error.to_string())?;
            for event in &events {
                let at = event.data.u64() as usize;
                if let Some(due) = connections[at].receive(self.ask)? {
                    spans.push(due.elapsed().as_secs_f64() * 1000.0);
                    free.push_back(at);
                }
            }
        }
        Ok(spans)
    }
}

fn request(ask: Ask, keys: u32, key: &mut u32) -> Vec<u8> {
    let prefix = ask.prefix();
    let mut next = || {
        *key = (*key + STEP) % keys;
        *key
    };
    match ask {
        Ask::Increment | Ask::Denied => {
            format!("POST /rate/increment?client_id={prefix}{} HTTP/1.1\r\nHost: bench\r\n\r\n", next()).into()
        }
        Ask::Check => format!("GET /rate/check?client_id={prefix}{} HTTP/1.1\r\nHost: bench\r\n\r\n", next()).into(),
        Ask::Batch => {
            let checks: Vec<_> = (0..PER_BATCH)
                .map(|_| format!(r#"{{"descriptors":[[{{"key":"client_id","value":"{prefix}{}"}}]]}}"#, next()))
                .collect();
            let body = format!(r#"{{"checks":[{}]}}"#, checks.join(","));
            let length = body.len();
            format!("POST /v1/check HTTP/1.1\r\nHost: bench\r\nContent-Length: {length}\r\n\r\n{body}").into()
        }
    }
}

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    due: Option<Instant>,
}

impl Connection {
    fn open(target: SocketAddr, poll: &OwnedFd, at: usize) -> Result<Self, String> {
        let open = || {
            let stream = TcpStream::connect(target)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            epoll::add(poll, &stream, epoll::EventData::new_u64(at as u64), epoll::EventFlags::IN)?;
            Ok(Self { stream, received: Vec::new(), due: None })
        };
        open().map_err(|error: std::io::Error| format!("{target}: {error}"))
    }

    fn send(&mut self, request: &[u8], due: Instant) -> Result<(), String> {
        self.due = Some(due);
        // A free connection's buffer is empty, and holds far more than a request.
        self.stream.write_all(request).map_err(|error| format!("a request was not sent: {error}"))
    }

    /// When the request was due whose answer is now here as a whole.
    fn receive(&mut self, ask: Ask) -> Result<Option<Instant>, String> {
        let mut bytes = [0; 16 << 10];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err("the node closed a connection".to_owned()),
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.to_string()),
            }
            if is_whole(&self.received) {
                break;
            }
        }
        if !is_whole(&self.received) {
            return Ok(None);
        }
        let answer = String::from_utf8_lossy(&self.received);
        if !is_as_expected(&answer, ask) {
            return Err(format!("an answer is not as expected:\n{}", answer.chars().take(500).collect::<String>()));
        }
        self.received.clear();
        Ok(self.due.take())
    }
}

/// Whether a head and the body it tells of are there.
fn is_whole(received: &[u8]) -> bool {
    let Some(head) = received.windows(4).position(|end| end == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&received[..head]).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    received.len() >= head + 4 + length.unwrap_or(0)
}

fn is_as_expected(answer: &str, ask: Ask) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return false };
    head.starts_with("HTTP/1.1 200")
        && match ask {
            Ask::Increment => body.starts_with(r#"{"result":true}"#),
            Ask::Denied => body.starts_with(r#"{"result":false}"#),
            Ask::Check => body.contains(r#""result":true"#),
            Ask::Batch => body.matches(r#""admitted":true"#).count() as u64 == PER_BATCH,
        }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::{Arc, OnceLock};

    use super::*;

    const STALL: Duration = Duration::from_millis(150);
    const ADMITTED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"result\":true}";

    /// Answers every request; on the first `stalled` connections none before [`STALL`] after the first request.
    #[expect(clippy::disallowed_methods, reason = "the stall is what is tested")]
    fn server(answer: &'static str, stalled: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let begun = Arc::new(OnceLock::new());
        std::thread::spawn(move || {
            for (nth, stream) in listener.incoming().enumerate() {
                let (mut stream, begun) = (stream.unwrap(), Arc::clone(&begun));
                std::thread::spawn(move || {
                    let mut bytes = [0; 4096];
                    while stream.read(&mut bytes).is_ok_and(|count| count > 0) {
                        let begun: &Instant = begun.get_or_init(Instant::now);
                        if nth < stalled {
                            std::thread::sleep(STALL.saturating_sub(begun.elapsed()));
                        }
                        if stream.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    fn pace(target: SocketAddr) -> Pace {
        Pace { targets: vec![target], ask: Ask::Increment, keys: 10, rate: 1000.0, span: Duration::from_millis(200) }
    }

    #[test]
    fn every_request_due_is_sent_and_timed() {
        assert_eq!(pace(server(ADMITTED, 0)).run().unwrap().len(), 200);
    }

    #[test]
    fn stall_is_felt_by_the_requests_that_found_no_connection() {
        let spans = pace(server(ADMITTED, CONNECTIONS)).run().unwrap();
        // One is due each millisecond, and none is answered in the first 150; all but those sent at once would look fast.
        let felt = spans.iter().filter(|span| **span >= 50.0).count();
        assert!(felt >= 100, "{felt} of 200 felt it");
    }

    #[test]
    fn denial_among_admissions_fails_the_measurement() {
        let denied = "HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{\"result\":false}";
        let error = pace(server(denied, 0)).run().unwrap_err();
        assert!(error.starts_with("an answer is not as expected"), "{error}");
    }

    #[test]
    fn answer_in_pieces_is_whole_with_its_last_byte() {
        for cut in 1..ADMITTED.len() {
            assert!(!is_whole(&ADMITTED.as_bytes()[..cut]), "{cut}");
        }
        assert!(is_whole(ADMITTED.as_bytes()));
    }

    #[test]
    fn batch_with_one_denial_is_not_as_expected() {
        let body = vec![r#"{"admitted":true}"#; 100].join(",");
        let answer = |body: &str| format!("HTTP/1.1 200 OK\r\n\r\n{body}");
        assert!(is_as_expected(&answer(&body), Ask::Batch));
        assert!(!is_as_expected(&answer(&body.replacen("true", "false", 1)), Ask::Batch));
    }
}
