//! The figures as a picture: decisions a second, and times at half load, both on logarithmic scales.

use std::fmt::Write as _;

use super::report::{Figure, short};

const WIDTH: f64 = 860.0;
/// Where the scales begin and end.
const LEFT: f64 = 270.0;
const RIGHT: f64 = 780.0;
const ROW: f64 = 26.0;
const INK: &str = "#24292f";
const FAINT: &str = "#8c959f";
const BAR: &str = "#2f6fb0";
const BARE: &str = "#9aa4af";
/// The median, the 99th and the 99.9th percentile.
const DOTS: [&str; 3] = ["#2f6fb0", "#c0392b", "#7d3c98"];

/// A row of times: its name and three figures in milliseconds.
pub type Times<'a> = (&'a str, [&'a Figure; 3]);

/// A logarithmic scale over whole powers of ten.
struct Scale {
    least: i32,
    most: i32,
}

impl Scale {
    fn over(values: impl Iterator<Item = f64> + Clone) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min).max(1e-3).log10().floor() as i32;
        let most = values.fold(f64::NEG_INFINITY, f64::max).max(1e-3).log10().ceil() as i32;
        Self { least, most: most.max(least + 1) }
    }

    fn x(&self, value: f64) -> f64 {
        let share = (value.max(1e-3).log10() - f64::from(self.least)) / f64::from(self.most - self.least);
        LEFT + share.clamp(0.0, 1.0) * (RIGHT - LEFT)
    }
}

/// The picture as SVG.
#[must_use]
pub fn draw(rates: &[&Figure], times: &[Times<'_>]) -> String {
    let mut svg = String::new();
    let rates_top = 64.0;
    let times_top = rates_top + ROW * rates.len() as f64 + 96.0;
    let height = times_top + ROW * times.len() as f64 + 50.0;
    let mut out = |line: String| {
        svg.push_str(&line);
        svg.push('\n');
    };
    out(format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" font-family="system-ui, sans-serif" font-size="13" fill="{INK}">"#
    ));
    out(format!(r##"<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>"##));
    out(text(16.0, 28.0, "start", 16, "Decisions a second, three nodes and the load on one machine"));
    let scale = Scale::over(rates.iter().flat_map(|figure| figure.runs.iter().copied()));
    out(axis(&scale, rates_top, ROW * rates.len() as f64));
    for (nth, figure) in rates.iter().enumerate() {
        let top = rates_top + ROW * nth as f64;
        let (middle, end) = (top + ROW / 2.0, scale.x(figure.median()));
        let colour = if figure.name.starts_with("bare") { BARE } else { BAR };
        out(text(LEFT - 10.0, middle + 4.5, "end", 13, &figure.name));
        out(format!(
            r#"<rect x="{LEFT}" y="{:.1}" width="{:.1}" height="{:.1}" fill="{colour}"/>"#,
            top + 4.0,
            end - LEFT,
            ROW - 8.0
        ));
        let (least, most) = figure.spread();
        out(line(scale.x(least), middle, scale.x(most), middle, INK));
        out(text(scale.x(most).max(end) + 8.0, middle + 4.5, "start", 13, &short(figure.median())));
    }
    out(text(16.0, times_top - 36.0, "start", 16, "Milliseconds to an answer at half of that load"));
    let scale = Scale::over(times.iter().flat_map(|(_, figures)| figures.iter().map(|figure| figure.median())));
    out(axis(&scale, times_top, ROW * times.len() as f64));
    for (nth, (name, figures)) in times.iter().enumerate() {
        let middle = times_top + ROW * (nth as f64 + 0.5);
        out(text(LEFT - 10.0, middle + 4.5, "end", 13, name));
        let ends = [scale.x(figures[0].median()), scale.x(figures[2].median())];
        out(line(ends[0], middle, ends[1], middle, FAINT));
        for (figure, colour) in figures.iter().zip(DOTS) {
            out(format!(r#"<circle cx="{:.1}" cy="{middle:.1}" r="5" fill="{colour}"/>"#, scale.x(figure.median())));
        }
    }
    for (nth, (name, colour)) in ["median", "99 %", "99.9 %"].iter().zip(DOTS).enumerate() {
        let x = LEFT + 90.0 * nth as f64;
        out(format!(r#"<circle cx="{x}" cy="{:.1}" r="5" fill="{colour}"/>"#, height - 18.0));
        out(text(x + 10.0, height - 13.5, "start", 13, name));
    }
    out("</svg>".to_owned());
    svg
}

/// Lines at the powers of ten, with their values above.
fn axis(scale: &Scale, top: f64, height: f64) -> String {
    let mut svg = String::new();
    for power in scale.least..=scale.most {
        let value = 10f64.powi(power);
        let x = scale.x(value);
        let label = if value >= 1000.0 { format!("{:.0}k", value / 1000.0) } else { format!("{value}") };
        // Writing to memory cannot fail.
        let _ = writeln!(svg, "{}", line(x, top, x, top + height, "#d0d7de"));
        let _ = writeln!(svg, "{}", text(x, top - 6.0, "middle", 11, &label));
    }
    svg
}

fn text(x: f64, y: f64, anchor: &str, size: u32, words: &str) -> String {
    format!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-size="{size}">{words}</text>"#)
}

fn line(from_x: f64, from_y: f64, to_x: f64, to_y: f64, colour: &str) -> String {
    format!(
        r#"<line x1="{from_x:.1}" y1="{from_y:.1}" x2="{to_x:.1}" y2="{to_y:.1}" stroke="{colour}" stroke-width="1.5"/>"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_drawn_within_the_picture() {
        let rates =
            [Figure::new("one", "decisions/s", vec![9000.0, 12_000.0]), Figure::new("two", "decisions/s", vec![3e5])];
        let times = Figure::new("one", "ms", vec![0.4]);
        let svg = draw(&[&rates[0], &rates[1]], &[("one", [&times, &times, &times])]);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        for word in ["one", "two", "10,500", "300,000", "99.9 %"] {
            assert!(svg.contains(word), "{word}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
