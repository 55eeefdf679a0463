//! Refuses requests to continue with another protocol.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{ConnectionType, header};
use actix_web::middleware::Next;
use actix_web::{Error, ResponseError as _};

use super::problem::Problem;
use super::problem_type::ProblemType;

/// Answers a request for `WebSocket` with 400 and closes the connection. The server does not read the length of its body,
/// and would take all that follows on the connection for it. Requests for other protocols are served as if they were not
/// (RFC 9110, section 7.8).
pub(super) async fn refuse_upgrade(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let mut protocols = request.headers().get_all(header::UPGRADE);
    let is_websocket =
        protocols.any(|protocol| protocol.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket"));
    if !is_websocket {
        return Ok(next.call(request).await?.map_into_left_body());
    }
    let detail = "the service supports no other protocol, such as WebSocket";
    let mut response = Problem::new(&ProblemType::MALFORMED_REQUEST, detail).error_response();
    response.head_mut().set_connection_type(ConnectionType::Close);
    Ok(request.into_response(response).map_into_right_body())
}
