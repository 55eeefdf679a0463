//! Defines the outcome of inserting an ad.

use std::ops::Range;

use crate::database::DatabaseError;

/// The outcome of inserting an ad into a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Insertion {
    Kept,
    /// An ad for its vin exists already.
    Known,
    /// The store refuses this ad and would refuse it again.
    Refused(String),
    /// The store refuses this ad for a reason that does not predict the result of a retry.
    Doubtful(String),
    /// The store is unavailable. The ad may or may not have been stored.
    Unavailable(String),
}

impl From<DatabaseError> for Insertion {
    fn from(error: DatabaseError) -> Self {
        let reason = error.to_string();
        match error {
            DatabaseError::Refused(_) => Self::Refused(reason),
            DatabaseError::Unreadable(_) | DatabaseError::Internal(_) => Self::Doubtful(reason),
            DatabaseError::Unavailable(_) | DatabaseError::ReadOnly(_) | DatabaseError::Conflict(_) => {
                Self::Unavailable(reason)
            }
        }
    }
}

/// Inserts `count` ads with `insert`, which decides on every ad of a range or fails as a whole. A range whose error
/// may be caused by a single ad is halved until each such ad is isolated.
pub(super) async fn insert_each<F: Future<Output = Result<Vec<Insertion>, DatabaseError>>>(
    count: usize,
    insert: impl Fn(Range<usize>) -> F,
) -> Vec<Insertion> {
    let mut insertions = Vec::with_capacity(count);
    // A stack: the part to insert next is the last one.
    let mut parts = Vec::from_iter((count > 0).then_some(0..count));
    while let Some(part) = parts.pop() {
        match insert(part.clone()).await {
            Ok(decided) => insertions.extend(decided),
            Err(error) => match Insertion::from(error) {
                unavailable @ Insertion::Unavailable(_) => {
                    insertions.resize(count, unavailable);
                    return insertions;
                }
                _ if part.len() > 1 => {
                    let middle = part.start + part.len() / 2;
                    parts.extend([middle..part.end, part.start..middle]);
                }
                refused => insertions.push(refused),
            },
        }
    }
    insertions
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use futures::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    /// An ad that a store accepts, refuses without identifying it, or fails at because of an outage.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Fate {
        Good,
        Bad,
        Outage,
    }

    fn insert_all(fates: &[Fate]) -> Vec<Insertion> {
        let insert = async |part: Range<usize>| {
            let part = &fates[part];
            if part.contains(&Fate::Outage) {
                return Err(DatabaseError::unavailable(anyhow!("outage")));
            }
            if part.contains(&Fate::Bad) {
                return Err(DatabaseError::Refused(anyhow!("too large")));
            }
            Ok(vec![Insertion::Kept; part.len()])
        };
        insert_each(fates.len(), insert).now_or_never().unwrap()
    }

    proptest! {
        #[test]
        fn an_error_that_identifies_no_ad_is_resolved_for_each_ad(
            fates in proptest::collection::vec(prop_oneof![9 => Just(Fate::Good), 1 => Just(Fate::Bad)], 0..200)
        ) {
            let insertions = insert_all(&fates);
            prop_assert_eq!(insertions.len(), fates.len());
            for (fate, insertion) in fates.iter().zip(insertions) {
                prop_assert_eq!(insertion == Insertion::Kept, *fate == Fate::Good);
            }
        }
    }

    #[test]
    fn an_outage_decides_on_no_ad() {
        let insertions = insert_all(&[Fate::Good, Fate::Bad, Fate::Outage]);
        assert!(
            insertions.iter().all(|insertion| matches!(insertion, Insertion::Unavailable(_))),
            "{insertions:?}"
        );
        assert_eq!(insertions.len(), 3);
    }
}
