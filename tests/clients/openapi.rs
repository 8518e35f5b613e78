//! The API's description, read by somebody who knows OpenAPI and not us.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::kit;
use crate::server::{Options, Server};

/// A line for each fault that the validator finds.
fn faults_of(python: &Path, document: &Value) -> Vec<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/scripts/openapi_valid.py");
    let mut command = Command::new(python);
    command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut validator = command.spawn().expect("Python runs");
    // Dropped at once, which ends what it reads.
    let mut stdin = validator.stdin.take().expect("it is piped");
    stdin.write_all(document.to_string().as_bytes()).expect("it reads");
    drop(stdin);
    let said = validator.wait_with_output().expect("it ends");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8_lossy(&said.stdout).lines().map(str::to_owned).collect()
}

#[tokio::test]
#[cfg_attr(without_clients, ignore = "SLUICE_TEST_CLIENTS=off")]
async fn the_apis_description_is_valid_openapi_3_1() {
    let server = Server::start(Options::default()).await;
    let mut document = server.get("/openapi.json").await.json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")), "{}", document["openapi"]);
    let check = |document: Value| async {
        let faults = move || Ok::<_, String>(faults_of(&kit::python()?, &document));
        tokio::task::spawn_blocking(faults).await.expect("it does not panic").unwrap_or_else(|fault| panic!("{fault}"))
    };
    assert_eq!(check(document.clone()).await, Vec::<String>::new());

    // The validator does look.
    document["paths"]["/v1/events"]["post"]["responses"]["201"] = json!({ "description": 1 });
    assert_ne!(check(document).await, Vec::<String>::new());
}
