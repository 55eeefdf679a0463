//! Runs clients that post vehicles to any instance and record the answers.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use tokio::task::JoinSet;
use vehicle_platform::https;

use crate::support::vehicle;

const CLIENTS: usize = 6;
/// The time between two vehicles of a client.
const PACE: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(120);

/// An instance as a load balancer sees it.
#[derive(Clone)]
pub struct Target {
    pub name: &'static str,
    pub url: String,
}

#[derive(Default)]
struct Book {
    stopped: AtomicBool,
    posted: AtomicU64,
    accepted: Mutex<HashMap<String, Instant>>,
    /// The count of answers by instance and status.
    answers: Mutex<BTreeMap<(&'static str, u16), usize>>,
    longest: Mutex<Duration>,
}

pub struct Load {
    book: Arc<Book>,
    clients: JoinSet<()>,
}

impl Load {
    pub fn start(targets: &[Target]) -> Self {
        Self::start_after(targets, 0)
    }

    /// Posts different vehicles than an earlier load that posted `posted` vehicles.
    pub fn start_after(targets: &[Target], posted: usize) -> Self {
        let book = Arc::new(Book { posted: AtomicU64::new(posted as u64), ..Book::default() });
        let client = https::client().timeout(Duration::from_secs(10)).build().unwrap();
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (book, client, targets) = (Arc::clone(&book), client.clone(), targets.to_vec());
            clients.spawn(async move {
                let mut ticks = tokio::time::interval(PACE);
                while !book.stopped.load(Ordering::Relaxed) {
                    ticks.tick().await;
                    let vin = format!("vin-{:06}", book.posted.fetch_add(1, Ordering::Relaxed));
                    book.post_until_accepted(&client, &targets, &vin).await;
                }
            });
        }
        Self { book, clients }
    }

    /// Stops posting and returns once every posted vehicle is accepted.
    pub async fn stop(&mut self) {
        self.book.stopped.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
    }

    /// Returns the accepted vehicles and when they were accepted.
    pub fn accepted(&self) -> HashMap<String, Instant> {
        self.book.accepted.lock().unwrap().clone()
    }

    pub fn answers(&self) -> BTreeMap<(&'static str, u16), usize> {
        self.book.answers.lock().unwrap().clone()
    }

    /// Returns the longest time from the first attempt of a client to the acceptance of its vehicle.
    pub fn longest_post(&self) -> Duration {
        *self.book.longest.lock().unwrap()
    }
}

impl Book {
    async fn post_until_accepted(&self, client: &Client, targets: &[Target], vin: &str) {
        let first_try = Instant::now();
        loop {
            let target = &targets[rand::random_range(0..targets.len())];
            if let Some(status) = post(client, target, vin).await {
                *self.answers.lock().unwrap().entry((target.name, status.as_u16())).or_insert(0) += 1;
                // A conflict means that a previous attempt was accepted, but its response was lost.
                if matches!(status, StatusCode::CREATED | StatusCode::CONFLICT) {
                    self.accepted.lock().unwrap().insert(vin.to_owned(), Instant::now());
                    let mut longest = self.longest.lock().unwrap();
                    *longest = longest.max(first_try.elapsed());
                    return;
                }
            }
            assert!(first_try.elapsed() < PATIENCE, "{vin} was not accepted");
            tokio::time::sleep(Duration::from_millis(rand::random_range(20..200))).await;
        }
    }
}

/// Posts a vehicle. Returns `None` when there was no answer.
async fn post(client: &Client, target: &Target, vin: &str) -> Option<StatusCode> {
    let request = client.post(format!("{}/stock", target.url)).json(&vehicle(vin));
    Some(request.send().await.ok()?.status())
}
