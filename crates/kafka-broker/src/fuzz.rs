//! Sends mutated requests, batches and journal entries through all code that reads bytes from outside.
//!
//! `FUZZ_RUNS` sets the number of mutants of each test, `FUZZ_SEED` repeats a run. The corpus has a request of each API
//! at each version, as clients send them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::batch::{self, BatchHeader};
use crate::client::Client;
use crate::connection;
use crate::core::Core;
use crate::entry::Entry;
use crate::limits::Limits;
use crate::memory::Room;
use crate::shared::Shared;

const REQUESTS: &str = include_str!("../corpus/requests.hex");
const ENTRIES: &str = include_str!("../corpus/entries.hex");
/// Mutants after which the broker under test is replaced, so that what they create does not accumulate.
const RUNS_PER_BROKER: usize = 5000;
const IN_FLIGHT: usize = 64;
/// Time for requests that wait for records or members.
const PATIENCE: Duration = Duration::from_millis(5);
/// Memory that the tests may use in addition, in KiB.
const MEMORY: u64 = 512 * 1024;

fn runs() -> usize {
    std::env::var("FUZZ_RUNS").map_or(10_000, |runs| runs.parse().unwrap())
}

/// Generates numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = std::env::var("FUZZ_SEED").map_or_else(
            |_| SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64,
            |seed| seed.parse().unwrap(),
        );
        println!("FUZZ_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// Returns a number at which code is likely to fail.
    fn edge(&mut self) -> u64 {
        const EDGES: [i64; 12] =
            [0, 1, -1, 2, 127, 128, 255, 256, i16::MAX as i64, i32::MAX as i64, i32::MIN as i64, i64::MAX];
        EDGES[self.below(EDGES.len())].cast_unsigned()
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            let end = (at + 1 + self.below(8)).min(bytes.len());
            match self.below(8) {
                _ if bytes.is_empty() => bytes.push(self.next() as u8),
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.edge() as u8,
                2 | 3 => {
                    let size = [2, 4, 8][self.below(3)].min(bytes.len() - at);
                    let number = self.edge().to_be_bytes();
                    bytes[at..at + size].copy_from_slice(&number[8 - size..]);
                }
                4 => drop(bytes.drain(at..end)),
                5 => {
                    let repeated = bytes[at..end].to_vec();
                    bytes.splice(at..at, repeated);
                }
                6 => {
                    let other = &corpus[self.below(corpus.len())];
                    let from = self.below(other.len());
                    bytes.truncate(at);
                    bytes.extend(&other[from..]);
                }
                _ => bytes.truncate(at),
            }
        }
    }

    /// Returns a mutant that usually has the API and the version of a request in the corpus.
    fn request(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        const API_AND_VERSION: usize = 4;
        if self.below(4) == 0 {
            return self.mutant(corpus);
        }
        let mut start = corpus[self.below(corpus.len())].clone();
        let mut rest = start.split_off(API_AND_VERSION);
        self.mutate(&mut rest, corpus);
        start.extend(rest);
        start
    }

    fn mutant(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = corpus[self.below(corpus.len())].clone();
        self.mutate(&mut bytes, corpus);
        bytes
    }
}

fn corpus(hex: &str) -> Vec<Vec<u8>> {
    let lines = hex.lines().filter(|line| !line.starts_with('#'));
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    lines.map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect()
}

/// Returns the largest memory of the process so far in KiB, where the system reports it.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
    peak.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_makes_the_broker_panic_or_use_much_memory() {
    let corpus = corpus(REQUESTS);
    let mut random = Random::new();
    let before = peak_memory();
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let panicked = Arc::new(AtomicBool::new(false));
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new({
        // A handler turns the panic of another thread into an error.
        let panicked = panicked.clone();
        move |info| {
            panicked.store(true, Ordering::Relaxed);
            default_hook(info);
        }
    }));
    let (mut sent, mut answered) = (0, 0);
    let mut left = runs();
    while left > 0 {
        let core = tokio::task::spawn_blocking(|| Core::temporary(1 << 20)).await.unwrap().unwrap();
        let shared = Arc::new(Shared::new(core, peer, Limits::default()));
        let deadlines = tokio::spawn(crate::deadlines::keep(shared.clone()));
        // The requests of the corpus first, so that mutants meet topics, groups and transactions.
        let mut frames: Vec<Vec<u8>> = corpus.clone();
        frames.extend((0..RUNS_PER_BROKER.min(left)).map(|_| random.request(&corpus)));
        left = left.saturating_sub(RUNS_PER_BROKER);
        let client = Arc::new(Client::new(peer.ip()));
        let mut running = JoinSet::new();
        for frame in frames {
            if running.len() == IN_FLIGHT {
                answered += usize::from(running.join_next().await.unwrap().unwrap());
            }
            sent += 1;
            let (shared, client) = (shared.clone(), client.clone());
            running.spawn(async move {
                let handled = connection::handle(&shared, frame.into(), Room::default(), &client);
                matches!(tokio::time::timeout(PATIENCE, handled).await, Ok(Ok(Some(_))))
            });
        }
        while let Some(ended) = running.join_next().await {
            answered += usize::from(ended.unwrap());
        }
        shared.shutdown.cancel();
        deadlines.await.unwrap();
    }
    println!("{answered} of {sent} requests were answered");
    assert!(answered > sent / 5);
    assert!(!panicked.load(Ordering::Relaxed));
    let used = peak_memory().saturating_sub(before);
    assert!(used < MEMORY, "{used} KiB were used");
}

fn batches() -> Vec<Vec<u8>> {
    let records: [(u8, u8, &[u8]); 3] =
        [(0, 5, b"a value"), (1, 30, b""), (2, 7, b"a value a value a value")];
    (0..=4).map(|codec| batch::tests::batch(codec, &records)).collect()
}

/// Sets length and checksum of a batch, so that the validation does not end with them.
fn sealed(mut batch: Vec<u8>) -> Vec<u8> {
    if batch.len() > 21 {
        let length = (batch.len() - 12) as u32;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        batch[16] = 2;
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    batch
}

#[test]
fn a_batch_that_is_accepted_can_be_read_and_placed() {
    let corpus = batches();
    let mut random = Random::new();
    let before = peak_memory();
    let mut accepted = 0;
    for run in 0..runs() {
        let mut bytes = corpus[random.below(corpus.len())].clone();
        if run >= corpus.len() {
            let mut records = bytes.split_off(21);
            random.mutate(&mut records, &corpus);
            bytes.extend(records);
        }
        let bytes = sealed(bytes);
        let Ok(header) = BatchHeader::validate(&bytes, 8, &batch::tests::rules()) else { continue };
        accepted += 1;
        let stored = batch::stamped(&batch::placed_at(&bytes, 70), header.max_timestamp, false);
        let found = batch::first_at_or_after(&stored, header.max_timestamp, 70);
        let (timestamp, offset) = found.unwrap_or((header.max_timestamp, 70));
        assert_eq!(timestamp, header.max_timestamp);
        assert!((70..=70 + i64::from(header.last_offset_delta)).contains(&offset));
    }
    assert!(accepted > 0);
    let used = peak_memory().saturating_sub(before);
    assert!(used < MEMORY, "{used} KiB were used");
}

#[test]
fn an_entry_that_is_read_is_written_with_the_same_bytes() {
    let corpus = corpus(ENTRIES);
    let mut random = Random::new();
    for entry in &corpus {
        assert!(Entry::decode(entry.clone().into()).is_ok());
    }
    for _ in 0..runs() {
        let bytes = Bytes::from(random.mutant(&corpus));
        if let Ok(entry) = Entry::decode(bytes.clone()) {
            assert_eq!(Entry::decode(entry.encode()).unwrap(), entry);
        }
    }
}
