//! Reads the compose files as compose itself does: with the settings of .env, the files of a mode merged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

/// How Kafka keeps its metadata.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    ZooKeeper,
    KRaft,
}

impl Mode {
    pub const ALL: [Self; 2] = [Self::ZooKeeper, Self::KRaft];

    /// Returns the files of the mode, separated by colons.
    pub fn files(self) -> &'static str {
        match self {
            Self::ZooKeeper => "compose.yaml:zookeeper.yaml",
            Self::KRaft => "compose.yaml:kraft.yaml",
        }
    }

    pub fn model(self) -> Value {
        let files = self.files().split(':').map(|file| text(&format!("compose/{file}")));
        let models = files.map(|file| serde_saphyr::from_str(&interpolated(&file)).unwrap());
        models.reduce(merged).unwrap()
    }

    pub fn all_services(self) -> Map<String, Value> {
        self.model()["services"].as_object().unwrap().clone()
    }

    /// Returns the services without a profile, which `make up` starts.
    pub fn services(self) -> Map<String, Value> {
        self.all_services().into_iter().filter(|(_, service)| service.get("profiles").is_none()).collect()
    }

    /// Returns the services that run until they are stopped, those of the profiles included.
    pub fn lasting_services(self) -> Map<String, Value> {
        self.all_services().into_iter().filter(|(name, _)| !is_tool(name)).collect()
    }

    /// Returns the services that run with this profile.
    pub fn with_profile(self, profile: &str) -> Map<String, Value> {
        let runs = |service: &Value| {
            service.get("profiles").is_none_or(|names| strings(names).contains(&profile.to_owned()))
        };
        self.all_services().into_iter().filter(|(_, service)| runs(service)).collect()
    }
}

/// Returns whether a service runs once, when it is asked for.
pub fn is_tool(name: &str) -> bool {
    ["audit", "dlq"].contains(&name)
}

/// Merges two files: mappings by key, lists by appending, other values by replacing.
fn merged(base: Value, other: Value) -> Value {
    match (base, other) {
        (Value::Object(mut base), Value::Object(other)) => {
            for (key, value) in other {
                let value = match base.remove(&key) {
                    Some(existing) => merged(existing, value),
                    None => value,
                };
                base.insert(key, value);
            }
            Value::Object(base)
        }
        (Value::Array(base), Value::Array(other)) => Value::Array(base.into_iter().chain(other).collect()),
        (_, other) => other,
    }
}

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn text(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap()
}

/// Returns the settings in compose/.env, without environment variables.
pub fn defaults() -> BTreeMap<String, String> {
    let file = text("compose/.env");
    let lines = file.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once('=').map(|(name, value)| (name.into(), value.into())).unwrap()).collect()
}

/// Replaces `${NAME}` and `${NAME:-default}` with settings, and `$$` with `$`.
fn interpolated(text: &str) -> String {
    let defaults = defaults();
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            result.push('$');
            rest = after;
            continue;
        }
        let (expression, after) = after.strip_prefix('{').and_then(|after| after.split_once('}')).unwrap();
        let (name, default) = expression.split_once(":-").map_or((expression, None), |(n, d)| (n, Some(d)));
        let value = defaults.get(name).map(String::as_str).or(default);
        result.push_str(value.unwrap_or_else(|| panic!("{name} is not in .env and has no default")));
        rest = after;
    }
    result + rest
}

pub fn replicas(service: &Value) -> u64 {
    service.pointer("/deploy/replicas").map_or(1, |replicas| replicas.as_u64().unwrap())
}

pub fn memory_mib(service: &Value) -> u64 {
    mib(service["mem_limit"].as_str().unwrap())
}

/// Parses a size such as `256m` or `256MiB`.
pub fn mib(size: &str) -> u64 {
    size.trim_end_matches("MiB").trim_end_matches('m').parse().unwrap()
}

pub fn environment(service: &Value) -> BTreeMap<String, String> {
    let variables = service.get("environment").and_then(Value::as_object).cloned().unwrap_or_default();
    let as_text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    variables.into_iter().map(|(name, value)| (name, as_text(value))).collect()
}

pub fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

pub fn set<'a>(items: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    items.into_iter().map(str::to_owned).collect()
}
