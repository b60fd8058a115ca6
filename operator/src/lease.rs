//! Of several operators one acts: the holder of a Lease. The others wait. docs/decisions/0008 says why no crate does this.
//!
//! A lease counts as free only after it was not renewed for its whole duration by the clock of whoever waits: nobody's
//! wall clock takes part. It is taken and renewed by replacing exactly the version that was read, so two cannot take it
//! at once. A holder that could not renew for [`RENEW_WITHIN`] must stop at once, which is before others may take it.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

/// How long a lease is kept without being renewed.
const DURATION: Duration = Duration::from_secs(15);
/// How long a holder tries to renew before it stops.
pub const RENEW_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks, and between two renewals.
const PAUSE: Duration = Duration::from_secs(2);
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(5);

/// The lease as one operator sees it.
pub struct Election {
    api: Api<Lease>,
    name: String,
    me: String,
    seen: Option<Seen>,
}

/// Who held the lease when it last changed, and when that was seen.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    holder: String,
    renewed: Option<MicroTime>,
    duration: Duration,
    at: Instant,
}

/// Who may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nobody, so this operator may take it.
    Free,
    /// This operator.
    Mine,
    /// Another.
    Others,
}

impl Seen {
    /// What is in a lease; unchanged since `before`, it was seen when that was.
    fn new(spec: Option<&LeaseSpec>, before: Option<&Self>, now: Instant) -> Self {
        let holder = spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        let renewed = spec.and_then(|spec| spec.renew_time.clone());
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
        let duration = seconds.map_or(DURATION, Duration::from_secs);
        let at = before.filter(|b| b.holder == holder && b.renewed == renewed).map_or(now, |before| before.at);
        Self { holder, renewed, duration, at }
    }

    fn verdict(&self, me: &str, now: Instant) -> Verdict {
        if self.holder == me {
            Verdict::Mine
        } else if self.holder.is_empty() || now.duration_since(self.at) > self.duration {
            Verdict::Free
        } else {
            Verdict::Others
        }
    }
}

impl Election {
    /// Takes part as `me`, which must be unique to this process.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, me: String) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.to_owned(), me, seen: None }
    }

    /// Waits until this operator holds the lease.
    pub async fn acquire(&mut self) {
        let mut said = String::new();
        loop {
            let outcome = self.take_or_renew().await;
            let news = match outcome {
                Ok(Verdict::Mine) => return,
                Ok(_) => {
                    let holder = self.seen.as_ref().map(|seen| seen.holder.as_str()).unwrap_or_default();
                    format!("waiting: {holder:?} holds lease {}", self.name)
                }
                Err(error) => format!("waiting: lease {} cannot be taken: {error}", self.name),
            };
            if news != said {
                tracing::info!("{news}");
                said = news;
            }
            sleep(PAUSE).await;
        }
    }

    /// Keeps the lease. Returns why it is lost; whoever acted must stop at once.
    pub async fn keep(&mut self) -> String {
        let mut renewed = Instant::now();
        loop {
            sleep(PAUSE).await;
            let left = RENEW_WITHIN.saturating_sub(renewed.elapsed());
            let asked = Instant::now();
            match timeout(left, self.take_or_renew()).await {
                Ok(Ok(Verdict::Mine)) => renewed = asked,
                Ok(Ok(_)) => {
                    let holder = self.seen.as_ref().map(|seen| seen.holder.as_str()).unwrap_or_default();
                    return format!("{holder:?} holds lease {} now", self.name);
                }
                Ok(Err(error)) => tracing::warn!("lease {} was not renewed: {error}", self.name),
                Err(_) => {}
            }
            if renewed.elapsed() >= RENEW_WITHIN {
                return format!("lease {} was not renewed for {} s", self.name, RENEW_WITHIN.as_secs());
            }
        }
    }

    /// Lets the lease go, so that nobody needs to wait for its end.
    pub async fn release(&mut self) {
        let release = async {
            let mut lease = self.api.get(&self.name).await?;
            if let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&*self.me)) {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                self.api.replace(&self.name, &PostParams::default(), &lease).await?;
            }
            kube::Result::<()>::Ok(())
        };
        if let Ok(Err(error)) = timeout(REQUEST, release).await {
            tracing::warn!("lease {} was not let go: {error}", self.name);
        }
    }

    /// Looks at the lease, and takes or renews it if it is free or mine.
    async fn take_or_renew(&mut self) -> Result<Verdict, String> {
        let Ok(found) = timeout(REQUEST, self.api.get_opt(&self.name)).await else {
            return Err("the API server does not answer".to_owned());
        };
        let found = found.map_err(|error| error.to_string())?;
        let spec = found.as_ref().and_then(|lease| lease.spec.as_ref());
        let seen = Seen::new(spec, self.seen.as_ref(), Instant::now());
        let verdict = seen.verdict(&self.me, Instant::now());
        self.seen = Some(seen);
        if verdict == Verdict::Others {
            return Ok(verdict);
        }
        let lease = self.next(found, verdict);
        let write = async {
            let params = PostParams::default();
            if lease.metadata.resource_version.is_some() {
                self.api.replace(&self.name, &params, &lease).await
            } else {
                self.api.create(&params, &lease).await
            }
        };
        match timeout(REQUEST, write).await {
            Ok(Ok(lease)) => {
                self.seen = Some(Seen::new(lease.spec.as_ref(), self.seen.as_ref(), Instant::now()));
                Ok(Verdict::Mine)
            }
            // Somebody else was quicker; the next look shows who.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 && verdict == Verdict::Free => Ok(Verdict::Others),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the API server does not answer".to_owned()),
        }
    }

    fn next(&self, found: Option<Lease>, verdict: Verdict) -> Lease {
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        let mut lease = found.unwrap_or(Lease { metadata, spec: None });
        let now = MicroTime(Timestamp::now());
        let spec = lease.spec.get_or_insert_default();
        spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
        spec.renew_time = Some(now.clone());
        if verdict == Verdict::Free {
            spec.holder_identity = Some(self.me.clone());
            spec.acquire_time = Some(now);
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
        }
        lease
    }
}

#[cfg(test)]
mod tests;
