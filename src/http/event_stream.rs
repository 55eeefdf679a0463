//! Sends server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::convert::Infallible;

use actix_web::http::header;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use futures::{Stream, StreamExt as _};

use super::connections::ConnectionMark;

/// Responds with a stream of serialized events. The stream must yield something at least every 10 s.
///
/// The connection buffers at most 32 KiB and one item, and the server closes it when the client reads nothing for half
/// a minute.
pub fn event_stream(request: &HttpRequest, events: impl Stream<Item = Bytes> + 'static) -> HttpResponse {
    let mark = request.conn_data::<ConnectionMark>().cloned();
    let events = events.map(move |event| {
        // The server asks for an item only when the client has read enough of the earlier ones.
        if let Some(mark) = &mark {
            mark.response_begins();
        }
        Ok::<_, Infallible>(event)
    });
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        // nginx passes on each event immediately with it.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(events)
}
