//! Builds resources that answer every method.

use actix_web::guard::{self, Guard};
use actix_web::http::header;
use actix_web::{FromRequest, Handler, Resource, Responder, web};

use super::problem::Problem;
use super::problem_type::ProblemType;

/// Returns a resource that GET and HEAD read.
pub fn readable<F, A>(path: &str, read: F) -> Resource
where
    F: Handler<A>,
    A: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    with_reads(path, read, "GET, HEAD")
}

/// Returns a resource that only POST uses.
pub fn changing<F, A>(path: &str, change: F) -> Resource
where
    F: Handler<A>,
    A: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    let refuse = || async { Err::<String, _>(method_not_allowed("POST")) };
    web::resource(path).route(web::post().to(change)).default_service(web::to(refuse))
}

/// Returns a resource that GET and HEAD read, and that POST adds to.
pub fn collection<R, A, W, B>(path: &str, read: R, add: W) -> Resource
where
    R: Handler<A>,
    A: FromRequest + 'static,
    R::Output: Responder + 'static,
    W: Handler<B>,
    B: FromRequest + 'static,
    W::Output: Responder + 'static,
{
    with_reads(path, read, "GET, HEAD, POST").route(web::post().to(add))
}

fn with_reads<F, A>(path: &str, read: F, allow: &'static str) -> Resource
where
    F: Handler<A>,
    A: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    let refuse = move || async move { Err::<String, _>(method_not_allowed(allow)) };
    web::resource(path).route(web::route().guard(is_read()).to(read)).default_service(web::to(refuse))
}

/// The server leaves out the body of a response to HEAD (RFC 9110, section 9.3.2).
fn is_read() -> impl Guard {
    guard::Any(guard::Get()).or(guard::Head())
}

fn method_not_allowed(allow: &'static str) -> Problem {
    let detail = format!("this resource supports only {allow}");
    Problem::new(&ProblemType::METHOD_NOT_ALLOWED, detail).with_header(header::ALLOW, allow)
}
