//! The figures as a table for people and as JSON for programs.

use std::fmt::{Display, Formatter};
use std::path::PathBuf;

use serde_json::{Map, Value, json};

struct Row {
    scenario: String,
    figure: String,
    value: f64,
    unit: &'static str,
    /// For rates: the share of the limit of the bed, in percent.
    share: Option<f64>,
}

pub struct Report {
    header: Vec<(&'static str, String)>,
    rows: Vec<Row>,
    scenario: String,
    limit: Option<f64>,
    file: Option<PathBuf>,
}

impl Report {
    pub fn new(header: Vec<(&'static str, String)>, file: Option<PathBuf>) -> Self {
        Self { header, rows: Vec::new(), scenario: String::new(), limit: None, file }
    }

    /// Starts the figures of a scenario.
    pub fn begin(&mut self, scenario: &str) {
        scenario.clone_into(&mut self.scenario);
    }

    /// Sets the limit of the bed, per second.
    pub fn limit(&mut self, figure: &str, value: f64) {
        self.limit = Some(value);
        self.add(figure, value, "/s");
    }

    pub fn add(&mut self, figure: impl Into<String>, value: f64, unit: &'static str) {
        // An empty sum is -0.
        let value = value + 0.0;
        let share = self.limit.filter(|_| unit == "/s").map(|limit| 100.0 * value / limit);
        let row = Row { scenario: self.scenario.clone(), figure: figure.into(), value, unit, share };
        eprintln!("{}", format!("  {}: {} {}", row.figure, number(row.value), row.unit).trim_end());
        self.rows.push(row);
    }

    /// Adds minimum, median and maximum.
    pub fn spread(&mut self, figure: &str, mut values: Vec<f64>, unit: &'static str) {
        values.sort_by(f64::total_cmp);
        let (Some(first), Some(last)) = (values.first(), values.last()) else { return };
        for (name, value) in [("min", first), ("median", &values[values.len() / 2]), ("max", last)] {
            self.add(format!("{figure}, {name}"), *value, unit);
        }
    }

    /// Writes the figures so far to the JSON file.
    pub fn save(&self) {
        let Some(file) = &self.file else { return };
        let figures: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let header: Map<String, Value> =
            self.header.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
        let text = serde_json::to_string_pretty(&json!({"header": header, "figures": figures})).unwrap();
        std::fs::write(file, text + "\n").unwrap();
    }
}

impl Row {
    fn json(&self) -> Value {
        let Self { scenario, figure, value, unit, share } = self;
        json!({"scenario": scenario, "figure": figure, "value": value, "unit": unit, "shareOfLimit": share})
    }

    fn cells(&self) -> [String; 5] {
        let share = self.share.map_or(String::new(), |share| format!("{} %", number(share)));
        [self.scenario.clone(), self.figure.clone(), number(self.value), self.unit.to_owned(), share]
    }
}

impl Display for Report {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        for (name, value) in &self.header {
            writeln!(out, "{:<16} {}", format!("{name}:"), value)?;
        }
        writeln!(out)?;
        let titles = ["scenario", "figure", "value", "unit", "of the limit"].map(ToOwned::to_owned);
        let lines: Vec<[String; 5]> = std::iter::once(titles).chain(self.rows.iter().map(Row::cells)).collect();
        let width = |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
        let [scenario, figure, value, unit, share] = [0, 1, 2, 3, 4].map(width);
        for [a, b, c, d, e] in &lines {
            let line = format!("{a:<scenario$}  {b:<figure$}  {c:>value$}  {d:<unit$}  {e:>share$}");
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Rounds to three significant digits, but never to less than a whole number.
fn number(value: f64) -> String {
    match value.abs() {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "no figure is that large")]
        large if large >= 99.95 => grouped(value.round() as usize),
        whole if whole < f64::EPSILON || (value.fract() == 0.0) => format!("{value:.0}"),
        medium if medium >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A number with thousands separators.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}
