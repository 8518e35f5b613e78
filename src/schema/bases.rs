//! Where schemas are looked for: folders, addresses, and what is built in.
//!
//! Errors that leave here name no path, no address and no content: clients get to read them. The log has the rest.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::built_in;
use super::source::SCHEMA_BYTES_MAX;
use super::uri::SchemaUri;
use crate::fetch::{FetchError, Fetcher};

/// Links followed from a name to a file.
const LINKS_MAX: usize = 4;
/// Bytes of a file that is nothing but the name of another one.
const LINK_BYTES_MAX: usize = 256;
/// Files of a folder among which the newest version is looked for.
const VERSIONS_MAX: usize = 10_000;
/// How long an address that failed is left alone: doubled with every failure, up to the most.
const BACK_OFF: Duration = Duration::from_secs(1);
const BACK_OFF_MOST: Duration = Duration::from_secs(30);

/// Why a base, or all of them, do not give a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Miss {
    Absent,
    /// It is there, and is no file of a schema.
    Broken(String),
    /// Whether it is there cannot be told now.
    Unavailable(String),
}

/// All bases, in the order in which they are asked.
#[derive(Debug)]
pub(super) struct Bases {
    bases: Vec<Base>,
    fetcher: Fetcher,
    engine: Handle,
}

#[derive(Debug)]
enum Base {
    Folder(PathBuf),
    Address {
        url: String,
        trouble: Mutex<Trouble>,
    },
    /// The paths that begin so.
    BuiltIn(&'static str),
}

/// How an address has been doing.
#[derive(Debug, Default)]
struct Trouble {
    failures: u32,
    until: Option<Instant>,
}

impl Bases {
    /// Errors name what is wrong with the configuration, and are for operators.
    pub(super) fn new(configured: &[String], fetcher: Fetcher, engine: Handle) -> Result<Self, String> {
        // Canaries are sluice's own, too, and tell of the way of events: not of how other people's servers are.
        let own = Base::BuiltIn("sluice/");
        let bases = std::iter::once(Ok(own)).chain(configured.iter().map(|base| Base::parse(base)));
        let mut bases = bases.collect::<Result<Vec<_>, _>>()?;
        // Error events are sluice's own, so their schema is at hand whatever the bases have.
        bases.push(Base::BuiltIn(if configured.is_empty() { "" } else { "error/" }));
        Ok(Self { bases, fetcher, engine })
    }

    /// The file of the first base that has it.
    pub(super) async fn find(&self, uri: &SchemaUri) -> Result<Bytes, Miss> {
        let mut miss = Miss::Absent;
        for base in &self.bases {
            match self.find_in(base, uri).await {
                Ok(bytes) => return Ok(bytes),
                Err(Miss::Absent) => {}
                Err(Miss::Broken(why)) => return Err(Miss::Broken(why)),
                Err(unavailable) => miss = unavailable,
            }
        }
        Err(miss)
    }

    async fn find_in(&self, base: &Base, uri: &SchemaUri) -> Result<Bytes, Miss> {
        let mut path = uri.path().to_owned();
        for _ in 0..=LINKS_MAX {
            let Some((name, bytes)) = self.first_of(base, &path).await? else {
                let newest = if uri.is_latest() { self.newest(base, &path).await? } else { None };
                path = newest.filter(|newest| *newest != path).ok_or(Miss::Absent)?;
                continue;
            };
            match link_target(&bytes) {
                Some(target) => {
                    path = joined(&name, target)
                        .ok_or_else(|| Miss::Broken("it is a link that leaves its base".into()))?;
                }
                None => return Ok(bytes),
            }
        }
        Err(Miss::Broken("it is a link of a link, and so on".into()))
    }

    /// Of a name and the same with an extension, the one that is there.
    async fn first_of(&self, base: &Base, path: &str) -> Result<Option<(String, Bytes)>, Miss> {
        let has_extension = [".yaml", ".yml", ".json"].iter().any(|extension| path.ends_with(extension));
        let extensions: &[&str] = if has_extension { &[""] } else { &["", ".yaml", ".json"] };
        for extension in extensions {
            let name = format!("{path}{extension}");
            if let Some(bytes) = self.exactly(base, &name).await? {
                return Ok(Some((name, bytes)));
            }
        }
        Ok(None)
    }

    async fn exactly(&self, base: &Base, path: &str) -> Result<Option<Bytes>, Miss> {
        match base {
            Base::BuiltIn(prefix) => {
                let text = built_in::file(path).filter(|_| path.starts_with(prefix));
                Ok(text.map(|text| Bytes::from_static(text.as_bytes())))
            }
            Base::Folder(folder) => {
                let (folder, path) = (folder.clone(), path.to_owned());
                self.off_the_async_threads(move || read_below(&folder, &path)).await
            }
            Base::Address { url, trouble } => {
                if trouble.lock().until.is_some_and(|until| Instant::now() < until) {
                    return Err(Miss::Unavailable(
                        "a schema base has not answered, and is left alone for a while".into(),
                    ));
                }
                let answer = self.fetcher.get(&format!("{url}/{path}"), SCHEMA_BYTES_MAX).await;
                trouble.lock().note(&answer, url);
                match answer {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(FetchError::Absent(_)) => Ok(None),
                    Err(FetchError::TooLarge(most)) => {
                        Err(Miss::Broken(format!("the schema is larger than {most} bytes")))
                    }
                    Err(FetchError::Unavailable(_)) => Err(Miss::Unavailable("a schema base does not answer".into())),
                }
            }
        }
    }

    /// The path of the newest version in the folder of a path. An address cannot be asked for one.
    async fn newest(&self, base: &Base, path: &str) -> Result<Option<String>, Miss> {
        let Some((folder, _)) = path.rsplit_once('/') else { return Ok(None) };
        let names: Vec<String> = match base {
            Base::BuiltIn(prefix) if path.starts_with(prefix) => built_in::names(folder).map(str::to_owned).collect(),
            Base::Folder(base) => {
                let (base, folder) = (base.clone(), folder.to_owned());
                self.off_the_async_threads(move || names_below(&base, &folder)).await?
            }
            _ => Vec::new(),
        };
        let versions = names.iter().filter_map(|name| version(name).map(|version| (version, name)));
        Ok(versions.max().map(|(_, name)| format!("{folder}/{name}")))
    }

    async fn off_the_async_threads<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Miss> + Send + 'static,
    ) -> Result<T, Miss> {
        let ended = self.engine.spawn_blocking(work).await;
        ended.unwrap_or_else(|_| Err(Miss::Unavailable("reading was cut short".into())))
    }
}

impl Base {
    fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with("http://") || text.starts_with("https://") {
            let url = text.trim_end_matches('/').to_owned();
            return Ok(Self::Address { url, trouble: Mutex::default() });
        }
        let folder = PathBuf::from(text.strip_prefix("file://").unwrap_or(text));
        let cure = "name a folder of schemas, or an address that begins with http:// or https://";
        match std::fs::metadata(&folder) {
            Ok(found) if found.is_dir() => Ok(Self::Folder(folder)),
            Ok(_) => Err(format!("schema base {text} is no folder: {cure}")),
            Err(e) => Err(format!("schema base {text} cannot be read: {e}: {cure}")),
        }
    }
}

impl Trouble {
    fn note(&mut self, answer: &Result<Bytes, FetchError>, url: &str) {
        let why = match answer {
            Err(FetchError::Unavailable(why)) => why,
            _ => return *self = Self::default(),
        };
        // Else clients could take a base away by asking for names that it does not like.
        if answer.as_ref().is_err_and(FetchError::is_refusal) {
            return;
        }
        // Others that were under way when the base went: one failure, not several.
        if self.until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        if self.failures == 0 {
            tracing::warn!(base = url, "a schema base does not answer: {why}");
        }
        let wait = BACK_OFF.saturating_mul(1 << self.failures.min(10)).min(BACK_OFF_MOST);
        self.failures += 1;
        self.until = Some(Instant::now() + wait);
    }
}

/// A file below a folder, wherever links lead, as long as they do not lead out.
fn read_below(folder: &Path, path: &str) -> Result<Option<Bytes>, Miss> {
    let Some(file) = place_below(folder, path)? else { return Ok(None) };
    // Asked before it is opened: opening a pipe would wait for a writer.
    if !std::fs::metadata(&file).map_err(|e| unreadable(&file, &e))?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let most = u64::try_from(SCHEMA_BYTES_MAX).unwrap_or(u64::MAX);
    let file_read = std::fs::File::open(&file).and_then(|open| open.take(most + 1).read_to_end(&mut bytes));
    file_read.map_err(|e| unreadable(&file, &e))?;
    if bytes.len() > SCHEMA_BYTES_MAX {
        return Err(Miss::Broken(format!("the schema is larger than {SCHEMA_BYTES_MAX} bytes")));
    }
    Ok(Some(bytes.into()))
}

fn names_below(folder: &Path, path: &str) -> Result<Vec<String>, Miss> {
    let Some(place) = place_below(folder, path)? else { return Ok(Vec::new()) };
    let entries = match std::fs::read_dir(&place) {
        Ok(entries) => entries,
        Err(e) if is_absence(&e) => return Ok(Vec::new()),
        Err(e) => return Err(unreadable(&place, &e)),
    };
    let names = entries.take(VERSIONS_MAX).filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.collect())
}

/// The real place of a path, if there is something. Both are asked for anew each time: deployments swap links.
fn place_below(folder: &Path, path: &str) -> Result<Option<PathBuf>, Miss> {
    let base = folder.canonicalize().map_err(|e| unreadable(folder, &e))?;
    let place = match base.join(path).canonicalize() {
        Ok(place) => place,
        Err(e) if is_absence(&e) => return Ok(None),
        Err(e) => return Err(unreadable(&base.join(path), &e)),
    };
    if place.starts_with(&base) {
        Ok(Some(place))
    } else {
        Err(Miss::Broken("it is a link that leaves its base".into()))
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename)
}

fn unreadable(path: &Path, error: &io::Error) -> Miss {
    tracing::warn!(path = %path.display(), "a schema base cannot be read: {error}");
    Miss::Unavailable("a schema base cannot be read".into())
}

/// What git keeps of a link, and what servers of repositories answer for one: nothing but the name of another file.
fn link_target(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= LINK_BYTES_MAX)?.trim_end();
    let fits = |char: char| char.is_ascii_alphanumeric() || "_-./+~@".contains(char);
    (!text.is_empty() && text.chars().all(fits)).then_some(text)
}

/// The path of a target that stands in a file. `None`: it leaves the base.
fn joined(file: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut segments: Vec<&str> = file.split('/').collect();
    segments.pop();
    for segment in target.split('/') {
        match segment {
            "." => {}
            ".." => {
                segments.pop()?;
            }
            hidden if hidden.starts_with('.') || hidden.is_empty() => return None,
            segment => segments.push(segment),
        }
    }
    (!segments.is_empty()).then(|| segments.join("/"))
}

/// `1.2.0`, `1.2.0.yaml`: its numbers.
fn version(name: &str) -> Option<[u64; 3]> {
    let plain = [".yaml", ".yml", ".json"].iter().find_map(|extension| name.strip_suffix(extension)).unwrap_or(name);
    let mut parts = plain.split('.').map(|part| part.parse().ok());
    let version = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_a_name_is_a_link() {
        for (text, expected) in [
            ("1.0.0.yaml", Some("1.0.0.yaml")),
            ("../b/1.0.0.yaml\n", Some("../b/1.0.0.yaml")),
            ("type: object", None),
            ("{}", None),
            ("", None),
            ("a\nb", None),
        ] {
            assert_eq!(link_target(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(joined("a/b/latest", "1.0.0.yaml").as_deref(), Some("a/b/1.0.0.yaml"));
        assert_eq!(joined("a/b/latest", "../c/./1.0.0").as_deref(), Some("a/c/1.0.0"));
        for target in ["/etc/passwd", "../../../x", ".git/config", "../..", "a//b", "..."] {
            assert_eq!(joined("a/b/latest", target), None, "{target}");
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let newest = ["1.9.0", "1.10.0.yaml", "1.2.0.json", "latest", "1.11", "9.9.9.9", "x.y.z"];
        assert_eq!(newest.iter().filter_map(|name| version(name)).max(), Some([1, 10, 0]));
    }
}
