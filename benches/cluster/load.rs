//! Posts vehicles from many connections and counts the responses.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::LocalSet;
use tokio::time::{sleep_until, timeout};

use crate::http::Connection;

/// Longest wait for the last responses of a round.
const LAST_RESPONSES: Duration = Duration::from_secs(30);

/// The responses to a load.
#[derive(Default)]
pub struct Tally {
    /// 201 responses.
    pub accepted: u64,
    /// 503 responses.
    pub refused: u64,
    /// 503 responses without `Retry-After`; `refused` includes them.
    pub without_retry_after: u64,
    /// Requests with another response or none.
    pub failed: u64,
    /// Latency of each accepted request, from when it was sent.
    pub from_send: Vec<Duration>,
    /// Latency of each accepted request, from its scheduled time.
    pub from_schedule: Vec<Duration>,
    /// The number in the VIN of each accepted request, and when its response arrived.
    pub accepted_at: Vec<(u64, Instant)>,
    pub elapsed: Duration,
}

impl Tally {
    pub fn sent(&self) -> u64 {
        self.accepted + self.refused + self.failed
    }

    /// Returns the accepted vehicles per second.
    pub fn rate(&self) -> f64 {
        self.accepted as f64 / self.elapsed.as_secs_f64()
    }

    fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.without_retry_after += other.without_retry_after;
        self.failed += other.failed;
        self.from_send.extend(other.from_send);
        self.from_schedule.extend(other.from_schedule);
        self.accepted_at.extend(other.accepted_at);
    }
}

/// How requests are scheduled.
#[derive(Clone, Copy)]
pub enum Pace {
    /// Each connection sends its next request when the previous one was answered.
    Closed,
    /// Requests are due at a fixed rate. A request that finds all connections busy is sent late.
    Open { per_second: f64 },
}

/// Posts to `address` over `connections` connections for `length`, on the current thread.
pub async fn post(address: SocketAddr, connections: u32, length: Duration, pace: Pace) -> Tally {
    let started = Instant::now();
    let schedule = Rc::new(Schedule { started, until: started + length, pace, taken: Cell::new(0) });
    let local = LocalSet::new();
    let clients: Vec<_> =
        (0..connections).map(|_| local.spawn_local(drive(address, Rc::clone(&schedule)))).collect();
    let mut tally = Tally::default();
    let all = local.run_until(async {
        for client in clients {
            tally.add(client.await.unwrap());
        }
    });
    timeout(length + LAST_RESPONSES, all).await.expect("no response within 30 s");
    tally.elapsed = started.elapsed();
    tally
}

struct Schedule {
    started: Instant,
    until: Instant,
    pace: Pace,
    taken: Cell<u64>,
}

impl Schedule {
    /// Returns when the next request is due, or `None` after the end of the load.
    fn take(&self) -> Option<Instant> {
        let now = Instant::now();
        let due = match self.pace {
            Pace::Closed => now,
            Pace::Open { per_second } => {
                self.started + Duration::from_secs_f64(self.taken.get() as f64 / per_second)
            }
        };
        self.taken.set(self.taken.get() + 1);
        (due < self.until && now < self.until).then_some(due)
    }
}

async fn drive(address: SocketAddr, schedule: Rc<Schedule>) -> Tally {
    let mut tally = Tally::default();
    let mut connection = None;
    let mut request = Request::new();
    while let Some(due) = schedule.take() {
        if due > Instant::now() {
            sleep_until(due.into()).await;
        }
        let sent = Instant::now();
        let Ok(answer) = try_post(&mut connection, address, request.next()).await else {
            connection = None;
            tally.failed += 1;
            continue;
        };
        match answer.status {
            201 => {
                let now = Instant::now();
                tally.accepted += 1;
                tally.from_send.push(now - sent);
                tally.from_schedule.push(now - due);
                tally.accepted_at.push((request.number, now));
            }
            503 => {
                tally.refused += 1;
                tally.without_retry_after += u64::from(!answer.has_retry_after);
            }
            _ => tally.failed += 1,
        }
        if answer.closes {
            connection = None;
        }
    }
    tally
}

async fn try_post(
    connection: &mut Option<Connection>,
    address: SocketAddr,
    request: &[u8],
) -> std::io::Result<crate::http::Answer> {
    let open = match connection {
        Some(open) => open,
        None => connection.insert(Connection::open(address).await?),
    };
    open.exchange(request).await
}

/// A request buffer in which each vehicle's VIN replaces the previous one.
struct Request {
    bytes: Vec<u8>,
    vin_at: usize,
    /// The hexadecimal number in the VIN.
    number: u64,
}

thread_local! {
    /// Starts at a random number, so that runs on the same database do not repeat VINs.
    static VEHICLES: Cell<u64> = Cell::new(rand::random());
}

impl Request {
    fn new() -> Self {
        let (before, after) = (
            r#"{"vin":""#,
            r#"","model":"model","manufacturer":"manufacturer","year":2022,"odometer":1000,"odometerUnit":"km"}"#,
        );
        let length = before.len() + 17 + after.len();
        let head = format!(
            "POST /stock HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{before}"
        );
        let vin_at = head.len();
        Self { bytes: format!("{head}V0000000000000000{after}").into_bytes(), vin_at, number: 0 }
    }

    fn next(&mut self) -> &[u8] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.number = scatter(VEHICLES.replace(VEHICLES.get().wrapping_add(1)));
        let mut number = self.number;
        for digit in self.bytes[self.vin_at + 1..self.vin_at + 17].iter_mut().rev() {
            *digit = DIGITS[usize::try_from(number & 15).unwrap()];
            number >>= 4;
        }
        &self.bytes
    }
}

/// Permutes numbers (the finalizer of `SplitMix64`), so that VINs do not arrive in index order.
fn scatter(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
