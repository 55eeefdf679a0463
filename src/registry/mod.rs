//! Encodes events as framed record values and decodes them, with the schemas of a schema registry.
//!
//! A response of the registry may condemn a record only when the registry is the one that the record was written with.
//! A registry that was restored empty, or that belongs to another environment, responds just as well.

mod args;
mod client;
mod error;
mod misfit;
mod missing;
mod reason;
mod schema;
mod schema_cache;
mod schema_size;
mod written;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

pub use args::{RegistryArgs, WriterArgs};
pub use client::{ProvenSchema, Reference, RegisteredSchema, RegistryClient, SchemaText};
pub use error::CodecError;
pub use schema_size::SchemaSize;

use crate::event::EventType;
use missing::MissingSchemas;
use schema::Schema;
use schema_cache::SchemaCache;
use written::Written;

/// A framed value begins with this byte and the schema's id, as Confluent's serialisers write it:
/// <https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>.
const MAGIC: u8 = 0;

/// The maximum number of concurrent lookups on behalf of records.
const MAX_LOOKUPS: usize = 16;

/// The number of schema ids that are looked up again to verify that the registry is still the same one.
const MAX_PROOFS: usize = 4;

/// Returns the unparsed JSON in a framed value, or `None` when the value is not framed.
pub fn unframed(value: &[u8]) -> Option<&[u8]> {
    split(value).map(|(_, json)| json)
}

fn split(value: &[u8]) -> Option<(u32, &[u8])> {
    let (id, json) = value.strip_prefix(&[MAGIC])?.split_first_chunk()?;
    Some((u32::from_be_bytes(*id), json))
}

/// Validates a value against its schema and deserializes it.
fn read<E: DeserializeOwned>(schema: &Schema, value: Value) -> Result<E, String> {
    schema.validate(&value)?;
    serde_json::from_value(value).map_err(|error| reason::of_reading(&error))
}

/// Returns the subject of the values of a topic.
pub fn subject_of(topic: &str) -> String {
    format!("{topic}-value")
}

/// Encodes and decodes record values against the schemas of a registry.
pub struct Codec {
    registry: RegistryClient,
    schemas: SchemaCache<Schema>,
    /// Whether events are written with the latest schema of their subject, which other programs may have registered,
    /// instead of the product's own.
    uses_latest: bool,
    /// The schemas that events are written with, by topic.
    written: RwLock<HashMap<String, Arc<Written>>>,
    /// Some schemas with which values were read, by id. The right registry has them.
    proofs: RwLock<BTreeMap<u32, SchemaText>>,
    missing: MissingSchemas,
    /// Bounds the lookups on behalf of records. Decoding with a cached schema needs no permit.
    lookups: Semaphore,
    /// Held while a schema is registered or the latest one is fetched, so that this happens only once.
    registering: Mutex<()>,
}

impl Codec {
    /// Creates a codec without connecting to the registry.
    ///
    /// # Errors
    /// Fails when the addresses have different credentials, or the HTTP client cannot be built.
    pub fn new(args: &RegistryArgs) -> anyhow::Result<Self> {
        Ok(Self {
            registry: RegistryClient::new(args)?,
            schemas: SchemaCache::default(),
            uses_latest: false,
            written: RwLock::default(),
            proofs: RwLock::default(),
            missing: MissingSchemas::default(),
            lookups: Semaphore::new(MAX_LOOKUPS),
            registering: Mutex::default(),
        })
    }

    /// Decodes the framed value of a record on `topic` and checks it against the schema that it names.
    ///
    /// # Errors
    /// Returns [`CodecError::Rejected`] when the value is not framed, violates its schema or is not an `E`,
    /// [`CodecError::UnknownSchema`] when the registry does not have its schema, and [`CodecError::Unavailable`] when
    /// no registry responds or the one that responds may be another one.
    pub async fn decode<E: DeserializeOwned>(
        &self,
        topic: &str,
        value: Option<&[u8]>,
    ) -> Result<E, CodecError> {
        let value = value.ok_or_else(|| CodecError::rejected("the value is null"))?;
        let (id, json) = split(value).ok_or_else(|| {
            CodecError::rejected("the value is not framed: it must begin with a zero byte and a schema id")
        })?;
        if let Some(schema) = self.schemas.get(id)
            && let Ok(value) = serde_json::from_slice(json)
            && let Ok(event) = read(&schema, value)
        {
            self.prove(id, &schema);
            return Ok(event);
        }
        // Boxed, because few records need this future, and every record in flight would reserve its size.
        Box::pin(self.decode_with_registry(topic, id, json)).await
    }

    /// Decodes a value whose schema may have to be fetched, and which may be invalid.
    async fn decode_with_registry<E: DeserializeOwned>(
        &self,
        topic: &str,
        id: u32,
        json: &[u8],
    ) -> Result<E, CodecError> {
        let value: Value = serde_json::from_slice(json).map_err(CodecError::rejected)?;
        let schema = match self.schema(id, topic).await {
            Err(CodecError::UnknownSchema(reason)) => {
                return Err(self.judge_unknown(reason, E::deserialize(value).is_ok()));
            }
            schema => schema?,
        };
        match read(&schema, value) {
            Ok(event) => {
                self.prove(id, &schema);
                Ok(event)
            }
            Err(reason) => Err(self.judge(id, &schema, topic, reason).await),
        }
    }

    /// Registers the schemas of the events written to each topic, once, or fetches the latest ones, and checks that the
    /// registry responds and is still the same one.
    ///
    /// # Errors
    /// Fails when the registry is unavailable, refuses a schema, or no longer has a schema that it had.
    pub async fn check(&self, written: &[(EventType, &str)]) -> anyhow::Result<()> {
        self.try_check(written).await.context("the schema registry cannot be used")
    }

    async fn try_check(&self, written: &[(EventType, &str)]) -> Result<(), CodecError> {
        for (event_type, topic) in written {
            self.refresh(*event_type, topic).await?.check_latest()?;
        }
        self.registry.subjects().await?;
        self.check_proofs().await.map(drop)
    }

    async fn schema(&self, id: u32, topic: &str) -> Result<Arc<Schema>, CodecError> {
        match self.schemas.get(id) {
            Some(schema) => Ok(schema),
            None => self.fetch(id, topic).await,
        }
    }

    /// Fetches and compiles a schema. Concurrent calls may fetch the same schema more than once, which is harmless.
    async fn fetch(&self, id: u32, topic: &str) -> Result<Arc<Schema>, CodecError> {
        let _lookup = self.lookup().await?;
        if let Some(schema) = self.schemas.get(id) {
            return Ok(schema);
        }
        if let Some(reason) = self.missing.reason(id, topic) {
            return Err(CodecError::UnknownSchema(reason));
        }
        let fetched = match self.registry.by_id(id).await? {
            Some(text) => Schema::compile(text, id, &self.registry).await,
            None => Err(CodecError::UnknownSchema(format!("no schema has the id {id}"))),
        };
        let schema = match fetched {
            Ok(schema) => Arc::new(schema),
            Err(CodecError::UnknownSchema(reason)) => {
                // Only a registry that has the known schemas may condemn a record.
                self.check_proofs().await?;
                let subject = subject_of(topic);
                if !self.registry.has_subject(&subject).await? {
                    let name = self.registry.name();
                    let reason = format!("{reason}, but {name} does not even have the subject {subject}");
                    return Err(CodecError::Unavailable(reason));
                }
                self.missing.insert(id, topic, &reason);
                return Err(CodecError::UnknownSchema(reason));
            }
            Err(error) => return Err(error),
        };
        self.schemas.insert(id, Arc::clone(&schema), schema.bytes);
        Ok(schema)
    }

    async fn lookup(&self) -> Result<SemaphorePermit<'_>, CodecError> {
        // The semaphore is never closed.
        self.lookups.acquire().await.map_err(|error| CodecError::Unavailable(error.to_string()))
    }

    /// Classifies the error that the registry does not have the schema of a value. Until the first record was read, a
    /// value that looks like an event is not condemned, because the registry may be another one or was restored empty.
    fn judge_unknown(&self, reason: String, is_event: bool) -> CodecError {
        let proofs = self.proofs.read().unwrap_or_else(PoisonError::into_inner);
        if is_event && proofs.is_empty() {
            let name = self.registry.name();
            return CodecError::Unavailable(format!(
                "{reason}, but the value can be read and no other value has been read yet: {name} may be another \
                 registry, or was restored empty"
            ));
        }
        CodecError::UnknownSchema(reason)
    }

    /// Classifies the error that a value cannot be read with the schema `id`. The value is invalid, unless the schema
    /// does not belong to its topic, which is the case with the registry of another environment.
    async fn judge(&self, id: u32, schema: &Schema, topic: &str, reason: String) -> CodecError {
        if schema.belongs_to.get().is_some_and(|known| known == topic) {
            return CodecError::Rejected(reason);
        }
        if let Some(known) = self.missing.reason(id, topic) {
            return CodecError::UnknownSchema(format!("{known}, and {reason}"));
        }
        let _lookup = match self.lookup().await {
            Ok(lookup) => lookup,
            Err(error) => return error,
        };
        let subject = subject_of(topic);
        match self.registry.is_under(&subject, &schema.text).await {
            Ok(true) => {
                // Only the first topic is cached. Another topic with the same schema causes a request each time.
                let _ = schema.belongs_to.set(topic.to_owned());
                CodecError::Rejected(reason)
            }
            Ok(false) => {
                let foreign = format!("schema {id} is not one of the subject {subject}");
                match self.check_proofs().await {
                    Ok(0) => CodecError::Unavailable(format!("{foreign}, and {reason}")),
                    Ok(_) => {
                        self.missing.insert(id, topic, &foreign);
                        CodecError::UnknownSchema(format!("{foreign}, and {reason}"))
                    }
                    Err(error) => error,
                }
            }
            Err(error) => error,
        }
    }

    fn prove(&self, id: u32, schema: &Schema) {
        let is_needed = |proofs: &BTreeMap<u32, _>| proofs.len() < MAX_PROOFS && !proofs.contains_key(&id);
        if is_needed(&self.proofs.read().unwrap_or_else(PoisonError::into_inner)) {
            let mut proofs = self.proofs.write().unwrap_or_else(PoisonError::into_inner);
            if is_needed(&proofs) {
                proofs.insert(id, schema.text.clone());
            }
        }
    }

    /// Checks that the registry still has the schemas that values were read or written with. Returns the number of
    /// schemas that values were read with.
    ///
    /// Compares the schemas, since another registry may have other schemas under the same ids.
    async fn check_proofs(&self) -> Result<usize, CodecError> {
        let proofs = self.proofs.read().unwrap_or_else(PoisonError::into_inner).clone();
        for (id, known) in &proofs {
            let text = self.registry.by_id(*id).await?;
            self.check_same(*id, text.as_ref() == Some(known))?;
        }
        let written: Vec<_> =
            self.written.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for written in written {
            let text = self.registry.by_id(written.id).await?;
            let is_known = text.as_ref() == Some(&written.text);
            self.check_same(written.id, is_known)?;
        }
        Ok(proofs.len())
    }

    fn check_same(&self, id: u32, is_known: bool) -> Result<(), CodecError> {
        if is_known {
            return Ok(());
        }
        let name = self.registry.name();
        Err(CodecError::Unavailable(format!(
            "{name} no longer has schema {id}: it was restored from an earlier state, or is another registry"
        )))
    }
}

fn known<K: std::hash::Hash + Eq + std::borrow::Borrow<Q>, Q: std::hash::Hash + Eq + ?Sized, V>(
    map: &RwLock<HashMap<K, Arc<V>>>,
    key: &Q,
) -> Option<Arc<V>> {
    map.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
}
