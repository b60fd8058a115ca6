//! What stands still while loads come and go: three nodes, the bare server, and what they say of themselves.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use super::process::Process;
use super::rows::{DENIED_PREFIX, To};
use crate::cluster::{Cluster, Plan};

/// More than any benchmark asks for.
const HUGE_LIMIT: u64 = 1_000_000_000_000;

/// A domain with the same policy, for clients that are not to be measured.
pub const WARM_UP_DOMAIN: &str = "warm-up";

/// The bare server. It ends when dropped.
pub struct Bare {
    child: Child,
    address: SocketAddr,
}

impl Bare {
    fn start(body_bytes: usize) -> Result<Self, String> {
        let beside = std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("bare_axum");
        let mut child = Command::new(&beside)
            .arg(body_bytes.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}; `make bench` builds it", beside.display()))?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line).map_err(|error| error.to_string())?;
        }
        let address = line.trim().parse().map_err(|_| "the bare server did not start".to_owned())?;
        Ok(Self { child, address })
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Three nodes with a huge limit, and the bare server.
pub struct Rig {
    cluster: Cluster,
    bare: Bare,
}

/// What the measured processes have done since they started, all together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// Decisions by their verdict, as the nodes count them.
    pub verdicts: BTreeMap<String, u64>,
    /// Flushes of each node's log.
    pub flushes: Vec<u64>,
    /// Processor time.
    pub cpu: Duration,
    /// Bytes written to the disk.
    pub written: u64,
}

impl Account {
    /// What was added since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let earlier = |verdict: &String| before.verdicts.get(verdict).copied().unwrap_or(0);
        Self {
            verdicts: self.verdicts.iter().map(|(name, count)| (name.clone(), count - earlier(name))).collect(),
            flushes: self.flushes.iter().zip(&before.flushes).map(|(now, then)| now - then).collect(),
            cpu: self.cpu.saturating_sub(before.cpu),
            written: self.written - before.written,
        }
    }

    /// How many decisions had this verdict.
    #[must_use]
    pub fn count(&self, verdict: &str) -> u64 {
        self.verdicts.get(verdict).copied().unwrap_or(0)
    }
}

/// Three nodes on the program's own settings, with a limit that nobody reaches and one that all do.
///
/// # Errors
/// The policy is refused.
pub async fn cluster() -> Result<Cluster, String> {
    let cluster = Plan::of(3).alone().start().await;
    // Two, because one policy may hold a million counters, which are those that are measured.
    for domain in ["default", WARM_UP_DOMAIN] {
        let policy = json!({
            "apiVersion": "quorate.dev/v1alpha1",
            "kind": "QuotaPolicy",
            "metadata": {"name": domain, "namespace": "bench"},
            "spec": {
                "domain": domain,
                "countBy": ["client_id"],
                "limits": [{"name": "daily", "algorithm": "FixedWindow", "limit": HUGE_LIMIT, "window": "24h"}],
                "overrides": [{
                    "match": [{"key": "client_id", "prefix": DENIED_PREFIX}],
                    "limits": [{"name": "daily", "limit": 1}],
                }],
            },
        });
        cluster.node(0).admin_client().put_policy(&policy).await?;
    }
    Ok(cluster)
}

impl Rig {
    /// Starts all.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn start() -> Result<Self, String> {
        let cluster = cluster().await?;
        let bare = Bare::start(body_bytes(&cluster).await?)?;
        Ok(Self { cluster, bare })
    }

    /// The folder with the nodes' data.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.cluster.dir()
    }

    /// The node that leads.
    pub async fn leader(&self) -> usize {
        self.cluster.leader().await
    }

    /// Where a load goes to while `leader` leads; one address for each of three wrks, so that each row has the same
    /// connections in all.
    #[must_use]
    pub fn targets(&self, to: To, leader: usize) -> Vec<SocketAddr> {
        let all = self.cluster.addresses();
        match to {
            To::Bare => vec![self.bare.address; all.len()],
            To::All => all,
            To::Leader => vec![all[leader]; all.len()],
            To::Follower => vec![all[(leader + 1) % all.len()]; all.len()],
        }
    }

    /// What the processes behind `to` have done so far.
    ///
    /// # Errors
    /// One has ended or does not answer.
    pub async fn account(&self, to: To) -> Result<Account, String> {
        if to == To::Bare {
            return Ok(Account { cpu: Process(self.bare.child.id()).cpu()?, ..Account::default() });
        }
        let mut account = Account::default();
        for node in self.cluster.nodes() {
            let answer = node.client().get("/metrics").await.map_err(|error| error.to_string())?;
            account.add(&answer.expect_status(200).text())?;
            let process = Process(node.pid());
            account.cpu += process.cpu()?;
            account.written += process.written()?;
        }
        Ok(account)
    }
}

impl Account {
    fn add(&mut self, metrics: &str) -> Result<(), String> {
        for line in metrics.lines().filter(|line| line.starts_with("quorate_decisions_total{")) {
            let verdict = line.split("verdict=\"").nth(1).and_then(|rest| rest.split('"').next());
            let count = line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok());
            let (Some(verdict), Some(count)) = (verdict, count) else {
                return Err(format!("a metric is not as expected: {line}"));
            };
            // Whom no policy meets is admitted too, but that is not what is measured.
            let verdict = if line.contains("policy=\"none\"") { "unmatched" } else { verdict };
            *self.verdicts.entry(verdict.to_owned()).or_default() += count;
        }
        let flushes = metrics.lines().find_map(|line| line.strip_prefix("quorate_storage_flushes_total "));
        self.flushes.push(flushes.and_then(|count| count.parse().ok()).ok_or("a node does not count its flushes")?);
        Ok(())
    }
}

/// The length of the body with which the bare server's answer is as long as a node's. Its head is shorter, because a node
/// tells more there.
async fn body_bytes(cluster: &Cluster) -> Result<usize, String> {
    let answer = cluster.node(0).client().post("/rate/increment?client_id=client-0", &json!(null)).await;
    let answer = answer.map_err(|error| error.to_string())?.expect_status(200);
    let bare = ["content-type", "content-length", "date"];
    let more = answer.headers.iter().filter(|(name, _)| !bare.contains(&name.as_str()));
    // Name, colon, space, value, line end.
    Ok(answer.body.len() + more.map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>())
}

/// Milliseconds that 4 KiB, appended to a file in `dir`, take to be on the disk, the median of many.
///
/// # Errors
/// The folder is in memory, where nothing is ever on a disk, or cannot be written.
pub fn fdatasync_ms(dir: &Path) -> Result<f64, String> {
    use std::io::Write as _;
    // linux/magic.h
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    let told = |error: std::io::Error| format!("{}: {error}", dir.display());
    if rustix::fs::statfs(dir).map_err(|error| told(error.into()))?.f_type.cast_unsigned() == TMPFS_MAGIC {
        return Err(format!("{} is in memory; set TMPDIR to a folder on a disk", dir.display()));
    }
    let path: PathBuf = dir.join("fdatasync");
    let mut file = std::fs::File::create(&path).map_err(told)?;
    let mut spans = Vec::new();
    for _ in 0..500 {
        let begun = std::time::Instant::now();
        file.write_all(&[7; 4096]).map_err(told)?;
        file.sync_data().map_err(told)?;
        spans.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    std::fs::remove_file(&path).map_err(told)?;
    Ok(super::report::median(&spans))
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "\
# HELP quorate_decisions_total Requests.
quorate_decisions_total{door=\"http\",limit=\"daily\",policy=\"bench/huge\",verdict=\"admitted\"} 7
quorate_decisions_total{door=\"http\",limit=\"daily\",policy=\"bench/huge\",verdict=\"denied\"} 2
quorate_decisions_total{door=\"http\",limit=\"none\",policy=\"none\",verdict=\"admitted\"} 3
quorate_storage_flushes_total 11
";

    #[test]
    fn metrics_of_all_nodes_are_added_up() {
        let mut before = Account::default();
        before.add(METRICS).unwrap();
        let mut after = before.clone();
        after.add(METRICS).unwrap();
        assert_eq!((after.count("admitted"), after.count("denied"), after.count("unmatched")), (14, 4, 6));
        assert_eq!(after.flushes, [11, 11]);
        assert_eq!(after.since(&before).count("admitted"), 7);
        assert_eq!(after.since(&before).flushes, [0]);
    }

    #[test]
    fn node_without_a_count_of_flushes_is_refused() {
        assert!(Account::default().add("quorate_counters 1\n").is_err());
    }
}
