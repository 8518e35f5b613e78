//! The schemas that are part of the program.

/// Path below the base, and content.
const FILES: &[(&str, &str)] = &[
    ("error/0.0.3.yaml", include_str!("built_in/error/0.0.3.yaml")),
    ("error/1.0.0.yaml", include_str!("built_in/error/1.0.0.yaml")),
    ("error/2.0.0.yaml", include_str!("built_in/error/2.0.0.yaml")),
    ("error/2.1.0.yaml", include_str!("built_in/error/2.1.0.yaml")),
    ("sluice/canary/1.0.0.yaml", include_str!("built_in/sluice/canary/1.0.0.yaml")),
    ("test/event/0.0.2.yaml", include_str!("built_in/test/event/0.0.2.yaml")),
    ("test/event/0.0.3.yaml", include_str!("built_in/test/event/0.0.3.yaml")),
    ("test/event/1.0.0.yaml", include_str!("built_in/test/event/1.0.0.yaml")),
    ("mediawiki/recentchange/1.0.0.yaml", include_str!("built_in/mediawiki/recentchange/1.0.0.yaml")),
    ("mediawiki/recentchange/1.0.1.yaml", include_str!("built_in/mediawiki/recentchange/1.0.1.yaml")),
    ("mediawiki/page/change/1.0.0.yaml", include_str!("built_in/mediawiki/page/change/1.0.0.yaml")),
    ("mediawiki/page/change/1.1.0.yaml", include_str!("built_in/mediawiki/page/change/1.1.0.yaml")),
    ("mediawiki/page/change/1.2.0.yaml", include_str!("built_in/mediawiki/page/change/1.2.0.yaml")),
    ("mediawiki/revision/create/1.0.0.yaml", include_str!("built_in/mediawiki/revision/create/1.0.0.yaml")),
    ("mediawiki/revision/create/1.1.0.yaml", include_str!("built_in/mediawiki/revision/create/1.1.0.yaml")),
    ("mediawiki/revision/create/1.2.0.yaml", include_str!("built_in/mediawiki/revision/create/1.2.0.yaml")),
    ("mediawiki/revision/create/2.0.0.yaml", include_str!("built_in/mediawiki/revision/create/2.0.0.yaml")),
];

/// The file of exactly this path.
pub(super) fn file(path: &str) -> Option<&'static str> {
    FILES.iter().find(|(name, _)| *name == path).map(|(_, text)| *text)
}

/// The names of the files in a folder.
pub(super) fn names(folder: &str) -> impl Iterator<Item = &'static str> {
    FILES.iter().filter_map(move |(path, _)| {
        let (parent, name) = path.rsplit_once('/')?;
        (parent == folder).then_some(name)
    })
}

#[cfg(test)]
pub(super) fn paths() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(path, _)| *path)
}
