//! Reads `SLUICE_TEST_KAFKA` when the tests are built: `off` leaves the Kafka tests out and shows them as ignored.
//! With `CI` set they are never left out.

fn main() {
    println!("cargo::rerun-if-env-changed=SLUICE_TEST_KAFKA");
    println!("cargo::rerun-if-env-changed=CI");
    println!("cargo::rerun-if-changed=tests/support/build.rs");
    println!("cargo::rustc-check-cfg=cfg(without_kafka)");
    let off = std::env::var("SLUICE_TEST_KAFKA").is_ok_and(|value| value == "off");
    if off && std::env::var_os("CI").is_none() {
        println!("cargo::rustc-cfg=without_kafka");
    }
}
