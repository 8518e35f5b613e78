//! A configuration together with the settings that it was made of, so that another one can be told from it.

use std::collections::BTreeSet;

use super::Config;
use super::loader::winner;
use super::setting::Setting;

/// What stands where a secret is not shown: two of them look the same.
const HIDDEN: &str = "redacted";

/// A configuration, and where it comes from. Has no `Debug`: a setting may be a secret.
pub struct Loaded {
    pub config: Config,
    pub(super) settings: Vec<Setting>,
}

impl Loaded {
    /// The keys that have another value here than there, however it is written. Names alone: a value may be a secret.
    pub fn keys_unlike(&self, there: &Self) -> Vec<String> {
        let keys: BTreeSet<String> = self.settings.iter().chain(&there.settings).map(Setting::key).collect();
        let differs = |key: &String| !is_same(winner(&self.settings, key), winner(&there.settings, key));
        keys.into_iter().filter(differs).collect()
    }
}

/// `"5MiB"` is `5242880`, and a default that somebody wrote down is the default.
fn is_same(here: Option<&Setting>, there: Option<&Setting>) -> bool {
    if here.map(|setting| &setting.value) == there.map(|setting| &setting.value) {
        return true;
    }
    let (here, there) = (as_read(here), as_read(there));
    here == there && !here.contains(HIDDEN)
}

fn as_read(setting: Option<&Setting>) -> String {
    match setting.map(Setting::read_alone) {
        None => format!("{:?}", Config::default()),
        Some(Ok(config)) => format!("{config:?}"),
        // Does not happen: what cannot be read is not loaded. Hidden, so that the values themselves decide.
        Some(Err(_)) => HIDDEN.into(),
    }
}
