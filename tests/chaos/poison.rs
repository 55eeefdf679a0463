//! Defines records that others write to the topics. Some are never readable; others are valid and expensive to
//! process.

use std::time::Duration;

use mongodb::bson::doc;
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};
use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::producer::FutureRecord;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use vehicle_platform::https;

use crate::odd_header::produce_with_odd_header;
use crate::support::kafka::{produce, produce_all, produce_record};
use crate::support::{eventually, vehicle};
use crate::world::{TOPICS, World};

const CREATED: usize = 0;
const PROCESSED: usize = 1;
/// The prefix of vins whose ads the collection refuses.
const REFUSED: &str = "refused-";
const BURST: usize = 200;
/// The size of each record in a burst, in bytes.
const BURST_BYTES: usize = 1_000_000;
/// The largest uncompressed value that a topic accepts with a key and without headers.
const LARGEST_VALUE: usize = 1_048_460;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    /// Text that is not an event.
    Text,
    /// A few kilobytes on the wire that decompress to 3 to 5 MB.
    Bomb,
    /// 3 to 5 MB of noise that only one codec compresses enough for a topic.
    Noise,
    /// Text with a header whose name is not UTF-8.
    HeaderName,
    /// A valid vehicle whose ad MongoDB refuses.
    RefusedAd,
    /// A valid vehicle as large as the topic accepts, so that its event may be too large.
    LargeVehicle,
    /// Hundreds of valid records of 1 MB each that are small on the wire.
    Burst,
}

impl Poison {
    pub fn kind(self) -> &'static str {
        match self {
            Self::Text => "poison: texts",
            Self::Bomb => "poison: compressed garbage",
            Self::Noise => "poison: compressed noise",
            Self::HeaderName => "poison: names of headers",
            Self::RefusedAd => "poison: ads that MongoDB refuses",
            Self::LargeVehicle => "poison: vehicles of 1 MB",
            Self::Burst => "poison: bursts of 200 MB",
        }
    }

    /// Draws the topic; some kinds have only one.
    pub fn topic(self, rng: &mut StdRng) -> usize {
        match self {
            Self::RefusedAd | Self::LargeVehicle => CREATED,
            _ => rng.random_range(0..TOPICS.len()),
        }
    }
}

/// The expected result of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Letter {
        topic: usize,
        /// A part of the reason.
        reason: &'static str,
    },
    Ad,
    /// Either one, as the codecs determine whether the event fits.
    AdOrLetter {
        reason: &'static str,
    },
}

/// A record that was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its key, or its value when it has no key.
    pub name: String,
    /// The hash of the value in its dead letter; `None` when it is unknown.
    pub hash: Option<String>,
    pub fate: Fate,
}

/// The parts of a dead letter that the verdict uses.
#[derive(Debug)]
pub struct Letter {
    pub name: String,
    pub hash: String,
    pub reason: String,
}

impl Letter {
    pub fn of(letter: &BorrowedMessage<'_>) -> Self {
        let header = |name: &str| {
            let header = letter.headers()?.iter().find(|header| header.key == name)?;
            Some(String::from_utf8_lossy(header.value?).into_owned())
        };
        let value = letter.payload().unwrap_or_default();
        Self {
            name: String::from_utf8_lossy(letter.key().unwrap_or(value)).into_owned(),
            // Set when the brokers refuse the value as well.
            hash: header("dlq.value.sha256").unwrap_or_else(|| hash(value)),
            reason: header("dlq.reason").unwrap_or_default(),
        }
    }
}

impl World {
    /// Configures the collection of ads to refuse some of them.
    pub async fn refuse_some_ads(&self) {
        let validator = doc! { "vin": { "$not": { "$regex": format!("^{REFUSED}") } } };
        self.platform.validate_ads(validator).await;
    }

    pub async fn poison(&self, poison: Poison, topic: usize) {
        let mut written = self.written.lock().await;
        let number = written.len();
        let name = format!("poison-{number}");
        let (bootstrap, on) = (self.platform.bootstrap(), self.platform.topic(TOPICS[topic]));
        let no_event = Fate::Letter { topic, reason: "not framed" };
        let mut enter = |name: String, value: Option<&[u8]>, fate| {
            written.push(Written { name, hash: value.map(hash), fate });
        };
        match poison {
            Poison::Text => {
                produce(bootstrap, &on, None, name.as_bytes()).await;
                enter(name.clone(), Some(name.as_bytes()), no_event);
            }
            Poison::HeaderName => {
                let value = format!("value of {name}").into_bytes();
                produce_with_odd_header(bootstrap, &on, &name, &value).await;
                enter(name, Some(&value), no_event);
            }
            Poison::Bomb | Poison::Noise => {
                let length = rand::random_range(3_000_000..5_000_000);
                let mut value = vec![b'g'; if poison == Poison::Bomb { 1 } else { 900_000 }];
                if poison == Poison::Noise {
                    rand::rng().fill_bytes(&mut value);
                }
                let value: Vec<_> = value.iter().copied().cycle().take(length).collect();
                // Only zstd's window is large enough to detect that the noise repeats.
                let codec = if poison == Poison::Bomb && number.is_multiple_of(2) { "gzip" } else { "zstd" };
                let record = FutureRecord::to(&on).key(name.as_str()).payload(&value[..]);
                produce_record(bootstrap, record, codec).await;
                enter(name, Some(&value), no_event);
            }
            Poison::RefusedAd => {
                let name = format!("{REFUSED}{number}");
                let value = self.event(topic, &name, number, "model").await;
                produce(bootstrap, &on, Some(&name), &value).await;
                enter(name, None, Fate::Letter { topic: PROCESSED, reason: "validation" });
            }
            Poison::LargeVehicle => {
                let rest = self.event(topic, &name, number, "").await.len();
                let value = self.event(topic, &name, number, &noise(LARGEST_VALUE - rest)).await;
                produce(bootstrap, &on, Some(&name), &value).await;
                enter(name, Some(&value), Fate::AdOrLetter { reason: "Message size too large" });
            }
            Poison::Burst => {
                let mut records = Vec::new();
                for part in 0..BURST {
                    let name = format!("{name}-{part}");
                    let mut value = self.event(topic, &name, number, "model").await;
                    value.resize(BURST_BYTES, b' ');
                    records.push((name, value));
                }
                for (name, _) in &records {
                    enter(name.clone(), None, Fate::Ad);
                }
                produce_all(bootstrap, &on, &records, "zstd").await;
            }
        }
    }

    /// Returns a valid event for one of the topics.
    async fn event(&self, topic: usize, vin: &str, id: usize, model: &str) -> Vec<u8> {
        let mut event = vehicle(vin);
        event["id"] = json!(1_000_000_000 + id);
        event["model"] = json!(model);
        if topic == PROCESSED {
            event["price"] = json!(1234.5);
            event["priceUnit"] = json!("USD");
        }
        let frame = self.frames[topic].get_or_init(|| self.frame(topic)).await;
        [frame, event.to_string().as_bytes()].concat()
    }

    /// Returns the frame of the platform's events. Their schema is registered once a role has started.
    async fn frame(&self, topic: usize) -> Vec<u8> {
        let (registry, topic) = (self.platform.registry(), self.platform.topic(TOPICS[topic]));
        let url = format!("{registry}/subjects/{topic}-value/versions/latest");
        let client = https::client().timeout(Duration::from_secs(5)).build().unwrap();
        let id = eventually("the id of the schema", async || {
            let answer = client.get(&url).send().await.ok()?.error_for_status().ok()?;
            answer.json::<Value>().await.ok()?["id"].as_u64()
        })
        .await;
        [&[0][..], &u32::try_from(id).unwrap().to_be_bytes()].concat()
    }
}

/// Returns text that codecs barely compress.
fn noise(length: usize) -> String {
    let signs: Vec<_> = (b'#'..=b'~').filter(|sign| *sign != b'\\').collect();
    (0..length).map(|_| char::from(signs[rand::random_range(0..signs.len())])).collect()
}

fn hash(value: &[u8]) -> String {
    Sha256::digest(value).iter().map(|byte| format!("{byte:02x}")).collect()
}
