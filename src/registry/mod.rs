//! The client's side of the schema registry: from an event to a framed record value, and back.
//!
//! `schema_registry_converter` frames, fetches, caches and shares look-ups. Two things are done here because
//! they decide whether a record is lost: telling a registry that is away from a record that can never be read
//! (the crate calls only 502 and 503 retriable, and caches everything else), and keeping the compiled schemas
//! apart by schema id (the crate keeps them by `$id`, which all versions of a schema may share).

mod args;
mod error;
mod reason;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use anyhow::Context;
use jsonschema::Validator;
use schema_registry_converter::async_impl::json::{JsonDecoder, JsonSchema};
use schema_registry_converter::async_impl::schema_registry::{SrSettings, get_all_subjects, post_schema};
use schema_registry_converter::schema_registry_common::{
    BytesResult, SchemaType, SuppliedSchema, get_bytes_result, get_payload,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use args::RegistryArgs;
pub use error::CodecError;

use crate::event::EventType;

/// The JSON in a framed value, unread. `None` when the value is not framed.
pub fn unframed(value: &[u8]) -> Option<&[u8]> {
    match get_bytes_result(Some(value)) {
        BytesResult::Valid(_, json) => Some(json),
        _ => None,
    }
}

/// Encodes and decodes record values against the schemas of a registry.
pub struct Codec {
    base_url: String,
    settings: SrSettings,
    decoder: JsonDecoder,
    /// By schema id, each with a URL of its own, under which the decoder keeps what it compiled.
    schemas: RwLock<HashMap<u32, Arc<JsonSchema>>>,
    /// By topic, of what is written.
    validators: Mutex<HashMap<&'static str, Arc<Validator>>>,
    /// By topic: the id of the schema of what is written.
    ids: RwLock<HashMap<String, u32>>,
    /// Held while a schema is registered, so that it is done once.
    registering: tokio::sync::Mutex<()>,
}

impl Codec {
    /// # Errors
    /// When no HTTP client can be built.
    pub fn new(args: &RegistryArgs) -> anyhow::Result<Self> {
        let settings = args.settings().context("cannot set up the schema registry's client")?;
        Ok(Self {
            base_url: args.base_url(),
            decoder: JsonDecoder::new(settings.clone()),
            settings,
            schemas: RwLock::default(),
            validators: Mutex::default(),
            ids: RwLock::default(),
            registering: tokio::sync::Mutex::default(),
        })
    }

    /// Frames `event` for `topic` under the subject `<topic>-value`, registering the event's schema when it is
    /// not yet known.
    ///
    /// # Errors
    /// [`CodecError::Rejected`] when the event breaks its schema, [`CodecError::Unavailable`] when the registry
    /// does not name the schema's id.
    pub async fn encode<E: Serialize>(
        &self,
        event_type: EventType,
        topic: &str,
        event: &E,
    ) -> Result<Vec<u8>, CodecError> {
        let value = serde_json::to_value(event).map_err(CodecError::rejected)?;
        if let Err(error) = self.validator(event_type)?.validate(&value) {
            return Err(CodecError::Rejected(reason::of_errors(std::iter::once(error))));
        }
        let id = self.schema_id(event_type, topic).await?;
        let json = serde_json::to_vec(event).map_err(CodecError::rejected)?;
        Ok(get_payload(id, json))
    }

    /// Registers the event's schema for `topic`, unless its id is known: from then on events can be encoded without the
    /// registry.
    ///
    /// # Errors
    /// When the registry is unavailable or refuses the schema.
    pub async fn prepare(&self, event_type: EventType, topic: &str) -> Result<(), CodecError> {
        self.schema_id(event_type, topic).await.map(drop)
    }

    /// Returns the id of the event's schema under the subject `<topic>-value`, which it registers the first time.
    async fn schema_id(&self, event_type: EventType, topic: &str) -> Result<u32, CodecError> {
        if let Some(id) = self.known_id(topic) {
            return Ok(id);
        }
        let _registering = self.registering.lock().await;
        if let Some(id) = self.known_id(topic) {
            return Ok(id);
        }
        let schema = SuppliedSchema::new(None, SchemaType::Json, event_type.schema.to_owned());
        let registered = post_schema(&self.settings, format!("{topic}-value"), schema).await;
        // Nothing here is the event's fault: a subject or a schema that is not found is a registry that is not ready.
        let id = registered
            .map_err(|error| match CodecError::of_registry(&error) {
                CodecError::UnknownSchema(message) => CodecError::Unavailable(message),
                error => error,
            })?
            .id;
        self.ids.write().unwrap_or_else(PoisonError::into_inner).insert(topic.to_owned(), id);
        Ok(id)
    }

    fn known_id(&self, topic: &str) -> Option<u32> {
        self.ids.read().unwrap_or_else(PoisonError::into_inner).get(topic).copied()
    }

    /// Reads a framed value, checked against the schema that it names.
    ///
    /// # Errors
    /// [`CodecError::Rejected`] when the value is not framed, breaks its schema or is not an `E`,
    /// [`CodecError::UnknownSchema`] when no registry knows its schema, [`CodecError::Unavailable`] when none
    /// answers.
    pub async fn decode<E: DeserializeOwned>(&self, value: Option<&[u8]>) -> Result<E, CodecError> {
        let (id, json) = match get_bytes_result(value) {
            BytesResult::Valid(id, json) => (id, json),
            BytesResult::Null => return Err(CodecError::Rejected("the value is null".to_owned())),
            BytesResult::Invalid(_) => return Err(CodecError::not_framed()),
        };
        let schema = self.schema(id).await?;
        let value = serde_json::from_slice(json).map_err(CodecError::rejected)?;
        if let Err(error) = self.decoder.validate(&schema, &value) {
            return Err(CodecError::Rejected(reason::of_value(&schema, &value, &error)));
        }
        serde_json::from_value(value).map_err(CodecError::rejected)
    }

    /// Registers the schemas of what is written to each topic, once, and looks whether the registry answers.
    ///
    /// # Errors
    /// When the registry is away or refuses a schema.
    pub async fn check(&self, written: &[(EventType, &str)]) -> Result<(), CodecError> {
        for (event_type, topic) in written {
            self.schema_id(*event_type, topic).await?;
        }
        get_all_subjects(&self.settings).await.map(drop).map_err(|error| CodecError::of_registry(&error))
    }

    fn validator(&self, event_type: EventType) -> Result<Arc<Validator>, CodecError> {
        let mut validators = self.validators.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(validator) = validators.get(event_type.topic) {
            return Ok(Arc::clone(validator));
        }
        let schema = serde_json::from_str(event_type.schema).map_err(CodecError::rejected)?;
        let validator = Arc::new(jsonschema::validator_for(&schema).map_err(CodecError::rejected)?);
        validators.insert(event_type.topic, Arc::clone(&validator));
        Ok(validator)
    }

    async fn schema(&self, id: u32) -> Result<Arc<JsonSchema>, CodecError> {
        let known = self.schemas.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if let Some(schema) = known {
            return Ok(schema);
        }
        let fetched = self.decoder.get_schema(id).await.map_err(|error| {
            self.decoder.remove_errors_from_cache();
            CodecError::of_registry(&error)
        })?;
        let mut schema = (*fetched).clone();
        schema.url = format!("{}/schemas/ids/{id}", self.base_url)
            .parse()
            .map_err(|error| CodecError::Rejected(format!("schema {id} has no usable URL: {error}")))?;
        let schema = Arc::new(schema);
        self.schemas.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&schema));
        Ok(schema)
    }
}
