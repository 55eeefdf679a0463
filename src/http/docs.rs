//! Serves the documentation of a role: its OpenAPI and AsyncAPI documents, and pages that need no other host.

use std::borrow::Cow;
use std::future::ready;
use std::sync::{Arc, LazyLock};

use actix_web::body::MessageBody;
use actix_web::http::header::{self, ContentType};
use actix_web::web::{self, Bytes, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::Config;

use super::api_key::ApiKeys;
use super::health::Disclosure;
use super::openapi::{Problems, Served, complete};
use super::problem::Problem;
use super::problem_type::ProblemType;
use super::room::{chunked_body, outgoing_body};
use super::routes::readable;
use crate::database::DatabaseError;

/// A page loads nothing from another host, and no other page may embed it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                                       base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page loads the document by a relative path, so that it works behind a proxy that adds a prefix.
static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    Arc::new(Config::new(["../openapi.json"]).use_base_layout().default_models_expand_depth(0))
});

/// The documents that describe a role.
#[derive(Clone, Copy)]
pub struct Docs {
    /// The operations of the role.
    pub openapi: fn() -> OpenApi,
    /// The problems of these operations.
    pub problems: &'static [Problems],
    /// The topics of the platform.
    pub asyncapi: fn() -> Value,
}

impl Docs {
    /// Adds the routes of the documents and pages.
    pub fn configure(self, config: &mut ServiceConfig) {
        let openapi = move |request: HttpRequest| {
            let served = Served {
                probes: request.app_data::<web::Data<Disclosure>>().is_some(),
                api_keys: request.app_data::<ApiKeys>().is_some_and(ApiKeys::are_required),
            };
            ready(document(&request, &complete((self.openapi)(), self.problems, served)))
        };
        let asyncapi = move |request: HttpRequest| ready(document(&request, &(self.asyncapi)()));
        config
            .service(readable("/openapi.json", openapi))
            .service(readable("/asyncapi.json", asyncapi))
            .service(readable("/docs", to_docs))
            .service(readable("/docs/{file:.*}", docs_file))
            .configure(problem_pages);
    }
}

/// Adds the pages that explain the types of problems.
pub fn problem_pages(config: &mut ServiceConfig) {
    config.service(readable("/problems/{name}", problem_page));
}

fn document(request: &HttpRequest, document: &impl Serialize) -> Result<HttpResponse, Problem> {
    let json = serde_json::to_vec(document).map_err(DatabaseError::internal)?;
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(outgoing_body(request, json)?))
}

async fn to_docs() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((header::LOCATION, "docs/")).finish()
}

async fn docs_file(name: web::Path<String>) -> Result<HttpResponse, Problem> {
    let served = utoipa_swagger_ui::serve(&name, Arc::clone(&CONFIG)).map_err(|error| {
        tracing::error!(%error, "cannot serve a page of the documentation, responding with 500");
        Problem::new(&ProblemType::INTERNAL, "")
    })?;
    let file = served.ok_or_else(Problem::not_found)?;
    Ok(match file.bytes {
        Cow::Borrowed(bytes) => page(&file.content_type, chunked_body(Bytes::from_static(bytes), None)),
        Cow::Owned(bytes) => page(&file.content_type, bytes),
    })
}

async fn problem_page(name: web::Path<String>) -> Result<HttpResponse, Problem> {
    let kind = ProblemType::ALL.iter().find(|kind| kind.name == *name).ok_or_else(Problem::not_found)?;
    let ProblemType { title, status, explanation, .. } = kind;
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <main style=\"max-width: 40rem; margin: 3rem auto; padding: 0 1rem; font-family: sans-serif\">\n\
         <h1>{title}</h1>\n<p>Status {status}</p>\n<p>{explanation}</p>\n\
         <p><a href=\"../docs/\">API documentation</a></p>\n</main>\n</html>\n"
    );
    Ok(page("text/html; charset=utf-8", html.into_bytes()))
}

fn page(content_type: &str, content: impl MessageBody + 'static) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(content_type)
        .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(content)
}
