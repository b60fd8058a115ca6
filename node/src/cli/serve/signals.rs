//! What the process is asked from outside.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Drain, and give endpoints time to catch up (SIGTERM).
    Drain,
    /// Drain without delay (SIGINT, the end of standard input).
    Stop,
    /// Read the policies again (SIGHUP).
    Reload,
}

/// The signals of this process. From the first [`listen`](Signals::listen) on they no longer end it by themselves.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// Reads standard input to its end, unless nobody asked for that or it has been told.
    stdin: Option<JoinHandle<()>>,
}

impl Signals {
    pub(super) fn listen(stop_with_stdin: bool) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            stdin: stop_with_stdin.then(|| tokio::task::spawn_blocking(read_stdin)),
        })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) -> Ask {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Ask::Stop,
            _ = self.terminate.recv() => Ask::Drain,
            _ = self.hang_up.recv() => Ask::Reload,
            () = end_of(&mut self.stdin) => Ask::Stop,
        }
    }

    /// Waits until a draining process is told to stop once more.
    pub(super) async fn hurry(&mut self) {
        while self.next().await == Ask::Reload {}
    }
}

async fn end_of(reader: &mut Option<JoinHandle<()>>) {
    match reader {
        Some(reading) => {
            let _ = reading.await;
            *reader = None;
        }
        None => std::future::pending().await,
    }
}

/// What comes is of no interest, and neither is why it ends.
fn read_stdin() {
    let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
}
