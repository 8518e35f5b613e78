//! The list of networks that get nothing, for a time or until somebody takes them off it. Kept over restarts.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::options::network;
use crate::disk;
use crate::model::Timestamp;

const FILE_NAME: &str = "deny.json";
/// Networks on the list. No more are taken.
const NETWORKS_MAX: usize = 1_000;
const REASON_BYTES_MAX: usize = 500;
/// A larger file is not one of ours.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// One network that gets nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    pub cidr: IpNet,
    #[serde(default)]
    pub reason: String,
    /// Milliseconds since 1970.
    pub since: i64,
    /// `None`: until it is taken off the list.
    pub until: Option<i64>,
}

#[derive(Debug, thiserror::Error)]
pub enum DenyError {
    #[error("{0}")]
    Network(String),
    #[error("the reason has more than {REASON_BYTES_MAX} bytes")]
    Reason,
    #[error("there are {NETWORKS_MAX} networks on the list already: deny a wider one instead")]
    Full,
    #[error("the deny list {} cannot be read ({cause}): mend it, or remove it and deny again", path.display())]
    Read { path: PathBuf, cause: io::Error },
}

/// A change that holds from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub denial: Denial,
    /// Why it will be forgotten at a restart. It holds all the same: a disk that is full is no reason to let an attack go on.
    pub not_kept: Option<String>,
}

#[derive(Debug)]
pub struct Deny {
    /// `None`: not kept.
    path: Option<PathBuf>,
    list: ArcSwap<Vec<Denial>>,
    changing: Mutex<()>,
}

impl Deny {
    pub(super) fn forgetful() -> Self {
        Self { path: None, list: ArcSwap::default(), changing: Mutex::default() }
    }

    /// The list that an earlier run has left. Blocks.
    pub(super) fn open(folder: &Path) -> Result<Self, DenyError> {
        let path = folder.join(FILE_NAME);
        let list = read(&path).map_err(|cause| DenyError::Read { path: path.clone(), cause })?;
        Ok(Self { path: Some(path), list: ArcSwap::from_pointee(list), changing: Mutex::default() })
    }

    /// Why this address gets nothing; the narrowest network counts.
    pub fn denies(&self, address: IpAddr) -> Option<Denial> {
        let list = self.list.load();
        if list.is_empty() {
            return None;
        }
        let (address, now) = (address.to_canonical(), Timestamp::now().0);
        let theirs = list.iter().filter(|denial| denial.holds(now) && denial.cidr.contains(&address));
        theirs.max_by_key(|denial| denial.cidr.prefix_len()).cloned()
    }

    /// Those that hold now.
    pub fn list(&self) -> Vec<Denial> {
        let now = Timestamp::now().0;
        self.list.load().iter().filter(|denial| denial.holds(now)).cloned().collect()
    }

    /// Puts a network on the list, or puts another time and reason to one that is there. Blocks until it is on disk, too.
    pub fn add(&self, cidr: &str, reason: &str, for_ms: Option<i64>) -> Result<Change, DenyError> {
        let cidr = network(cidr).map_err(DenyError::Network)?;
        if reason.len() > REASON_BYTES_MAX {
            return Err(DenyError::Reason);
        }
        let since = Timestamp::now().0;
        let until = for_ms.map(|ms| since.saturating_add(ms));
        let denial = Denial { cidr, reason: reason.to_owned(), since, until };
        let _one_at_a_time = self.changing.lock();
        let mut list = self.list();
        list.retain(|other| other.cidr != cidr);
        if list.len() >= NETWORKS_MAX {
            return Err(DenyError::Full);
        }
        list.push(denial.clone());
        let not_kept = self.keep(list);
        Ok(Change { denial, not_kept })
    }

    /// Takes a network off the list; `None`: it was not on it. Blocks until that is on disk, too.
    pub fn remove(&self, cidr: &str) -> Result<Option<Change>, DenyError> {
        let cidr = network(cidr).map_err(DenyError::Network)?;
        let _one_at_a_time = self.changing.lock();
        let mut list = self.list();
        let Some(at) = list.iter().position(|denial| denial.cidr == cidr) else { return Ok(None) };
        let denial = list.remove(at);
        let not_kept = self.keep(list);
        Ok(Some(Change { denial, not_kept }))
    }

    /// Says why it is not on disk, where it is not. The next change writes all of it.
    fn keep(&self, list: Vec<Denial>) -> Option<String> {
        let list = Arc::new(list);
        self.list.store(list.clone());
        let path = self.path.as_ref()?;
        let written =
            serde_json::to_vec_pretty(&*list).map_err(Into::into).and_then(|bytes| disk::replace(path, &bytes));
        let error = written.err()?;
        Some(format!("{} cannot be written ({error}): make room, and change the list once more", path.display()))
    }
}

impl Denial {
    fn holds(&self, now: i64) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

fn read(path: &Path) -> io::Result<Vec<Denial>> {
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Ok(found) if found.len() > FILE_BYTES_MAX => return Err(io::Error::other("it is too large to be one of ours")),
        _ => {}
    }
    let mut list: Vec<Denial> = serde_json::from_slice(&fs::read(path)?)?;
    // Somebody may have written it by hand.
    list.iter_mut().for_each(|denial| denial.cidr = denial.cidr.trunc());
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_network_is_denied_until_its_time_is_over_or_it_is_taken_off_and_over_restarts() {
        let folder = tempfile::tempdir().expect("a folder");
        let deny = Deny::open(folder.path()).expect("a list");
        assert_eq!(deny.denies(address("192.0.2.7")), None);
        deny.add("192.0.2.7/24", "flood", None).expect("denied");
        deny.add("192.0.2.7", "worse", None).expect("denied");
        deny.add("2001:db8::/32", "", Some(0)).expect("denied for no time at all");
        let again = Deny::open(folder.path()).expect("a list");
        for deny in [&deny, &again] {
            assert_eq!(deny.denies(address("192.0.2.8")).expect("a denial").reason, "flood");
            assert_eq!(deny.denies(address("::ffff:192.0.2.7")).expect("a denial").reason, "worse");
            assert_eq!(deny.denies(address("198.51.100.1")), None);
            assert_eq!(deny.denies(address("2001:db8::1")), None);
            assert_eq!(deny.list().len(), 2);
        }
        assert!(again.remove("192.0.2.0/24").expect("written").is_some());
        assert!(again.remove("192.0.2.0/24").expect("nothing to write").is_none());
        assert_eq!(again.denies(address("192.0.2.8")), None);
        assert!(matches!(again.add("nonsense", "", None), Err(DenyError::Network(_))));
    }

    #[test]
    fn the_list_is_bounded_and_what_is_on_it_can_be_changed_all_the_same() {
        let deny = Deny::forgetful();
        let network = |number: usize| format!("10.{}.{}.0/24", number / 250, number % 250);
        assert!((0..NETWORKS_MAX).all(|number| deny.add(&network(number), "", None).is_ok()));
        assert!(matches!(deny.add("192.0.2.0/24", "", None), Err(DenyError::Full)));
        assert!(deny.add(&network(0), "again", None).is_ok());
        assert!(matches!(deny.add("10.0.0.0/24", &"x".repeat(REASON_BYTES_MAX + 1), None), Err(DenyError::Reason)));
        assert_eq!(deny.list().len(), NETWORKS_MAX);
    }

    #[test]
    fn a_list_that_cannot_be_read_is_said_and_not_taken_for_an_empty_one() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(FILE_NAME), "[{").expect("a file");
        assert!(matches!(Deny::open(folder.path()), Err(DenyError::Read { .. })));
    }

    #[test]
    fn what_cannot_be_kept_holds_until_a_restart_and_the_next_change_keeps_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let deny = Deny::open(&data).expect("a list");
        fs::write(&data, "in the way").expect("a file");
        let change = deny.add("192.0.2.7", "", None).expect("denied");
        assert!(change.not_kept.is_some_and(|why| why.contains("deny.json cannot be written")));
        assert!(deny.denies(address("192.0.2.7")).is_some());
        fs::remove_file(&data).expect("removed");
        assert_eq!(deny.add("192.0.2.8", "", None).expect("denied").not_kept, None);
        assert_eq!(Deny::open(&data).expect("a list").list().len(), 2);
        fs::remove_dir_all(&data).expect("removed");
        fs::write(&data, "in the way").expect("a file");
        let change = deny.remove("192.0.2.7").expect("removed").expect("it was there");
        assert!(change.not_kept.is_some() && deny.denies(address("192.0.2.7")).is_none());
    }
}
