//! Keyset pagination: the cost of a page does not depend on its position, and a `Link` header (RFC 8288) names the
//! next page.

use std::fmt::Display;

use actix_web::http::header::{self, ContentType};
use actix_web::{HttpRequest, HttpResponse};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::problem::Problem;
use super::resource_json::to_json;
use super::room::outgoing_body;
use super::skipped_rows::SkippedRows;
use crate::canonical::canonical;
use crate::database::DatabaseError;
use crate::page::{PageRequest, Rows};
use crate::vehicle::Vin;

/// The characters to escape in a value of a query; numbers and UUIDs need none of them.
const IN_VALUE: AsciiSet = NON_ALPHANUMERIC.remove(b'-');

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;

/// The query parameters of a list, unparsed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct QueryParams {
    /// Maximum number of items
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<String>,
    /// Each list describes its cursors.
    #[param(ignore)]
    after: Option<String>,
    /// The vin of the only item to return
    #[param(inline, value_type = Option<Vin>)]
    vin: Option<String>,
}

impl QueryParams {
    /// Parses the parameters.
    ///
    /// # Errors
    /// Returns a 400 problem that lists every invalid parameter.
    pub fn parse<C>(&self, parse_cursor: impl Fn(&str) -> Option<C>) -> Result<PageRequest<C>, Problem> {
        let mut errors = Vec::new();
        let limit = match self.limit.as_deref().map(canonical::<usize>) {
            None => DEFAULT_LIMIT,
            Some(Some(limit @ 1..=MAX_LIMIT)) => limit,
            Some(_) => {
                errors.push(("limit", format!("must be an integer from 1 to {MAX_LIMIT}")));
                DEFAULT_LIMIT
            }
        };
        let after = self.after.as_deref().and_then(|cursor| {
            let parsed = parse_cursor(cursor);
            if parsed.is_none() {
                errors.push(("after", "must come from the Link header of an earlier page".to_owned()));
            }
            parsed
        });
        let vin = self.vin.as_deref().map(Vin::parse).transpose();
        let vin = vin.map_err(|error| errors.push(("vin", error))).ok().flatten();
        if !errors.is_empty() {
            return Err(Problem::invalid_parameters(errors));
        }
        Ok(PageRequest { limit, after, vin })
    }
}

/// The readable items of a page and the link to the next one.
pub struct Page<T> {
    items: Vec<T>,
    /// The query string of the next page.
    next: Option<String>,
}

impl<T> Page<T> {
    /// Builds a page, with `key` returning the key of a row.
    ///
    /// Unreadable rows count towards the limit, so that the cost of a page does not depend on its content. A page may
    /// therefore have fewer items than the limit, or none, and still be followed by another.
    pub fn new<C: Display>(
        request: &PageRequest<C>,
        Rows { rows, more }: Rows<T, C>,
        key: impl Fn(&T) -> C,
        skipped: &SkippedRows,
    ) -> Self {
        let last = rows.last().filter(|_| more).map(|last| match last {
            Ok(item) => key(item).to_string(),
            Err(unreadable) => unreadable.id.to_string(),
        });
        let next = last.map(|last| {
            let after = utf8_percent_encode(&last, &IN_VALUE);
            let next = format!("limit={}&after={after}", request.limit);
            match &request.vin {
                Some(vin) => format!("{next}&vin={}", utf8_percent_encode(vin.as_str(), &IN_VALUE)),
                None => next,
            }
        });
        let items =
            rows.into_iter().filter_map(|row| row.map_err(|unreadable| skipped.skip(&unreadable)).ok());
        Self { items: items.collect(), next }
    }

    /// Responds with a bare JSON array; `body` converts an item to an element.
    ///
    /// # Errors
    /// Returns a 503 problem while clients that read too slowly hold too many responses.
    pub fn respond<B: Serialize>(
        self,
        request: &HttpRequest,
        path: &str,
        body: impl Fn(T) -> B,
    ) -> Result<HttpResponse, Problem> {
        let mut response = HttpResponse::Ok();
        if let Some(next) = self.next {
            response.insert_header((header::LINK, format!("<{path}?{next}>; rel=\"next\"")));
        }
        let items: Vec<_> = self.items.into_iter().map(body).collect();
        let json = to_json(&items).map_err(DatabaseError::internal)?;
        Ok(response.content_type(ContentType::json()).body(outgoing_body(request, json)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::{Readable, Unreadable};

    fn parse(limit: Option<&str>, after: Option<&str>) -> Result<PageRequest<i64>, Problem> {
        parse_query(&QueryParams {
            limit: limit.map(str::to_owned),
            after: after.map(str::to_owned),
            vin: None,
        })
    }

    fn parse_query(query: &QueryParams) -> Result<PageRequest<i64>, Problem> {
        query.parse(canonical)
    }

    fn page(rows: &[Readable<i64, i64>]) -> Page<i64> {
        let request = PageRequest::new(2, None);
        let rows = Rows::of(&request, rows.to_vec());
        Page::new(&request, rows, |row| *row, &SkippedRows::default())
    }

    #[test]
    fn a_page_continues_after_unreadable_rows() {
        let unreadable = |id| Err(Unreadable { id, reason: "a reason".to_owned() });
        let first = page(&[Ok(-7), unreadable(8), Ok(9)]);
        assert_eq!((first.items, first.next.as_deref()), (vec![-7], Some("limit=2&after=8")));
        let empty = page(&[unreadable(1), unreadable(-2), unreadable(3)]);
        assert_eq!((empty.items, empty.next.as_deref()), (vec![], Some("limit=2&after=-2")));
        let last = page(&[unreadable(1), Ok(2)]);
        assert_eq!((last.items, last.next), (vec![2], None));
    }

    #[test]
    fn limits_out_of_range_and_foreign_cursors_are_refused() {
        assert_eq!(parse(None, None).unwrap(), PageRequest::new(100, None));
        assert_eq!(parse(Some("1000"), Some("7")).unwrap(), PageRequest::new(1000, Some(7)));
        for limit in ["0", "1001", "-1", "x", "", "+5", "05", " 5"] {
            assert!(parse(Some(limit), None).is_err(), "{limit}");
        }
        for cursor in ["x", "+5", "05", "-0", ""] {
            assert!(parse(None, Some(cursor)).is_err(), "{cursor}");
        }
    }

    #[test]
    fn a_vin_is_trimmed_validated_and_part_of_the_next_link() {
        let query = |vin: &str| QueryParams { vin: Some(vin.to_owned()), ..QueryParams::default() };
        let request = parse_query(&query(" a&b ")).unwrap();
        assert_eq!(request.vin.as_ref().unwrap().as_str(), "a&b");
        let request = PageRequest { limit: 1, ..request };
        let page =
            Page::new(&request, Rows { rows: vec![Ok(1)], more: true }, |row| *row, &SkippedRows::default());
        assert_eq!(page.next.as_deref(), Some("limit=1&after=1&vin=a%26b"));
        for vin in ["", " ", "\u{200b}", "a\0b", &"x".repeat(65)] {
            assert!(parse_query(&query(vin)).is_err(), "{vin:?}");
        }
    }
}
