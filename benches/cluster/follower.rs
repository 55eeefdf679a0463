//! Follows GET /ads and records when each ad became visible.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::time::sleep_until;

use crate::http::Connection;
use crate::stats::{say, show};

/// The interval between polls. Together with the time of a response, it determines the resolution of the times.
pub const PAUSE: Duration = Duration::from_millis(10);
const LIMIT: usize = 1_000;
/// How often and how far back the list is read again, for ads that appear before the cursor.
const LOOK_BACK_EVERY: Duration = Duration::from_millis(100);
const LOOK_BACK: Duration = Duration::from_millis(500);
/// How often the whole list is read again while ads are missing after the load.
const READ_ALL_EVERY: Duration = Duration::from_secs(5);
const SAY: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Ad {
    id: String,
    vin: String,
}

/// A client of ads that follows the list by `after`.
pub struct Follower {
    address: SocketAddr,
    /// When a response first contained the ad of a VIN, by the VIN's number.
    seen: HashMap<u64, Instant>,
    /// The id of the last ad.
    cursor: String,
    /// Earlier cursors and the times at which they were reached.
    cursors: VecDeque<(Instant, String)>,
    last_poll: Option<Instant>,
    last_look_back: Instant,
    last_said: Instant,
    /// Times from sending a poll to the response of the next one. An ad is recorded as visible at most this late.
    pub gaps: Vec<Duration>,
    /// Ads that appeared before the cursor, where a client that follows `after` does not see them.
    pub skipped: u64,
}

impl Follower {
    /// Creates a follower of the ads at `address` that begins with the first ad.
    pub fn new(address: SocketAddr) -> Self {
        let now = Instant::now();
        Self {
            address,
            seen: HashMap::new(),
            cursor: String::new(),
            cursors: VecDeque::new(),
            last_poll: None,
            last_look_back: now,
            last_said: now,
            gaps: Vec::new(),
            skipped: 0,
        }
    }

    /// Returns when the ad of a VIN became visible.
    pub fn seen(&self, vin: u64) -> Option<Instant> {
        self.seen.get(&vin).copied()
    }

    /// Resets the figures.
    pub fn reset(&mut self) {
        self.gaps.clear();
        self.skipped = 0;
    }

    /// Follows the list until `work` is done.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        // A separate connection, because the last response may remain unread.
        let mut connection = self.connect().await;
        let follow = async {
            loop {
                self.step(&mut connection).await;
            }
        };
        tokio::select! {
            result = work => result,
            () = follow => unreachable!("following does not end"),
        }
    }

    /// Follows the list until the ads of all `vins` are visible or `patience` is over.
    pub async fn until_seen(&mut self, vins: impl Iterator<Item = u64>, patience: Duration) {
        let mut missing: HashSet<u64> = vins.collect();
        let mut connection = self.connect().await;
        let started = Instant::now();
        let mut read_all = started;
        loop {
            missing.retain(|vin| !self.seen.contains_key(vin));
            if missing.is_empty() || started.elapsed() > patience {
                return;
            }
            self.step(&mut connection).await;
            if read_all.elapsed() > READ_ALL_EVERY {
                self.look_back(&mut connection, String::new()).await;
                read_all = Instant::now();
            }
        }
    }

    async fn connect(&mut self) -> Connection {
        self.last_poll = None;
        Connection::open(self.address).await.expect("ads listens")
    }

    async fn step(&mut self, connection: &mut Connection) {
        let next = Instant::now() + PAUSE;
        while self.poll(connection).await == LIMIT {}
        if self.last_look_back.elapsed() > LOOK_BACK_EVERY {
            self.last_look_back = Instant::now();
            if let Some(from) = self.cursor_before(LOOK_BACK) {
                self.look_back(connection, from).await;
            }
        }
        if self.last_said.elapsed() > SAY {
            self.last_said = Instant::now();
            say(&format!("  pipeline: {} ads are visible", show(self.seen.len() as f64)));
        }
        sleep_until(next.into()).await;
    }

    /// Reads the page after the cursor and returns its length.
    async fn poll(&mut self, connection: &mut Connection) -> usize {
        let sent = Instant::now();
        let page = read_page(connection, &self.cursor).await;
        let received = Instant::now();
        if let Some(previous) = self.last_poll.replace(sent) {
            self.gaps.push(received - previous);
        }
        for ad in &page {
            self.seen.entry(number(&ad.vin)).or_insert(received);
        }
        let length = page.len();
        if let Some(last) = page.into_iter().last() {
            self.cursors.push_back((received, last.id.clone()));
            self.cursor = last.id;
        }
        length
    }

    /// Returns the last cursor that was reached before `ago`.
    fn cursor_before(&mut self, ago: Duration) -> Option<String> {
        while self.cursors.get(1).is_some_and(|(reached, _)| reached.elapsed() > ago) {
            self.cursors.pop_front();
        }
        let (reached, cursor) = self.cursors.front()?;
        (reached.elapsed() > ago).then(|| cursor.clone())
    }

    /// Reads the list again up to the cursor and records the ads that were not seen.
    async fn look_back(&mut self, connection: &mut Connection, mut from: String) {
        loop {
            let page = read_page(connection, &from).await;
            let received = Instant::now();
            // UUIDs of version 7 sort in the same order as their texts.
            for ad in page.iter().filter(|ad| ad.id <= self.cursor) {
                self.seen.entry(number(&ad.vin)).or_insert_with(|| {
                    self.skipped += 1;
                    received
                });
            }
            match page.into_iter().last() {
                Some(last) if last.id < self.cursor => from = last.id,
                _ => return,
            }
        }
    }
}

async fn read_page(connection: &mut Connection, after: &str) -> Vec<Ad> {
    let after = if after.is_empty() { String::new() } else { format!("&after={after}") };
    let path = format!("/ads?limit={LIMIT}{after}");
    let answer = connection.get(&path).await.expect("ads responds, see ads.log");
    let body = connection.body(answer);
    assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(body));
    serde_json::from_slice(body).unwrap()
}

/// Returns the number in a VIN of the load generator.
fn number(vin: &str) -> u64 {
    u64::from_str_radix(vin.strip_prefix('V').unwrap(), 16).unwrap()
}
