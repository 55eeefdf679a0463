//! The errors of the API, each with a code that clients compare.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::ALLOW;
use actix_web::{HttpResponse, ResponseError};
use serde_json::json;

pub(super) const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// An error in the format of the API.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    code: u32,
    pub(super) message: String,
    allow: Option<&'static str>,
}

impl ApiError {
    pub(super) fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), allow: None }
    }

    pub(super) fn subject(name: &str) -> Self {
        Self::new(40401, format!("Subject '{name}' not found."))
    }

    pub(super) fn version(version: impl fmt::Display) -> Self {
        Self::new(40402, format!("Version {version} not found."))
    }

    pub(super) fn schema_id(id: impl fmt::Display) -> Self {
        Self::new(40403, format!("Schema {id} not found"))
    }

    pub(super) fn invalid_schema(reason: impl fmt::Display) -> Self {
        Self::new(42201, format!("Invalid schema: {reason}"))
    }

    pub(super) fn is_invalid_schema(&self) -> bool {
        self.code == 42201
    }

    pub(super) fn not_permitted(reason: impl Into<String>) -> Self {
        Self::new(42205, reason)
    }

    pub(super) fn path() -> Self {
        Self::new(404, "HTTP 404 Not Found")
    }

    pub(super) fn method(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::new(405, "HTTP 405 Method Not Allowed") }
    }

    /// Returns the error of a body that cannot be read.
    pub(super) fn body(error: &actix_web::Error) -> Self {
        match error.as_response_error().status_code() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::new(413, "HTTP 413 Request Entity Too Large"),
            _ => Self::new(400, format!("cannot read the body: {error}")),
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl ResponseError for ApiError {
    /// Returns the status, which is the first three digits of the code.
    fn status_code(&self) -> StatusCode {
        let status = if self.code < 1_000 { self.code } else { self.code / 100 };
        u16::try_from(status)
            .ok()
            .and_then(|status| StatusCode::from_u16(status).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        response.content_type(CONTENT_TYPE);
        if let Some(allow) = self.allow {
            response.insert_header((ALLOW, allow));
        }
        response.body(json!({ "error_code": self.code, "message": self.message }).to_string())
    }
}
