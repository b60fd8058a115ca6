//! How fast the built program is: `make bench`.
//!
//! Everything runs on one machine: three nodes, the load, and a bare server as the ceiling. `rows` says what is
//! measured. All rows take turns in each round, so that a machine that gets slower or faster meets all of them. A row is
//! only reported when every single answer was as it should be; `docs/benchmarks.md` says how to read it.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts become figures with three digits, and figures places within lists that are in memory"
)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use self::memory::Memory;
use self::paced::Pace;
use self::report::{Figure, percentile};
use self::rig::{Account, Rig};
use self::rows::{Ask, PACED, ROWS, Row, To};
use self::wrk::Counted;

mod memory;
mod paced;
mod plot;
mod process;
mod report;
mod rig;
mod rows;
mod wrk;

/// Fewer or shorter runs are for a quick look; the documentation keeps the figures it has.
const RUNS_PUBLISHED: u32 = 5;
const SECONDS_PUBLISHED: u64 = 20;
/// Of each row before the first run: connections, counters and caches are there then.
const WARM_UP: Duration = Duration::from_secs(2);
/// So often a row is measured again because another node leads at its end.
const LEADERS_MAX: usize = 3;

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Rounds over all rows.
    pub runs: u32,
    /// Seconds of each row in each round.
    pub seconds: u64,
}

/// One row in one round.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    /// Decisions a second.
    rate: f64,
    /// Seconds of processor time of the servers for a million decisions.
    cpu: f64,
    /// Decisions for each flush of the leader's log, the node with the most flushes.
    per_flush: f64,
    /// Bytes that each node wrote for each decision.
    written: f64,
}

/// Measures all, tells of it while it does, and writes it down.
///
/// # Errors
/// Something does not run, or a row was not answered as it should be.
pub async fn run(options: Options) -> Result<(), String> {
    let begun = Instant::now();
    let rig = Rig::start().await?;
    let fdatasync = rig::fdatasync_ms(rig.dir())?;
    let mut figures = rates(&rig, options).await?;
    let times = times(&rig, options, &figures).await?;
    drop(rig);
    figures.extend(times);
    figures.extend(memory().await?);
    figures.push(Figure::new("fdatasync of 4 KiB, median", "ms", vec![fdatasync]));
    write_down(options, &figures)?;
    println!("measured in {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Measures only what counters cost in memory, and prints it.
///
/// # Errors
/// Something does not run.
pub async fn memory_alone() -> Result<(), String> {
    let figures = memory().await?;
    println!("\n{}", report::table(&figures));
    Ok(())
}

/// Measures only how long answers take, at half of what goes in one run, and prints it.
///
/// # Errors
/// Something does not run, or was not answered as it should be.
pub async fn times_alone(options: Options) -> Result<(), String> {
    let rig = Rig::start().await?;
    let mut rates = vec![];
    for row in ROWS.into_iter().filter(|row| PACED.contains(&row.name)) {
        measure(&rig, row, WARM_UP, true).await?;
        let sample = measure(&rig, row, Duration::from_secs(options.seconds), true).await?;
        rates.push(Figure::new(row.name, "decisions/s", vec![sample.rate]));
    }
    let figures = times(&rig, options, &rates).await?;
    println!("\n{}", report::table(&figures));
    Ok(())
}

async fn memory() -> Result<[Figure; 3], String> {
    println!("memory: a cluster of its own, {} counters", report::short(f64::from(memory::COUNTERS)));
    let Memory { held, snapshot_peak, node } = memory::measure().await?;
    Ok([
        Figure::new("memory per counter", "bytes", vec![held]),
        Figure::new("memory per counter, peak during a snapshot", "bytes", vec![snapshot_peak]),
        Figure::new("memory of a node with a million counters", "MB", vec![node / 1e6]),
    ])
}

/// What goes: all rows in each round.
async fn rates(rig: &Rig, options: Options) -> Result<Vec<Figure>, String> {
    for row in ROWS {
        println!("warming up: {}", row.name);
        // Over the limit is only whoever was within it once.
        measure(rig, row, WARM_UP, row.ask != Ask::Denied).await?;
    }
    let mut samples: Vec<Vec<Sample>> = vec![vec![]; ROWS.len()];
    for run in 1..=options.runs {
        for (row, samples) in ROWS.iter().zip(&mut samples) {
            let sample = measure(rig, *row, Duration::from_secs(options.seconds), true).await?;
            let rate = report::short(sample.rate);
            println!("run {run} of {}: {:<32} {rate:>9} decisions/s", options.runs, row.name);
            samples.push(sample);
        }
    }
    Ok(figures_of(&samples))
}

fn figures_of(samples: &[Vec<Sample>]) -> Vec<Figure> {
    let of = |samples: &[Sample], take: fn(&Sample) -> f64| samples.iter().map(take).collect::<Vec<_>>();
    let rows = || ROWS.iter().zip(samples);
    let mut figures: Vec<_> =
        rows().map(|(row, samples)| Figure::new(row.name, "decisions/s", of(samples, |sample| sample.rate))).collect();
    for (row, samples) in rows().filter(|(row, _)| row.to != To::Bare) {
        let same = |bare: &Row| bare.to == To::Bare && bare.connections == row.connections;
        let Some((_, bare)) = rows().find(|(bare, _)| same(bare)) else { continue };
        // Each run by the bare run beside it.
        let ratios = samples.iter().zip(bare).map(|(sample, bare)| sample.rate / bare.rate).collect();
        figures.push(Figure::new(format!("{} / bare axum", row.name), "ratio", ratios));
    }
    for (row, samples) in rows() {
        let cpu = of(samples, |sample| sample.cpu);
        figures.push(Figure::new(format!("{}, processor time", row.name), "s per million decisions", cpu));
    }
    for (row, samples) in rows().filter(|(row, _)| row.to == To::All && row.ask.is_logged()) {
        let per_flush = of(samples, |sample| sample.per_flush);
        figures.push(Figure::new(format!("{}, decisions per flush", row.name), "decisions", per_flush));
        let written = of(samples, |sample| sample.written);
        figures.push(Figure::new(format!("{}, written to each disk", row.name), "bytes per decision", written));
    }
    figures
}

/// One row, once, under one leader. `is_strict`: all decisions must be what the row is for.
async fn measure(rig: &Rig, row: Row, span: Duration, is_strict: bool) -> Result<Sample, String> {
    for _ in 0..LEADERS_MAX {
        let leader = rig.leader().await;
        let sample = measure_under(leader, rig, row, span, is_strict).await?;
        if row.to == To::Bare || rig.leader().await == leader {
            return Ok(sample);
        }
        println!("another node leads now; measuring again: {}", row.name);
    }
    Err(format!("{}: the leader changed {LEADERS_MAX} times; what else is running?", row.name))
}

async fn measure_under(leader: usize, rig: &Rig, row: Row, span: Duration, is_strict: bool) -> Result<Sample, String> {
    let wrong = |why: String| format!("{}: not reported, because {why}", row.name);
    let before = rig.account(row.to).await?;
    let targets = rig.targets(row.to, leader);
    let load = tokio::task::spawn_blocking(move || wrk::load(&targets, row, span));
    let counted = load.await.map_err(|error| error.to_string())?.map_err(wrong)?;
    let account = rig.account(row.to).await?.since(&before);
    if row.to != To::Bare && is_strict {
        check(row, counted, &account).map_err(wrong)?;
    }
    let decisions = (counted.requests * row.ask.decisions()) as f64;
    let nodes = account.flushes.len().max(1) as f64;
    Ok(Sample {
        rate: counted.rate * row.ask.decisions() as f64,
        cpu: account.cpu.as_secs_f64() / decisions * 1e6,
        per_flush: decisions / account.flushes.iter().max().copied().unwrap_or(0).max(1) as f64,
        written: account.written as f64 / nodes / decisions,
    })
}

/// Holds what wrk counted against what the nodes counted.
fn check(row: Row, counted: Counted, account: &Account) -> Result<(), String> {
    if !row.ask.is_logged() {
        return Ok(());
    }
    let (wanted, decisions) =
        (if row.ask == Ask::Denied { "denied" } else { "admitted" }, counted.requests * row.ask.decisions());
    if account.count(wanted) < decisions {
        return Err(format!("the nodes {wanted} {} of {decisions} requests", account.count(wanted)));
    }
    if let Some((verdict, count)) = account.verdicts.iter().find(|(verdict, count)| *verdict != wanted && **count > 0) {
        return Err(format!("{count} requests were {verdict}"));
    }
    let majority = account.flushes.len() / 2 + 1;
    if account.flushes.iter().filter(|flushes| **flushes > 0).count() < majority {
        return Err(format!("no majority flushed its log; flushes of each node: {:?}", account.flushes));
    }
    Ok(())
}

/// How long answers take at half of what goes.
async fn times(rig: &Rig, options: Options, figures: &[Figure]) -> Result<Vec<Figure>, String> {
    let mut times = Vec::new();
    let rows: Vec<Row> = ROWS.into_iter().filter(|row| PACED.contains(&row.name)).collect();
    let half = |row: &Row| {
        let rate = figures.iter().find(|figure| figure.name == row.name).map_or(0.0, Figure::median);
        rate / 2.0 / row.ask.decisions() as f64
    };
    // The bare server at the rate of the first row, to tell what the load and the kernel take of it.
    let bare = ROWS.into_iter().take(1).map(|bare| (bare, rows.first().map_or(0.0, half)));
    for (row, rate) in bare.chain(rows.iter().map(|row| (*row, half(row)))) {
        let mut found = [vec![], vec![], vec![]];
        for run in 1..=options.runs {
            let span = Duration::from_secs(options.seconds);
            let leader = rig.leader().await;
            let pace = Pace { targets: rig.targets(row.to, leader), ask: row.ask, keys: row.keys, rate, span };
            let spans = tokio::task::spawn_blocking(move || pace.run()).await.map_err(|error| error.to_string())?;
            let spans = spans.map_err(|why| format!("{}, times: not reported, because {why}", row.name))?;
            let points = [0.5, 0.99, 0.999].map(|share| percentile(&spans, share));
            let [p50, p99, p999] = points.map(report::short);
            println!(
                "run {run} of {}: {:<32} at {} requests/s: p50 {p50} ms, p99 {p99} ms, p99.9 {p999} ms",
                options.runs,
                row.name,
                report::short(rate)
            );
            if rig.leader().await != leader {
                println!("another node leads now: what took longest was the election");
            }
            found.iter_mut().zip(points).for_each(|(found, point)| found.push(point));
        }
        let decisions = rate * row.ask.decisions() as f64;
        times.push(Figure::new(format!("{}, half load", row.name), "decisions/s", vec![decisions]));
        for (name, runs) in TIMES.iter().zip(found) {
            times.push(Figure::new(format!("{}, {name} at half load", row.name), "ms", runs));
        }
    }
    Ok(times)
}

const TIMES: [&str; 3] = ["p50", "p99", "p99.9"];

fn write_down(options: Options, figures: &[Figure]) -> Result<(), String> {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    let folder = target.join("bench");
    let write =
        |path: PathBuf, text: &str| std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()));
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let json = serde_json::to_string_pretty(&report::entries(figures)).map_err(|error| error.to_string())?;
    let (table, svg) = (report::table(figures), picture(figures));
    println!("\n{table}");
    write(folder.join("results.json"), &json)?;
    write(folder.join("benchmarks.svg"), &svg)?;
    println!("written: {0}/results.json, {0}/benchmarks.svg", folder.display());
    if options.runs < RUNS_PUBLISHED || options.seconds < SECONDS_PUBLISHED {
        println!(
            "docs/benchmarks.md is left as it is: it holds {RUNS_PUBLISHED} runs of {SECONDS_PUBLISHED} s or more"
        );
        return Ok(());
    }
    let page = workspace.join("docs/benchmarks.md");
    let text = std::fs::read_to_string(&page).map_err(|error| format!("{}: {error}", page.display()))?;
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let method = format!(
        "Median of {} runs of {} s each, on {cores} cores shared by the nodes and the load.\n\n\
         ![Decisions a second, and milliseconds to an answer](benchmarks.svg)\n\n",
        options.runs, options.seconds,
    );
    write(page, &report::replace_figures(&text, &format!("{method}{table}"))?)?;
    write(workspace.join("docs/benchmarks.svg"), &svg)?;
    println!("written: docs/benchmarks.md, docs/benchmarks.svg");
    Ok(())
}

fn picture(figures: &[Figure]) -> String {
    let find = |name: &str| figures.iter().find(|figure| figure.name == name);
    let rates: Vec<_> = ROWS.iter().filter_map(|row| find(row.name)).collect();
    let rows = ROWS.iter().map(|row| row.name);
    let times = rows.filter_map(|row| {
        let [p50, p99, p999] = TIMES.map(|time| find(&format!("{row}, {time} at half load")));
        Some((row, [p50?, p99?, p999?]))
    });
    plot::draw(&rates, &times.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINGLE: Row = ROWS[2];

    fn account(admitted: u64, denied: u64, flushes: [u64; 3]) -> Account {
        let verdicts = [("admitted".to_owned(), admitted), ("denied".to_owned(), denied)].into();
        Account { verdicts, flushes: flushes.into(), ..Account::default() }
    }

    #[test]
    fn row_is_refused_unless_all_was_admitted_and_flushed() {
        let counted = Counted { requests: 10, rate: 5.0 };
        assert_eq!(check(SINGLE, counted, &account(10, 0, [3, 2, 0])), Ok(()));
        assert_eq!(check(SINGLE, counted, &account(12, 0, [3, 2, 2])), Ok(()), "some are not counted by wrk any more");
        for (account, why) in [
            (account(9, 0, [3, 2, 1]), "the nodes admitted 9 of 10 requests"),
            (account(10, 1, [3, 2, 1]), "1 requests were denied"),
            (account(10, 0, [3, 0, 0]), "no majority flushed its log; flushes of each node: [3, 0, 0]"),
        ] {
            assert_eq!(check(SINGLE, counted, &account), Err(why.to_owned()));
        }
    }

    #[test]
    fn every_row_has_its_figures_and_singles_their_ratio() {
        let sample = |rate| Sample { rate, cpu: 1.0, per_flush: 2.0, written: 3.0 };
        let mut samples = vec![vec![sample(10.0), sample(30.0)]; ROWS.len()];
        for (row, samples) in ROWS.iter().zip(&mut samples).filter(|(row, _)| row.to == To::Bare) {
            *samples = vec![sample(if row.connections == SINGLE.connections { 100.0 } else { 50.0 }); 2];
        }
        let figures = figures_of(&samples);
        for row in ROWS {
            assert!(
                figures.iter().any(|figure| figure.name == row.name && figure.unit == "decisions/s"),
                "{}",
                row.name
            );
        }
        let ratio = |row: Row| {
            let name = format!("{} / bare axum", row.name);
            figures.iter().find(|figure| figure.name == name).map(|figure| figure.runs.clone())
        };
        assert_eq!(ratio(SINGLE), Some(vec![0.1, 0.3]));
        assert_eq!(ratio(ROWS[3]), Some(vec![0.2, 0.6]), "by the bare server at as many connections");
        for row in ROWS {
            assert_eq!(ratio(row).is_some(), row.to != To::Bare, "{}", row.name);
        }
    }

    #[test]
    fn paced_rows_exist() {
        for name in PACED {
            assert!(ROWS.iter().any(|row| row.name == name), "{name}");
        }
    }
}
