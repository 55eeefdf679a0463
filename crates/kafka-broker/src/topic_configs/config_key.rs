//! Describes one config: its type, its default and its valid values (`ConfigDef` of Apache Kafka).

/// Most bytes of a value: the longest string that older versions of the protocol can hold.
const MAX_VALUE: usize = 32_767;

/// Describes a config. Its value is text on the wire and in the journal.
#[derive(Debug)]
pub struct ConfigKey {
    pub name: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    pub valid: Valid,
    /// Name of the broker's config that defines the default, or an empty text.
    pub broker_name: &'static str,
}

/// Type of a config, with its number on the wire (`DescribeConfigsResponse.ConfigType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Boolean = 1,
    Text = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

/// Describes the valid values within a type.
#[derive(Debug)]
pub enum Valid {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    /// A number in this range, or this number.
    BetweenOr(i64, i64, i64),
    /// A number from 0 to 1.
    Fraction,
    /// One of these words. In a list each element is one.
    OneOf(&'static [&'static str]),
    /// `*`, or partition and broker id of each replica (`ThrottledReplicaListValidator`).
    Replicas,
    /// A version of Kafka (`MetadataVersionValidator`).
    Version,
    /// A boolean that enables what needs a remote storage.
    NoRemoteStorage,
}

impl ConfigKey {
    /// Returns the value in its normal form.
    ///
    /// # Errors
    /// When the value is not valid, with a message for the client.
    pub fn parse(&self, value: &str) -> Result<String, String> {
        if value.len() > MAX_VALUE {
            return Err(format!("The value for configuration {} is too long", self.name));
        }
        let trimmed = value.trim();
        let parsed = match self.kind {
            Kind::Boolean => self.boolean(trimmed),
            Kind::Int => match trimmed.parse::<i32>() {
                Ok(number) => self.number(number.into()),
                Err(_) => Err("Not a number of type INT".to_owned()),
            },
            Kind::Long => match trimmed.parse::<i64>() {
                Ok(number) => self.number(number),
                Err(_) => Err("Not a number of type LONG".to_owned()),
            },
            Kind::Double => match double(trimmed) {
                Some(number) => self.double(number),
                None => Err("Not a number of type DOUBLE".to_owned()),
            },
            Kind::Text => self.text(trimmed),
            Kind::List => self.list(trimmed),
        };
        parsed.map_err(|reason| format!("Invalid value {value} for configuration {}: {reason}", self.name))
    }

    fn boolean(&self, value: &str) -> Result<String, String> {
        let value = value.to_ascii_lowercase();
        match value.as_str() {
            "true" if matches!(self.valid, Valid::NoRemoteStorage) => {
                Err("This broker has no remote storage".to_owned())
            }
            "true" | "false" => Ok(value),
            _ => Err("Expected true or false".to_owned()),
        }
    }

    fn number(&self, value: i64) -> Result<String, String> {
        match self.valid {
            Valid::AtLeast(least) | Valid::Between(least, _) if value < least => {
                Err(format!("Value must be at least {least}"))
            }
            Valid::Between(_, most) if value > most => Err(format!("Value must be no more than {most}")),
            Valid::BetweenOr(least, most, other) if value != other && !(least..=most).contains(&value) => {
                Err(format!("Value must be between {least} and {most} or equal to {other}"))
            }
            _ => Ok(value.to_string()),
        }
    }

    fn double(&self, value: f64) -> Result<String, String> {
        match self.valid {
            Valid::Fraction if value < 0.0 => Err("Value must be at least 0".to_owned()),
            Valid::Fraction if value > 1.0 => Err("Value must be no more than 1".to_owned()),
            _ => Ok(format!("{value:?}")),
        }
    }

    fn text(&self, value: &str) -> Result<String, String> {
        match self.valid {
            Valid::OneOf(words) => one_of(words, value)?,
            Valid::Version if !is_version(value) => {
                return Err(format!("Version {value} is not a valid version"));
            }
            _ => {}
        }
        Ok(value.to_owned())
    }

    fn list(&self, value: &str) -> Result<String, String> {
        let elements: Vec<&str> = match value {
            "" => Vec::new(),
            _ => value.split(',').map(str::trim).collect(),
        };
        match self.valid {
            Valid::OneOf(words) => elements.iter().try_for_each(|element| one_of(words, element))?,
            Valid::Replicas if elements != ["*"] && !elements.iter().all(|element| is_replica(element)) => {
                return Err("Expected * or a list of partition:broker".to_owned());
            }
            _ => {}
        }
        Ok(elements.join(","))
    }
}

/// Reads a number as `Double.parseDouble` of Java does: it allows a suffix for the type, and names other values its own way.
fn double(text: &str) -> Option<f64> {
    let is_number = |text: &str| text.bytes().any(|byte| byte.is_ascii_digit());
    match text {
        "NaN" => Some(f64::NAN),
        _ if is_number(text) => text.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(text).parse().ok(),
        _ => None,
    }
}

fn one_of(words: &[&str], value: &str) -> Result<(), String> {
    if words.contains(&value) { Ok(()) } else { Err(format!("String must be one of: {}", words.join(", "))) }
}

fn is_replica(element: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    element.is_empty()
        || element.split_once(':').is_some_and(|(index, broker)| is_number(index) && is_number(broker))
}

/// Versions that Apache Kafka 3.9 knows, with the number of their revisions, which are named `IV0`, `IV1` and so on.
const VERSIONS: [(&str, u8); 31] = [
    ("0.8.0", 0),
    ("0.8.1", 0),
    ("0.8.2", 0),
    ("0.9.0", 0),
    ("0.10.0", 2),
    ("0.10.1", 3),
    ("0.10.2", 1),
    ("0.11.0", 3),
    ("1.0", 1),
    ("1.1", 1),
    ("2.0", 2),
    ("2.1", 3),
    ("2.2", 2),
    ("2.3", 2),
    ("2.4", 2),
    ("2.5", 1),
    ("2.6", 1),
    ("2.7", 3),
    ("2.8", 2),
    ("3.0", 2),
    ("3.1", 1),
    ("3.2", 1),
    ("3.3", 4),
    ("3.4", 1),
    ("3.5", 3),
    ("3.6", 3),
    ("3.7", 5),
    ("3.8", 1),
    ("3.9", 1),
    // Not released yet, so only its revisions are valid.
    ("4.0-IV0", 0),
    ("4.0-IV1", 0),
];

/// Returns whether this names a version, with or without a revision. The number of a patch release is ignored.
fn is_version(value: &str) -> bool {
    let segments = if value.starts_with("0.") { 3 } else { 2 };
    let shortened = value.split('.').take(segments).collect::<Vec<_>>().join(".");
    VERSIONS.iter().any(|(version, revisions)| {
        let revision = shortened.strip_prefix(version);
        revision.is_some_and(|revision| match revision.strip_prefix("-IV") {
            None => revision.is_empty(),
            Some(number) => number.parse::<u8>().is_ok_and(|number| number < *revisions),
        })
    })
}
