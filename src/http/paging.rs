//! Pages by keyset: a page costs the same wherever it lies, and a `Link` header (RFC 8288) names the next.

use std::fmt::Display;

use actix_web::HttpResponse;
use actix_web::http::header;
use serde::{Deserialize, Serialize};

use super::problem::Problem;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;

/// The query of a list, as it came.
#[derive(Debug, Default, Deserialize)]
pub struct QueryParams {
    limit: Option<String>,
    after: Option<String>,
}

/// Which page is asked for; `C` is the key that the list is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest<C> {
    /// From 1 to 1000.
    pub limit: usize,
    /// The key after which the page begins.
    pub after: Option<C>,
}

impl<C> PageRequest<C> {
    /// # Errors
    /// A 400 that names every wrong parameter.
    pub fn parse(query: &QueryParams, parse_cursor: impl Fn(&str) -> Option<C>) -> Result<Self, Problem> {
        let mut errors = Vec::new();
        let limit = match query.limit.as_deref().map(str::parse::<usize>) {
            None => DEFAULT_LIMIT,
            Some(Ok(limit @ 1..=MAX_LIMIT)) => limit,
            Some(_) => {
                errors.push(("limit", format!("must be an integer from 1 to {MAX_LIMIT}")));
                DEFAULT_LIMIT
            }
        };
        let after = query.after.as_deref().and_then(|cursor| {
            let parsed = parse_cursor(cursor);
            if parsed.is_none() {
                errors.push(("after", "must come from the Link header of an earlier page".to_owned()));
            }
            parsed
        });
        if errors.is_empty() { Ok(Self { limit, after }) } else { Err(Problem::invalid_parameters(errors)) }
    }

    /// One more than the page holds, to learn whether another follows.
    pub fn fetch_limit(&self) -> usize {
        self.limit + 1
    }
}

/// A page, and whether another follows.
pub struct Page<T> {
    items: Vec<T>,
    limit: usize,
    more: bool,
}

impl<T: Serialize> Page<T> {
    /// `items`: up to [`PageRequest::fetch_limit`] of them.
    pub fn new<C>(request: &PageRequest<C>, mut items: Vec<T>) -> Self {
        let more = items.len() > request.limit;
        items.truncate(request.limit);
        Self { items, limit: request.limit, more }
    }

    /// A bare JSON array; `cursor` names the key of an item.
    pub fn respond<C: Display>(self, path: &str, cursor: impl Fn(&T) -> C) -> HttpResponse {
        let mut response = HttpResponse::Ok();
        if let Some(last) = self.items.last().filter(|_| self.more) {
            let link = format!("<{path}?limit={}&after={}>; rel=\"next\"", self.limit, cursor(last));
            response.insert_header((header::LINK, link));
        }
        response.json(self.items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(limit: Option<&str>, after: Option<&str>) -> Result<PageRequest<i64>, Problem> {
        let query = QueryParams { limit: limit.map(str::to_owned), after: after.map(str::to_owned) };
        PageRequest::parse(&query, |cursor| cursor.parse().ok())
    }

    #[test]
    fn limits_outside_their_bounds_and_foreign_cursors_are_refused() {
        assert_eq!(parse(None, None).unwrap(), PageRequest { limit: 100, after: None });
        assert_eq!(parse(Some("1000"), Some("7")).unwrap(), PageRequest { limit: 1000, after: Some(7) });
        for limit in ["0", "1001", "-1", "x", ""] {
            assert!(parse(Some(limit), None).is_err(), "{limit}");
        }
        assert!(parse(None, Some("x")).is_err());
    }
}
