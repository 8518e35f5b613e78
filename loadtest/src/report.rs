//! What a scenario found: a table for people, one line for machines, and whether something is wrong.

use std::fmt::Display;

use hdrhistogram::Histogram;

pub(crate) struct Report {
    scenario: &'static str,
    figures: Vec<Figure>,
    /// Counts that must be zero, over all rounds.
    zeros: Vec<(&'static str, u64)>,
    faults: Vec<String>,
}

struct Figure {
    name: String,
    value: String,
    unit: &'static str,
}

impl Report {
    pub(crate) fn new(scenario: &'static str) -> Self {
        Self { scenario, figures: Vec::new(), zeros: Vec::new(), faults: Vec::new() }
    }

    pub(crate) fn count(&mut self, name: impl Into<String>, value: u64) {
        self.push(name, value, "");
    }

    pub(crate) fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        let digits = if value.abs() >= 1_000.0 { 0 } else { 2 };
        self.push(name, format!("{value:.digits$}"), unit);
    }

    /// p50, p99 and the worst, in milliseconds.
    pub(crate) fn latency(&mut self, name: &str, micros: &Histogram<u64>) {
        let quantiles = [("p50", 0.5), ("p99", 0.99), ("max", 1.0)];
        for (quantile, at) in quantiles {
            self.push(
                format!("{name}_{quantile}"),
                format!("{:.2}", micros.value_at_quantile(at) as f64 / 1_000.0),
                "ms",
            );
        }
    }

    /// A count that must be zero; rounds add up.
    pub(crate) fn zero(&mut self, name: &'static str, value: u64) {
        match self.zeros.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += value,
            None => self.zeros.push((name, value)),
        }
        if value > 0 {
            self.fault(format!("{name} = {value}"));
        }
    }

    pub(crate) fn fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    pub(crate) fn faults(&self) -> &[String] {
        &self.faults
    }

    pub(crate) fn ok(&self) -> bool {
        self.faults().is_empty()
    }

    pub(crate) fn print(mut self) {
        for (name, sum) in std::mem::take(&mut self.zeros) {
            self.count(name, sum);
        }
        let width = self.figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
        for Figure { name, value, unit } in &self.figures {
            println!("{}", format!("{name:width$}  {value:>12} {unit}").trim_end());
        }
        for fault in self.faults() {
            println!("FAULT: {fault}");
        }
        let line = self.figures.iter().map(|Figure { name, value, .. }| format!(" {name}={value}"));
        println!("scenario={} ok={}{}", self.scenario, self.ok(), line.collect::<String>());
    }

    fn push(&mut self, name: impl Into<String>, value: impl Display, unit: &'static str) {
        self.figures.push(Figure { name: name.into(), value: value.to_string(), unit });
    }
}
