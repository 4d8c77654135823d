//! What the source tree promises of itself: where unsafe code is, which module may use which, and that every reason for
//! a fallback has a test that brings it about.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use mapfall::FallbackReason;

/// The library's modules, lowest first. Each uses only those before it.
const LAYERS: [&str; 16] = [
    "canary",
    "error",
    "checksum",
    "extent",
    "sys",
    "stats",
    "cache",
    "map_options",
    "io",
    "options",
    "residency",
    "format",
    "tree",
    "store",
    "fuzzing",
    "workload",
];

const LINES_MAX: usize = 500;
const COLUMNS_MAX: usize = 120;

/// A file of the tree, by its path from the package's root.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The text without comments, and with empty string literals.
    fn code(&self) -> String {
        let (mut code, mut rest) = (String::new(), self.text.as_str());
        while let Some(first) = rest.chars().next() {
            let skipped = match rest {
                _ if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
                _ if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
                _ if rest.starts_with("r#\"") => rest.find("\"#").map_or(rest.len(), |end| end + 2),
                _ if rest.starts_with("'\"'") => 3,
                _ if first == '"' => string_len(rest),
                _ => {
                    code.push(first);
                    rest = &rest[first.len_utf8()..];
                    continue;
                }
            };
            rest = &rest[skipped..];
        }
        code
    }

    /// The code without the unit tests, which stand at the end of a file.
    fn code_without_tests(&self) -> String {
        let code = self.code();
        let end = code.find("#[cfg(test)]\nmod tests {").unwrap_or(code.len());
        code[..end].to_owned()
    }

    fn is_in(&self, directory: &str) -> bool {
        self.path.starts_with(directory)
    }

    /// The module right below the crate's root that the file belongs to; nothing for `lib.rs` and the binary.
    fn module(&self) -> Option<&str> {
        let below = self.path.strip_prefix("src/").filter(|below| !below.starts_with("bin/") && *below != "lib.rs")?;
        below.split(['/', '.']).next()
    }
}

/// How long the string literal at the beginning is, its quotes included.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

/// Whole words: runs of letters, digits and underscores.
fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below these directories of the package.
fn sources(directories: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    let mut left: Vec<_> = directories.iter().map(|directory| root().join(directory)).collect();
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push(Source { path, text });
            }
        }
    }
    assert!(!found.is_empty());
    found
}

/// Fails with all of them, not with the first.
fn none(what: &str, offenders: Vec<String>) {
    assert!(offenders.is_empty(), "{what}:\n{}", offenders.join("\n"));
}

#[test]
fn comments_and_strings_are_no_code() {
    let text = "a // unsafe\n/* unsafe */ b \"un\\\"safe\" '\"' c r#\"\"unsafe\"\"# d".to_owned();
    let source = Source { path: "src/io/mmap/range.rs".to_owned(), text };
    let words: Vec<_> = source.code().split_whitespace().map(str::to_owned).collect();
    assert_eq!(words, ["a", "b", "c", "d"]);
    assert_eq!(source.module(), Some("io"));
}

#[test]
fn unsafe_code_is_where_it_is_said_to_be() {
    let allowed = |source: &Source| {
        source.is_in("src/sys/") || source.path == "src/workload/bare.rs" || source.is_in("tests/support/")
    };
    let uses = |source: &Source| words(&source.code()).any(|word| word == "unsafe" || word == "unsafe_code");
    let offenders = sources(&["src", "tests"]).into_iter().filter(|source| !allowed(source) && uses(source));
    none("unsafe code elsewhere", offenders.map(|source| source.path).collect());
}

/// The modules of the crate that a file names: by `crate::module`, by `crate::Name` where the root re-exports the name,
/// and by `super::module` where that is the same.
fn modules_named_in(source: &Source, exports: &[(String, String)]) -> BTreeSet<String> {
    let code = source.code();
    let depth = source.path.matches('/').count() - usize::from(source.path.ends_with("/mod.rs"));
    let mut names = Vec::new();
    for prefix in ["crate::", "super::"] {
        if prefix == "super::" && depth > 1 {
            continue;
        }
        for (at, _) in code.match_indices(prefix) {
            let rest = &code[at + prefix.len()..];
            match rest.strip_prefix('{') {
                Some(group) => names.extend(words(group.split('}').next().unwrap_or(group))),
                None => names.extend(words(rest).next()),
            }
        }
    }
    let module_of = |name: &str| match LAYERS.contains(&name) {
        true => Some(name.to_owned()),
        false => exports.iter().find(|(export, _)| export == name).map(|(_, module)| module.clone()),
    };
    names.into_iter().filter_map(module_of).collect()
}

#[test]
fn modules_use_only_what_stands_below_them() {
    let sources = sources(&["src"]);
    let lib = sources.iter().find(|source| source.path == "src/lib.rs").unwrap().code();
    let mut exports = Vec::new();
    for line in lib.lines().filter_map(|line| line.strip_prefix("pub use ")) {
        let (module, names) = line.split_once("::").unwrap();
        exports.extend(words(names).filter(|name| !name.is_empty()).map(|name| (name.to_owned(), module.to_owned())));
    }
    assert!(exports.contains(&("MmapFile".to_owned(), "io".to_owned())), "lib.rs is not read as it is written");

    let declared: BTreeSet<_> = lib
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect();
    assert_eq!(declared, LAYERS.map(str::to_owned).into(), "each module has a place in LAYERS");

    let layer = |module: &str| LAYERS.iter().position(|layer| *layer == module).unwrap();
    let mut offenders = Vec::new();
    let mut uses = 0;
    for source in &sources {
        let Some(module) = source.module() else { continue };
        for used in modules_named_in(source, &exports) {
            uses += usize::from(used != module);
            if layer(&used) > layer(module) {
                offenders.push(format!("{} uses {used}", source.path));
            }
        }
    }
    assert!(uses > 15, "only {uses} uses were found");
    none("uses upwards", offenders);
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = |source: &Source| !source.text.starts_with("//! ") && !source.text.starts_with("#![doc");
    let offenders = sources(&["src", "tests"]).into_iter().filter(silent);
    none("no header", offenders.map(|source| source.path).collect());
}

#[test]
fn the_library_prints_nothing() {
    let prints = ["println", "print", "eprintln", "eprint", "dbg"].map(|name| format!("{name}!"));
    let offends = |source: &Source| {
        let code = source.code_without_tests();
        !source.is_in("src/bin/") && prints.iter().any(|print| code.contains(print))
    };
    none("prints", sources(&["src"]).into_iter().filter(offends).map(|source| source.path).collect());
}

#[test]
fn files_are_no_longer_than_one_can_read() {
    let lines = |source: Source| (source.text.lines().count(), source.path);
    let files = sources(&["src", "tests"]).into_iter().map(lines);
    none("too many lines", files.filter(|(lines, _)| *lines > LINES_MAX).map(|file| format!("{file:?}")).collect());
}

#[test]
fn lines_are_no_wider_than_one_can_read() {
    let mut offenders = Vec::new();
    for source in sources(&["src", "tests"]) {
        for (number, line) in (1..).zip(source.text.lines()) {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                offenders.push(format!("{}:{number}: {columns} columns", source.path));
            }
        }
    }
    none("too wide", offenders);
}

/// For each reason, by name: a test that makes it non-zero. It looks at the reason itself, or names a function of its
/// file that does.
const REASONS: [(&str, &str, &str); 10] = [
    ("unsupported", "tests/limits.rs", "a_build_without_the_map_says_so"),
    ("handler_declined", "tests/limits.rs", "without_the_handler_nothing_is_mapped"),
    ("handler_replaced", "tests/signals.rs", "a_handler_over_ours_is_noticed"),
    ("signal_blocked", "tests/signals/blocked.rs", "a_thread_that_blocks_the_signal_is_served_by_system_calls"),
    ("map_refused", "tests/limits/address_space.rs", "no_address_space_then_some"),
    ("beyond_range", "tests/limits/address_space.rs", "an_outgrown_map_and_no_larger_one"),
    ("past_end", "tests/limits/files.rs", "an_empty_file_that_grows"),
    ("fault", "tests/limits/disk.rs", "holes_on_a_full_file_system"),
    ("suspect_region", "tests/limits/disk.rs", "holes_on_a_full_file_system"),
    ("cut_short", "tests/faults.rs", "a_cut_in_the_middle_of_a_page_is_seen_at_every_byte"),
];

/// The function's attributes and body.
fn function<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let start = text.find(&format!("\nfn {name}("))?;
    Some((text[..start].rsplit("\n\n").next()?, text[start..].split("\n}\n").next()?))
}

#[test]
fn every_reason_for_a_fallback_has_a_test_that_brings_it_about() {
    assert_eq!(REASONS.map(|(name, ..)| name), FallbackReason::ALL.map(FallbackReason::name), "a test for each reason");
    for (reason, (_, path, test)) in FallbackReason::ALL.into_iter().zip(REASONS) {
        let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let (attributes, body) = function(&text, test).unwrap_or_else(|| panic!("{path} has no {test}"));
        assert!(attributes.contains("#[test]") && !attributes.contains("#[ignore"), "{test} in {path} is not run");
        let named = words(body).filter_map(|word| function(&text, word)).map(|(_, body)| body);
        let reason = format!("FallbackReason::{reason:?}");
        assert!(named.chain([body]).any(|body| body.contains(&reason)), "{test} in {path} does not look at {reason}");
    }
}
