//! Explains an incompatible difference: what it means for records, and which change would pass.

use crate::difference::{ContentModel, Difference};
use crate::rule::Rule;

/// The explanation of an incompatible difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What the reader's schema does that the writer's does not.
    pub problem: String,
    /// A change that passes.
    pub remedy: String,
}

/// The schemas of a comparison, as messages call them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sides {
    pub(crate) reader: &'static str,
    pub(crate) writer: &'static str,
}

impl Difference {
    /// Returns the message in the registry's form: `{errorType:"...", description:"..."}`.
    pub(crate) fn message(&self, sides: Sides) -> String {
        let problem = self.problem(sides);
        format!("{{errorType:\"{}\", description:\"{}, at path '{}'\"}}", self.rule, problem, self.path())
    }

    pub(crate) fn explanation(&self, sides: Sides) -> Explanation {
        Explanation { problem: self.problem(sides), remedy: self.remedy(sides) }
    }

    #[rustfmt::skip]
    fn problem(&self, Sides { reader, writer }: Sides) -> String {
        use Rule::*;
        let name = self.name();
        match self.rule {
            MaxLengthAdded | MinLengthAdded | MaximumAdded | MinimumAdded | ExclusiveMaximumAdded | ExclusiveMinimumAdded
            | MaxPropertiesAdded | MinPropertiesAdded | MaxItemsAdded | MinItemsAdded | MultipleOfAdded | PatternAdded
            | UniqueItemsAdded =>
                format!("the {reader} schema sets {name}, which the {writer} schema does not"),
            MinLengthIncreased | MinimumIncreased | ExclusiveMinimumIncreased | MinPropertiesIncreased | MinItemsIncreased =>
                format!("{name} is higher in the {reader} schema than in the {writer} schema"),
            MaxLengthDecreased | MaximumDecreased | ExclusiveMaximumDecreased | MaxPropertiesDecreased | MaxItemsDecreased =>
                format!("{name} is lower in the {reader} schema than in the {writer} schema"),
            MultipleOfExpanded | MultipleOfChanged | PatternChanged =>
                format!("{name} of the {reader} schema does not accept everything that {name} of the {writer} schema accepts"),
            RequiredAttributeAdded =>
                format!("the {reader} schema requires {name}, which is optional in the {writer} schema"),
            DependencyArrayAdded | DependencyArrayExtended | DependencyArrayChanged =>
                format!("the {reader} schema requires more properties next to {name} than the {writer} schema"),
            DependencySchemaAdded =>
                format!("the {reader} schema has a schema for objects with {name}, which the {writer} schema does not have"),
            PropertyAddedToOpenContentModel =>
                format!("the {reader} schema restricts the property {name}, under which the {writer} schema, whose content \
                         model is open, accepts any value"),
            ItemAddedToOpenContentModel =>
                format!("the {reader} schema restricts the item {name}, for which the {writer} schema, whose content model \
                         is open, accepts any value"),
            RequiredPropertyAddedToUnopenContentModel =>
                format!("the {reader} schema requires the property {name}, which the {writer} schema, whose content model is \
                         {}, does not have", self.model()),
            PropertyRemovedFromClosedContentModel | ItemRemovedFromClosedContentModel =>
                format!("the {reader} schema, whose content model is closed, refuses {name}, which the {writer} schema accepts"),
            PropertyRemovedNotCoveredByPartiallyOpenContentModel | ItemRemovedNotCoveredByPartiallyOpenContentModel =>
                format!("the {reader} schema, whose content model is partially open, no longer lists {name}, and its schema \
                         for other names does not accept every value that the {writer} schema accepts"),
            PropertyAddedNotCoveredByPartiallyOpenContentModel | ItemAddedNotCoveredByPartiallyOpenContentModel =>
                format!("the {reader} schema lists {name}, and does not accept every value that the {writer} schema, whose \
                         content model is partially open, accepts for it"),
            AdditionalPropertiesRemoved =>
                format!("the {reader} schema is closed for properties that the {writer} schema does not list but accepts"),
            AdditionalItemsRemoved =>
                format!("the {reader} schema is closed for items that the {writer} schema does not list but accepts"),
            AdditionalPropertiesNarrowed | AdditionalItemsNarrowed =>
                format!("the {reader} schema restricts what it does not list, for which the {writer} schema accepts any value"),
            EnumArrayNarrowed =>
                format!("the {reader} schema lacks values that the {writer} schema lists"),
            EnumArrayChanged =>
                format!("the {reader} schema does not have all values of the {writer} schema"),
            SchemaAdded =>
                format!("the {reader} schema restricts what the {writer} schema does not"),
            TypeChanged | TypeNarrowed | CombinedTypeChanged =>
                format!("the type in the {reader} schema does not accept all values of the type in the {writer} schema"),
            ProductTypeExtended =>
                format!("the {reader} schema has a further constraint in allOf or next to its type, which the {writer} schema \
                         does not have"),
            SumTypeNarrowed =>
                format!("the {reader} schema has fewer alternatives than the {writer} schema"),
            CombinedTypeSubschemasChanged =>
                format!("the constraints of the {reader} schema do not pair with those of the {writer} schema{}", self.because()),
            NotTypeExtended =>
                format!("the {reader} schema excludes more than the {writer} schema"),
            rule if rule.is_compatible() => format!("the {reader} schema differs compatibly from the {writer} schema"),
            _ => format!("the {reader} schema does not accept everything that the {writer} schema accepts"),
        }
    }

    fn model(&self) -> ContentModel {
        self.content_model.unwrap_or(ContentModel::Closed)
    }

    fn because(&self) -> String {
        let causes: Vec<_> =
            self.causes.iter().map(|cause| format!("{} {}", cause.path(), cause.rule)).collect();
        if causes.is_empty() { String::new() } else { format!(" ({})", causes.join(", ")) }
    }

    #[rustfmt::skip]
    fn remedy(&self, Sides { reader, writer }: Sides) -> String {
        use Rule::*;
        let name = self.name();
        match self.rule {
            MaxLengthAdded | MinLengthAdded | MaximumAdded | MinimumAdded | ExclusiveMaximumAdded | ExclusiveMinimumAdded
            | MaxPropertiesAdded | MinPropertiesAdded | MaxItemsAdded | MinItemsAdded | MultipleOfAdded | PatternAdded
            | UniqueItemsAdded =>
                format!("leave {name} out of the {reader} schema, or set the same {name} in the {writer} schema"),
            MinLengthIncreased | MinimumIncreased | ExclusiveMinimumIncreased | MinPropertiesIncreased | MinItemsIncreased =>
                format!("set {name} of the {reader} schema at most as high as in the {writer} schema, or leave it out"),
            MaxLengthDecreased | MaximumDecreased | ExclusiveMaximumDecreased | MaxPropertiesDecreased | MaxItemsDecreased =>
                format!("set {name} of the {reader} schema at least as high as in the {writer} schema, or leave it out"),
            MultipleOfExpanded | MultipleOfChanged | PatternChanged =>
                format!("keep {name}, or leave it out of the {reader} schema"),
            RequiredAttributeAdded =>
                format!("keep {name} optional, or give it a default"),
            DependencyArrayAdded | DependencyArrayExtended | DependencyArrayChanged | DependencySchemaAdded =>
                format!("keep the dependency of {name}, or leave it out of the {reader} schema"),
            PropertyAddedToOpenContentModel =>
                format!("give {name} the empty schema {{}}, or leave it out: an open schema accepts it already. Only a \
                         schema that is closed (\"additionalProperties\": false) from its first version on can get fields \
                         with a type"),
            ItemAddedToOpenContentModel =>
                "leave the item out, or add it with the empty schema {}".to_owned(),
            RequiredPropertyAddedToUnopenContentModel =>
                format!("take {name} out of \"required\", or give it a default"),
            PropertyRemovedFromClosedContentModel | ItemRemovedFromClosedContentModel =>
                format!("keep {name}, optional if it is no longer written, or open the {reader} schema for it"),
            PropertyRemovedNotCoveredByPartiallyOpenContentModel | ItemRemovedNotCoveredByPartiallyOpenContentModel =>
                format!("keep {name}, or widen the schema for what is not listed"),
            PropertyAddedNotCoveredByPartiallyOpenContentModel | ItemAddedNotCoveredByPartiallyOpenContentModel =>
                format!("give {name} a schema that accepts what the {writer} schema accepts for names that it does not list"),
            AdditionalPropertiesRemoved | AdditionalItemsRemoved =>
                "keep the content model open, or start a new subject with a closed schema".to_owned(),
            AdditionalPropertiesNarrowed | AdditionalItemsNarrowed =>
                "keep the content model open".to_owned(),
            EnumArrayNarrowed | EnumArrayChanged =>
                format!("keep all values of the {writer} schema; values may be added"),
            SchemaAdded =>
                format!("leave the restriction out of the {reader} schema"),
            TypeChanged | TypeNarrowed | CombinedTypeChanged =>
                format!("keep the type, or widen it: integer to number, or a type to a list of types that contains it; or add \
                         a property with another name and keep {name}"),
            ProductTypeExtended =>
                format!("leave the further constraint out of the {reader} schema"),
            SumTypeNarrowed =>
                format!("keep all alternatives of the {writer} schema; alternatives may be added"),
            CombinedTypeSubschemasChanged => match self.causes.first() {
                Some(cause) => cause.remedy(Sides { reader, writer }),
                None => format!("keep the constraints of the {writer} schema, or widen each of them"),
            },
            NotTypeExtended =>
                "exclude at most what was excluded before".to_owned(),
            rule if rule.is_compatible() => "nothing has to change".to_owned(),
            _ => format!("accept at least what the {writer} schema accepts"),
        }
    }
}
