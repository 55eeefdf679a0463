//! The platform's error responses: `application/problem+json` (RFC 9457).

use std::fmt;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use utoipa::ToSchema;

use super::problem_type::ProblemType;
use crate::database::DatabaseError;
use crate::vehicle::FieldError;

/// The seconds after which a client should retry.
const RETRY_AFTER: &str = "2";

/// The media type of a problem.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// An error as a client sees it.
#[derive(Clone, Debug)]
pub struct Problem {
    kind: &'static ProblemType,
    detail: String,
    errors: Vec<InvalidInput>,
    conflict: Option<String>,
    /// A header that the status requires.
    header: Option<(header::HeaderName, &'static str)>,
}

/// The body of an error response (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody<'a> {
    /// The URI of a page about this type of problem.
    #[serde(rename = "type")]
    #[schema(format = "uri-reference")]
    kind: String,
    title: &'a str,
    status: u16,
    /// What is wrong with this request.
    #[serde(skip_serializing_if = "str::is_empty")]
    #[schema(nullable = false)]
    detail: &'a str,
    /// Every invalid field or parameter.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [InvalidInput],
    /// The path of the resource that exists already.
    #[serde(skip_serializing_if = "Option::is_none")]
    conflict: Option<&'a str>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct InvalidInput {
    /// The JSON pointer (RFC 6901) to a field of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<&'static str>,
    /// The name of a query parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<&'static str>,
    detail: String,
}

impl Problem {
    pub fn new(kind: &'static ProblemType, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), errors: Vec::new(), conflict: None, header: None }
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
        Self { errors, ..Self::new(&ProblemType::INVALID_FIELDS, "") }
    }

    pub(super) fn invalid_parameters(errors: Vec<(&'static str, String)>) -> Self {
        let errors = errors
            .into_iter()
            .map(|(parameter, detail)| InvalidInput { pointer: None, parameter: Some(parameter), detail })
            .collect();
        Self { errors, ..Self::new(&ProblemType::INVALID_PARAMETERS, "") }
    }

    /// Returns a 409 that names the vehicle that exists by its `path`.
    pub fn vehicle_exists(detail: impl Into<String>, path: String) -> Self {
        Self { conflict: Some(path), ..Self::new(&ProblemType::VEHICLE_EXISTS, detail) }
    }

    /// Returns a 409 for a request that is repeated while the first one is not done.
    pub fn request_under_way() -> Self {
        Self::new(&ProblemType::REQUEST_UNDER_WAY, "retry later")
            .with_header(header::RETRY_AFTER, RETRY_AFTER)
    }

    /// Returns a 401 for a request without a valid API key.
    pub(super) fn unauthorized() -> Self {
        Self::new(&ProblemType::UNAUTHORIZED, "").with_header(header::WWW_AUTHENTICATE, "Bearer")
    }

    pub fn not_found() -> Self {
        Self::new(&ProblemType::NOT_FOUND, "")
    }

    /// Adds a header to the response.
    #[must_use]
    pub(super) fn with_header(self, name: header::HeaderName, value: &'static str) -> Self {
        Self { header: Some((name, value)), ..self }
    }

    /// Returns the body of the response.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(&self.body()).unwrap_or_default()
    }

    fn body(&self) -> ProblemBody<'_> {
        ProblemBody {
            kind: self.kind.uri(),
            title: self.kind.title,
            status: self.kind.status.as_u16(),
            detail: &self.detail,
            errors: &self.errors,
            conflict: self.conflict.as_deref(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.title, self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.kind.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        response.insert_header((header::CONTENT_TYPE, PROBLEM_JSON));
        if self.status_code() == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((header::RETRY_AFTER, RETRY_AFTER));
        }
        if let Some(header) = self.header.clone() {
            response.insert_header(header);
        }
        response.body(self.to_json())
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
                Self::new(&ProblemType::REFUSED_VALUES, "")
            }
            DatabaseError::Unavailable(_) | DatabaseError::ReadOnly(_) | DatabaseError::Conflict(_) => {
                tracing::warn!(%error, "database request failed, responding with 503");
                Self::new(&ProblemType::UNAVAILABLE, "retry later")
            }
            // Lists leave such a row out as well, and log it once.
            DatabaseError::Unreadable(_) => {
                tracing::debug!(%error, "row is unreadable, responding with 404");
                Self::not_found()
            }
            DatabaseError::Internal(_) => {
                tracing::error!(%error, "database request failed, responding with 500");
                Self::new(&ProblemType::INTERNAL, "")
            }
        }
    }
}
