//! The platform's error responses: `application/problem+json` (RFC 9457).

use std::fmt;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;

use crate::database::DatabaseError;
use crate::vehicle::FieldError;

/// The seconds after which a client should retry.
const RETRY_AFTER: &str = "2";

/// An error as a client sees it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Problem {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    /// Every invalid field or parameter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<InvalidInput>,
    /// The path of the conflicting resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    conflict: Option<String>,
    #[serde(skip)]
    allow: Option<&'static str>,
    /// Whether the same request may succeed later.
    #[serde(skip)]
    retry: bool,
}

#[derive(Clone, Debug, Serialize)]
struct InvalidInput {
    /// The JSON pointer (RFC 6901) to a field of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<&'static str>,
    /// The name of a query parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<&'static str>,
    detail: String,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            retry: status == StatusCode::SERVICE_UNAVAILABLE,
            ..Self::default()
        }
    }

    /// Invites the client to repeat the request, by `Retry-After`. A 503 does so by itself.
    pub fn retry_later(self) -> Self {
        Self { retry: true, ..self }
    }

    pub fn invalid_fields(errors: Vec<FieldError>) -> Self {
        let errors = errors
            .into_iter()
            .map(|FieldError { pointer, detail }| InvalidInput {
                pointer: Some(pointer),
                parameter: None,
                detail,
            })
            .collect();
        Self { errors, ..Self::new(StatusCode::BAD_REQUEST, "the body has invalid fields") }
    }

    pub(super) fn invalid_parameters(errors: Vec<(&'static str, String)>) -> Self {
        let errors = errors
            .into_iter()
            .map(|(parameter, detail)| InvalidInput { pointer: None, parameter: Some(parameter), detail })
            .collect();
        Self { errors, ..Self::new(StatusCode::BAD_REQUEST, "the query has invalid parameters") }
    }

    /// Returns a 409 that names the conflicting resource by its `path`.
    pub fn conflict(detail: impl Into<String>, path: String) -> Self {
        Self { conflict: Some(path), ..Self::new(StatusCode::CONFLICT, detail) }
    }

    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no resource has this path")
    }

    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self {
            allow: Some(allow),
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, format!("this resource supports only {allow}"))
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status, self.title, self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        response.insert_header((header::CONTENT_TYPE, "application/problem+json"));
        if self.retry {
            response.insert_header((header::RETRY_AFTER, RETRY_AFTER));
        }
        if let Some(allow) = self.allow {
            response.insert_header((header::ALLOW, allow));
        }
        response.body(serde_json::to_string(self).unwrap_or_default())
    }
}

impl From<DatabaseError> for Problem {
    fn from(error: DatabaseError) -> Self {
        Self::from(&error)
    }
}

impl From<&DatabaseError> for Problem {
    /// Discloses nothing internal in the response and logs the whole error instead.
    fn from(error: &DatabaseError) -> Self {
        match error {
            DatabaseError::Refused(_) => {
                tracing::warn!(%error, "the database refuses a request's values, responding with 400");
                Self::new(StatusCode::BAD_REQUEST, "the database refuses these values")
            }
            DatabaseError::Unavailable(_) | DatabaseError::ReadOnly(_) | DatabaseError::Conflict(_) => {
                tracing::warn!(%error, "database request failed, responding with 503");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "the database is unavailable, retry later")
            }
            // Lists leave such a row out as well, and log it once.
            DatabaseError::Unreadable(_) => {
                tracing::debug!(%error, "row is unreadable, responding with 404");
                Self::not_found()
            }
            DatabaseError::Internal(_) => {
                tracing::error!(%error, "database request failed, responding with 500");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "")
            }
        }
    }
}
