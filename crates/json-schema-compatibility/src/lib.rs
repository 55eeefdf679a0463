//! Decides whether versions of a JSON Schema are compatible, by the rules of Confluent Schema Registry 7.9.
//!
//! [`Schema::parse`] reads a schema, [`differences`] lists how a reader's schema differs from a writer's, and
//! [`incompatibilities`] applies a [`Level`] such as `BACKWARD` to a new schema and an earlier one. Each difference
//! names its path, its rule and, for properties and items, the content model that decides.
//!
//! The rules are syntactic: they compare keyword by keyword, as the registry does. A change that they permit may still
//! refuse a record that the earlier schema accepted where the registry does not look: `patternProperties`,
//! `propertyNames`, `contains`, `format`, `if`, `unevaluatedProperties`, and `required` for names without a property.

mod compare;
mod decimal;
mod difference;
mod explanation;
mod level;
mod loader;
mod rule;
mod schema;

pub use compare::{TooComplex, differences};
pub use difference::{ContentModel, Difference};
pub use explanation::Explanation;
pub use level::{Incompatibility, Level, UnknownLevel, incompatibilities};
pub use loader::InvalidSchema;
pub use rule::Rule;
pub use schema::Schema;
