//! Stores the key, the value and the headers of a record in one buffer.

/// The length that represents a null field.
const NULL: u32 = u32::MAX;

/// The key, the value and the headers of a record.
///
/// They share one allocation, because an estimator may hold 100,000 records. Each field is preceded by its length in
/// four bytes: the key, the value, then the name and the value of each header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content(Box<[u8]>);

impl Content {
    pub(super) fn new<'a, H>(key: Option<&[u8]>, value: Option<&[u8]>, headers: H) -> Self
    where
        H: IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
        H::IntoIter: Clone,
    {
        let headers = headers.into_iter().flat_map(|(name, value)| [Some(name.as_bytes()), value]);
        let fields = [key, value].into_iter().chain(headers);
        let length = fields.clone().map(|field| size_of::<u32>() + field.map_or(0, <[u8]>::len)).sum();
        let mut bytes = Vec::with_capacity(length);
        for field in fields {
            // A record is smaller than 2 GiB.
            let length = field.map_or(NULL, |field| u32::try_from(field.len()).unwrap_or(NULL));
            bytes.extend_from_slice(&length.to_ne_bytes());
            bytes.extend_from_slice(field.unwrap_or_default());
        }
        Self(bytes.into_boxed_slice())
    }

    pub(super) fn key(&self) -> Option<&[u8]> {
        self.fields().next().flatten()
    }

    pub(super) fn value(&self) -> Option<&[u8]> {
        self.fields().nth(1).flatten()
    }

    pub(super) fn headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> + Clone {
        let mut fields = self.fields().skip(2);
        std::iter::from_fn(move || {
            let name = fields.next()?.unwrap_or_default();
            Some((std::str::from_utf8(name).unwrap_or_default(), fields.next()?))
        })
    }

    /// Returns the size of the buffer.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn fields(&self) -> Fields<'_> {
        Fields(&self.0)
    }
}

/// An iterator over the remaining fields.
#[derive(Clone)]
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.0.split_first_chunk()?;
        let length = u32::from_ne_bytes(*length);
        if length == NULL {
            self.0 = rest;
            return Some(None);
        }
        let (field, rest) = rest.split_at_checked(length as usize)?;
        self.0 = rest;
        Some(Some(field))
    }
}

#[cfg(test)]
mod tests {
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
        option::of(proptest::collection::vec(any::<u8>(), 0..40))
    }

    proptest! {
        #[test]
        fn each_field_is_read_as_it_was_written(
            key in bytes(),
            value in bytes(),
            headers in proptest::collection::vec((".*", bytes()), 0..5),
        ) {
            let borrowed = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
            let content = Content::new(key.as_deref(), value.as_deref(), borrowed.clone());
            prop_assert_eq!(content.key(), key.as_deref());
            prop_assert_eq!(content.value(), value.as_deref());
            prop_assert_eq!(content.headers().collect::<Vec<_>>(), borrowed.collect::<Vec<_>>());
        }
    }

    #[test]
    fn empty_content_has_no_fields() {
        let content = Content::default();
        assert_eq!((content.key(), content.value(), content.headers().count()), (None, None, 0));
    }
}
