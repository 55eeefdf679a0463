//! Writes resources as JSON.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};

/// The name of the fields that contain a price.
const PRICE: &str = "price";

/// Returns `resource` as JSON. Prices have two decimals, such as `1234.50`; `serde_json` writes the shortest number. Its
/// feature `raw_value`, which allows any text of a number, would also change how it reads the bodies of requests.
///
/// # Errors
/// Returns the errors of serializing `resource`.
pub(super) fn to_json(resource: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut json = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut json, WithPrices::default());
    resource.serialize(&mut serializer)?;
    Ok(json)
}

/// Follows the names of the fields, so that it knows which numbers are prices.
#[derive(Default)]
struct WithPrices {
    is_in_name: bool,
    /// The number of texts and escaped characters of the name so far.
    parts: usize,
    is_price: bool,
}

impl Formatter for WithPrices {
    fn begin_object_key<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        (self.is_in_name, self.parts) = (true, 0);
        if first { Ok(()) } else { writer.write_all(b",") }
    }

    fn write_string_fragment<W: Write + ?Sized>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        if self.is_in_name {
            self.parts += 1;
            self.is_price = self.parts == 1 && text == PRICE;
        }
        writer.write_all(text.as_bytes())
    }

    fn write_char_escape<W: Write + ?Sized>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        if self.is_in_name {
            self.parts += 1;
            self.is_price = false;
        }
        CompactFormatter.write_char_escape(writer, escape)
    }

    fn end_object_key<W: Write + ?Sized>(&mut self, _: &mut W) -> io::Result<()> {
        self.is_in_name = false;
        Ok(())
    }

    fn end_object_value<W: Write + ?Sized>(&mut self, _: &mut W) -> io::Result<()> {
        self.is_price = false;
        Ok(())
    }

    fn write_f64<W: Write + ?Sized>(&mut self, writer: &mut W, number: f64) -> io::Result<()> {
        // As serde_json writes it, unless it is a price.
        if self.is_price {
            write!(writer, "{number:.2}")
        } else {
            serde_json::to_writer(writer, &number).map_err(Into::into)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::vehicle::Price;

    fn written(resource: &impl Serialize) -> String {
        String::from_utf8(to_json(resource).unwrap()).unwrap()
    }

    #[test]
    fn only_prices_have_two_decimals() {
        let price = |cents| json!(Price::from_cents(cents));
        assert_eq!(
            written(&json!([{ "odometer": 1000.0, "price": price(123_450) }, 2.5, price(100), "price"])),
            r#"[{"odometer":1000.0,"price":1234.50},2.5,1.0,"price"]"#
        );
    }

    proptest! {
        #[test]
        fn a_price_is_written_as_it_is_shown(cents in 1..=1i64 << 50) {
            let price = Price::from_cents(cents);
            prop_assert_eq!(written(&json!({ "price": price })), format!("{{\"price\":{price}}}"));
        }

        #[test]
        fn everything_else_is_written_as_serde_json_does(
            name in "\\PC{0,8}|\"?price\"|\"price|price ", text in any::<String>(), number in any::<f64>(), whole in any::<i64>(),
        ) {
            let resource = json!({
                "a": [number, text, null, true], name: [number, whole, { "x": text }], "z": { "y": number, "price": text },
            });
            prop_assert_eq!(written(&resource), serde_json::to_string(&resource).unwrap());
        }
    }
}
