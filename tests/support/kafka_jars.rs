//! Apache Kafka from Maven, kept in a cache outside the tree. Fetched once, by one process, all or nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache;

/// Tried in this order; the first that is in the cache, or else resolves, is taken.
const VERSIONS: [&str; 3] = ["4.1.0", "4.2.0", "4.3.0"];

const WAY_OUT: &str = "install them (Debian: `apt-get install openjdk-17-jre-headless maven`), or point \
     SLUICE_TEST_KAFKA=host:port at a running broker, or leave these tests out with SLUICE_TEST_KAFKA=off";

/// The folder of jars. The error is a sentence for whoever runs the tests.
pub fn kafka_jars() -> Result<PathBuf, String> {
    if runs("java", "-version").is_err() {
        return Err(format!("the Kafka tests need Java 17 and Maven, and `java` does not run: {WAY_OUT}"));
    }
    let cache = cache::dir();
    match cached(&cache) {
        Some(jars) => Ok(jars),
        None => fetch_into(&cache),
    }
}

fn cached(cache: &Path) -> Option<PathBuf> {
    VERSIONS.iter().map(|version| place_of(cache, version)).find(|place| place.is_dir())
}

fn place_of(cache: &Path, version: &str) -> PathBuf {
    cache.join(format!("kafka-{version}"))
}

fn fetch_into(cache: &Path) -> Result<PathBuf, String> {
    let _lock = cache::lock(cache)?;
    if let Some(jars) = cached(cache) {
        return Ok(jars);
    }
    if runs("mvn", "-version").is_err() {
        return Err(format!("the Kafka tests need Java 17 and Maven, and `mvn` does not run: {WAY_OUT}"));
    }
    let mut faults = Vec::new();
    for version in VERSIONS {
        match fetch(cache, version) {
            Ok(jars) => return Ok(jars),
            Err(fault) => faults.push(format!("{version}: {fault}")),
        }
    }
    Err(format!("Maven could not fetch Apache Kafka; without it, {WAY_OUT}.\n{}", faults.join("\n")))
}

/// Into a folder beside its place, then renamed: an interrupted download is never mistaken for a Kafka.
fn fetch(cache: &Path, version: &str) -> Result<PathBuf, String> {
    let stage = tempfile::tempdir_in(cache).map_err(|fault| fault.to_string())?;
    fs::write(stage.path().join("pom.xml"), pom(version)).map_err(|fault| fault.to_string())?;
    let run = Command::new("mvn")
        .args(["-q", "-B", "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"])
        .args(["-DoutputDirectory=libs", "-DincludeScope=runtime"])
        .current_dir(stage.path())
        .output()
        .map_err(|fault| fault.to_string())?;
    if !run.status.success() {
        return Err(String::from_utf8_lossy(&run.stdout).into_owned());
    }
    let place = place_of(cache, version);
    fs::rename(stage.path().join("libs"), &place).map_err(|fault| fault.to_string())?;
    Ok(place)
}

fn pom(version: &str) -> String {
    let dependency = |artifact: &str| {
        format!(
            "<dependency><groupId>org.apache.kafka</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version></dependency>"
        )
    };
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>sluice</groupId><artifactId>kafka-for-tests</artifactId><version>1</version>\
         <packaging>pom</packaging><dependencies>{}{}</dependencies></project>",
        dependency("kafka_2.13"),
        dependency("kafka-tools"),
    )
}

fn runs(program: &str, argument: &str) -> Result<(), String> {
    match Command::new(program).arg(argument).output() {
        Ok(run) if run.status.success() => Ok(()),
        Ok(run) => Err(String::from_utf8_lossy(&run.stderr).into_owned()),
        Err(fault) => Err(fault.to_string()),
    }
}
