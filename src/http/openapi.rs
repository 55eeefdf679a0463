//! Completes the OpenAPI documents of the roles with what all roles have in common.

use actix_web::http::StatusCode;
use serde_json::json;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::path::{HttpMethod, Operation};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, RefOr, Response, ResponseBuilder};
use utoipa::{OpenApi as _, ToSchema as _};

use super::health;
use super::problem::ProblemBody;
use super::problem_type::ProblemType;

/// The operations of every role.
#[derive(utoipa::OpenApi)]
#[openapi(
    paths(health::healthz, health::readyz, super::metrics::show),
    components(schemas(ProblemBody)),
    info(
        title = "vehicle-platform",
        description = "Accepts vehicles, estimates their prices and publishes ads.",
        license(name = "MIT", identifier = "MIT")
    )
)]
struct Common;

/// The name of the keys in the document.
const SCHEME: &str = "apiKey";

/// What a server offers, depending on its settings.
#[derive(Clone, Copy)]
pub(super) struct Served {
    /// Health and metrics.
    pub(super) probes: bool,
    /// Some operations need a key.
    pub(super) api_keys: bool,
}

/// The problems that an operation can respond with.
pub struct Problems {
    pub path: &'static str,
    pub method: HttpMethod,
    pub types: &'static [ProblemType],
}

const READINESS: Problems =
    Problems { path: "/readyz", method: HttpMethod::Get, types: &[ProblemType::MALFORMED_REQUEST] };

impl Problems {
    /// Returns the problems of reading a list.
    pub const fn of_list(path: &'static str) -> Self {
        let types = &[
            ProblemType::MALFORMED_REQUEST,
            ProblemType::INVALID_PARAMETERS,
            ProblemType::INTERNAL,
            ProblemType::UNAVAILABLE,
        ];
        Self { path, method: HttpMethod::Get, types }
    }

    /// Returns the problems of reading an item.
    pub const fn of_item(path: &'static str) -> Self {
        let types = &[ProblemType::NOT_FOUND, ProblemType::INTERNAL, ProblemType::UNAVAILABLE];
        Self { path, method: HttpMethod::Get, types }
    }
}

/// Returns the OpenAPI document of a role: its operations in `role`, the problems of these, and the operations that
/// all roles have.
pub(super) fn complete(role: OpenApi, problems: &[Problems], served: Served) -> OpenApi {
    let mut document = Common::openapi();
    if !served.probes {
        document.paths.paths.clear();
    }
    document.merge(role);
    for Problems { path, method, types } in problems.iter().chain([&READINESS]) {
        if let Some(operation) = operation(&mut document, path, method) {
            let types: Vec<_> =
                types.iter().filter(|kind| served.api_keys || **kind != ProblemType::UNAUTHORIZED).collect();
            for status in statuses(&types) {
                let types = types.iter().copied().filter(|kind| kind.status == status);
                operation
                    .responses
                    .responses
                    .insert(status.as_str().to_owned(), RefOr::T(response(status, types)));
            }
        }
    }
    if served.api_keys {
        require_key(&mut document);
    }
    document
}

/// Declares that the operations which change something need a key.
fn require_key(document: &mut OpenApi) {
    let scheme = Http::builder()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("One of the keys that the operator of the service chose."));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(SCHEME, SecurityScheme::Http(scheme.build()));
    for operation in document.paths.paths.values_mut().filter_map(|item| item.post.as_mut()) {
        operation.security = Some(vec![SecurityRequirement::new::<_, _, &str>(SCHEME, [])]);
    }
}

fn operation<'a>(document: &'a mut OpenApi, path: &str, method: &HttpMethod) -> Option<&'a mut Operation> {
    let item = document.paths.paths.get_mut(path)?;
    match method {
        HttpMethod::Get => item.get.as_mut(),
        HttpMethod::Post => item.post.as_mut(),
        _ => None,
    }
}

/// Returns the statuses of `types`, which are in ascending order, each once.
fn statuses(types: &[&ProblemType]) -> Vec<StatusCode> {
    let mut statuses: Vec<_> = types.iter().map(|kind| kind.status).collect();
    statuses.dedup();
    statuses
}

fn response<'a>(status: StatusCode, types: impl Iterator<Item = &'a ProblemType>) -> Response {
    let schema = RefOr::Ref(utoipa::openapi::Ref::from_schema_name(ProblemBody::name()));
    let examples = types.map(|kind| {
        let value = json!({ "type": kind.uri(), "title": kind.title, "status": kind.status.as_u16() });
        (kind.name, ExampleBuilder::new().summary(kind.explanation).value(Some(value)).build())
    });
    let content = ContentBuilder::new().schema(Some(schema)).examples_from_iter(examples).build();
    let reason = status.canonical_reason().unwrap_or("Error");
    ResponseBuilder::new().description(reason).content("application/problem+json", content).build()
}
