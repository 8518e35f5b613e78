//! Style kept by a test: floors, lengths, words that must not appear, and the map that must match the land.
//!
//! Every check is a pure function from a file's text to complaints, and is itself tried on a planted fault.

use std::fs;
use std::path::{Path, PathBuf};

/// A module of `src/` may name modules of floors below its own only: neither a sibling nor anything above.
const FLOORS: &[(&str, u8)] = &[
    ("main", 8),
    ("cli", 8),
    ("app", 7),
    ("config", 6),
    ("http", 5),
    ("health", 4),
    ("hub", 3),
    ("intake", 3),
    ("log", 2),
    ("catalog", 1),
    ("schema", 1),
    ("limits", 1),
    ("tls", 1),
    ("database", 0),
    ("disk", 0),
    ("fetch", 0),
    ("model", 0),
    ("metrics", 0),
    ("shutdown", 0),
];

/// Lines of a file before its unit tests.
const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// What a newcomer sees first. Hidden files and what git ignores do not count.
const TOP_LEVEL: &[&str] = &[
    "ARCHITECTURE.md",
    "Cargo.lock",
    "Cargo.toml",
    "Dockerfile",
    "LICENSE",
    "README.md",
    "config",
    "loadtest",
    "src",
    "tests",
];
const IGNORED: &[&str] = &[".git", "target", "data"];

/// Words that code must not hold. What stands in strings and comments is not code.
const BANNED_CODE: &[&str] = &["todo!", "unimplemented!", "dbg!", "unsafe"];
/// Only `cli`, `main` and tests speak to the terminal; everything else logs.
const BANNED_PRINTS: &[&str] = &["println!", "print!", "eprintln!", "eprint!"];
/// Words that no file may hold, in any case. In pieces, so that this list does not find itself.
const BANNED_TEXT: &[&str] = &[
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("shared/", "design"),
    concat!("shared/", "contract"),
    concat!("shared/", "reference"),
    concat!("shared/", "style"),
    concat!("shared/", "data"),
    concat!("shared/", "tools"),
    concat!("clau", "de"),
    concat!("anthro", "pic"),
    concat!("open", "ai"),
    concat!("chat", "gpt"),
    concat!("co", "pilot"),
    concat!("sub", "agent"),
    concat!("language ", "model"),
    concat!("repo.", "maven"),
    concat!("repo1.", "maven"),
    concat!("static.", "crates.io"),
    concat!("index.", "crates.io"),
    concat!("deb.", "debian.org"),
];

#[test]
fn modules_name_only_floors_below_their_own() {
    complain(rust_files("src").iter().flat_map(|file| wrong_floors(&file.path, &code_only(&file.text))));
}

#[test]
fn log_engines_do_not_name_each_other() {
    complain(rust_files("src/log").iter().flat_map(|file| other_engine(&file.path, &code_only(&file.text))));
}

#[test]
fn files_and_functions_are_short() {
    let files = ["src", "tests", "loadtest"].into_iter().flat_map(rust_files);
    complain(files.flat_map(|file| too_long(&file.path, &file.text)));
}

#[test]
fn no_file_holds_a_banned_word() {
    let code = ["src", "tests", "loadtest"].into_iter().flat_map(rust_files);
    let code = code.flat_map(|file| banned_code(&file.path, &code_only(&file.text)));
    let text = files("").into_iter().filter(|file| file.path != "Cargo.lock");
    complain(code.chain(text.flat_map(|file| banned_text(&file.path, &file.text))));
}

#[test]
fn paths_named_in_the_architecture_exist() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    let exists = |path: &str| [root(), root().join("src")].iter().any(|base| base.join(path).exists());
    complain(
        paths_named(&page)
            .into_iter()
            .filter(|(_, path)| !exists(path))
            .map(|(line, path)| format!("ARCHITECTURE.md:{line}: `{path}` does not exist, neither here nor in src/")),
    );
}

#[test]
fn the_top_level_holds_what_a_newcomer_expects() {
    let found = names_in(&root());
    let found = found.iter().map(String::as_str).filter(|name| !name.starts_with('.') && !IGNORED.contains(name));
    let found: Vec<&str> = found.collect();
    let unexpected = found.iter().filter(|name| !TOP_LEVEL.contains(name)).map(|name| format!("{name}: unexpected"));
    let missing = TOP_LEVEL.iter().filter(|name| !found.contains(name)).map(|name| format!("{name}: missing"));
    complain(unexpected.chain(missing));
}

fn wrong_floors(path: &str, code: &str) -> Vec<String> {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    let own = inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs");
    if inside == "lib.rs" || inside == "main.rs" {
        return Vec::new();
    }
    let Some(floor) = floor_of(own) else { return vec![format!("{path}:1: module `{own}` has no floor: give it one")] };
    let fault = |(line, name): (usize, String)| match floor_of(&name) {
        _ if name == own => None,
        None => Some(format!("{path}:{line}: `crate::{name}` has no floor")),
        Some(other) if other >= floor => {
            Some(format!("{path}:{line}: `{own}` (floor {floor}) must not name `{name}` (floor {other})"))
        }
        Some(_) => None,
    };
    modules_used(inside, code).into_iter().filter_map(fault).collect()
}

fn floor_of(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// The top modules that this code names, with the line: by `crate::`, in a group too, or by `super::` from the top.
fn modules_used(inside: &str, code: &str) -> Vec<(usize, String)> {
    let mut used = Vec::new();
    for (at, _) in words(code, "crate") {
        let rest = code[at + "crate".len()..].trim_start();
        let Some(rest) = rest.strip_prefix("::") else { continue };
        used.extend(group_heads(rest).into_iter().map(|name| (line_of(code, at), name)));
    }
    let at_the_top = !inside.contains('/') || inside.matches('/').count() == 1 && inside.ends_with("/mod.rs");
    let climbs = if at_the_top { "super::" } else { "super::super::" };
    for (at, _) in code.match_indices(climbs) {
        let names = group_heads(&code[at + climbs.len()..]).into_iter();
        used.extend(names.filter(|name| floor_of(name).is_some()).map(|name| (line_of(code, at), name)));
    }
    used
}

/// `a::b` → a; `{a, b::{c, d}, e}` → a, b, e. Types and macros of the crate's root are not modules.
fn group_heads(path: &str) -> Vec<String> {
    let path = path.trim_start();
    let Some(group) = path.strip_prefix('{') else { return head(path).into_iter().collect() };
    let (mut heads, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                heads.extend(head(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    heads
}

fn head(path: &str) -> Option<String> {
    let name: String = path.trim_start().chars().take_while(|c| is_word(*c)).collect();
    name.starts_with(|c: char| c.is_ascii_lowercase()).then_some(name)
}

fn other_engine(path: &str, code: &str) -> Vec<String> {
    let others: &[&str] = match path {
        _ if path.starts_with("src/log/sqlite") => &["kafka", "rdkafka"],
        _ if path.starts_with("src/log/kafka") => &["sqlite", "rusqlite"],
        _ => &[],
    };
    let found = others.iter().flat_map(|other| words(code, other));
    found
        .map(|(at, word)| format!("{path}:{}: an engine must not name the other one (`{word}`)", line_of(code, at)))
        .collect()
}

fn too_long(path: &str, text: &str) -> Vec<String> {
    let length = lines_before_tests(text);
    let file = (length > FILE_LINES_MAX).then(|| format!("{path}: {length} lines, at most {FILE_LINES_MAX}"));
    let functions = functions(&code_only(text)).into_iter().filter(|(_, _, lines)| *lines > FUNCTION_LINES_MAX);
    let functions = functions
        .map(|(name, line, lines)| format!("{path}:{line}: fn {name} has {lines} lines, at most {FUNCTION_LINES_MAX}"));
    file.into_iter().chain(functions).collect()
}

fn lines_before_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|pair| pair[0].trim() == "#[cfg(test)]" && pair[1].contains("mod "));
    tests.unwrap_or(lines.len())
}

/// Name, first line and number of lines of every function that has a body.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let found = words(code, "fn").into_iter().filter_map(|(at, _)| {
        let name = head(&code[at + "fn".len()..])?;
        let body = body(&code[at..])?;
        Some((name, line_of(code, at), code[at..at + body].matches('\n').count() + 1))
    });
    found.collect()
}

/// Where the body ends that begins after this signature; none if the function is only declared.
fn body(code: &str) -> Option<usize> {
    let (mut braces, mut brackets) = (0usize, 0usize);
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets = brackets.saturating_sub(1),
            ';' if braces == 0 && brackets == 0 => return None,
            '{' => braces += 1,
            '}' if braces <= 1 => return Some(at + 1),
            '}' => braces -= 1,
            _ => {}
        }
    }
    None
}

fn banned_code(path: &str, code: &str) -> Vec<String> {
    let speaks = !path.starts_with("src/")
        || path.starts_with("src/cli")
        || path == "src/main.rs"
        || path.ends_with("_test.rs")
        || path.ends_with("/tests.rs");
    let quiet_lines = if speaks { 0 } else { lines_before_tests(code) };
    let found = |banned: &&str| {
        let word = banned.trim_end_matches('!');
        let found = words(code, word).into_iter().filter(|(at, _)| code[*at..].starts_with(banned));
        found.map(|(at, _)| (line_of(code, at), word.to_owned())).collect::<Vec<_>>()
    };
    let prints = BANNED_PRINTS.iter().flat_map(found).filter(|(line, _)| *line <= quiet_lines);
    let found = BANNED_CODE.iter().flat_map(found).chain(prints);
    found.map(|(line, word)| format!("{path}:{line}: `{word}` must not stand in code")).collect()
}

fn banned_text(path: &str, text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let found = BANNED_TEXT.iter().flat_map(|word| lower.match_indices(&word.to_lowercase()).collect::<Vec<_>>());
    found.map(|(at, word)| format!("{path}:{}: `{word}` must not stand here", line_of(&lower, at))).collect()
}

/// What stands in backticks and ends like a path of ours, with its line.
fn paths_named(page: &str) -> Vec<(usize, String)> {
    let is_path = |word: &&str| {
        (word.ends_with(".rs") || word.ends_with('/'))
            && !word.starts_with('/')
            && word.chars().all(|c| is_word(c) || "./-".contains(c))
    };
    let named = |(index, line): (usize, &str)| -> Vec<(usize, String)> {
        line.split('`').skip(1).step_by(2).filter(is_path).map(|word| (index + 1, word.to_owned())).collect()
    };
    page.lines().enumerate().flat_map(named).collect()
}

/// The same text with blanks for comments and for what strings and characters hold; lines stay where they are.
fn code_only(text: &str) -> String {
    let (mut code, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(first) = rest.chars().next() {
        let before = code.chars().next_back();
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment_length(rest),
            '"' => string_length(rest),
            'r' | 'b' | 'c' if !before.is_some_and(is_word) => prefixed_length(rest),
            '\'' => char_length(rest),
            _ => 0,
        };
        let taken = if length == 0 { first.len_utf8() } else { length };
        let blank = |c: char| if c == '\n' || length == 0 { c } else { ' ' };
        code.extend(rest[..taken].chars().map(blank));
        rest = &rest[taken..];
    }
    code
}

fn comment_length(rest: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        let (step, change): (usize, isize) = match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (2, 1),
            [b'*', b'/', ..] => (2, -1),
            _ => (1, 0),
        };
        at += step;
        depth = depth.saturating_add_signed(change);
        if depth == 0 {
            break;
        }
    }
    at
}

fn string_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `r"…"`, `r#"…"#`, `b"…"`, `br#"…"#`, `b'…'`; 0 if it is a plain word.
fn prefixed_length(rest: &str) -> usize {
    let prefix = rest.len() - rest.trim_start_matches(['b', 'r', 'c']).len();
    let after = &rest[prefix..];
    let hashes = after.len() - after.trim_start_matches('#').len();
    if prefix > 2 || !after[hashes..].starts_with('"') {
        return if prefix == 1 && after.starts_with('\'') { prefix + char_length(after) } else { 0 };
    }
    if !rest[..prefix].contains('r') {
        return prefix + string_length(after);
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let open = prefix + hashes + 1;
    rest[open..].find(&end).map_or(rest.len(), |at| open + at + end.len())
}

/// `'a'`, `'\n'`, `'\u{1F600}'`; 0 if it is a lifetime.
fn char_length(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => rest[3..].find('\'').map_or(0, |at| at + 4),
        Some((at, c)) if rest[at + c.len_utf8()..].starts_with('\'') => at + c.len_utf8() + 1,
        _ => 0,
    }
}

fn words<'a>(code: &'a str, word: &str) -> Vec<(usize, &'a str)> {
    let alone = |(at, found): &(usize, &str)| {
        !code[..*at].chars().next_back().is_some_and(is_word)
            && !code[at + found.len()..].chars().next().is_some_and(is_word)
    };
    code.match_indices(word).filter(alone).collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn complain(faults: impl Iterator<Item = String>) {
    let faults: Vec<String> = faults.collect();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

struct File {
    /// From the top of the tree, with `/`.
    path: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn rust_files(under: &str) -> Vec<File> {
    files(under).into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

/// Every text file under this folder of the tree, the hidden ones too.
fn files(under: &str) -> Vec<File> {
    let mut found = Vec::new();
    let mut waiting = vec![under.to_owned()];
    while let Some(path) = waiting.pop() {
        let full = root().join(&path);
        if full.is_dir() {
            let names = names_in(&full).into_iter().filter(|name| !IGNORED.contains(&name.as_str()));
            waiting.extend(names.map(|name| if path.is_empty() { name } else { format!("{path}/{name}") }));
        } else if let Ok(text) = fs::read_to_string(&full) {
            found.push(File { path, text });
        }
    }
    found
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder of the tree can be read");
    let mut names: Vec<String> =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    names.sort();
    names
}

#[cfg(test)]
mod planted {
    use super::*;

    fn floors(path: &str, text: &str) -> Vec<String> {
        wrong_floors(path, &code_only(text))
    }

    #[test]
    fn a_use_of_a_floor_above_is_found() {
        let planted = "//! crate::app in a comment\n\nuse crate::model::Topic;\nuse crate::hub::Hub;\n";
        assert_eq!(
            floors("src/log/mod.rs", planted),
            ["src/log/mod.rs:4: `log` (floor 2) must not name `hub` (floor 3)"]
        );
    }

    #[test]
    fn siblings_that_meet_are_found_in_groups_in_tests_and_by_super() {
        assert_eq!(floors("src/hub/ring.rs", "use crate::{\n    log, intake::{Batch, app},\n};").len(), 1);
        assert_eq!(floors("src/intake/mod.rs", "#[cfg(test)]\nmod tests {\n    use crate::hub::Hub;\n}").len(), 1);
        assert_eq!(floors("src/intake/mod.rs", "fn f(hub: &super::hub::Hub) {}").len(), 1);
        assert_eq!(floors("src/hub/ring.rs", "use super::super::intake;").len(), 1);
        assert_eq!(floors("src/hub/ring.rs", "use crate::{hub::frame::Frame, log::Log, model::*};"), [""; 0]);
    }

    #[test]
    fn a_module_without_a_floor_is_found() {
        assert_eq!(floors("src/attic.rs", "").len(), 1);
        assert_eq!(floors("src/app.rs", "use crate::attic::Box;").len(), 1);
    }

    #[test]
    fn an_engine_that_names_the_other_is_found() {
        assert_eq!(other_engine("src/log/kafka/mod.rs", &code_only("use super::sqlite::open;")).len(), 1);
        assert_eq!(other_engine("src/log/sqlite/mod.rs", &code_only("// unlike kafka\nlet kafkaesque = 1;")), [""; 0]);
    }

    #[test]
    fn long_functions_and_files_are_found() {
        let long =
            format!("fn long(x: [u8; 4]) {{\n{}}}\nfn declared();\n", "    \"}\"; '}';\n".repeat(FUNCTION_LINES_MAX));
        assert_eq!(too_long("src/a.rs", &long).len(), 1);
        let tests = format!("{}#[cfg(test)]\nmod tests {{}}\n", "\n".repeat(FILE_LINES_MAX));
        assert_eq!(too_long("src/a.rs", &tests), [""; 0]);
        assert_eq!(too_long("src/a.rs", &format!("\n{tests}")).len(), 1);
    }

    #[test]
    fn banned_words_are_found_in_code_and_not_in_strings() {
        assert_eq!(banned_code("src/hub/mod.rs", &code_only("fn f<'a>() { todo!() } // dbg!")).len(), 1);
        assert_eq!(banned_code("src/hub/mod.rs", &code_only("println!(\"{}\", r#\"dbg! \"todo!\"#)")).len(), 1);
        assert_eq!(
            banned_code("src/cli/mod.rs", &code_only("println!(\"unsafe \\\" unsafe\"); '\\''; b'\"';")),
            [""; 0]
        );
        let seed = "#[cfg(test)]\nmod tests { fn f() { eprintln!() } }";
        assert_eq!(banned_code("src/hub/mod.rs", seed), [""; 0]);
        assert_eq!(banned_code("src/hub/mod.rs", &format!("fn f() {{ print!() }}\n{seed}")).len(), 1);
        assert_eq!(banned_text("a.md", &format!("Seen in {}wt", concat!("/WO", "RK/"))).len(), 1);
    }

    #[test]
    fn paths_in_backticks_are_found() {
        let page = "`hub/ring.rs` keeps\n`http/`, `GET /v2/`, `/v1/` and `Ring`";
        assert_eq!(paths_named(page), [(1, "hub/ring.rs".to_owned()), (2, "http/".to_owned())]);
    }
}
