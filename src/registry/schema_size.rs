//! Bounds what is loaded for a schema.

use super::client::{Reference, SchemaText};

/// The maximum number of schemas that a schema refers to, directly or indirectly.
const MAX_REFERENCES: usize = 100;
/// The maximum size of a schema together with all those that it refers to.
const MAX_BYTES: usize = 2 * 1024 * 1024;
/// The size of a reference in memory, apart from its texts.
const REFERENCE_BYTES: usize = 128;

/// The size of a schema and of those that were loaded because it refers to them.
#[derive(Default)]
pub struct SchemaSize {
    bytes: usize,
    schemas: usize,
}

impl SchemaSize {
    /// Adds a schema: first the one that is loaded, then each that it refers to, directly or indirectly.
    ///
    /// # Errors
    /// Returns the reason when they have more than 2 MiB together, or are more than 100 besides the first.
    pub fn add(&mut self, text: &SchemaText) -> Result<(), String> {
        let of_reference =
            |reference: &Reference| REFERENCE_BYTES + reference.name.len() + reference.subject.len();
        self.bytes += text.schema.len() + text.references.iter().map(of_reference).sum::<usize>();
        self.schemas += 1;
        if self.bytes > MAX_BYTES {
            return Err(format!("has more than {MAX_BYTES} bytes, together with all that it refers to"));
        }
        if self.schemas > 1 + MAX_REFERENCES {
            return Err(format!("refers to more than {MAX_REFERENCES} schemas"));
        }
        Ok(())
    }

    /// Returns the size of all that was added.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_bounded_in_bytes_and_in_number() {
        let of_bytes = |bytes| SchemaText::of_json(" ".repeat(bytes));
        let mut large = SchemaSize::default();
        assert_eq!(large.add(&of_bytes(MAX_BYTES - 1)), Ok(()));
        assert_eq!(large.add(&of_bytes(1)), Ok(()));
        assert!(large.add(&of_bytes(1)).unwrap_err().contains("2097152 bytes"));
        let mut many = SchemaSize::default();
        for _ in 0..=MAX_REFERENCES {
            assert_eq!(many.add(&of_bytes(1)), Ok(()));
        }
        assert!(many.add(&of_bytes(1)).unwrap_err().contains("100 schemas"));
    }
}
