//! Serves a page and its files, which are part of the executable.

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::{Bytes, ServiceConfig};

use super::own_page::AllowedHost;
use super::room::chunked_body;
use super::routes::readable;

/// The page loads everything from its own origin, contains no inline code or style, and no other page may embed it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'none'; object-src 'none'; \
                                       frame-ancestors 'none'";

/// A file of a page.
#[derive(Clone, Copy, Debug)]
pub struct PageFile {
    pub path: &'static str,
    pub media_type: &'static str,
    pub content: &'static str,
}

impl PageFile {
    /// Adds the route of the file.
    pub fn configure(self, config: &mut ServiceConfig) {
        config.service(readable(self.path, move |_: AllowedHost| async move { self.respond() }));
    }

    fn respond(self) -> HttpResponse {
        HttpResponse::Ok()
            .content_type(self.media_type)
            .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
            .insert_header((header::REFERRER_POLICY, "no-referrer"))
            .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
            // A new version of the executable has other files under the same names.
            .insert_header((header::CACHE_CONTROL, "no-cache"))
            .body(chunked_body(Bytes::from_static(self.content.as_bytes()), None))
    }
}
