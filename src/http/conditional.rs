//! Answers conditional requests (RFC 9110, section 13) for resources that never change.

use actix_web::http::header::{ETag, EntityTag, IfNoneMatch};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::problem::Problem;
use super::problem_type::ProblemType;
use super::resource_json::to_json;
use super::room::outgoing_body;

/// Responds with `body` as JSON and a strong `ETag`, the hash of exactly these bytes, or with 304 when `If-None-Match`
/// names it.
///
/// # Errors
/// Returns a 500 problem when `body` cannot be serialized, and a 503 problem while clients that read too slowly hold too
/// many responses.
pub fn respond_unless_known(request: &HttpRequest, body: &impl Serialize) -> Result<HttpResponse, Problem> {
    let body = to_json(body).map_err(|error| {
        tracing::error!(%error, "cannot serialize a resource, responding with 500");
        Problem::new(&ProblemType::INTERNAL, "")
    })?;
    let hash: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
    let tag = EntityTag::new_strong(hash);
    // A header that cannot be parsed is no condition.
    let is_known = match request.get_header::<IfNoneMatch>() {
        Some(IfNoneMatch::Any) => true,
        Some(IfNoneMatch::Items(tags)) => tags.iter().any(|known| known.weak_eq(&tag)),
        None => false,
    };
    if is_known {
        return Ok(HttpResponse::NotModified().insert_header(ETag(tag)).finish());
    }
    let mut response = HttpResponse::Ok();
    response.insert_header(ETag(tag)).content_type("application/json");
    Ok(response.body(outgoing_body(request, body)?))
}

#[cfg(test)]
mod tests {
    use actix_web::http::StatusCode;
    use actix_web::http::header::{ETAG, IF_NONE_MATCH};
    use actix_web::test::TestRequest;

    use super::*;
    use crate::http::room::Rooms;

    fn status(conditions: &[&str], body: &str) -> StatusCode {
        let request =
            conditions.iter().fold(TestRequest::get().app_data(Rooms::new()), |request, condition| {
                request.append_header((IF_NONE_MATCH, *condition))
            });
        respond_unless_known(&request.to_http_request(), &body).unwrap().status()
    }

    fn tag_of(body: &str) -> String {
        let response =
            respond_unless_known(&TestRequest::get().app_data(Rooms::new()).to_http_request(), &body)
                .unwrap();
        response.headers().get(ETAG).unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn a_representation_that_the_client_has_is_not_repeated() {
        let (tag, other) = (tag_of("body"), tag_of("other body"));
        assert!(tag.starts_with('"') && tag != other, "{tag} {other}");
        let unquoted = tag.trim_matches('"').to_owned();
        for conditions in [
            &[tag.as_str()][..],
            &["*"],
            &[&format!("W/{tag}")],
            &[&format!("{other}, W/\"x\" ,{tag}")],
            &[&other, &tag],
        ] {
            assert_eq!(status(conditions, "body"), StatusCode::NOT_MODIFIED, "{conditions:?}");
        }
        let upper_case = tag.to_uppercase();
        for conditions in
            [&[][..], &[other.as_str()], &[""], &[unquoted.as_str()], &["\"*\""], &[upper_case.as_str()]]
        {
            assert_eq!(status(conditions, "body"), StatusCode::OK, "{conditions:?}");
        }
    }
}
