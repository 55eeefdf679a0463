//! Compares arrays.

use super::scalar::limit;
use super::{At, Comparison, TooComplex};
use crate::difference::{ContentModel, Differences};
use crate::rule::Rule;
use crate::schema::{Additional, ArrayRules, Kind};

type Array<'a> = (At<'a>, &'a ArrayRules);

impl ArrayRules {
    fn content_model(&self) -> ContentModel {
        match self.additional {
            Additional::Anything => ContentModel::Open,
            Additional::Conforming(_) => ContentModel::PartiallyOpen,
            Additional::Nothing => ContentModel::Closed,
        }
    }
}

impl Comparison {
    pub(super) fn arrays(
        &mut self,
        original: Array<'_>,
        update: Array<'_>,
        found: &mut Differences,
    ) -> Result<(), TooComplex> {
        use Rule::*;
        let (before, after) = (original.1, update.1);
        let all = (before.all.map(|id| original.0.with(id)), after.all.map(|id| update.0.with(id)));
        self.at("items", all.0, all.1, found)?;
        self.tuples(original, update, found)?;
        let rules =
            [AdditionalItemsAdded, AdditionalItemsRemoved, AdditionalItemsExtended, AdditionalItemsNarrowed];
        let sides = ((original.0, before.additional), (update.0, after.additional));
        self.additional("additionalItems", sides.0, sides.1, rules, found)?;
        let rules = [MaxItemsAdded, MaxItemsRemoved, MaxItemsIncreased, MaxItemsDecreased];
        limit("maxItems", before.max_items, after.max_items, rules, found);
        let rules = [MinItemsAdded, MinItemsRemoved, MinItemsIncreased, MinItemsDecreased];
        limit("minItems", before.min_items, after.min_items, rules, found);
        match (before.are_unique, after.are_unique) {
            (true, false) => found.add("uniqueItems", UniqueItemsRemoved),
            (false, true) => found.add("uniqueItems", UniqueItemsAdded),
            _ => {}
        }
        Ok(())
    }

    /// Compares the schemas of the first items.
    fn tuples(
        &mut self,
        (original, before): Array<'_>,
        (update, after): Array<'_>,
        found: &mut Differences,
    ) -> Result<(), TooComplex> {
        for index in 0..before.tuple.len().max(after.tuple.len()) {
            let path = format!("items/{index}");
            match (before.tuple.get(index), after.tuple.get(index)) {
                (Some(item), None) => {
                    self.removed_item(&path, original.with(*item), (update, after), found)?;
                }
                (None, Some(item)) => {
                    self.added_item(&path, (original, before), update.with(*item), found)?;
                }
                (before, after) => {
                    let (before, after) =
                        (before.map(|id| original.with(*id)), after.map(|id| update.with(*id)));
                    self.at(&path, before, after, found)?;
                }
            }
        }
        Ok(())
    }

    fn removed_item(
        &mut self,
        path: &str,
        item: At<'_>,
        (update, rules): Array<'_>,
        found: &mut Differences,
    ) -> Result<(), TooComplex> {
        use Rule::*;
        let rule = match rules.additional {
            Additional::Anything => ItemRemovedFromOpenContentModel,
            Additional::Conforming(covering) => {
                let result = self.pair(item, update.with(covering))?;
                found.append(path, &result);
                if result.is_compatible() {
                    ItemRemovedIsCoveredByPartiallyOpenContentModel
                } else {
                    ItemRemovedNotCoveredByPartiallyOpenContentModel
                }
            }
            Additional::Nothing if matches!(item.node().kind, Kind::False) => {
                ItemWithFalseRemovedFromClosedContentModel
            }
            Additional::Nothing => ItemRemovedFromClosedContentModel,
        };
        found.add_in(path, rule, rules.content_model());
        Ok(())
    }

    fn added_item(
        &mut self,
        path: &str,
        (original, rules): Array<'_>,
        item: At<'_>,
        found: &mut Differences,
    ) -> Result<(), TooComplex> {
        use Rule::*;
        let rule = match rules.additional {
            Additional::Anything if matches!(item.node().kind, Kind::Empty | Kind::True) => {
                ItemWithEmptySchemaAddedToOpenContentModel
            }
            Additional::Anything => ItemAddedToOpenContentModel,
            Additional::Conforming(covering) => {
                let result = self.pair(original.with(covering), item)?;
                found.append(path, &result);
                if result.is_compatible() {
                    ItemAddedIsCoveredByPartiallyOpenContentModel
                } else {
                    ItemAddedNotCoveredByPartiallyOpenContentModel
                }
            }
            Additional::Nothing => ItemAddedToClosedContentModel,
        };
        found.add_in(path, rule, rules.content_model());
        Ok(())
    }
}
