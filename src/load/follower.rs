//! Follows the list of ads.
//!
//! Ads are listed by id, and ids grow with time. But an ad gets its id before it is written, so one of a slow batch or of
//! a slow instance may become visible before the end of the list. The follower therefore reads the latest part again and
//! again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use uuid::{Builder, Uuid, Version};

use super::ads_client::{AdsClient, AdsPage, ListedAd};

/// How often the latest part of the list is read again, and how far back it reaches.
struct LookBack {
    every: Duration,
    reach: Duration,
}

/// The first one is for batches that are written at the same time, the second one for an instance that was suspended.
const LOOK_BACKS: [LookBack; 2] = [
    LookBack { every: Duration::from_millis(250), reach: Duration::from_millis(500) },
    LookBack { every: Duration::from_secs(3), reach: FARTHEST },
];
const FARTHEST: Duration = Duration::from_secs(6);
/// The part of the list before the end at which a load starts that its complete readings contain: an instance whose clock
/// is behind lists its ads there.
const CLOCK_DIFFERENCE: Duration = Duration::from_mins(5);

/// A position in the list: the cursor of the page that follows. None is the beginning.
pub type Cursor = Option<String>;

/// A reader of the ads after a position in the list.
#[derive(Debug)]
pub struct Follower {
    client: AdsClient,
    start: Cursor,
    /// The ends of the list that were reached, and when. At most a few seconds old.
    reached: VecDeque<(Instant, Cursor)>,
    looked_back: [Instant; LOOK_BACKS.len()],
}

impl Follower {
    /// Opens a follower of the whole list.
    pub fn from_beginning(client: AdsClient) -> Self {
        Self::from(client, None)
    }

    /// Opens a follower of the ads that are published from now on. Reads the list to its end, and calls `pass` for each
    /// ad on the way.
    ///
    /// # Errors
    /// Fails when ads does not answer.
    pub async fn from_end(client: AdsClient, pass: impl FnMut(&ListedAd)) -> anyhow::Result<Self> {
        let end = read_to_end(async |after| client.page(after).await, None, pass).await?;
        Ok(Self::from(client, end))
    }

    fn from(client: AdsClient, start: Cursor) -> Self {
        let now = Instant::now();
        Self {
            client,
            start: start.as_deref().and_then(before).or_else(|| start.clone()),
            reached: VecDeque::from([(now, start)]),
            looked_back: [now; LOOK_BACKS.len()],
        }
    }

    /// Calls `see` for the ads that became visible since the last look. May call it for earlier ones again.
    ///
    /// # Errors
    /// Fails when ads does not answer. The next look continues where this one failed, or before.
    pub async fn look(&mut self, see: impl FnMut(&ListedAd)) -> anyhow::Result<()> {
        let now = Instant::now();
        while self.reached.get(1).is_some_and(|(reached, _)| now - *reached >= FARTHEST) {
            self.reached.pop_front();
        }
        let mut reach = Duration::ZERO;
        for (look_back, last) in LOOK_BACKS.iter().zip(&mut self.looked_back) {
            if now - *last >= look_back.every {
                *last = now;
                reach = look_back.reach;
            }
        }
        let from = self.reached.iter().rfind(|(reached, _)| now - *reached >= reach);
        let from = from.or(self.reached.front()).and_then(|(_, cursor)| cursor.clone());
        let end = read_to_end(async |after| self.client.page(after).await, from, see).await?;
        // Ads that are published during the look may appear before its end later.
        self.reached.push_back((now, end));
        Ok(())
    }

    pub fn client(&self) -> &AdsClient {
        &self.client
    }

    /// Returns the position after which all ads since the follower was opened are listed, and some earlier ones.
    pub fn start(&self) -> Cursor {
        self.start.clone()
    }
}

/// Returns the cursor before the ads of the five minutes before the ad with this id, if the id contains a time.
fn before(id: &str) -> Cursor {
    let id = Uuid::parse_str(id).ok().filter(|id| id.get_version() == Some(Version::SortRand))?;
    let (seconds, _) = id.get_timestamp()?.to_unix();
    let millis = seconds.saturating_sub(CLOCK_DIFFERENCE.as_secs()) * 1_000;
    Some(Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid().to_string())
}

/// Reads the pages of a list from a cursor on, and returns the cursor at its end. Calls `see` once for each ad.
///
/// # Errors
/// Fails when a page cannot be read.
pub async fn read_to_end(
    page: impl AsyncFn(Option<&str>) -> anyhow::Result<AdsPage>,
    mut cursor: Cursor,
    mut see: impl FnMut(&ListedAd),
) -> anyhow::Result<Cursor> {
    loop {
        let AdsPage { ads, next } = page(cursor.as_deref()).await?;
        ads.iter().for_each(&mut see);
        match (next, ads.last()) {
            (Some(next), _) => cursor = Some(next),
            // The id of an ad is the cursor of what follows it.
            (None, Some(last)) => return Ok(Some(last.id.clone())),
            (None, None) => return Ok(cursor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complete_reading_begins_five_minutes_before_an_ad() {
        let id = |millis| Builder::from_unix_timestamp_millis(millis, &[7; 10]).into_uuid().to_string();
        let end = id(1_700_000_000_123);
        let start = before(&end).unwrap();
        assert!(start > id(1_699_999_699_999) && start < id(1_699_999_700_000), "{start}");
        assert_eq!(before("unreadable%3A7"), None);
        assert_eq!(before("6ba7b810-9dad-11d1-80b4-00c04fd430c8"), None);
    }
}
