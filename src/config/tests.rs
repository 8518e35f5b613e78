//! What becomes of settings.

use std::path::Path;

use super::setting::Setting;
use super::*;

fn loader(file: &str, environment: &[(&str, &str)], flags: &[(&'static str, &[&str], &str)]) -> Loader {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sluice.toml");
    std::fs::write(&path, file).expect("a file");
    let mut loader = Loader::default();
    loader.file(&path);
    loader.environment(environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    for (name, key, value) in flags {
        loader.flag(name, key, Some((*value).to_owned()));
    }
    loader
}

fn load(file: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    loader(file, environment, &[]).finish()
}

fn faults(file: &str, environment: &[(&str, &str)]) -> Vec<String> {
    load(file, environment).expect_err("faults").0
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let file = "data_dir = 'file'\n[http]\nlisten = 'file:1'\nworkers = 3\n[intake]\nmax_body_bytes = '5MiB'";
    let environment = [("SLUICE__HTTP__LISTEN", "env:2"), ("SLUICE__DATA_DIR", "env"), ("PATH", "x")];
    let loader = loader(file, &environment, &[("--data", &["data_dir"], "flag")]);
    let config = loader.finish().expect("a config");
    assert_eq!(config.data_dir, PathBuf::from("flag"));
    assert_eq!(config.http.listen, "env:2");
    assert_eq!((config.http.workers, config.intake.max_body_bytes), (3, 5 << 20));
}

#[test]
fn every_fault_is_reported_at_once_with_its_origin() {
    let file = "nope = 1\n[http]\nlisten = 5\nworkerz = 2\n[hub]\nheartbeat = 'soon'\n[intake]\nmax_depth = 900\n\
                [log.kafka.properties]\nacks = 1";
    let environment = [
        ("SLUICE__HTTP__WORKERS", "many"),
        ("SLUICE__LOG__SQLITE__RETENTION_AGE", "-1d"),
        ("SLUICE__ADMIN__LISTEN", "here"),
    ];
    let faults = faults(file, &environment);
    for (from, what) in [
        ("sluice.toml", "nope"),
        ("sluice.toml", "http.listen"),
        ("sluice.toml", "did you mean 'workers'?"),
        ("sluice.toml", "hub.heartbeat"),
        ("sluice.toml", "intake.max_depth: not between 2"),
        ("sluice.toml", "log.kafka.properties.acks"),
        ("environment variable SLUICE__HTTP__WORKERS", "http.workers"),
        ("environment variable SLUICE__LOG__SQLITE__RETENTION_AGE", "'-1d' is not a duration"),
        ("environment variable SLUICE__ADMIN__LISTEN", "admin.listen: not ADDRESS:PORT"),
    ] {
        assert!(faults.iter().any(|fault| fault.contains(from) && fault.contains(what)), "{what}: {faults:#?}");
    }
    assert_eq!(faults.len(), 9, "{faults:#?}");
}

#[test]
fn a_property_that_librdkafka_does_not_take_is_a_fault_where_the_log_is_kafka() {
    let properties = "[log.kafka.properties]\n'no.such.property' = 1\n'socket.timeout.ms' = 'soon'\n'retries' = 3";
    let faults = faults(&format!("[log.kafka]\nbootstrap_servers = ['a:1']\n{properties}"), &[]);
    for what in ["log.kafka.properties.no.such.property: No such", "log.kafka.properties.socket.timeout.ms: Invalid"] {
        assert!(faults.iter().any(|fault| fault.contains(what)), "{what}: {faults:#?}");
    }
    assert_eq!(faults.len(), 2, "{faults:#?}");
    assert!(load(properties, &[]).is_ok(), "nobody is given them");
}

#[test]
fn an_instance_serves_in_out_or_both_and_nothing_else() {
    use http::Half::{In, Out};
    let served = |text: &str| load(&format!("[http]\nserve = {text}"), &[]).map(|config| config.http.serve);
    assert_eq!(served("['in']"), Ok(vec![In]));
    assert_eq!(served("['out', 'in']"), Ok(vec![Out, In]));
    assert_eq!(served("'in,out'"), Ok(vec![In, Out]));
    for (wrong, why) in [("[]", "nothing: name"), ("['up']", "'up' is no half of sluice"), ("5", "http.serve")] {
        let faults = served(wrong).expect_err("a fault").0;
        assert!(faults[0].contains(why) && faults[0].contains("http.serve"), "{wrong}: {faults:?}");
    }
}

#[test]
fn test_events_are_a_list_of_tables() {
    let file = "[intake]\ntest_events = [{ \"$schema\" = '/a/1.0.0', meta.stream = 'a', n = 1.5 }]";
    let config = load(file, &[]).expect("a config");
    let expected = serde_json::json!([{ "$schema": "/a/1.0.0", "meta": { "stream": "a" }, "n": 1.5 }]);
    assert_eq!(serde_json::json!(config.intake.test_events), expected);
    let faults = faults("[intake]\ntest_events = [5]", &[]);
    assert!(faults[0].contains("intake.test_events"), "{faults:?}");
}

#[test]
fn a_value_out_of_range_is_blamed_on_the_setting_that_holds() {
    let faults = faults("[limits]\nipv4_prefix = 99", &[("SLUICE__LIMITS__IPV4_PREFIX", "33")]);
    assert_eq!(faults, ["environment variable SLUICE__LIMITS__IPV4_PREFIX: limits.ipv4_prefix: more than 32 bits"]);
}

#[test]
fn environment_values_are_what_their_key_needs() {
    let environment = [
        ("SLUICE__HTTP__WORKERS", "4"),
        ("SLUICE__HTTP__SERVE", "out"),
        ("SLUICE__INTAKE__TOPIC_PREFIX", "123"),
        ("SLUICE__LOG__KAFKA__BOOTSTRAP_SERVERS", "a:1, b:2"),
        ("SLUICE__LOG__KAFKA__PROPERTIES__SECURITY_PROTOCOL", "plaintext"),
        ("SLUICE__LOG__KAFKA__PROPERTIES__SASL__USERNAME", "me"),
        ("SLUICE__CATALOG__SOURCE", ""),
    ];
    let config = load("", &environment).expect("a config");
    assert_eq!(config.http.workers, 4);
    assert_eq!(config.http.serve, [http::Half::Out]);
    assert_eq!(config.intake.topic_prefix.as_deref(), Some("123"));
    assert_eq!(config.log.kafka.bootstrap_servers, ["a:1", "b:2"]);
    assert_eq!(config.log.kafka.properties["security.protocol"], "plaintext");
    assert_eq!(config.log.kafka.properties["sasl.username"], "me");
    assert_eq!(config.catalog.source, None, "empty means not set");
}

#[test]
fn a_broken_file_is_one_clear_fault_that_quotes_nothing() {
    let faults = faults("data_dir = 'x'\n[log.kafka.properties]\n\"sasl.password\" = \"hush", &[]);
    assert_eq!(faults.len(), 1);
    assert!(faults[0].contains("line 3 is not TOML"), "{faults:?}");
    assert!(!faults[0].contains("hush"), "{faults:?}");
    let mut loader = Loader::default();
    loader.file(Path::new("/nonexistent/sluice.toml"));
    assert!(loader.finish().expect_err("a fault").to_string().contains("cannot be read"));
}

#[test]
fn a_catalogue_is_a_file_or_an_http_address() {
    for source in ["streams.yaml", "https://example.org/w/api.php?action=streamconfigs"] {
        assert!(load(&format!("[catalog]\nsource = '{source}'"), &[]).is_ok(), "{source}");
    }
    let wrong = "source = 'ftp://example.org/'\ndestination_event_service = 'a|b'\nshrink_max_percent = 101";
    let faults = faults(&format!("[catalog]\n{wrong}"), &[]);
    assert_eq!(faults.len(), 3, "{faults:?}");
}

#[test]
fn schema_bases_are_folders_or_addresses() {
    let faults_of = |bases: &str| faults("", &[("SLUICE__SCHEMA__BASES", bases)]);
    assert!(faults_of("schemas,ftp://x/y")[0].contains("schema.bases: neither folders nor addresses"));
    let good = "./schemas,/srv/schemas,file:///srv/schemas,https://schema.example/repositories";
    assert_eq!(load("", &[("SLUICE__SCHEMA__BASES", good)]).expect("a config").schema.bases.len(), 4);
    let never = faults("[schema]\nlatest_ttl = '0s'", &[]);
    assert!(never[0].contains("schema.latest_ttl: 0"), "{never:?}");
}

#[test]
fn what_holds_is_shown_with_its_origin_and_without_secrets() {
    let file = "[http]\nworkers = 3\n[log.kafka.properties]\n\"sasl.password\" = \"hush\"";
    let environment = [("SLUICE__LOG__KAFKA__PROPERTIES__SASL_USERNAME", "me")];
    let page = loader(file, &environment, &[("--data", &["data_dir"], "/srv")]).show().expect("a page");
    for line in [
        "data_dir = \"/srv\"  # flag --data\n",
        "http.listen = \"127.0.0.1:8888\"  # default\n",
        "# catalog.source is not set\n",
        "log.kafka.properties.\"sasl.username\" = \"me\"  # environment variable SLUICE__LOG__KAFKA__PROPERTIES__SASL_USERNAME\n",
        "log.kafka.properties.\"sasl.password\" = \"(redacted)\"",
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
    assert!(
        page.lines().any(|line| line.starts_with("http.workers = 3  # ") && line.ends_with("sluice.toml")),
        "{page}"
    );
    assert!(!page.contains("hush"), "{page}");
}

#[test]
fn the_hashes_of_tokens_do_not_show_and_their_faults_name_them() {
    let hash = "0123456789abcdef".repeat(4);
    let file = |hash: &str| format!("[intake]\nauth = 'tokens'\ntokens = [{{name = 'ours', sha256 = '{hash}'}}]");
    let page = loader(&file(&hash), &[], &[]).show().expect("a page");
    assert!(page.contains("name = \"ours\"") && page.contains("sha256 = \"(redacted)\""), "{page}");
    assert!(!page.contains(&hash), "{page}");
    let faults = faults(&file(&hash[1..]), &[]);
    assert!(faults.iter().any(|fault| fault.contains("intake.tokens: token 'ours': sha256 is not")), "{faults:#?}");
    assert!(!faults.concat().contains(&hash[1..]), "{faults:#?}");
}

/// Every key of the sections, as the complaint about an unknown one names them.
fn keys_of_the_code() -> Vec<String> {
    const SECTIONS: [&str; 15] = [
        "http",
        "admin",
        "catalog",
        "schema",
        "log",
        "log.kafka",
        "log.sqlite",
        "hub",
        "intake",
        "intake.jwt",
        "intake.spool",
        "limits",
        "health",
        "stop",
        "",
    ];
    let mut keys = Vec::new();
    for section in SECTIONS {
        let faults = faults(&format!("{}~~~~~~~~ = 1", header(section)).replace('~', "_"), &[]);
        let (_, known) = faults[0].split_once("the keys are ").unwrap_or_else(|| panic!("{faults:?}"));
        keys.extend(known.split(", ").map(|key| format!("{section}.{key}").trim_start_matches('.').to_owned()));
    }
    keys.retain(|key| !SECTIONS.contains(&key.as_str()));
    keys.sort();
    keys
}

fn header(section: &str) -> String {
    if section.is_empty() { String::new() } else { format!("[{section}]\n") }
}

#[test]
fn a_silence_in_which_one_canary_alone_could_be_lost_is_refused() {
    let health = |text: &str| load(&format!("[health]\n{text}\n"), &[]).map_err(|faults| faults.0.join("\n"));
    for (text, fault) in [
        ("canary_every = '11s'", "health.stall_after"),
        ("stall_after = '14s'", "less than three times"),
        ("canary_every = 0", "health.canary_every"),
    ] {
        assert!(health(text).is_err_and(|faults| faults.contains(fault)), "{text}");
    }
    assert!(health("canary_every = '250ms'\nstall_after = '750ms'").is_ok());
}

#[test]
fn the_sample_file_shows_every_key_and_its_default() {
    let sample: Vec<Setting> = show::sample_settings();
    let mut shown: Vec<String> = sample.iter().map(Setting::key).collect();
    shown.retain(|key| !key.starts_with("log.kafka.properties."));
    shown.push("log.kafka.properties".into());
    shown.sort();
    assert_eq!(shown, keys_of_the_code());
    let as_it_is = load(show::SAMPLE, &[]).expect("the sample as it is");
    assert_eq!(format!("{as_it_is:?}"), format!("{:?}", Config::default()), "as it is, it changes nothing");
    let mut examples: Vec<String> =
        sample.iter().filter(|setting| !show::is_default(setting)).map(Setting::key).collect();
    examples.sort();
    let without_default = [
        "admin.listen",
        "admin.socket",
        "admin.token",
        "catalog.destination_event_service",
        "catalog.source",
        "http.tls_cert",
        "http.tls_key",
        "hub.ring_bytes",
        "intake.auth",
        "intake.error_stream",
        "intake.jwt.algorithms",
        "intake.jwt.audience",
        "intake.jwt.issuer",
        "intake.jwt.jwks_file",
        "intake.jwt.key_file",
        "intake.topic_prefix",
        "limits.streams_total",
        "log.kafka.group_id",
        "log.kafka.properties.security.protocol",
        "stop.handover_socket",
    ];
    assert_eq!(examples, without_default);
}

#[test]
fn keys_differ_by_what_they_say_and_not_by_how_it_is_written() {
    let load = |file: &str, environment: &[(&str, &str)]| loader(file, environment, &[]).load().expect("a config");
    let token = |digit: &str| {
        let hash = digit.repeat(64);
        format!("[intake]\nauth = 'tokens'\ntokens = [{{name = 'a', sha256 = '{hash}'}}]\n[admin]\ntoken = '{hash}'")
    };
    let unlike = |here: &str, there: &str| load(here, &[]).keys_unlike(&load(there, &[]));
    let none: [&str; 0] = [];
    assert_eq!(unlike("[intake]\nmax_body_bytes = '5MiB'", "[intake]\nmax_body_bytes = 5242880"), none);
    assert_eq!(unlike("[http]\nserve = ['in', 'out']", ""), none, "the default, written down");
    assert_eq!(unlike(&token("a"), &token("a")), none);
    assert_eq!(unlike(&token("a"), &token("b")), ["admin.token", "intake.tokens"], "although neither shows");
    let (secret, other) =
        ("[log.kafka.properties]\n\"sasl.password\" = 'x'", "[log.kafka.properties]\n\"sasl.password\" = 'y'");
    assert_eq!(unlike(secret, other), ["log.kafka.properties.sasl.password"]);
    assert_eq!(
        unlike("[http]\nworkers = 3\n[hub]\nheartbeat = '5s'", "[http]\nworkers = 4"),
        ["http.workers", "hub.heartbeat"]
    );
    let beaten = load("[http]\nworkers = 3", &[("SLUICE__HTTP__WORKERS", "5")]);
    assert_eq!(beaten.keys_unlike(&load("[http]\nworkers = 5", &[])), none, "what holds counts");
}
