//! Runs seeds of the simulator. A single one is run once and told in full, with the nodes' own logs when `RUST_LOG` says
//! which.

use clap::Parser;
use openraft_rt_sim::SimInstant;
use quorate_tests::simulation::campaign::campaign;
use quorate_tests::simulation::run;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// What to run.
#[derive(Parser)]
struct Options {
    /// How many seeds. A single one is told in full.
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 0)]
    first: u64,
}

fn main() {
    let Options { seeds, first } = Options::parse();
    let failed = if seeds == 1 { tell(first) } else { sweep(first, seeds) };
    std::process::exit(i32::from(failed));
}

/// The simulator's clock, in seconds.
struct VirtualTime;

impl FormatTime for VirtualTime {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        let now = SimInstant::try_now().map(SimInstant::elapsed_since_start).unwrap_or_default();
        write!(w, "{:>10.6}", now.as_secs_f64())
    }
}

/// Whether a seed fails, told from its beginning.
fn tell(seed: u64) -> bool {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_timer(VirtualTime).with_ansi(false).init();
    }
    let report = run::run(seed, None);
    for event in &report.events {
        println!("{event}");
    }
    println!("{}", report.totals);
    println!("seed {seed}: {}", report.violation.as_deref().unwrap_or("kept every promise"));
    report.violation.is_some()
}

fn sweep(first: u64, seeds: u64) -> bool {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let campaign = campaign(first, seeds, threads);
    println!("{}", campaign.summary());
    let failed = campaign.failed();
    if let Some(failed) = &failed {
        println!("{failed}");
    }
    failed.is_some()
}
