//! The rules that a comparison applies, by the names that Confluent Schema Registry gives them.

use std::fmt;

/// A kind of difference between two schemas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[rustfmt::skip]
#[allow(missing_docs, reason = "the names are those of the registry")]
pub enum Rule {
    IdChanged, DescriptionChanged, TitleChanged, DefaultChanged,
    SchemaAdded, SchemaRemoved, TypeExtended, TypeNarrowed, TypeChanged,
    MaxLengthAdded, MaxLengthRemoved, MaxLengthIncreased, MaxLengthDecreased,
    MinLengthAdded, MinLengthRemoved, MinLengthIncreased, MinLengthDecreased,
    PatternAdded, PatternRemoved, PatternChanged,
    MaximumAdded, MaximumRemoved, MaximumIncreased, MaximumDecreased,
    MinimumAdded, MinimumRemoved, MinimumIncreased, MinimumDecreased,
    ExclusiveMaximumAdded, ExclusiveMaximumRemoved, ExclusiveMaximumIncreased, ExclusiveMaximumDecreased,
    ExclusiveMinimumAdded, ExclusiveMinimumRemoved, ExclusiveMinimumIncreased, ExclusiveMinimumDecreased,
    MultipleOfAdded, MultipleOfRemoved, MultipleOfExpanded, MultipleOfReduced, MultipleOfChanged,
    RequiredAttributeAdded, RequiredAttributeWithDefaultAdded, RequiredAttributeRemoved,
    MaxPropertiesAdded, MaxPropertiesRemoved, MaxPropertiesIncreased, MaxPropertiesDecreased,
    MinPropertiesAdded, MinPropertiesRemoved, MinPropertiesIncreased, MinPropertiesDecreased,
    AdditionalPropertiesAdded, AdditionalPropertiesRemoved, AdditionalPropertiesExtended,
    AdditionalPropertiesNarrowed,
    DependencyArrayAdded, DependencyArrayRemoved, DependencyArrayExtended, DependencyArrayNarrowed,
    DependencyArrayChanged, DependencySchemaAdded, DependencySchemaRemoved,
    PropertyAddedToOpenContentModel, PropertyWithEmptySchemaAddedToOpenContentModel,
    RequiredPropertyAddedToUnopenContentModel, RequiredPropertyWithDefaultAddedToUnopenContentModel,
    OptionalPropertyAddedToUnopenContentModel,
    PropertyRemovedFromOpenContentModel, PropertyWithFalseRemovedFromClosedContentModel,
    PropertyRemovedFromClosedContentModel,
    PropertyRemovedIsCoveredByPartiallyOpenContentModel, PropertyRemovedNotCoveredByPartiallyOpenContentModel,
    PropertyAddedIsCoveredByPartiallyOpenContentModel, PropertyAddedNotCoveredByPartiallyOpenContentModel,
    MaxItemsAdded, MaxItemsRemoved, MaxItemsIncreased, MaxItemsDecreased,
    MinItemsAdded, MinItemsRemoved, MinItemsIncreased, MinItemsDecreased,
    UniqueItemsAdded, UniqueItemsRemoved,
    AdditionalItemsAdded, AdditionalItemsRemoved, AdditionalItemsExtended, AdditionalItemsNarrowed,
    ItemAddedToOpenContentModel, ItemWithEmptySchemaAddedToOpenContentModel, ItemAddedToClosedContentModel,
    ItemRemovedFromOpenContentModel, ItemWithFalseRemovedFromClosedContentModel,
    ItemRemovedFromClosedContentModel,
    ItemRemovedIsCoveredByPartiallyOpenContentModel, ItemRemovedNotCoveredByPartiallyOpenContentModel,
    ItemAddedIsCoveredByPartiallyOpenContentModel, ItemAddedNotCoveredByPartiallyOpenContentModel,
    EnumArrayExtended, EnumArrayNarrowed, EnumArrayChanged,
    CombinedTypeExtended, CombinedTypeChanged, ProductTypeExtended, ProductTypeNarrowed,
    SumTypeExtended, SumTypeNarrowed, CombinedTypeSubschemasChanged,
    NotTypeExtended, NotTypeNarrowed,
}

impl Rule {
    /// Returns whether a reader with this difference still reads everything that the writer's schema accepts.
    #[rustfmt::skip]
    pub fn is_compatible(self) -> bool {
        use Rule::*;
        matches!(
            self,
            IdChanged | DescriptionChanged | TitleChanged | DefaultChanged | SchemaRemoved | TypeExtended
            | MaxLengthIncreased | MaxLengthRemoved | MinLengthDecreased | MinLengthRemoved | PatternRemoved
            | MaximumIncreased | MaximumRemoved | MinimumDecreased | MinimumRemoved
            | ExclusiveMaximumIncreased | ExclusiveMaximumRemoved | ExclusiveMinimumDecreased
            | ExclusiveMinimumRemoved | MultipleOfReduced | MultipleOfRemoved
            | RequiredAttributeWithDefaultAdded | RequiredAttributeRemoved
            | DependencyArrayNarrowed | DependencyArrayRemoved | DependencySchemaRemoved
            | MaxPropertiesIncreased | MaxPropertiesRemoved | MinPropertiesDecreased | MinPropertiesRemoved
            | AdditionalPropertiesAdded | AdditionalPropertiesExtended
            | PropertyWithEmptySchemaAddedToOpenContentModel
            | RequiredPropertyWithDefaultAddedToUnopenContentModel | OptionalPropertyAddedToUnopenContentModel
            | PropertyWithFalseRemovedFromClosedContentModel | PropertyRemovedFromOpenContentModel
            | PropertyAddedIsCoveredByPartiallyOpenContentModel
            | PropertyRemovedIsCoveredByPartiallyOpenContentModel
            | MaxItemsIncreased | MaxItemsRemoved | MinItemsDecreased | MinItemsRemoved | UniqueItemsRemoved
            | AdditionalItemsAdded | AdditionalItemsExtended
            | ItemWithEmptySchemaAddedToOpenContentModel | ItemAddedToClosedContentModel
            | ItemWithFalseRemovedFromClosedContentModel | ItemRemovedFromOpenContentModel
            | ItemAddedIsCoveredByPartiallyOpenContentModel | ItemRemovedIsCoveredByPartiallyOpenContentModel
            | EnumArrayExtended | CombinedTypeExtended | ProductTypeNarrowed | SumTypeExtended | NotTypeNarrowed
        )
    }
}

impl fmt::Display for Rule {
    /// Writes the registry's name, such as `MAX_LENGTH_ADDED`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, character) in format!("{self:?}").chars().enumerate() {
            let separator = if index > 0 && character.is_ascii_uppercase() { "_" } else { "" };
            write!(f, "{separator}{}", character.to_ascii_uppercase())?;
        }
        Ok(())
    }
}
