//! Lists the types of problems that the platform responds with. A page under `/problems/` documents each of them.

use actix_web::http::StatusCode;

/// A type of problem (RFC 9457).
#[derive(Debug, PartialEq, Eq)]
pub struct ProblemType {
    /// The last segment of its URI.
    pub name: &'static str,
    pub title: &'static str,
    pub status: StatusCode,
    /// What it means and what a client can do.
    pub explanation: &'static str,
}

macro_rules! problem_types {
    ($($constant:ident: $name:literal, $title:literal, $status:ident, $explanation:literal;)+) => {
        impl ProblemType {
            $(
                pub const $constant: Self = Self {
                    name: $name,
                    title: $title,
                    status: StatusCode::$status,
                    explanation: $explanation,
                };
            )+

            /// All types, in ascending order of their status.
            pub const ALL: &'static [Self] = &[$(Self::$constant),+];
        }
    };
}

problem_types! {
    MALFORMED_REQUEST: "malformed-request", "The request is malformed", BAD_REQUEST,
        "The request line, the query, a header or the body cannot be read; for example, the body is not JSON. The detail \
         names the place. Correct the request before you send it again.";
    INVALID_FIELDS: "invalid-fields", "The body has invalid fields", BAD_REQUEST,
        "The member \"errors\" lists every invalid field by its JSON pointer (RFC 6901), with the reason. Nothing was \
         stored.";
    INVALID_PARAMETERS: "invalid-parameters", "The query has invalid parameters", BAD_REQUEST,
        "The member \"errors\" lists every invalid parameter with the reason. Take cursors only from the Link header \
         of an earlier page.";
    REFUSED_VALUES: "refused-values", "The database or the schema of events refuses the values", BAD_REQUEST,
        "The values are valid, but the database refuses them, for example because of a constraint that its operator \
         added, or the schema that is registered for the event about the vehicle does, in which case the detail names \
         the fields. Nothing was stored.";
    UNAUTHORIZED: "unauthorized", "The request has no valid API key", UNAUTHORIZED,
        "The service requires an API key for this request. Send it as Authorization: Bearer KEY. The operator of the \
         service knows the keys.";
    CROSS_ORIGIN_REFUSED: "cross-origin-refused", "A page of another origin may not send this request", FORBIDDEN,
        "The browser asked whether a page of another origin may send a request, and the service refuses it because of \
         the origin, the method or a header. The operator of the service chooses the origins.";
    FOREIGN_HOST: "foreign-host", "The page cannot be used under this host name", FORBIDDEN,
        "A name could have been pointed to this server by another site, so only IP addresses, localhost and the names \
         that the operator of the service allows are accepted.";
    FOREIGN_PAGE: "foreign-page", "A page of another site may not send this request", FORBIDDEN,
        "The browser reports that a page of another site sends the request. Nothing was changed. Use the page of this \
         service itself.";
    READ_ONLY: "read-only", "The page is read-only", FORBIDDEN,
        "The operator of the service allows no changes on this page. Nothing was changed.";
    NOT_FOUND: "not-found", "No resource has this path", NOT_FOUND,
        "The path is unknown, or no vehicle or ad has this id. Numbers and ids have one canonical form; /stock/01 is \
         not /stock/1.";
    METHOD_NOT_ALLOWED: "method-not-allowed", "The resource does not support the method", METHOD_NOT_ALLOWED,
        "The header Allow lists the methods that the resource supports.";
    HEAD_TIMEOUT: "head-timeout", "The head of the request did not arrive in time", REQUEST_TIMEOUT,
        "The request line and all headers must arrive within 5 seconds. Send the request again on a new connection.";
    BODY_TIMEOUT: "body-timeout", "The body did not arrive in time", REQUEST_TIMEOUT,
        "The whole body must arrive within 10 seconds. Nothing was stored. Send the request again on a new connection.";
    VEHICLE_EXISTS: "vehicle-exists", "A vehicle with this vin exists", CONFLICT,
        "A vin identifies one vehicle. The member \"conflict\" is the path of the vehicle that exists. After a 503 or a \
         lost response this also means that the earlier request was carried out.";
    REQUEST_UNDER_WAY: "request-under-way", "A request with this Idempotency-Key is still under way", CONFLICT,
        "The service has not answered an earlier request with the same Idempotency-Key. Send the request again after \
         the time in the header Retry-After. This answer comes before the bodies are compared.";
    LETTER_RESOLVED: "letter-resolved", "The dead letter cannot be resolved", CONFLICT,
        "It is resolved already, or it does not exist. Nothing was changed.";
    FAULT_RUNNING: "fault-running", "A fault of this kind is in effect", CONFLICT,
        "A fault of each kind is injected only once at a time, whatever its target. Wait for its end: GET /faults returns \
         the time that is left.";
    BODY_TOO_LARGE: "body-too-large", "The body is too large", PAYLOAD_TOO_LARGE,
        "A body has at most 64 KiB. Nothing was stored.";
    UNSUPPORTED_MEDIA_TYPE: "unsupported-media-type", "The body has an unsupported media type", UNSUPPORTED_MEDIA_TYPE,
        "The body must be JSON in UTF-8, without a content coding, and have exactly one header \
         Content-Type: application/json.";
    KEY_REUSED: "key-reused", "The Idempotency-Key belongs to another vehicle", UNPROCESSABLE_ENTITY,
        "A vehicle was stored with this Idempotency-Key, and the request describes another one. Nothing was stored. Choose \
         a new key for each vehicle.";
    HEAD_TOO_LARGE: "head-too-large", "The head of the request is too large", REQUEST_HEADER_FIELDS_TOO_LARGE,
        "The request line and all headers have at most 128 KiB together, and there are at most 96 headers.";
    INTERNAL: "internal", "The service failed", INTERNAL_SERVER_ERROR,
        "A defect of the service or of its database. The log of the service contains the cause.";
    UNAVAILABLE: "unavailable", "The service is unavailable", SERVICE_UNAVAILABLE,
        "The schema of events is not known yet, or the database does not answer, accepts no changes, or its answer was \
         lost. A vehicle may have been stored. Send the request again after the time in the header Retry-After; with the same Idempotency-Key, the response is \
         that of the first request.";
    OVERLOADED: "overloaded", "The service is overloaded", SERVICE_UNAVAILABLE,
        "The service has more requests than it can carry out, or too many clients send or read too slowly. Nothing was \
         stored. Send the request again after the time in the header Retry-After.";
}

impl ProblemType {
    /// Returns the URI of the type, which is relative to the service.
    pub fn uri(&self) -> String {
        format!("/problems/{}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_type_has_a_uri_of_its_own() {
        let names: BTreeSet<_> = ProblemType::ALL.iter().map(|kind| kind.name).collect();
        assert_eq!(names.len(), ProblemType::ALL.len());
        assert!(ProblemType::ALL.is_sorted_by_key(|kind| kind.status));
    }
}
