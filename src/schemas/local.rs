//! The schemas to check or register: the product's own, or files.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, bail};
use clap::Args;
use json_schema_compatibility::Schema;

use crate::event::EventType;
use crate::registry::subject_of;

/// The maximum size of a schema's file.
const MAX_FILE_BYTES: u64 = 1 << 20;

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Schemas")]
pub struct LocalArgs {
    /// File of a schema, with the topic whose values it describes; may be repeated [default: the schemas of this
    /// release]
    #[arg(long = "file", value_name = "TOPIC=PATH")]
    pub files: Vec<TopicFile>,

    /// Directory with a file TOPIC.json for each topic
    #[arg(long, value_name = "PATH")]
    pub directory: Option<PathBuf>,

    /// Prefix of the topics of this release
    #[arg(
        long = "kafka-prefix",
        env = "KAFKA_PREFIX",
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub prefix: String,
}

#[derive(Clone, Debug)]
pub struct TopicFile {
    topic: String,
    path: PathBuf,
}

impl FromStr for TopicFile {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((topic, path)) if !topic.is_empty() && !path.is_empty() => {
                Ok(Self { topic: topic.to_owned(), path: path.into() })
            }
            _ => Err(
                "must be a topic and a path, such as stock.vehicle-created=schemas/stock.vehicle-created.json",
            ),
        }
    }
}

/// A schema and the subject that it belongs to.
pub(super) struct LocalSchema {
    pub(super) subject: String,
    pub(super) text: String,
    pub(super) parsed: Schema,
}

impl LocalArgs {
    /// Reads the schemas.
    ///
    /// # Errors
    /// Fails when a file cannot be read or is not a JSON Schema.
    pub(super) fn read(&self) -> anyhow::Result<Vec<LocalSchema>> {
        let mut files = self.files.clone();
        if let Some(directory) = &self.directory {
            files.extend(files_in(directory)?);
        }
        if files.is_empty() {
            return EventType::ALL
                .iter()
                .map(|event| parse(&format!("{}{}", self.prefix, event.topic), event.schema.to_owned()))
                .collect();
        }
        files.iter().map(|TopicFile { topic, path }| parse(topic, read_file(path)?)).collect()
    }
}

fn files_in(directory: &Path) -> anyhow::Result<Vec<TopicFile>> {
    let unreadable = || format!("cannot read the directory {}", directory.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        let name =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".json"));
        if let Some(topic) = name.map(str::to_owned) {
            files.push(TopicFile { topic, path });
        }
    }
    if files.is_empty() {
        bail!("{} contains no file TOPIC.json", directory.display());
    }
    files.sort_by(|one, other| one.topic.cmp(&other.topic));
    Ok(files)
}

fn read_file(path: &Path) -> anyhow::Result<String> {
    let unreadable = || format!("cannot read {}", path.display());
    let mut text = Vec::new();
    // The size of a device or a pipe is not known before it is read.
    let file = fs::File::open(path).with_context(unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text).with_context(unreadable)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        bail!("{} has more than {MAX_FILE_BYTES} bytes", path.display());
    }
    String::from_utf8(text).with_context(unreadable)
}

fn parse(topic: &str, text: String) -> anyhow::Result<LocalSchema> {
    let document =
        serde_json::from_str(&text).with_context(|| format!("the schema of {topic} is not JSON"))?;
    let parsed = Schema::parse(&document, &BTreeMap::new())
        .with_context(|| format!("the schema of {topic} is not a JSON Schema"))?;
    Ok(LocalSchema { subject: subject_of(topic), text, parsed })
}
