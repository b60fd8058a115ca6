//! Figures as people and programs read them: a table, `results.json`, and the table in the documentation.

use std::fmt::Write as _;

use serde::Serialize;

/// One figure over all runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What it is of.
    pub name: String,
    /// In what.
    pub unit: &'static str,
    /// One for each run.
    pub runs: Vec<f64>,
}

/// A figure in `results.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// What it is of.
    pub name: String,
    /// The median of all runs.
    pub value: f64,
    /// In what.
    pub unit: &'static str,
}

/// The middle of some values; of an even number the mean of the two in the middle. 0 of none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (None, _) => 0.0,
        (Some(value), 1) => *value,
        (Some(value), _) => f64::midpoint(sorted[middle - 1], *value),
    }
}

/// The value that a share of all, in order, does not exceed.
#[must_use]
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(place.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
}

impl Figure {
    /// A figure of one run or more.
    #[must_use]
    pub fn new(name: impl Into<String>, unit: &'static str, runs: Vec<f64>) -> Self {
        Self { name: name.into(), unit, runs }
    }

    /// The median of all runs.
    #[must_use]
    pub fn median(&self) -> f64 {
        median(&self.runs)
    }

    /// The least and the most.
    #[must_use]
    pub fn spread(&self) -> (f64, f64) {
        let least = self.runs.iter().copied().fold(f64::INFINITY, f64::min);
        (least, self.runs.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }

    fn entry(&self) -> Entry {
        Entry { name: self.name.clone(), value: self.median(), unit: self.unit }
    }
}

/// The figures as programs read them.
#[must_use]
pub fn entries(figures: &[Figure]) -> Vec<Entry> {
    figures.iter().map(Figure::entry).collect()
}

/// A table in Markdown, which is a table in a terminal too.
#[must_use]
pub fn table(figures: &[Figure]) -> String {
    let rows: Vec<[String; 4]> = figures
        .iter()
        .map(|figure| {
            let (least, most) = figure.spread();
            let spread =
                if figure.runs.len() > 1 { format!("{} to {}", short(least), short(most)) } else { String::new() };
            [figure.name.clone(), short(figure.median()), figure.unit.to_owned(), spread]
        })
        .collect();
    let head = ["", "median", "", "least to most"].map(str::to_owned);
    let width = |column: usize| rows.iter().chain([&head]).map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3)];
    let mut text = String::new();
    let mut line = |[name, value, unit, spread]: &[String; 4]| {
        let [a, b, c, d] = widths;
        // Writing to memory cannot fail.
        let _ = writeln!(text, "| {name:<a$} | {value:>b$} | {unit:<c$} | {spread:<d$} |");
    };
    line(&head);
    let [a, b, c, d] = widths.map(|width| "-".repeat(width));
    line(&[a, format!("{}:", &b[1..]), c, d]);
    rows.iter().for_each(&mut line);
    text
}

/// Three digits that matter, thousands apart.
#[must_use]
pub fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => {
            let digits = format!("{value:.0}");
            let groups = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group).into_owned());
            groups.collect::<Vec<_>>().join(",")
        }
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Puts `figures` between the marks of a page.
///
/// # Errors
/// The page has no marks.
pub fn replace_figures(page: &str, figures: &str) -> Result<String, String> {
    const BEGIN: &str = "<!-- figures: `make bench` writes what stands between these two lines -->\n";
    const END: &str = "<!-- end of figures -->";
    let missing = || "docs/benchmarks.md has lost the marks between which the figures stand".to_owned();
    let (before, rest) = page.split_once(BEGIN).ok_or_else(missing)?;
    let (_, behind) = rest.split_once(END).ok_or_else(missing)?;
    Ok(format!("{before}{BEGIN}{figures}{END}{behind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_percentiles_are_values_that_were_measured() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0]) - 2.5).abs() < 1e-9);
        let sorted: Vec<f64> = (1..=1000).map(f64::from).collect();
        for (share, value) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1000.0)] {
            assert!((percentile(&sorted, share) - value).abs() < 1e-9, "{share}");
        }
        assert!((percentile(&[7.0], 0.5) - 7.0).abs() < 1e-9);
        assert!(percentile(&[], 0.5).abs() < 1e-9);
    }

    #[test]
    fn figures_are_shown_with_three_digits() {
        for (value, text) in
            [(1_234_567.4, "1,234,567"), (999.6, "1000"), (123.4, "123"), (12.34, "12.3"), (0.3456, "0.346")]
        {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn figures_take_the_place_of_older_ones() {
        let page = "# A\n<!-- figures: `make bench` writes what stands between these two lines -->\nold\n<!-- end of figures -->\nB\n";
        let page = replace_figures(page, "new\n").unwrap();
        assert!(page.contains("-->\nnew\n<!-- end") && page.ends_with("\nB\n") && !page.contains("old"), "{page}");
        assert!(replace_figures("# A\n", "new").is_err());
    }

    #[test]
    fn results_hold_the_median_under_its_name() {
        let figures = [Figure::new("bare axum", "decisions/s", vec![3.0, 1.0, 2.0])];
        let json = serde_json::to_string(&entries(&figures)).unwrap();
        assert_eq!(json, r#"[{"name":"bare axum","value":2.0,"unit":"decisions/s"}]"#);
        assert!(
            table(&figures).contains("| bare axum |   2.00 | decisions/s | 1.00 to 3.00  |"),
            "{}",
            table(&figures)
        );
    }
}
