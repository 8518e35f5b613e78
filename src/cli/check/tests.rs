//! The line, and that nothing but 0, 1 and 2 comes of it.

use super::*;

#[test]
fn the_line_is_a_nagios_plugins() {
    let mut report = Report::new(Level::Ok);
    report.says(Level::Ok, "flowing", "");
    report.milliseconds("canary", 12.0);
    report.seconds("age", 0.3, None);
    assert_eq!(report.to_string(), "SLUICE OK - flowing | canary=12ms;;;0 age=0.3s;;;0");
    report.seconds("age", 1.23456, Some(Duration::from_secs(60)));
    assert!(report.to_string().ends_with(" age=1.235s;;60;0"));
    report.fails("it is late");
    assert!(report.to_string().starts_with("SLUICE CRITICAL - it is late (it says: flowing) | canary=12ms"));
    report.says(Level::Warning, "degraded: a/0", "do this");
    assert!(
        report.to_string().starts_with("SLUICE WARNING - degraded: a/0 | ")
            && report.to_string().ends_with("\ndo this")
    );
}

#[test]
fn what_strangers_say_is_one_short_line_without_performance_data() {
    let report = Report::critical(&format!("a|b=1\nOK\u{1b}[31m{}", "x".repeat(9_999)));
    let line = report.to_string();
    assert_eq!(line.lines().count(), 1);
    assert!(!line.contains('|') && !line.contains('\u{1b}') && line.chars().count() < 400, "{line}");
}

#[test]
fn a_fault_of_the_check_itself_is_critical() {
    let report = guarded(|| panic!("planned"));
    assert_eq!(report.level.code(), 2);
    assert!(report.to_string().contains("this check itself failed"));
}
