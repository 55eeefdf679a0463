//! Describes the fields of a vehicle in an OpenAPI document, by the bounds that their `parse` applies.

use std::borrow::Cow;

use chrono::{Datelike as _, Utc};
use serde_json::{Value, json};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::{KnownFormat, RefOr, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

use super::text::pattern;
use super::{Manufacturer, Model, Odometer, OdometerUnit, Vin, Year};

macro_rules! field_schema {
    ($name:ident, $schema:expr) => {
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                $schema.into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }
        }
    };
}

field_schema!(
    Vin,
    text(Self::MAX_CHARS, "The vehicle identification number. Each vin is stocked once.", "vin")
);
field_schema!(Model, text(Self::MAX_CHARS, "The model.", "model"));
field_schema!(Manufacturer, text(Self::MAX_CHARS, "The manufacturer.", "manufacturer"));
field_schema!(OdometerUnit, text(Self::MAX_CHARS, "The unit of the odometer reading.", "odometerUnit"));
field_schema!(
    Year,
    described(Type::Integer, "The model year, at most next year.", json!(2022))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
        .minimum(Some(Self::FIRST))
        .maximum(Some(Self::last(Utc::now().year())))
);
field_schema!(
    Odometer,
    described(Type::Number, "The odometer reading.", json!(1000))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Double)))
        .minimum(Some(0))
);

fn text(max_chars: usize, description: &str, example: &str) -> ObjectBuilder {
    let description =
        format!("{description} At most {max_chars} characters, without the white space around them.");
    described(Type::String, &description, json!(example))
        .min_length(Some(1))
        .pattern(Some(pattern(max_chars)))
}

fn described(kind: Type, description: &str, example: Value) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind).description(Some(description)).examples([example])
}
