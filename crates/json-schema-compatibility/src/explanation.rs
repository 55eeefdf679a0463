//! Explains an incompatible difference: what it means for records, and which change would pass.

use crate::difference::Difference;
use crate::rule::Rule;

/// The explanation of an incompatible difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What the reader's schema does that the writer's does not.
    pub problem: String,
    /// What to change in the new schema.
    pub remedy: String,
}

/// Which schema reads what the other one wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    New,
    Old,
}

impl Reader {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Old => "old",
        }
    }

    fn writer(self) -> &'static str {
        match self {
            Self::New => "old",
            Self::Old => "new",
        }
    }
}

impl Difference {
    /// Returns the message in the registry's form: `{errorType:"...", description:"..."}`.
    pub(crate) fn message(&self, reader: Reader) -> String {
        let Explanation { problem, .. } = self.explanation(reader);
        format!("{{errorType:\"{}\", description:\"{problem}, at path '{}'\"}}", self.rule, self.path())
    }

    #[rustfmt::skip]
    pub(crate) fn explanation(&self, side: Reader) -> Explanation {
        use Rule::*;
        let (reader, writer, name) = (side.name(), side.writer(), self.name());
        let model = self.content_model.map(|model| model.to_string()).unwrap_or_default();
        // A new reader must accept more, a new writer must permit less.
        let (problem, accept_more, permit_less) = match self.rule {
            MaxLengthAdded | MinLengthAdded | MaximumAdded | MinimumAdded | ExclusiveMaximumAdded | ExclusiveMinimumAdded
            | MaxPropertiesAdded | MinPropertiesAdded | MaxItemsAdded | MinItemsAdded | MultipleOfAdded | PatternAdded
            | UniqueItemsAdded => (
                format!("the {reader} schema sets {name}, which the {writer} schema does not"),
                format!("leave {name} out"),
                format!("keep {name}"),
            ),
            MinLengthIncreased | MinimumIncreased | ExclusiveMinimumIncreased | MinPropertiesIncreased
            | MinItemsIncreased => (
                format!("{name} is higher in the {reader} schema than in the {writer} schema"),
                format!("set {name} at most as high as in the old schema, or leave it out"),
                format!("set {name} at least as high as in the old schema"),
            ),
            MaxLengthDecreased | MaximumDecreased | ExclusiveMaximumDecreased | MaxPropertiesDecreased
            | MaxItemsDecreased => (
                format!("{name} is lower in the {reader} schema than in the {writer} schema"),
                format!("set {name} at least as high as in the old schema, or leave it out"),
                format!("set {name} at most as high as in the old schema"),
            ),
            MultipleOfExpanded | MultipleOfChanged | PatternChanged => (
                format!("{name} of the {reader} schema does not accept everything that {name} of the {writer} schema accepts"),
                format!("keep {name}, or leave it out"),
                format!("keep {name}"),
            ),
            RequiredAttributeAdded => (
                format!("the {reader} schema requires {name}, which is optional in the {writer} schema"),
                format!("keep {name} optional, or give it a default"),
                format!("keep {name} required"),
            ),
            DependencyArrayAdded | DependencyArrayExtended | DependencyArrayChanged | DependencySchemaAdded => (
                format!("the {reader} schema demands more of objects with {name} than the {writer} schema"),
                format!("keep the dependency of {name}, or leave it out"),
                format!("keep the dependency of {name}"),
            ),
            PropertyAddedToOpenContentModel => (
                format!("the {reader} schema restricts the property {name}, under which the {writer} schema, whose content \
                         model is {model}, accepts any value"),
                format!("give {name} the empty schema {{}}, or leave it out: an open schema accepts it already. Only a \
                         schema that is closed (\"additionalProperties\": false) from its first version on can get fields \
                         with a type"),
                format!("keep {name}"),
            ),
            ItemAddedToOpenContentModel => (
                format!("the {reader} schema restricts the item {name}, for which the {writer} schema, whose content model \
                         is {model}, accepts any value"),
                "give the item the empty schema {}, or leave it out".to_owned(),
                "keep the item".to_owned(),
            ),
            RequiredPropertyAddedToUnopenContentModel => (
                format!("the {reader} schema requires the property {name}, which the {writer} schema, whose content model is \
                         {model}, does not have"),
                format!("take {name} out of \"required\", or give it a default"),
                format!("keep {name}"),
            ),
            PropertyRemovedFromClosedContentModel | ItemRemovedFromClosedContentModel => (
                format!("the {reader} schema, whose content model is {model}, refuses {name}, which the {writer} schema \
                         accepts"),
                format!("keep {name}, optional if it is no longer written, or open the schema for it"),
                format!("leave {name} out"),
            ),
            PropertyRemovedNotCoveredByPartiallyOpenContentModel | ItemRemovedNotCoveredByPartiallyOpenContentModel => (
                format!("the {reader} schema, whose content model is {model}, does not list {name}, and its schema for what \
                         it does not list refuses values that the {writer} schema accepts"),
                format!("keep {name}, or widen the schema for what is not listed"),
                format!("leave {name} out, or give it a schema that accepts no more than the old one accepts for it"),
            ),
            PropertyAddedNotCoveredByPartiallyOpenContentModel | ItemAddedNotCoveredByPartiallyOpenContentModel => (
                format!("the {reader} schema refuses values of {name} that the {writer} schema, whose content model is \
                         {model}, accepts without listing it"),
                format!("give {name} a schema that accepts what the old one accepts for names that it does not list"),
                format!("keep {name}"),
            ),
            AdditionalPropertiesRemoved | AdditionalItemsRemoved => (
                format!("the {reader} schema is closed for what it does not list, and the {writer} schema is not"),
                "keep the content model open, or start a new subject with a closed schema".to_owned(),
                "keep the content model closed".to_owned(),
            ),
            AdditionalPropertiesNarrowed | AdditionalItemsNarrowed => (
                format!("the {reader} schema restricts what it does not list, for which the {writer} schema accepts any value"),
                "keep the content model open".to_owned(),
                "keep the schema for what is not listed".to_owned(),
            ),
            EnumArrayNarrowed | EnumArrayChanged => (
                format!("the {reader} schema lacks values that the {writer} schema lists"),
                "keep all values; values may be added".to_owned(),
                "add no values; values may be removed".to_owned(),
            ),
            SchemaAdded => (
                format!("the {reader} schema restricts what the {writer} schema does not"),
                "leave the restriction out".to_owned(),
                "keep the restriction".to_owned(),
            ),
            TypeChanged | TypeNarrowed | CombinedTypeChanged => (
                format!("the type in the {reader} schema does not accept all values of the type in the {writer} schema"),
                "keep the type, or widen it: integer to number, or a type to a list of types that contains it".to_owned(),
                "keep the type, or narrow it: number to integer, or a list of types to one of them".to_owned(),
            ),
            ProductTypeExtended => (
                format!("the {reader} schema has a further constraint in allOf or next to its type, which the {writer} schema \
                         does not have"),
                "leave the further constraint out".to_owned(),
                "keep the constraint".to_owned(),
            ),
            SumTypeNarrowed => (
                format!("the {reader} schema has fewer alternatives than the {writer} schema"),
                "keep all alternatives; alternatives may be added".to_owned(),
                "add no alternatives; alternatives may be removed".to_owned(),
            ),
            CombinedTypeSubschemasChanged => {
                let remedy = self.causes.first().map(|cause| cause.explanation(side).remedy);
                (
                    format!("the constraints of the {reader} schema do not pair with those of the {writer} schema{}",
                            self.because()),
                    remedy.clone().unwrap_or_else(|| "keep the constraints, or widen them".to_owned()),
                    remedy.unwrap_or_else(|| "keep the constraints, or narrow them".to_owned()),
                )
            }
            NotTypeExtended => (
                format!("the {reader} schema excludes more than the {writer} schema"),
                "exclude at most what was excluded before".to_owned(),
                "exclude at least what was excluded before".to_owned(),
            ),
            _ => (
                format!("the {reader} schema accepts everything that the {writer} schema accepts"),
                "nothing has to change".to_owned(),
                "nothing has to change".to_owned(),
            ),
        };
        let remedy = match side {
            Reader::New => accept_more,
            Reader::Old => permit_less,
        };
        Explanation { problem, remedy }
    }

    fn because(&self) -> String {
        let causes: Vec<_> =
            self.causes.iter().map(|cause| format!("{} {}", cause.path(), cause.rule)).collect();
        if causes.is_empty() { String::new() } else { format!(" ({})", causes.join(", ")) }
    }
}
