//! Reads `SLUICE_TEST_KAFKA` and `SLUICE_TEST_CLIENTS` when the tests are built: `off` leaves the tests on a real Kafka, or
//! with real clients, out and shows them as ignored. With `CI` set they are never left out.

fn main() {
    println!("cargo::rerun-if-env-changed=CI");
    println!("cargo::rerun-if-changed=tests/support/build.rs");
    for (variable, left_out) in [("SLUICE_TEST_KAFKA", "without_kafka"), ("SLUICE_TEST_CLIENTS", "without_clients")] {
        println!("cargo::rerun-if-env-changed={variable}");
        println!("cargo::rustc-check-cfg=cfg({left_out})");
        let off = std::env::var(variable).is_ok_and(|value| value == "off");
        if off && std::env::var_os("CI").is_none() {
            println!("cargo::rustc-cfg={left_out}");
        }
    }
}
