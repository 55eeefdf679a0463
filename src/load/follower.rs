//! Follows the list of ads.
//!
//! Ads are listed by id, and ids grow with time. But an ad gets its id before it is written, so one of a slow batch may
//! become visible before the end of the list. The follower therefore reads the latest part again and again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::ads_client::{AdsClient, AdsPage, ListedAd};

/// How often the latest part of the list is read again, and how far back it reaches.
const LOOK_BACK_EVERY: Duration = Duration::from_millis(250);
const LOOK_BACK: Duration = Duration::from_millis(500);

/// A position in the list: the cursor of the page that follows. None is the beginning.
pub type Cursor = Option<String>;

/// A reader of the ads after a position in the list.
#[derive(Debug)]
pub struct Follower {
    client: AdsClient,
    start: Cursor,
    /// The ends of the list that were reached, and when. At most a few seconds old.
    reached: VecDeque<(Instant, Cursor)>,
    looked_back: Instant,
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
        Self { client, start: start.clone(), reached: VecDeque::from([(now, start)]), looked_back: now }
    }

    /// Calls `see` for the ads that became visible since the last look. May call it for earlier ones again.
    ///
    /// # Errors
    /// Fails when ads does not answer. The next look continues where this one failed, or before.
    pub async fn look(&mut self, see: impl FnMut(&ListedAd)) -> anyhow::Result<()> {
        let now = Instant::now();
        let looks_back = now - self.looked_back >= LOOK_BACK_EVERY;
        if looks_back {
            let is_old = |reached: Option<&(Instant, Cursor)>| {
                reached.is_some_and(|(reached, _)| now - *reached >= LOOK_BACK)
            };
            while is_old(self.reached.get(1)) {
                self.reached.pop_front();
            }
            self.looked_back = now;
        }
        let from = if looks_back { self.reached.front() } else { self.reached.back() };
        let from = from.and_then(|(_, cursor)| cursor.clone());
        let end = read_to_end(async |after| self.client.page(after).await, from, see).await?;
        // Ads that are published during the look may appear before its end later.
        self.reached.push_back((now, end));
        Ok(())
    }

    pub fn client(&self) -> &AdsClient {
        &self.client
    }

    /// Returns the position at which the follower was opened.
    pub fn start(&self) -> Cursor {
        self.start.clone()
    }
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
