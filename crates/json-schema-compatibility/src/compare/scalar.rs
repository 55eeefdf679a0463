//! Compares numbers, strings and enumerations.

use std::collections::BTreeSet;

use crate::decimal::is_multiple;
use crate::difference::Differences;
use crate::rule::Rule;
use crate::schema::{NumberRules, StringRules};

/// Compares a limit. The rules are those of an added, a removed, an increased and a decreased one.
pub(super) fn limit(
    keyword: &str,
    before: Option<f64>,
    after: Option<f64>,
    [added, removed, increased, decreased]: [Rule; 4],
    found: &mut Differences,
) {
    match (before, after) {
        (None, Some(_)) => found.add(keyword, added),
        (Some(_), None) => found.add(keyword, removed),
        (Some(before), Some(after)) if before < after => found.add(keyword, increased),
        (Some(before), Some(after)) if before > after => found.add(keyword, decreased),
        _ => {}
    }
}

pub(super) fn numbers(before: &NumberRules, after: &NumberRules, found: &mut Differences) {
    use Rule::*;
    let rules = [MaximumAdded, MaximumRemoved, MaximumIncreased, MaximumDecreased];
    limit("maximum", before.maximum, after.maximum, rules, found);
    let rules = [MinimumAdded, MinimumRemoved, MinimumIncreased, MinimumDecreased];
    limit("minimum", before.minimum, after.minimum, rules, found);
    let rules = [
        ExclusiveMaximumAdded,
        ExclusiveMaximumRemoved,
        ExclusiveMaximumIncreased,
        ExclusiveMaximumDecreased,
    ];
    limit("exclusiveMaximum", before.exclusive_maximum, after.exclusive_maximum, rules, found);
    let rules = [
        ExclusiveMinimumAdded,
        ExclusiveMinimumRemoved,
        ExclusiveMinimumIncreased,
        ExclusiveMinimumDecreased,
    ];
    limit("exclusiveMinimum", before.exclusive_minimum, after.exclusive_minimum, rules, found);
    match (&before.multiple_of, &after.multiple_of) {
        (None, Some(_)) => found.add("multipleOf", MultipleOfAdded),
        (Some(_), None) => found.add("multipleOf", MultipleOfRemoved),
        (Some(before), Some(after)) => {
            let (expands, reduces) = (is_multiple(after, before), is_multiple(before, after));
            match (expands, reduces) {
                _ if before == after => {}
                (Some(true), Some(true)) => {}
                (Some(true), _) => found.add("multipleOf", MultipleOfExpanded),
                (_, Some(true)) => found.add("multipleOf", MultipleOfReduced),
                _ => found.add("multipleOf", MultipleOfChanged),
            }
        }
        (None, None) => {}
    }
    match (before.is_integer, after.is_integer) {
        (true, false) => found.add("", TypeExtended),
        (false, true) => found.add("", TypeNarrowed),
        _ => {}
    }
}

pub(super) fn strings(before: &StringRules, after: &StringRules, found: &mut Differences) {
    use Rule::*;
    let rules = [MaxLengthAdded, MaxLengthRemoved, MaxLengthIncreased, MaxLengthDecreased];
    limit("maxLength", before.max_length, after.max_length, rules, found);
    let rules = [MinLengthAdded, MinLengthRemoved, MinLengthIncreased, MinLengthDecreased];
    limit("minLength", before.min_length, after.min_length, rules, found);
    match (&before.pattern, &after.pattern) {
        (None, Some(_)) => found.add("pattern", PatternAdded),
        (Some(_), None) => found.add("pattern", PatternRemoved),
        (before, after) if before != after => found.add("pattern", PatternChanged),
        _ => {}
    }
}

pub(super) fn enums(before: &BTreeSet<String>, after: &BTreeSet<String>, found: &mut Differences) {
    match (after.is_superset(before), after.is_subset(before)) {
        (true, true) => {}
        (true, false) => found.add("enum", Rule::EnumArrayExtended),
        (false, true) => found.add("enum", Rule::EnumArrayNarrowed),
        (false, false) => found.add("enum", Rule::EnumArrayChanged),
    }
}
