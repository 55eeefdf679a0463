//! Compares the accepted vehicles with the result.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;

use crate::load::{Ledger, VIN};
use crate::poison::{Fate, Letter, Written};
use crate::support::cluster::Platform;
use crate::support::eventually;
use crate::support::kafka::read_each;
use crate::world::TOPICS;

/// The time without a new ad after which the list is read from its beginning again.
const LOOK_BACK_AFTER: Duration = Duration::from_secs(3);

/// Observes new ads from outside and measures how long none appears although one is due.
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

    /// Looks for new ads; `due` is the number that should exist by now.
    pub async fn look(&mut self, platform: &Platform, due: usize) {
        let before = self.seen.len();
        if before < due && self.stalled_for() > LOOK_BACK_AFTER {
            // An ad of a slow batch may have become visible before the cursor.
            self.cursor = beginning(platform);
        }
        while let Some((page, next)) = platform.ads_page(&self.cursor).await {
            let vins = page.iter().map(|ad| ad["vin"].as_str().unwrap().to_owned());
            self.seen.extend(vins.filter(|vin| vin.starts_with(VIN)));
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

    /// Returns the time since an ad appeared or none was due.
    pub fn stalled_for(&self) -> Duration {
        self.progress.elapsed()
    }
}

fn beginning(platform: &Platform) -> String {
    format!("{}/ads?limit=1000", platform.ads_url())
}

/// The changes to the topics, apart from the posted vehicles.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub written: Vec<Written>,
    /// The keys that were on a topic when it was deleted.
    pub archived: [Vec<String>; 2],
}

/// The difference between the ledger and the result.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub lost: Vec<String>,
    pub doubled_ads: Vec<String>,
    /// Ads of vehicles that were never posted.
    pub foreign_ads: Vec<String>,
    pub doubled_created: Vec<String>,
    pub doubled_processed: Vec<String>,
    /// Poison without exactly one dead letter, and other dead letters.
    pub wrong_dead_letters: Vec<String>,
}

impl Verdict {
    pub async fn reach(platform: &Platform, ledger: &Ledger, history: &History) -> Self {
        let ads = eventually("the list of ads", async || platform.ad_vins().await).await;
        let advertised: HashSet<_> = ads.iter().cloned().collect();
        let (mut keys, mut letters) = (history.archived.clone(), Vec::new());
        for (topic, (name, keys)) in TOPICS.iter().zip(&mut keys).enumerate() {
            let name = platform.topic(name);
            keys.extend(read_each(platform.bootstrap(), &name, key).await.into_iter().flatten());
            let read = read_each(platform.bootstrap(), &format!("{name}.dlq"), Letter::of).await;
            letters.extend(read.into_iter().map(|letter| (topic, letter)));
        }
        let (mut promised, mut possible) = (ledger.vins(), HashSet::new());
        for written in &history.written {
            match written.fate {
                Fate::Ad => drop(promised.insert(written.name.clone())),
                Fate::AdOrLetter { .. } => drop(possible.insert(written.name.clone())),
                Fate::Letter { .. } => {}
            }
        }
        let [created, processed] = keys;
        Self {
            lost: promised.difference(&advertised).cloned().collect(),
            doubled_ads: doubled(ads),
            foreign_ads: advertised
                .iter()
                .filter(|vin| !promised.contains(*vin) && !possible.contains(*vin))
                .cloned()
                .collect(),
            doubled_created: doubled(created),
            doubled_processed: doubled(processed),
            wrong_dead_letters: wrong_dead_letters(letters, &history.written, &advertised),
        }
    }

    /// Returns whether time may resolve it; duplicates are permanent.
    pub fn is_unfinished(&self) -> bool {
        !self.lost.is_empty() || !self.wrong_dead_letters.is_empty()
    }
}

/// Describes the wrong dead letters. Each comes with the topic that it belongs to.
fn wrong_dead_letters(
    letters: Vec<(usize, Letter)>,
    written: &[Written],
    advertised: &HashSet<String>,
) -> Vec<String> {
    let mut found = HashMap::<_, Vec<_>>::new();
    for (topic, letter) in letters {
        found.entry((topic, letter.name.clone())).or_default().push(letter);
    }
    let mut wrong = Vec::new();
    for Written { name, hash, fate } in written {
        let (topic, reason, count) = match *fate {
            Fate::Letter { topic, reason } => (topic, reason, 1),
            Fate::AdOrLetter { reason } => (0, reason, usize::from(!advertised.contains(name))),
            Fate::Ad => continue,
        };
        let letters = found.remove(&(topic, name.clone())).unwrap_or_default();
        if letters.len() != count {
            wrong.push(format!("{name} has {} dead letters instead of {count}", letters.len()));
        }
        let is_right = |letter: &&Letter| {
            letter.reason.contains(reason) && hash.as_ref().is_none_or(|hash| *hash == letter.hash)
        };
        wrong.extend(letters.iter().filter(|letter| !is_right(letter)).map(|letter| format!("{letter:?}")));
    }
    wrong.extend(found.into_values().flatten().map(|letter| format!("without a known record: {letter:?}")));
    wrong
}

/// Returns the key, which not all poison has.
pub fn key(record: &BorrowedMessage<'_>) -> Option<String> {
    Some(String::from_utf8_lossy(record.key()?).into_owned())
}

fn doubled(items: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut counts = HashMap::<_, usize>::new();
    items.into_iter().for_each(|item| *counts.entry(item).or_default() += 1);
    counts.into_iter().filter_map(|(item, count)| (count > 1).then_some(item)).collect()
}
