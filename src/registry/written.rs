//! Encodes events with the schemas that they are written with: the product's own, which are registered automatically, or
//! the latest ones of their subjects.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jsonschema::Validator;
use serde::Serialize;

use super::args::{RegistryArgs, WriterArgs};
use super::client::{ProvenSchema, SchemaText};
use super::misfit::misfit;
use super::schema::{Schema, validate};
use super::{Codec, CodecError, MAGIC, known, subject_of};
use crate::event::EventType;

/// The time for which the latest schema is not fetched again when it refuses an event.
const REFRESH_PAUSE: Duration = Duration::from_secs(1);

/// The schema of the values that are written to a topic.
pub(super) struct Written {
    validator: Validator,
    pub(super) id: u32,
    /// The schema as the registry stores it.
    pub(super) text: SchemaText,
    latest: Mutex<Latest>,
}

/// What the registry last said about the latest schema.
struct Latest {
    fetched: Instant,
    /// Why a later version, which is the latest one, cannot be used; `None` while this is the latest one.
    unusable: Option<String>,
}

impl Written {
    fn new(validator: Validator, ProvenSchema { id, text }: ProvenSchema) -> Self {
        Self { validator, id, text, latest: Mutex::new(Latest { fetched: Instant::now(), unusable: None }) }
    }

    fn is_fresh(&self) -> bool {
        self.latest().fetched.elapsed() < REFRESH_PAUSE
    }

    fn latest(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the registry returned this or, with the reason, an unusable schema as the latest one.
    fn note(&self, unusable: Option<String>) {
        *self.latest() = Latest { fetched: Instant::now(), unusable };
    }

    /// Checks that the latest schema can be used.
    pub(super) fn check_latest(&self) -> Result<(), CodecError> {
        self.latest().unusable.clone().map_or(Ok(()), |reason| Err(CodecError::Unavailable(reason)))
    }

    fn check(&self, value: &serde_json::Value) -> Result<(), CodecError> {
        validate(&self.validator, value).map_err(CodecError::Rejected)
    }
}

impl Codec {
    /// Creates the codec of a role that writes events, without connecting to the registry.
    ///
    /// # Errors
    /// See [`Codec::new`].
    pub fn of_writer(registry: &RegistryArgs, writer: &WriterArgs) -> anyhow::Result<Self> {
        Ok(Self { uses_latest: !writer.auto_register_schemas, ..Self::new(registry)? })
    }

    /// Returns whether events are written with schemas that others register, and that may refuse some.
    pub fn uses_latest_schemas(&self) -> bool {
        self.uses_latest
    }

    /// Encodes `event` for `topic` as a framed value. Registers the event's schema under the subject `<topic>-value`
    /// first, or fetches the latest one, unless it is known.
    ///
    /// # Errors
    /// Returns [`CodecError::Rejected`] when the event violates its schema, and [`CodecError::Unavailable`] when the
    /// registry does not return the id of the schema.
    pub async fn encode<E: Serialize>(
        &self,
        event_type: EventType,
        topic: &str,
        event: &E,
    ) -> Result<Vec<u8>, CodecError> {
        let mut written = self.written(event_type, topic).await?;
        let value = serde_json::to_value(event).map_err(CodecError::rejected)?;
        if let Err(rejected) = written.check(&value) {
            // A newer schema may accept the event.
            if !self.uses_latest || written.is_fresh() {
                return Err(rejected);
            }
            written = Box::pin(self.refresh(event_type, topic)).await?;
            written.check(&value)?;
        }
        let mut framed = vec![MAGIC];
        framed.extend(written.id.to_be_bytes());
        serde_json::to_writer(&mut framed, event).map_err(CodecError::rejected)?;
        Ok(framed)
    }

    /// Checks that `event` can be encoded for `topic`, with the schema that is known at this moment. Does not use the
    /// registry. The product's own schemas accept every event.
    ///
    /// # Errors
    /// Returns [`CodecError::Rejected`] when the event violates its schema, and [`CodecError::Unavailable`] when the
    /// schema is not known yet.
    pub fn accepts<E: Serialize>(&self, topic: &str, event: &E) -> Result<(), CodecError> {
        if !self.uses_latest {
            return Ok(());
        }
        let written = known(&self.written, topic).ok_or_else(|| {
            CodecError::Unavailable(format!("the latest schema of {} is not known yet", subject_of(topic)))
        })?;
        written.check(&serde_json::to_value(event).map_err(CodecError::rejected)?)
    }

    /// Returns why `event` violates the known schema of `topic`. Does not use the registry.
    pub fn refusal<E: Serialize>(&self, topic: &str, event: &E) -> Option<String> {
        let written = known(&self.written, topic)?;
        let checked =
            serde_json::to_value(event).map_err(CodecError::rejected).and_then(|value| written.check(&value));
        checked.err().map(|error| error.to_string())
    }

    /// Returns the id of the schema that events for `topic` are encoded with, if it is known. With another one, events
    /// that violate this one may be encoded.
    pub fn schema_id(&self, topic: &str) -> Option<u32> {
        known(&self.written, topic).map(|written| written.id)
    }

    /// Registers the event's schema for `topic`, or fetches the latest one, unless it is known. Afterwards, events can be
    /// encoded without the registry.
    ///
    /// # Errors
    /// Fails when the registry is unavailable or refuses the schema.
    pub async fn prepare(&self, event_type: EventType, topic: &str) -> Result<(), CodecError> {
        self.written(event_type, topic).await.map(drop)
    }

    async fn written(&self, event_type: EventType, topic: &str) -> Result<Arc<Written>, CodecError> {
        match known(&self.written, topic) {
            Some(written) => Ok(written),
            None => Box::pin(self.refresh(event_type, topic)).await,
        }
    }

    /// Registers the event's schema for `topic` unless it is known, or fetches the latest one in any case.
    pub(super) async fn refresh(
        &self,
        event_type: EventType,
        topic: &str,
    ) -> Result<Arc<Written>, CodecError> {
        let _registering = self.registering.lock().await;
        let written = match known(&self.written, topic) {
            Some(written) if !self.uses_latest || written.is_fresh() => return Ok(written),
            known if self.uses_latest => self.fetch_latest(event_type, topic, known).await?,
            _ => self.register(event_type, topic).await?,
        };
        let mut all = self.written.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(topic.to_owned(), Arc::clone(&written));
        Ok(written)
    }

    async fn register(&self, event_type: EventType, topic: &str) -> Result<Arc<Written>, CodecError> {
        let schema = serde_json::from_str(event_type.schema).map_err(CodecError::rejected)?;
        let validator = jsonschema::validator_for(&schema).map_err(CodecError::rejected)?;
        let text = SchemaText::of_json(event_type.schema.to_owned());
        let registered = self.registry.register(&subject_of(topic), &text).await?;
        Ok(Arc::new(Written::new(validator, registered)))
    }

    async fn fetch_latest(
        &self,
        event_type: EventType,
        topic: &str,
        known: Option<Arc<Written>>,
    ) -> Result<Arc<Written>, CodecError> {
        let subject = subject_of(topic);
        let missing = || {
            CodecError::Unavailable(format!(
                "{} has no schema under {subject}, and schemas are not registered automatically",
                self.registry.name()
            ))
        };
        let latest = self.registry.version(&subject, None).await?.ok_or_else(missing)?;
        if let Some(known) = known.as_ref().filter(|known| known.id == latest.id) {
            known.note(None);
            return Ok(Arc::clone(known));
        }
        let proven = self.registry.prove(latest.id, &latest.text).await?;
        let (id, version) = (latest.id, latest.version);
        let usable = Schema::compile(latest.text, id, &self.registry).await.and_then(|schema| {
            let validator = schema.into_validator();
            match misfit(&validator, event_type) {
                Some(reason) => Err(CodecError::Rejected(reason)),
                None => Ok(validator),
            }
        });
        let validator = match usable {
            Ok(validator) => validator,
            Err(unavailable @ CodecError::Unavailable(_)) => return Err(unavailable),
            // Another version may be registered at any time. Until then, the known one remains in use, if there is one.
            Err(CodecError::UnknownSchema(reason) | CodecError::Rejected(reason)) => {
                let reason = format!("version {version} of {subject} cannot be used: {reason}");
                let known = known.ok_or_else(|| CodecError::Unavailable(reason.clone()))?;
                known.note(Some(reason));
                return Ok(known);
            }
        };
        tracing::info!(subject, version, id, "writing events with the latest schema");
        Ok(Arc::new(Written::new(validator, proven)))
    }
}
