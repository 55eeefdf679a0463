//! What became of the vehicles that were accepted.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::message::OwnedMessage;

use crate::load::Ledger;
use crate::support::cluster::Platform;
use crate::support::eventually;
use crate::support::kafka::read_all;
use crate::world::TOPICS;

/// Without a new ad for so long the list is read from its beginning again.
const LOOK_BACK_AFTER: Duration = Duration::from_secs(3);

/// Sees ads appear from outside, and how long none does although one is due.
pub struct Watch {
    cursor: String,
    seen: HashSet<String>,
    progress: Instant,
    longest_stall: Duration,
}

impl Watch {
    pub fn new(platform: &Platform) -> Self {
        Self {
            cursor: beginning(platform),
            seen: HashSet::new(),
            progress: Instant::now(),
            longest_stall: Duration::ZERO,
        }
    }

    /// Looks for new ads; `due`: how many there should be by now.
    pub async fn look(&mut self, platform: &Platform, due: usize) {
        let before = self.seen.len();
        if before < due && self.stalled_for() > LOOK_BACK_AFTER {
            // An ad may have become visible behind the cursor, when its batch took long.
            self.cursor = beginning(platform);
        }
        while let Some((page, next)) = platform.ads_page(&self.cursor).await {
            self.seen.extend(page.iter().map(|ad| ad["vin"].as_str().unwrap().to_owned()));
            match (next, page.last()) {
                (Some(next), _) => self.cursor = next,
                (None, Some(last)) => {
                    let last = last["id"].as_str().unwrap();
                    self.cursor = format!("{}&after={last}", beginning(platform));
                    break;
                }
                (None, None) => break,
            }
        }
        if self.seen.len() > before || self.seen.len() >= due {
            self.progress = Instant::now();
        }
        self.longest_stall = self.longest_stall.max(self.progress.elapsed());
    }

    pub fn longest_stall(&self) -> Duration {
        self.longest_stall
    }

    /// How long ago an ad appeared, or none was due.
    pub fn stalled_for(&self) -> Duration {
        self.progress.elapsed()
    }
}

fn beginning(platform: &Platform) -> String {
    format!("{}/ads?limit=1000", platform.ads_url())
}

/// The difference between what the ledger promises and what there is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub lost: Vec<String>,
    pub doubled_ads: Vec<String>,
    /// Ads of vehicles that nobody posted.
    pub foreign_ads: Vec<String>,
    pub doubled_created: Vec<String>,
    pub doubled_processed: Vec<String>,
    /// Poison that is not in its dead-letter topic once, and other dead letters.
    pub wrong_dead_letters: Vec<String>,
}

impl Verdict {
    pub async fn reach(platform: &Platform, ledger: &Ledger, poisons: &[Vec<Vec<u8>>; 2]) -> Self {
        let promised = ledger.vins();
        let ads = eventually("the list of ads", async || platform.ad_vins().await).await;
        let advertised: HashSet<_> = ads.iter().cloned().collect();
        let [created, processed] = [
            read_all(platform.bootstrap(), &platform.topic(TOPICS[0])).await,
            read_all(platform.bootstrap(), &platform.topic(TOPICS[1])).await,
        ];
        let mut wrong_dead_letters = Vec::new();
        for (topic, poisons) in TOPICS.iter().zip(poisons) {
            let letters = read_all(platform.bootstrap(), &format!("{}.dlq", platform.topic(topic))).await;
            let found = count(letters.iter().map(|letter| letter.payload().unwrap_or_default().to_vec()));
            let put: HashSet<_> = poisons.iter().cloned().collect();
            let missing = put.iter().filter(|poison| !found.contains_key(*poison));
            let wrong = found.iter().filter(|(value, count)| **count != 1 || !put.contains(*value));
            let shown = missing.chain(wrong.map(|(value, _)| value));
            wrong_dead_letters.extend(shown.map(|value| String::from_utf8_lossy(value).into_owned()));
        }
        Self {
            lost: promised.difference(&advertised).cloned().collect(),
            doubled_ads: doubled(ads),
            foreign_ads: advertised.difference(&promised).cloned().collect(),
            doubled_created: doubled(keys(&created)),
            doubled_processed: doubled(keys(&processed)),
            wrong_dead_letters,
        }
    }
}

fn keys(records: &[OwnedMessage]) -> impl Iterator<Item = String> {
    // Poison has no key.
    records.iter().filter_map(|record| Some(String::from_utf8_lossy(record.key()?).into_owned()))
}

fn count<T: Eq + Hash>(items: impl Iterator<Item = T>) -> HashMap<T, usize> {
    let mut counts = HashMap::new();
    items.for_each(|item| *counts.entry(item).or_default() += 1);
    counts
}

fn doubled(items: impl IntoIterator<Item = String>) -> Vec<String> {
    count(items.into_iter()).into_iter().filter_map(|(item, count)| (count > 1).then_some(item)).collect()
}
