//! Counts by kind.

use std::collections::BTreeMap;

use serde::Serialize;

/// The maximum number of kinds, which a server may invent. Further ones are counted together.
const MAX_KINDS: usize = 32;
const OTHERS: &str = "others";

/// How often each kind occurred.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Counts(BTreeMap<String, u64>);

impl Counts {
    pub fn add(&mut self, kind: &str) {
        if let Some(count) = self.0.get_mut(kind) {
            *count += 1;
        } else {
            let kind = if self.0.len() < MAX_KINDS { kind } else { OTHERS };
            *self.0.entry(kind.to_owned()).or_default() += 1;
        }
    }

    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(kind, count)| (kind.as_str(), *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_kinds_is_bounded() {
        let mut counts = Counts::default();
        for kind in 0..100 {
            counts.add(&kind.to_string());
            counts.add("0");
        }
        assert_eq!(counts.total(), 200);
        assert_eq!(counts.iter().count(), MAX_KINDS + 1);
        assert_eq!(counts.iter().find(|(kind, _)| *kind == OTHERS), Some((OTHERS, 68)));
        assert_eq!(counts.iter().next(), Some(("0", 101)));
    }
}
