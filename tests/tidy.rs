//! Rules about the source itself that no compiler checks.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ottla::handlers::TABLE;

/// What the code of each module may use of the crate, itself included. Imports only point down.
const LAYERS: &[(&str, &[&str])] = &[
    ("main", &[]),
    // Commands that are clients of any broker speak the protocol themselves; those that look at files read them themselves.
    (
        "cli",
        &[
            "broker",
            "catalog",
            "cli",
            "clock",
            "config",
            "coordinator",
            "group",
            "log",
            "protocol",
            "record",
            "storage",
            "uuid",
        ],
    ),
    (
        "broker",
        &[
            "catalog",
            "clock",
            "config",
            "coordinator",
            "group",
            "handlers",
            "http",
            "log",
            "net",
            "operations",
            "queue",
            "storage",
            "uuid",
        ],
    ),
    // The second door: it shows what the first one counts, and accepts connections as the first one does.
    (
        "http",
        &[
            "catalog",
            "clock",
            "group",
            "handlers",
            "hex",
            "http",
            "log",
            "net",
            "operations",
            "protocol",
            "queue",
            "telemetry",
            "uuid",
        ],
    ),
    ("net", &["handlers", "net", "protocol", "record", "telemetry"]),
    // What all doors to queues end at.
    (
        "operations",
        &[
            "catalog",
            "clock",
            "config",
            "coordinator",
            "group",
            "hex",
            "log",
            "operations",
            "queue",
            "record",
            "telemetry",
            "uuid",
        ],
    ),
    (
        "handlers",
        &[
            "catalog",
            "clock",
            "config",
            "coordinator",
            "group",
            "handlers",
            "log",
            "operations",
            "protocol",
            "queue",
            "record",
            "telemetry",
            "uuid",
        ],
    ),
    // Machines and their records; what consumers tell each other is in the protocol's notation.
    ("group", &["clock", "coordinator", "group", "log", "protocol", "uuid"]),
    ("queue", &["clock", "coordinator", "log", "queue", "uuid"]),
    ("coordinator", &["clock", "coordinator", "log", "protocol", "record", "uuid"]),
    // The log of the catalog holds records in the protocol's own notation.
    ("catalog", &["catalog", "clock", "config", "log", "protocol", "record", "storage", "uuid"]),
    ("config", &["config"]),
    ("log", &["clock", "log", "record", "storage", "telemetry", "uuid"]),
    ("telemetry", &["telemetry"]),
    ("storage", &["record", "storage"]),
    ("protocol", &["clock", "protocol", "record", "uuid"]),
    ("record", &["clock", "record", "uuid"]),
    ("clock", &[]),
    ("uuid", &["hex"]),
    ("hex", &[]),
];

/// Files of `handlers/` that are no API's.
const NO_HANDLERS: &[&str] = &["context", "error", "fetch_sessions", "mod", "share_sessions"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files below a directory that end so, with their contents.
fn files(directory: &str, extension: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut left = vec![root().join(directory)];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    assert!(!found.is_empty(), "{directory}");
    found
}

/// The names of the files of a directory, without their extensions.
fn stems(directory: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(root().join(directory)).unwrap();
    let stem = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    entries.map(|entry| stem(entry.unwrap().path())).collect()
}

/// The source files that are not only for tests: whose declaration is not marked so.
fn sources() -> Vec<(PathBuf, String)> {
    let all = files("src", "rs");
    let mut only_for_tests = BTreeSet::new();
    for (path, text) in &all {
        let lines: Vec<_> = text.lines().collect();
        for pair in lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]") {
            if let Some(module) = pair[1].strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
                // A file of a module lies beside a `mod.rs`, else in the folder of the file that declares it.
                let folder =
                    if path.ends_with("mod.rs") { path.with_file_name("") } else { path.with_extension("") };
                only_for_tests.insert(folder.join(module).with_extension("rs"));
            }
        }
    }
    all.into_iter().filter(|(path, _)| !only_for_tests.contains(path)).collect()
}

/// The lines of a source file without comments and items for tests, with their numbers.
fn code(text: &str) -> Vec<(usize, &str)> {
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    let mut code = Vec::new();
    while let Some((number, line)) = lines.next() {
        if let Some(indent) = line.strip_suffix("#[cfg(test)]") {
            // A declaration ends in its line, anything else with a bracket as far in as it began.
            let ends = |(_, line): &(usize, &str)| {
                line.strip_prefix(indent)
                    .is_some_and(|rest| rest == "}" || rest.ends_with(';') && !rest.starts_with(' '))
            };
            lines.find(ends);
        } else if !line.trim_start().starts_with("//") {
            code.push((number, line));
        }
    }
    code
}

/// `DescribeTopicPartitions` as a file is named.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

#[test]
fn what_is_for_tests_is_told_from_what_is_not() {
    let text = "use a;\n#[cfg(test)]\nmod model;\n// no\nfn b() {\n    c();\n}\n#[cfg(test)]\nmod tests {\n    fn d() {\n    }\n}\nfn e() {}";
    let kept: Vec<_> = code(text).into_iter().map(|(number, _)| number).collect();
    assert_eq!(kept, [1, 5, 6, 7, 13]);
}

#[test]
fn imports_only_point_down() {
    for (path, text) in sources() {
        let place = path.iter().nth(1).unwrap().to_string_lossy();
        let module = place.trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        let (_, allowed) = LAYERS.iter().find(|(layer, _)| *layer == module).unwrap_or_else(|| {
            panic!("{}: say in LAYERS what {module} may use", path.display());
        });
        for (number, line) in code(&text) {
            for used in line.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let fine = used.is_empty() || allowed.contains(&used.as_str());
                assert!(fine, "{}:{number}: {module} may not use {used}: {line}", path.display());
            }
        }
    }
}

#[test]
fn no_layer_is_below_itself() {
    // Whoever is taken away uses only what has been taken away before.
    let mut placed: BTreeSet<&str> = BTreeSet::new();
    while placed.len() < LAYERS.len() {
        let free = LAYERS.iter().find(|(layer, uses)| {
            !placed.contains(layer) && uses.iter().all(|used| used == layer || placed.contains(used))
        });
        let (layer, _) = free.expect("LAYERS has a circle");
        placed.insert(layer);
    }
}

#[test]
fn an_api_is_one_word_in_four_places() {
    let served: BTreeSet<String> = TABLE.iter().map(|api| snake(api.name)).collect();
    assert_eq!(served.len(), TABLE.len());
    let mut handlers = stems("src/handlers");
    handlers.retain(|name| !NO_HANDLERS.contains(&name.as_str()));
    assert_eq!(handlers, served, "src/handlers");
    for directory in ["src/protocol/messages", "tests/golden"] {
        let missing: Vec<_> = served.difference(&stems(directory)).cloned().collect();
        assert!(missing.is_empty(), "{directory} lacks {missing:?}");
    }
}

#[test]
fn the_readme_lists_what_is_served() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, table) =
        readme.split_once("| API | key | versions |\n|---|---|---|\n").expect("the table of APIs");
    let listed: Vec<_> = table.lines().take_while(|line| line.starts_with('|')).collect();
    let row = |api: &ottla::handlers::Served| {
        let versions = match (api.min_version, api.max_version) {
            (min, max) if min == max => min.to_string(),
            (min, max) => format!("{min}–{max}"),
        };
        format!("| {} | {} | {versions} |", api.name, api.key)
    };
    assert_eq!(listed, TABLE.iter().map(row).collect::<Vec<_>>());
}

#[test]
fn the_readme_lists_the_topic_configs_that_are_not_acted_on() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("but not acted on:\n").expect("the list of configs");
    let list = rest.split("\n\n").next().unwrap();
    let listed: BTreeSet<_> = list.split('`').skip(1).step_by(2).collect();
    let known: BTreeSet<_> = ottla::catalog::topic_config::NOT_ACTED_ON.iter().copied().collect();
    assert_eq!(listed, known);
}

#[test]
fn nothing_is_left_for_later_and_nothing_is_unwrapped() {
    for (path, text) in sources() {
        for (number, line) in code(&text) {
            let place = format!("{}:{number}: {line}", path.display());
            for banned in [".unwrap()", "todo!(", "unimplemented!(", "dbg!("] {
                assert!(!line.contains(banned), "{place}");
            }
        }
    }
    let ours = ["src", "tests"].into_iter().flat_map(|directory| files(directory, "rs"));
    // Spelled in two parts, so that this file passes.
    for banned in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")] {
        for (path, text) in ours.clone() {
            assert!(!text.contains(banned), "{} has a {banned}", path.display());
        }
    }
}

#[test]
fn no_module_is_named_for_having_no_subject() {
    for (path, _) in files("src", "rs") {
        for banned in ["utils", "util", "helpers", "common", "misc", "types"] {
            let named = path.with_extension("");
            assert!(named.iter().all(|part| part != banned), "{}", path.display());
        }
    }
}
