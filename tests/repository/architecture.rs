//! Enforces the direction of the layers: dev -> console -> {audit, dlq, load, schemas} -> services -> {http, kafka,
//! registry} -> event -> vehicle.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module and the modules that it may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("vehicle", &[]),
    ("backoff", &[]),
    ("canonical", &[]),
    ("excerpt", &[]),
    ("expected_panic", &[]),
    ("secret", &[]),
    ("duration", &[]),
    ("environment", &["secret"]),
    ("shutdown", &["duration", "trace"]),
    ("log_queue", &[]),
    ("open_files", &[]),
    ("output", &[]),
    ("telemetry", &["expected_panic", "log_queue", "output"]),
    ("process", &["log_queue", "output", "telemetry"]),
    ("database", &[]),
    ("page", &["database", "vehicle"]),
    ("https", &[]),
    ("trace", &["https", "secret"]),
    ("event", &["vehicle"]),
    ("registry", &["event", "excerpt", "https", "secret"]),
    ("kafka", &["backoff", "duration", "event", "excerpt", "expected_panic", "registry", "secret", "trace"]),
    ("http", &["backoff", "canonical", "database", "open_files", "page", "secret", "vehicle"]),
    ("role", &["http", "kafka", "registry", "shutdown"]),
    (
        "stock",
        &[
            "backoff",
            "canonical",
            "database",
            "duration",
            "event",
            "http",
            "kafka",
            "page",
            "registry",
            "role",
            "secret",
            "trace",
            "vehicle",
        ],
    ),
    ("estimate", &["duration", "event", "excerpt", "http", "kafka", "registry", "role", "trace", "vehicle"]),
    (
        "ads",
        &[
            "canonical",
            "database",
            "event",
            "http",
            "kafka",
            "page",
            "registry",
            "role",
            "secret",
            "trace",
            "vehicle",
        ],
    ),
    (
        "dev",
        &[
            "ads",
            "console",
            "database",
            "duration",
            "estimate",
            "event",
            "http",
            "kafka",
            "open_files",
            "output",
            "registry",
            "role",
            "shutdown",
            "stock",
            "vehicle",
        ],
    ),
    ("dlq", &["duration", "event", "excerpt", "kafka", "output", "registry"]),
    ("schemas", &["event", "output", "registry"]),
    (
        "audit",
        &[
            "ads", "duration", "estimate", "event", "excerpt", "kafka", "output", "page", "registry",
            "secret", "stock", "database", "trace", "vehicle",
        ],
    ),
    (
        "console",
        &[
            "ads", "dlq", "duration", "estimate", "event", "excerpt", "http", "https", "kafka", "registry",
            "role", "secret", "shutdown", "trace", "vehicle",
        ],
    ),
    ("healthcheck", &["http", "https", "output"]),
    ("load", &["backoff", "duration", "http", "https", "open_files", "output", "vehicle"]),
    (
        "cli",
        &[
            "ads",
            "audit",
            "console",
            "dev",
            "dlq",
            "environment",
            "estimate",
            "healthcheck",
            "load",
            "open_files",
            "output",
            "schemas",
            "shutdown",
            "stock",
            "telemetry",
            "trace",
        ],
    ),
];

fn source_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(source_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Returns the modules that a file refers to with `crate::` or `$crate::`.
fn used(text: &str) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let named = code.flat_map(|line| line.split("crate::").skip(1).map(str::to_owned));
    named.map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()).collect()
}

#[test]
fn every_module_uses_only_lower_layers() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for file in source_files(&source) {
        let relative = file.strip_prefix(&source).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.trim_end_matches(".rs");
        if matches!(module, "lib" | "main") {
            continue;
        }
        let (_, allowed) = ALLOWED
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("list the modules that {module} may use in ALLOWED"));
        for target in used(&fs::read_to_string(&file).unwrap()) {
            if target != module && !allowed.contains(&target.as_str()) {
                wrong.push(format!("{} uses {target}", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_file_is_too_long_to_be_read_in_one_sitting() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut long = Vec::new();
    for file in ["src", "tests", "crates"].iter().flat_map(|directory| source_files(&root.join(directory))) {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        if lines > 400 {
            long.push(format!("{}: {lines} lines", file.display()));
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}
