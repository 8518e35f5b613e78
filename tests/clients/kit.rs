//! What the clients are made of, at exactly the versions that `scripts/` names. Fetched into the tests' cache, into a
//! folder that is named by those versions: a changed one is fetched anew, beside the old.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::support::cache;

const REQUIREMENTS: &str = include_str!("scripts/requirements.txt");
const PACKAGE: &str = include_str!("scripts/package.json");
const PACKAGE_LOCK: &str = include_str!("scripts/package-lock.json");

const WAY_OUT: &str =
    "run tests/run, which installs what it can, or leave these tests out with SLUICE_TEST_CLIENTS=off";

/// A Python that has the clients. The error is a sentence for whoever runs the tests.
pub fn python() -> Result<PathBuf, String> {
    let python = |place: &Path| place.join("venv/bin/python");
    // It is a link to the system's, which may have gone.
    let whole = |place: &Path| runs(Command::new(python(place)).args(["-c", "import requests_sse"])).is_ok();
    let place = fetched("python", &[REQUIREMENTS], whole, |stage| {
        runs(Command::new("python3").args(["-m", "venv"]).arg(stage.join("venv")))?;
        fs::write(stage.join("requirements.txt"), REQUIREMENTS).map_err(|fault| fault.to_string())?;
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"];
        let file = stage.join("requirements.txt");
        runs(Command::new(python(stage)).args(install).arg("--requirement").arg(file))
    })?;
    Ok(python(&place))
}

/// A Node, and the folder of packages for it. Its own Node, because a client needs a newer one than Debian has.
#[derive(Debug)]
pub struct Node {
    pub node: PathBuf,
    pub modules: PathBuf,
}

pub fn node() -> Result<Node, String> {
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    let node = |place: &Path| place.join(format!("node_modules/node-linux-{machine}/bin/node"));
    let whole = |place: &Path| runs(Command::new(node(place)).arg("--version")).is_ok();
    let place = fetched("node", &[PACKAGE, PACKAGE_LOCK], whole, |stage| {
        for (name, text) in [("package.json", PACKAGE), ("package-lock.json", PACKAGE_LOCK)] {
            fs::write(stage.join(name), text).map_err(|fault| fault.to_string())?;
        }
        let install = ["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"];
        runs(Command::new("npm").args(install).current_dir(stage))
    })?;
    Ok(Node { node: node(&place), modules: place.join("node_modules") })
}

/// The folder of these versions, whole. Filled beside its place and then renamed: an interrupted download is never
/// mistaken for one.
fn fetched(
    what: &str,
    versions: &[&str],
    whole: impl Fn(&Path) -> bool,
    fill: impl Fn(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let cache = cache::dir();
    let key: String = Sha256::digest(versions.concat()).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let place = cache.join(format!("clients-{what}-{key}"));
    if whole(&place) {
        return Ok(place);
    }
    let _lock = cache::lock(&cache)?;
    if whole(&place) {
        return Ok(place);
    }
    let cannot = |fault: String| format!("the {what} clients cannot be fetched: {WAY_OUT}.\n{fault}");
    let stage = tempfile::tempdir_in(&cache).map_err(|fault| cannot(fault.to_string()))?;
    fill(stage.path()).map_err(cannot)?;
    if place.exists() {
        fs::remove_dir_all(&place).map_err(|fault| cannot(fault.to_string()))?;
    }
    fs::rename(stage.path(), &place).map_err(|fault| cannot(fault.to_string()))?;
    match whole(&place) {
        true => Ok(place),
        false => Err(cannot(format!("what was fetched into {} does not run", place.display()))),
    }
}

fn runs(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(run) if run.status.success() => Ok(()),
        Ok(run) => Err(format!("{command:?}: {}", String::from_utf8_lossy(&[run.stdout, run.stderr].concat()))),
        Err(fault) => Err(format!("{command:?}: {fault}")),
    }
}
