//! A client for the registry's HTTP API:
//! <https://docs.confluent.io/platform/current/schema-registry/develop/api.html>.
//!
//! The client accepts only responses that a schema registry would send. After an error page, HTML, JSON of another
//! shape, a redirection or the status of a gateway, it tries the next address.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{self, HeaderMap};
use reqwest::{Client, Method, StatusCode};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::args::{RegistryArgs, decoded, without_credentials};
use super::error::CodecError;
use crate::excerpt::excerpt;
use crate::https;

/// The timeout of a request: long enough for a follower to forward it to the leader, short enough to try the next
/// address soon.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum size of a response.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// The maximum number of characters shown of the address that a response redirects to.
const MAX_LOCATION_CHARS: usize = 200;
/// The highest id of a schema. Confluent's clients read ids as signed numbers.
const MAX_ID: u32 = i32::MAX.unsigned_abs();
/// The characters of a subject to encode in a path: all but the unreserved ones (RFC 3986).
const IN_PATH: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// A schema as the registry stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SchemaText {
    pub schema: String,
    /// The type of the schema; Avro when the field is missing.
    #[serde(default = "avro")]
    pub schema_type: String,
    #[serde(default, deserialize_with = "null_as_none", skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
}

/// Reads `null`, which some clients send, like a missing field.
fn null_as_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Reference>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl SchemaText {
    /// Returns a JSON Schema without references.
    pub fn of_json(schema: String) -> Self {
        Self { schema, schema_type: "JSON".to_owned(), references: Vec::new() }
    }

    /// Parses the text of a JSON Schema.
    ///
    /// # Errors
    /// Fails when the schema is of another type, or its text is not JSON.
    pub fn parse(&self) -> Result<Value, String> {
        if self.schema_type != "JSON" {
            return Err(format!("its type is {}, not JSON", self.schema_type));
        }
        serde_json::from_str(&self.schema).map_err(|error| format!("it is not JSON: {error}"))
    }

    /// Returns whether this is the schema `other`, whose text a registry may have formatted.
    fn is_same(&self, other: &Self) -> bool {
        let is_same_json = || matches!((self.parse(), other.parse()), (Ok(one), Ok(other)) if one == other);
        self.schema_type == other.schema_type
            && self.references == other.references
            && (self.schema == other.schema || is_same_json())
    }
}

/// A version of a subject.
#[derive(Clone, Debug, Deserialize)]
pub struct RegisteredSchema {
    pub id: u32,
    pub version: u32,
    #[serde(flatten)]
    pub text: SchemaText,
}

/// A schema that the registry returns for its id.
pub struct ProvenSchema {
    pub id: u32,
    /// The schema as the registry stores it.
    pub text: SchemaText,
}

/// Returns the default schema type of the API.
fn avro() -> String {
    "AVRO".to_owned()
}

/// A reference from one schema to another one by `name`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    pub name: String,
    pub subject: String,
    /// The number of the version; -1 is the latest one.
    pub version: i32,
}

#[derive(Deserialize)]
struct SchemaId {
    id: u32,
}

#[derive(Deserialize)]
struct CompatibilityLevel {
    #[serde(rename = "compatibilityLevel", alias = "compatibility")]
    name: String,
}

#[derive(Deserialize)]
struct Mode {
    mode: String,
}

/// A response that must be a JSON object: serde reads a struct from a list, too, such as one of version numbers.
struct Object<T>(T);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Map::deserialize(deserializer)?;
        T::deserialize(Value::Object(object)).map(Self).map_err(D::Error::custom)
    }
}

/// The error response of a registry.
#[derive(Deserialize)]
struct Refusal {
    error_code: i32,
    message: String,
}

/// A client for one registry, which may have several addresses.
pub struct RegistryClient {
    http: Client,
    addresses: Vec<String>,
    credentials: Option<(String, Option<String>)>,
    /// The index of the address that answered last, which is tried first.
    first: AtomicUsize,
}

impl RegistryClient {
    /// Creates a client without connecting to the registry.
    ///
    /// # Errors
    /// Fails when the addresses have different credentials, or the HTTP client cannot be built.
    pub fn new(args: &RegistryArgs) -> anyhow::Result<Self> {
        args.check()?;
        // A POST that is redirected can become a GET, which another resource answers.
        let http = https::client().timeout(TIMEOUT).build();
        let user = args.urls.first().filter(|url| !url.username().is_empty());
        Ok(Self {
            http: http.context("cannot set up an HTTP client")?,
            addresses: args.urls.iter().map(without_credentials).collect(),
            credentials: user.map(|url| (decoded(url.username()), url.password().map(decoded))),
            first: AtomicUsize::new(0),
        })
    }

    /// Returns the addresses for use in messages.
    pub(super) fn name(&self) -> String {
        self.addresses.join(", ")
    }

    /// Returns the schema with this `id`, or `None` when there is none.
    pub(super) async fn by_id(&self, id: u32) -> Result<Option<SchemaText>, CodecError> {
        self.call(Method::GET, &format!("/schemas/ids/{id}"), None).await
    }

    /// Returns the schema that a reference names, or `None` when there is none.
    ///
    /// # Errors
    /// Fails when no registry responds.
    pub async fn by_reference(&self, reference: &Reference) -> Result<Option<SchemaText>, CodecError> {
        let Reference { subject, version, .. } = reference;
        self.call(Method::GET, &format!("{}/versions/{version}", path_of(subject)), None).await
    }

    /// Returns whether the registry has any schema under `subject`.
    pub(super) async fn has_subject(&self, subject: &str) -> Result<bool, CodecError> {
        let latest = format!("{}/versions/latest", path_of(subject));
        Ok(self.call::<SchemaId>(Method::GET, &latest, None).await?.is_some())
    }

    /// Returns the subjects.
    ///
    /// # Errors
    /// Fails when no registry responds.
    pub async fn subjects(&self) -> Result<Vec<String>, CodecError> {
        let subjects = self.request(Method::GET, "/subjects", None).await?;
        subjects.ok_or_else(|| CodecError::Unavailable(format!("{} does not list its subjects", self.name())))
    }

    /// Returns the numbers of the versions of `subject` in ascending order; none when it does not exist.
    ///
    /// # Errors
    /// Fails when no registry responds.
    pub async fn versions(&self, subject: &str) -> Result<Vec<u32>, CodecError> {
        let versions = self.request(Method::GET, &format!("{}/versions", path_of(subject)), None).await?;
        Ok(versions.unwrap_or_default())
    }

    /// Returns a version of `subject`, the latest one by default, or `None` when there is none.
    ///
    /// # Errors
    /// Fails when no registry responds.
    pub async fn version(
        &self,
        subject: &str,
        version: Option<u32>,
    ) -> Result<Option<RegisteredSchema>, CodecError> {
        let version = version.map_or("latest".to_owned(), |number| number.to_string());
        self.call(Method::GET, &format!("{}/versions/{version}", path_of(subject)), None).await
    }

    /// Returns the name of the compatibility level that applies to `subject`.
    ///
    /// # Errors
    /// Fails when no registry responds.
    pub async fn level(&self, subject: &str) -> Result<String, CodecError> {
        let path = format!("/config/{}", utf8_percent_encode(subject, &IN_PATH));
        let mut level: Option<CompatibilityLevel> = self.call(Method::GET, &path, None).await?;
        if level.is_none() {
            level = self.call(Method::GET, "/config", None).await?;
        }
        let missing = || CodecError::Unavailable(format!("{} has no compatibility level", self.name()));
        Ok(level.ok_or_else(missing)?.name)
    }

    /// Returns the mode of `subject`, such as READWRITE, unless the registry has no modes.
    ///
    /// # Errors
    /// Fails when no registry responds.
    pub async fn mode(&self, subject: &str) -> Result<Option<String>, CodecError> {
        let path = format!("/mode/{}?defaultToGlobal=true", utf8_percent_encode(subject, &IN_PATH));
        Ok(self.call::<Mode>(Method::GET, &path, None).await?.map(|Mode { mode }| mode))
    }

    /// Returns whether `schema` is registered under `subject`.
    ///
    /// # Errors
    /// Fails when no registry responds.
    pub async fn is_under(&self, subject: &str, schema: &SchemaText) -> Result<bool, CodecError> {
        Ok(self.call::<SchemaId>(Method::POST, &path_of(subject), Some(schema)).await?.is_some())
    }

    /// Registers `schema` under `subject`, unless it is registered already, and returns its id.
    ///
    /// # Errors
    /// Fails when no registry responds, the registry refuses the schema, or it does not return the schema for its id.
    pub async fn register(&self, subject: &str, schema: &SchemaText) -> Result<ProvenSchema, CodecError> {
        let path = format!("{}/versions", path_of(subject));
        let registered: Option<SchemaId> = self.call(Method::POST, &path, Some(schema)).await?;
        let not_found = || CodecError::Unavailable(format!("{} has no subject {subject}", self.name()));
        self.prove(registered.ok_or_else(not_found)?.id, schema).await
    }

    /// Checks that the registry returns `schema` for the `id` that it named: a value under a wrong id cannot be read.
    pub(super) async fn prove(&self, id: u32, schema: &SchemaText) -> Result<ProvenSchema, CodecError> {
        let wrong = |reason: &str| {
            let name = self.name();
            CodecError::Unavailable(format!("{name} answered with the id of schema {id}, {reason}"))
        };
        if !(1..=MAX_ID).contains(&id) {
            return Err(wrong("which is no id"));
        }
        let text = self.by_id(id).await?.ok_or_else(|| wrong("which it does not have"))?;
        if text.is_same(schema) {
            Ok(ProvenSchema { id, text })
        } else {
            Err(wrong("which is another schema"))
        }
    }

    /// Sends a request, as [`Self::request`] does, for a resource that is an object.
    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&SchemaText>,
    ) -> Result<Option<T>, CodecError> {
        Ok(self.request(method, path, body).await?.map(|Object(resource)| resource))
    }

    /// Sends a request to one address after the other until one returns the resource. Returns `None` when no address
    /// has it and at least one reports that it does not exist: a follower may receive it later than the leader.
    async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&SchemaText>,
    ) -> Result<Option<T>, CodecError> {
        let mut is_missing = false;
        let mut failures = Vec::new();
        let count = self.addresses.len();
        let first = self.first.load(Ordering::Relaxed);
        for index in (first..count).chain(0..first) {
            let Some(address) = self.addresses.get(index) else { continue };
            match self.send(method.clone(), &format!("{address}{path}"), body).await {
                Ok(Some(answer)) => {
                    self.first.store(index, Ordering::Relaxed);
                    return Ok(Some(answer));
                }
                Ok(None) => is_missing = true,
                Err(reason) => failures.push(format!("{address}: {reason}")),
            }
        }
        if is_missing { Ok(None) } else { Err(CodecError::Unavailable(failures.join("; "))) }
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        url: &str,
        body: Option<&SchemaText>,
    ) -> Result<Option<T>, String> {
        let mut request = self.http.request(method, url).header(header::ACCEPT, CONTENT_TYPE);
        if let Some((user, password)) = &self.credentials {
            request = request.basic_auth(user, password.as_deref());
        }
        if let Some(schema) = body {
            request = request.header(header::CONTENT_TYPE, CONTENT_TYPE).body(json(schema)?);
        }
        let response = request.send().await.map_err(describe)?;
        let status = response.status();
        if status.is_redirection() {
            return Err(redirection(status, response.headers()));
        }
        let answer = read(response).await?;
        if status.is_success() {
            let read = serde_json::from_slice(&answer).map(Some);
            return read.map_err(|_| format!("responded {status} with an unexpected body"));
        }
        let Ok(Object(Refusal { error_code, message })) = serde_json::from_slice(&answer) else {
            return Err(format!("responded {status} without a schema registry's error code"));
        };
        match error_code {
            // Subject, version and schema not found; no level set for the subject.
            40401..=40403 | 40408 if status == StatusCode::NOT_FOUND => Ok(None),
            _ => Err(format!("responded {status}: error {error_code}: {message}")),
        }
    }
}

fn redirection(status: StatusCode, headers: &HeaderMap) -> String {
    let location = headers.get(header::LOCATION).and_then(|location| location.to_str().ok()).unwrap_or("?");
    // The query may contain a secret.
    let location = location.split(['?', '#']).next().unwrap_or_default();
    format!(
        "responded {status}, which redirects to {}: give the final address as --schema-registry-url \
         (SCHEMA_REGISTRY_URL)",
        excerpt(location, MAX_LOCATION_CHARS)
    )
}

fn path_of(subject: &str) -> String {
    format!("/subjects/{}", utf8_percent_encode(subject, &IN_PATH))
}

fn json(schema: &SchemaText) -> Result<String, String> {
    serde_json::to_string(schema).map_err(|error| error.to_string())
}

async fn read(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(describe)? {
        if answer.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(format!("responded with more than {MAX_ANSWER_BYTES} bytes"));
        }
        answer.extend_from_slice(&chunk);
    }
    Ok(answer)
}

/// Describes an error with all its causes. Omits the address, which the caller adds.
fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
