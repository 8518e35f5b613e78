//! What is shipped for Prometheus and Grafana names only what sluice tells, and fires when it should.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sluice::metrics::{ALL, Kind, Metric};

/// What Prometheus adds to every series, and what alerts have of their own.
const LABELS_OF_PROMETHEUS: [&str; 3] = ["instance", "job", "le"];

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn rules() -> Vec<Value> {
    let file: Value = serde_yaml_ng::from_str(&read("config/prometheus/alerts.yml")).expect("YAML");
    let groups = file["groups"].as_array().expect("groups");
    groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

fn alerts() -> Vec<Value> {
    rules().into_iter().filter(|rule| rule.get("alert").is_some()).collect()
}

/// Every expression of the dashboard, and of its variables.
fn dashboard() -> Vec<String> {
    let board: Value = serde_json::from_str(&read("config/grafana/sluice.json")).expect("JSON");
    let panels = board["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let variables = board["templating"]["list"].as_array().expect("variables");
    let asked = variables.iter().filter_map(|variable| variable["query"]["query"].as_str());
    targets.map(|target| text(target, "expr")).chain(asked).map(str::to_owned).collect()
}

/// Every name of sluice in an expression, with the labels that stand in braces behind it and their values.
fn named(expression: &str) -> Vec<(&str, Vec<(&str, &str)>)> {
    let mut named = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find("sluice_") {
        rest = &rest[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let braces = after.strip_prefix('{').and_then(|inner| inner.split_once('}')).map_or("", |(inner, _)| inner);
        let matchers = braces.split(',').filter_map(|matcher| {
            let (label, value) = matcher.split_once(['=', '!'])?;
            Some((label.trim(), value.trim_matches(['=', '~', '"', ' '])))
        });
        named.push((name, matchers.collect()));
        rest = after;
    }
    named
}

fn on_the_page(name: &str) -> Option<&'static Metric> {
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
    let of = |name: &str| ALL.iter().find(|metric| metric.name == name);
    let histogram = |metric: &&Metric| matches!(metric.kind, Kind::Histogram(_));
    match base.and_then(of).filter(histogram) {
        Some(metric) => Some(metric),
        None => of(name).filter(|metric| !histogram(metric)),
    }
}

fn faults_of(expression: &str, source: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, matchers) in named(expression) {
        let Some(metric) = on_the_page(name) else {
            faults.push(format!("{name} is nothing that sluice tells: {expression}"));
            continue;
        };
        for (label, values) in matchers {
            if !metric.labels.contains(&label) && !LABELS_OF_PROMETHEUS.contains(&label) {
                faults.push(format!("{name} has no label {label}: {expression}"));
            }
            let plain = values.split('|').filter(|value| value.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
            for value in plain.filter(|value| !is_said(value, source)) {
                faults.push(format!("nothing in the source ever says {label}=\"{value}\" of {name}"));
            }
        }
    }
    faults
}

fn is_said(value: &str, source: &str) -> bool {
    source.contains(&format!("\"{value}\""))
}

/// All that is said in `src`.
fn source() -> String {
    fn gather(folder: &Path, all: &mut String) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                gather(&path, all);
            } else if path.extension().is_some_and(|end| end == "rs") {
                all.push_str(&fs::read_to_string(&path).expect("a file"));
            }
        }
    }
    let mut all = String::new();
    gather(&at("src"), &mut all);
    all
}

#[test]
fn alerts_and_dashboard_name_only_metrics_and_labels_that_there_are() {
    let source = source();
    let rules = rules();
    let of_rules = rules.iter().map(|rule| text(rule, "expr").to_owned());
    let expressions: Vec<String> = of_rules.chain(dashboard()).collect();
    assert!(expressions.len() > 60, "rules and dashboard were read: {}", expressions.len());
    let faults: Vec<String> = expressions.iter().flat_map(|expression| faults_of(expression, &source)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let wrong =
        r#"rate(sluice_no_such_total[5m]) + sluice_ring_bytes{shade="swapped"} + sluice_reloads_total{result="lost"}"#;
    assert_eq!(faults_of(wrong, &source).len(), 3, "what is wrong is found");
}

#[test]
fn metrics_that_annotations_name_are_there() {
    for alert in alerts() {
        let annotations = alert["annotations"].to_string();
        for (name, _) in named(&annotations) {
            let histogram = ALL.iter().any(|metric| metric.name == name);
            assert!(histogram || on_the_page(name).is_some(), "{name} in {annotations}");
        }
    }
}

#[test]
fn every_alert_says_its_cause_where_to_look_and_what_to_do() {
    let readme = read("README.md");
    let headings: BTreeSet<&str> =
        readme.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim()).collect();
    for alert in alerts() {
        let name = text(&alert, "alert");
        assert!(["page", "ticket"].contains(&text(&alert["labels"], "severity")), "{name}");
        for key in ["summary", "cause", "look", "do"] {
            assert!(text(&alert["annotations"], key).len() > 10, "{name} says no {key}");
        }
        let section = text(&alert["annotations"], "readme");
        assert!(headings.contains(section), "{name}: README has no section {section}");
    }
}

#[test]
fn every_alert_is_fired_by_a_test_of_its_own() {
    let tests: Value = serde_yaml_ng::from_str(&read("config/prometheus/alerts_test.yml")).expect("YAML");
    let samples = tests["tests"].as_array().expect("tests").iter().flat_map(|test| {
        let asked = test["promql_expr_test"].as_array().cloned().unwrap_or_default();
        asked.into_iter().flat_map(|asked| asked["exp_samples"].as_array().cloned().unwrap_or_default())
    });
    let fired: String = samples.map(|sample| text(&sample, "labels").to_owned()).collect();
    for alert in alerts() {
        let name = text(&alert, "alert");
        assert!(fired.contains(&format!("\"{name}\"")), "nothing in alerts_test.yml fires {name}");
    }
}

#[test]
fn the_alerts_pass_the_tests_of_promtool() {
    let mut promtool = Command::new("promtool");
    let run = promtool.args(["test", "rules", "alerts_test.yml"]).current_dir(at("config/prometheus"));
    let run = run.output().unwrap_or_else(|error| {
        panic!("promtool does not run ({error}); it is in Debian's package prometheus: apt-get install -y prometheus")
    });
    let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
}
