//! What each word asks, and what is no word.

use clap::Parser;
use clap::error::ErrorKind;
use reqwest::StatusCode;

use super::*;
use crate::cli::{EXIT_FAILURE, EXIT_USAGE};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn parsed(line: &str) -> Result<Args, ErrorKind> {
    Line::try_parse_from(line.split(' ')).map(|line| line.args).map_err(|e| e.kind())
}

fn asked(line: &str) -> Vec<Request> {
    requests(&parsed(line).unwrap_or_else(|kind| panic!("{line}: {kind}")).command)
}

/// Method, path, query and body, as a line.
fn one(line: &str) -> String {
    let requests = asked(line);
    let [request] = requests.as_slice() else { panic!("{line}: {requests:?}") };
    let query: Vec<String> = request.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let body = request.body.as_ref().map(Value::to_string).unwrap_or_default();
    let text = format!("{} {} {} {body}", request.method, request.path.join(" "), query.join("&"));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn each_word_asks_what_it_says() {
    for (line, request) in [
        ("admin clients", "GET clients"),
        ("admin clients --by bytes --top 5 --key 192.0.2.7", "GET clients by=bytes&top=5&key=192.0.2.7"),
        ("admin clients end 17", "DELETE clients 17"),
        ("admin clients end --key 2001:db8::/64", "DELETE clients key=2001:db8::/64"),
        ("admin deny", "GET deny"),
        ("admin deny add 192.0.2.0/24", "PUT deny 192.0.2.0/24 {}"),
        (
            "admin deny add 192.0.2.0/24 --reason slots --for 1h",
            r#"PUT deny 192.0.2.0/24 {"reason":"slots","expires_in":"1h"}"#,
        ),
        ("admin deny remove 192.0.2.0/24", "DELETE deny 192.0.2.0/24"),
        ("admin limits", "GET limits"),
        ("admin limits set streams_per_client=5", r#"PUT limits {"streams_per_client":5}"#),
        ("admin reload", "POST reload"),
        ("admin log-level", "GET log-level"),
        ("admin log-level debug", r#"PUT log-level {"level":"debug"}"#),
        (
            "admin log-level debug --module sluice::intake --for 5m",
            r#"PUT log-level {"module":"sluice::intake","for":"5m","level":"debug"}"#,
        ),
        ("admin profile --out x.svg", "GET debug profile seconds=10"),
        ("admin profile --seconds 60", "GET debug profile seconds=60"),
        ("admin heap", "GET debug heap"),
        ("admin spool", "GET spool"),
        ("admin spool retry", "POST spool retry"),
        ("admin spool drop", "DELETE spool aside"),
        ("admin traffic --url http://a:1 --token x --json", "GET traffic"),
    ] {
        assert_eq!(one(line), request, "{line}");
    }
    let ends: Vec<Vec<String>> = asked("admin clients end 1 2").into_iter().map(|request| request.path).collect();
    assert_eq!(ends, [["clients", "1"], ["clients", "2"]]);
}

#[test]
fn what_contradicts_itself_is_refused_before_anything_is_asked() {
    for (line, kind) in [
        ("admin", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
        ("admin clients end", ErrorKind::MissingRequiredArgument),
        ("admin clients end 1 --key x", ErrorKind::ArgumentConflict),
        ("admin clients end x", ErrorKind::ValueValidation),
        ("admin clients --by age", ErrorKind::InvalidValue),
        ("admin deny add", ErrorKind::MissingRequiredArgument),
        ("admin deny add 192.0.2.7 --for soon", ErrorKind::ValueValidation),
        ("admin limits set", ErrorKind::MissingRequiredArgument),
        ("admin limits set streams_per_client", ErrorKind::ValueValidation),
        ("admin limits set =5", ErrorKind::ValueValidation),
        ("admin log-level --for 5m", ErrorKind::MissingRequiredArgument),
        ("admin profile --seconds 61", ErrorKind::ValueValidation),
        ("admin profile --seconds 0", ErrorKind::ValueValidation),
        ("admin heap --url http://a --socket /b", ErrorKind::ArgumentConflict),
    ] {
        assert_eq!(parsed(line).map(|args| args.json), Err(kind), "{line}");
    }
}

#[test]
fn a_limit_is_json_where_it_is_json_and_else_text() {
    for (text, key, value) in [
        ("streams_per_client=5", "streams_per_client", json!(5)),
        ("limits.streams_per_client = 5", "streams_per_client", json!(5)),
        ("shadow=true", "shadow", json!(true)),
        ("shadow=posts_per_second,slow_after", "shadow", json!("posts_per_second,slow_after")),
        ("slow_after=90s", "slow_after", json!("90s")),
        ("trusted_proxies=10.0.0.0/8,::1", "trusted_proxies", json!("10.0.0.0/8,::1")),
        ("trusted_proxies=[]", "trusted_proxies", json!([])),
        (r#"overrides=[{"cidr":"a=b"}]"#, "overrides", json!([{ "cidr": "a=b" }])),
    ] {
        assert_eq!(limit(text), Ok((key.to_owned(), value)), "{text}");
    }
}

#[test]
fn a_refusal_that_is_the_callers_fault_is_two_and_all_else_one() {
    let at = || "http://a".to_owned();
    let refused = |status| Failure::Refused { at: at(), status, detail: String::new() }.exit_code();
    assert_eq!(refused(StatusCode::NOT_FOUND), EXIT_USAGE);
    assert_eq!(refused(StatusCode::UNPROCESSABLE_ENTITY), EXIT_USAGE);
    assert_eq!(refused(StatusCode::CONFLICT), EXIT_FAILURE);
    assert_eq!(refused(StatusCode::SERVICE_UNAVAILABLE), EXIT_FAILURE);
    assert_eq!(refused(StatusCode::FOUND), EXIT_FAILURE);
    assert_eq!(Failure::Token { at: at(), detail: String::new() }.exit_code(), EXIT_USAGE);
    assert_eq!(Failure::Unreachable { at: at(), cause: String::new() }.exit_code(), EXIT_FAILURE);
}
