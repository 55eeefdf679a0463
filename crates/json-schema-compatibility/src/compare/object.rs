//! Compares objects. Whether a property can be added or removed depends on the content model: an open one accepts any
//! value under a name that it does not list.

use std::collections::BTreeSet;

use super::scalar::limit;
use super::{At, Comparison, TooComplex};
use crate::difference::{ContentModel, Differences};
use crate::rule::Rule;
use crate::schema::{Additional, Kind, NodeId, ObjectRules};

type Object<'a> = (At<'a>, &'a ObjectRules);

impl ObjectRules {
    fn content_model(&self) -> ContentModel {
        match self.additional {
            Additional::Anything if self.patterns.is_empty() => ContentModel::Open,
            Additional::Nothing if self.patterns.is_empty() => ContentModel::Closed,
            _ => ContentModel::PartiallyOpen,
        }
    }

    /// Returns the schema of a property that is not listed.
    fn unlisted(&self, name: &str) -> Option<NodeId> {
        let matching = self.patterns.iter().find(|(pattern, _)| pattern.matches(name));
        matching.map(|(_, schema)| *schema).or(match self.additional {
            Additional::Conforming(schema) => Some(schema),
            Additional::Anything | Additional::Nothing => None,
        })
    }
}

impl Comparison {
    pub(super) fn objects(
        &mut self,
        original: Object<'_>,
        update: Object<'_>,
        found: &mut Differences,
    ) -> Result<(), TooComplex> {
        use Rule::*;
        required(original, update, found);
        self.properties(original, update, found)?;
        self.dependencies(original, update, found)?;
        let (before, after) = (original.1, update.1);
        let rules = [
            AdditionalPropertiesAdded,
            AdditionalPropertiesRemoved,
            AdditionalPropertiesExtended,
            AdditionalPropertiesNarrowed,
        ];
        let sides = ((original.0, before.additional), (update.0, after.additional));
        self.additional("additionalProperties", sides.0, sides.1, rules, found)?;
        let rules =
            [MaxPropertiesAdded, MaxPropertiesRemoved, MaxPropertiesIncreased, MaxPropertiesDecreased];
        limit("maxProperties", before.max_properties, after.max_properties, rules, found);
        let rules =
            [MinPropertiesAdded, MinPropertiesRemoved, MinPropertiesIncreased, MinPropertiesDecreased];
        limit("minProperties", before.min_properties, after.min_properties, rules, found);
        Ok(())
    }

    fn properties(
        &mut self,
        original: Object<'_>,
        update: Object<'_>,
        found: &mut Differences,
    ) -> Result<(), TooComplex> {
        let names: BTreeSet<_> = original.1.properties.keys().chain(update.1.properties.keys()).collect();
        for name in names {
            let path = format!("properties/{name}");
            match (original.1.properties.get(name), update.1.properties.get(name)) {
                (Some(before), Some(after)) => {
                    self.at(&path, Some(original.0.with(*before)), Some(update.0.with(*after)), found)?;
                }
                (Some(before), None) => self.removed(&path, name, original.0.with(*before), update, found)?,
                (None, Some(after)) => {
                    self.added(&path, name, original, (update.0.with(*after), update.1), found)?;
                }
                (None, None) => {}
            }
        }
        Ok(())
    }

    /// Compares a property that only the original lists. The content model of the update decides.
    fn removed(
        &mut self,
        path: &str,
        name: &str,
        property: At<'_>,
        (update, rules): Object<'_>,
        found: &mut Differences,
    ) -> Result<(), TooComplex> {
        use Rule::*;
        let model = rules.content_model();
        let rule = match rules.unlisted(name) {
            _ if model == ContentModel::Open => PropertyRemovedFromOpenContentModel,
            Some(covering) => {
                let result = self.pair(property, update.with(covering))?;
                found.append(path, &result);
                if result.is_compatible() {
                    PropertyRemovedIsCoveredByPartiallyOpenContentModel
                } else {
                    PropertyRemovedNotCoveredByPartiallyOpenContentModel
                }
            }
            None if matches!(property.node().kind, Kind::False) => {
                PropertyWithFalseRemovedFromClosedContentModel
            }
            None => PropertyRemovedFromClosedContentModel,
        };
        found.add_in(path, rule, model);
        Ok(())
    }

    /// Compares a property that only the update lists. The content model of the original decides.
    fn added(
        &mut self,
        path: &str,
        name: &str,
        (original, before): Object<'_>,
        (property, after): Object<'_>,
        found: &mut Differences,
    ) -> Result<(), TooComplex> {
        use Rule::*;
        let model = before.content_model();
        if model == ContentModel::Open {
            let accepts_all = matches!(property.node().kind, Kind::Empty | Kind::True);
            let rule = if accepts_all {
                PropertyWithEmptySchemaAddedToOpenContentModel
            } else {
                PropertyAddedToOpenContentModel
            };
            found.add_in(path, rule, model);
            return Ok(());
        }
        if let Some(covering) = before.unlisted(name) {
            let result = self.pair(original.with(covering), property)?;
            found.append(path, &result);
            let rule = if result.is_compatible() {
                PropertyAddedIsCoveredByPartiallyOpenContentModel
            } else {
                PropertyAddedNotCoveredByPartiallyOpenContentModel
            };
            found.add_in(path, rule, model);
        }
        let rule = match (after.required.contains(name), &property.node().annotations.default) {
            (false, _) => OptionalPropertyAddedToUnopenContentModel,
            (true, Some(_)) => RequiredPropertyWithDefaultAddedToUnopenContentModel,
            (true, None) => RequiredPropertyAddedToUnopenContentModel,
        };
        found.add_in(path, rule, model);
        Ok(())
    }

    fn dependencies(
        &mut self,
        (original, before): Object<'_>,
        (update, after): Object<'_>,
        found: &mut Differences,
    ) -> Result<(), TooComplex> {
        use Rule::*;
        let names: BTreeSet<_> = before.required_with.keys().chain(after.required_with.keys()).collect();
        for name in names {
            let rule = match (before.required_with.get(name), after.required_with.get(name)) {
                (_, None) => DependencyArrayRemoved,
                (None, Some(_)) => DependencyArrayAdded,
                (Some(before), Some(after)) if before == after => continue,
                (Some(before), Some(after)) if after.is_superset(before) => DependencyArrayExtended,
                (Some(before), Some(after)) if after.is_subset(before) => DependencyArrayNarrowed,
                (Some(_), Some(_)) => DependencyArrayChanged,
            };
            found.add(&format!("dependencies/{name}"), rule);
        }
        let names: BTreeSet<_> = before.schemas_with.keys().chain(after.schemas_with.keys()).collect();
        for name in names {
            let path = format!("dependencies/{name}");
            match (before.schemas_with.get(name), after.schemas_with.get(name)) {
                (_, None) => found.add(&path, DependencySchemaRemoved),
                (None, Some(_)) => found.add(&path, DependencySchemaAdded),
                (Some(before), Some(after)) => {
                    self.at(&path, Some(original.with(*before)), Some(update.with(*after)), found)?;
                }
            }
        }
        Ok(())
    }
}

/// Compares which of the properties that both list are required.
fn required((_, before): Object<'_>, (update, after): Object<'_>, found: &mut Differences) {
    let has_default = |name: &str| {
        let property = after.properties.get(name);
        property.is_some_and(|id| update.with(*id).node().annotations.default.is_some())
    };
    for name in before.properties.keys().filter(|name| after.properties.contains_key(*name)) {
        let path = format!("required/{name}");
        match (before.required.contains(name), after.required.contains(name)) {
            (true, false) => found.add(&path, Rule::RequiredAttributeRemoved),
            (false, true) if has_default(name) => found.add(&path, Rule::RequiredAttributeWithDefaultAdded),
            (false, true) => found.add(&path, Rule::RequiredAttributeAdded),
            _ => {}
        }
    }
}
