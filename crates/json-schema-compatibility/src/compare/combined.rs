//! Compares `allOf`, `anyOf` and `oneOf`: pairs their branches, each with a compatible one of the other schema.

use std::collections::HashSet;
use std::rc::Rc;

use super::{At, Comparison, TooComplex};
use crate::difference::{Difference, Differences, as_causes};
use crate::rule::Rule;
use crate::schema::{Criterion, NodeId};

type Combined<'a> = (At<'a>, Criterion, &'a [NodeId]);

impl Comparison {
    pub(super) fn combined(
        &mut self,
        (original, old, before): Combined<'_>,
        (update, new, after): Combined<'_>,
        found: &mut Differences,
    ) -> Result<(), TooComplex> {
        use Criterion::{All, Any, One};
        if old != new {
            let (one_before, one_after) = (before.len() == 1, after.len() == 1);
            let extends =
                new == Any || (one_before && (one_after || new == One)) || (one_after && old == All);
            if !extends {
                found.add("", Rule::CombinedTypeChanged);
                return Ok(());
            }
            found.add("", Rule::CombinedTypeExtended);
        }
        if before.len() < after.len() {
            found.add("", if new == All { Rule::ProductTypeExtended } else { Rule::SumTypeExtended });
        } else if before.len() > after.len() {
            found.add("", if old == All { Rule::ProductTypeNarrowed } else { Rule::SumTypeNarrowed });
        }

        let mut results = Vec::with_capacity(before.len());
        for branch in before {
            let mut row = Vec::with_capacity(after.len());
            for other in after {
                row.push(self.pair(original.with(*branch), update.with(*other))?);
            }
            results.push(row);
        }
        let matching = Matching::of(&results);
        let path = |index: usize| format!("{}/{index}", old.keyword());
        for (index, row) in results.iter().enumerate() {
            if let Some(result) = matching.partner(index).and_then(|partner| row.get(partner)) {
                found.append(&path(index), result);
            }
        }
        if matching.len() < before.len().min(after.len()) {
            let unmatched =
                results.iter().enumerate().filter(|(index, _)| matching.partner(*index).is_none());
            let causes = unmatched.flat_map(|(index, row)| {
                let free = row.iter().enumerate().filter(|(other, _)| !matching.is_taken(*other));
                let closest = free.map(|(_, result)| result).min_by_key(|result| dissimilarity(result));
                let incompatible = closest.into_iter().flat_map(|result| result.incompatible());
                // A branch of `allOf` describes the same value as the whole, so its index would say nothing.
                as_causes(&if old == All { String::new() } else { path(index) }, incompatible)
            });
            found.add_because(
                "",
                Rule::CombinedTypeSubschemasChanged,
                causes.take(3).collect::<Vec<Difference>>(),
            );
        }
        Ok(())
    }
}

/// Orders results by how alike their branches are: those of one type first, then those with fewer differences.
fn dissimilarity(result: &Differences) -> (bool, usize) {
    let is_other_type = result
        .incompatible()
        .any(|difference| difference.rule == Rule::TypeChanged && difference.path() == "#/");
    (is_other_type, result.incompatible().count())
}

/// The largest set of compatible pairs in which no branch occurs twice.
struct Matching {
    /// The index of the row that each column is paired with.
    rows: Vec<Option<usize>>,
}

impl Matching {
    fn of(results: &[Vec<Rc<Differences>>]) -> Self {
        let columns = results.first().map_or(0, Vec::len);
        let mut matching = Self { rows: vec![None; columns] };
        for row in 0..results.len() {
            matching.pair(results, row, &mut HashSet::new());
        }
        matching
    }

    /// Finds a partner for a row, for which other rows may have to change theirs.
    fn pair(&mut self, results: &[Vec<Rc<Differences>>], row: usize, tried: &mut HashSet<usize>) -> bool {
        let candidates = results.get(row).into_iter().flatten().enumerate();
        for (column, _) in candidates.filter(|(_, result)| result.is_compatible()) {
            if !tried.insert(column) {
                continue;
            }
            let holder = self.rows.get(column).copied().flatten();
            if holder.is_none_or(|holder| self.pair(results, holder, tried)) {
                if let Some(place) = self.rows.get_mut(column) {
                    *place = Some(row);
                }
                return true;
            }
        }
        false
    }

    fn partner(&self, row: usize) -> Option<usize> {
        self.rows.iter().position(|holder| *holder == Some(row))
    }

    fn is_taken(&self, column: usize) -> bool {
        self.rows.get(column).copied().flatten().is_some()
    }

    fn len(&self) -> usize {
        self.rows.iter().flatten().count()
    }
}
