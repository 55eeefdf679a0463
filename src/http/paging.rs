//! Pages by keyset: a page costs the same wherever it lies, and a `Link` header (RFC 8288) names the next.

use std::fmt::Display;

use actix_web::HttpResponse;
use actix_web::http::header;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::skipped_rows::SkippedRows;
use crate::database::Readable;

/// What a cursor shows as it is: all that a number or a UUID has.
const IN_CURSOR: AsciiSet = NON_ALPHANUMERIC.remove(b'-');

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

/// The readable items of a page, and where the next one begins.
pub struct Page<T> {
    items: Vec<T>,
    /// Of the query of the next page.
    next: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page of `rows`, up to [`PageRequest::fetch_limit`] of them, whose keys `key` names. Unreadable rows take their place
    /// in the limit, so that a page costs the same whatever is in it: it may have fewer items, or none, and the next one follows.
    pub fn new<C: Display>(
        request: &PageRequest<C>,
        mut rows: Vec<Readable<T, C>>,
        key: impl Fn(&T) -> C,
        skipped: &SkippedRows,
    ) -> Self {
        let more = rows.len() > request.limit;
        rows.truncate(request.limit);
        let last = rows.last().filter(|_| more).map(|last| match last {
            Ok(item) => key(item).to_string(),
            Err(unreadable) => unreadable.id.to_string(),
        });
        let next = last.map(|last| {
            let after = utf8_percent_encode(&last, &IN_CURSOR);
            format!("limit={}&after={after}", request.limit)
        });
        let items =
            rows.into_iter().filter_map(|row| row.map_err(|unreadable| skipped.skip(&unreadable)).ok());
        Self { items: items.collect(), next }
    }

    /// Answers with a bare JSON array; `body` makes an element of an item.
    pub fn respond<B: Serialize>(self, path: &str, body: impl Fn(T) -> B) -> HttpResponse {
        let mut response = HttpResponse::Ok();
        if let Some(next) = self.next {
            response.insert_header((header::LINK, format!("<{path}?{next}>; rel=\"next\"")));
        }
        response.json(self.items.into_iter().map(body).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Unreadable;

    fn parse(limit: Option<&str>, after: Option<&str>) -> Result<PageRequest<i64>, Problem> {
        let query = QueryParams { limit: limit.map(str::to_owned), after: after.map(str::to_owned) };
        PageRequest::parse(&query, |cursor| cursor.parse().ok())
    }

    fn page(rows: &[Readable<i64, i64>]) -> Page<i64> {
        let request = PageRequest { limit: 2, after: None };
        Page::new(&request, rows.to_vec(), |row| *row, &SkippedRows::default())
    }

    #[test]
    fn a_page_goes_on_behind_rows_that_are_unreadable() {
        let unreadable = |id| Err(Unreadable { id, reason: "a reason".to_owned() });
        let first = page(&[Ok(-7), unreadable(8), Ok(9)]);
        assert_eq!((first.items, first.next.as_deref()), (vec![-7], Some("limit=2&after=8")));
        let empty = page(&[unreadable(1), unreadable(-2), unreadable(3)]);
        assert_eq!((empty.items, empty.next.as_deref()), (vec![], Some("limit=2&after=-2")));
        let last = page(&[unreadable(1), Ok(2)]);
        assert_eq!((last.items, last.next), (vec![2], None));
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
