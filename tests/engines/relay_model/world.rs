//! Runs databases, clusters and relays, and performs actions on them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vehicle_platform::database::DatabaseError;
use vehicle_platform::stock::relay::{
    Fencings, RelayMetrics, Retries, Session, SessionError, SessionSettings,
};
use vehicle_platform::stock::vehicle_store::NewVehicle;
use vehicle_platform::trace::TraceContext;
use vehicle_platform::vehicle::parse_vehicle;

use super::cluster::{ModelCluster, ModelProducer, REFUSED, UNENCODABLE};
use super::database::{Database, Maker};
use super::gate::{Gate, GatedLog};
use crate::support;
use crate::support::engines::answer;

/// The maximum number of databases, and of relays per database.
const DATABASES: usize = 3;
const RELAYS: usize = 3;
/// The maximum number of calls for a relay to publish all events.
const PATIENCE: usize = 3_000;

/// An action. Indexes are taken modulo the number of elements.
#[derive(Clone, Debug)]
pub enum Action {
    Insert {
        database: usize,
        encodable: bool,
    },
    /// A relay takes the lease, regardless of its holder.
    Start {
        database: usize,
    },
    /// A relay makes some calls and is then suspended.
    Step {
        relay: usize,
        calls: usize,
    },
    Crash {
        relay: usize,
    },
    LoseAnswer {
        cluster: usize,
    },
    FailPublish {
        cluster: usize,
    },
    FailEncode {
        cluster: usize,
    },
    /// Sets whether relays that start from now on encode everything.
    Release {
        encodes_all: bool,
    },
    /// A copy runs in parallel with the original.
    Copy {
        database: usize,
    },
    Backup {
        database: usize,
    },
    Restore {
        backup: usize,
    },
    /// The newest events are lost, possibly including the last change of the lease. Sessions continue, as behind a
    /// pooler.
    Failover {
        database: usize,
        kept: usize,
        lease: bool,
    },
    ExpireMark {
        database: usize,
    },
    MoveMark {
        database: usize,
        by: i64,
    },
    ChangeCluster {
        database: usize,
    },
    /// Removes the offsets of all groups together with the topic.
    RecreateTopic {
        cluster: usize,
    },
}

struct Relay {
    database: usize,
    gate: Gate,
    task: JoinHandle<Result<(), SessionError>>,
}

struct Site {
    database: Database,
    cluster: usize,
    fencings: Fencings,
    /// Earlier states of the lease.
    leases: Vec<String>,
    /// What the process of the last session that ended retried. The next session continues in that process.
    retries: Arc<Mutex<Retries>>,
}

impl Site {
    fn new(database: Database, cluster: usize, leases: Vec<String>) -> Self {
        Self { database, cluster, fencings: Fencings::default(), leases, retries: Arc::default() }
    }
}

pub struct World {
    maker: Maker,
    sites: Vec<Site>,
    backups: Vec<(usize, Database)>,
    clusters: [ModelCluster; 2],
    relays: Vec<Relay>,
    inserted: usize,
    started: usize,
    encodes_all: bool,
}

/// The violations found at the end.
#[derive(Debug, Default)]
pub struct Verdict {
    pub lost: Vec<String>,
    pub doubled: Vec<String>,
}

impl World {
    pub async fn new(engine: &str) -> Self {
        let mut maker = Maker::new(engine);
        let database = maker.create().await;
        Self {
            maker,
            sites: vec![Site::new(database, 0, Vec::new())],
            backups: Vec::new(),
            clusters: [ModelCluster::named("one"), ModelCluster::named("two")],
            relays: Vec::new(),
            inserted: 0,
            started: 0,
            encodes_all: true,
        }
    }

    pub async fn perform(&mut self, action: Action) {
        match action {
            Action::Insert { database, encodable } => self.insert(database, encodable).await,
            Action::Start { database } => {
                let database = database % self.sites.len();
                if self.relays.iter().filter(|relay| relay.database == database).count() < RELAYS {
                    self.start(database).await;
                }
            }
            Action::Step { relay, calls } => {
                if !self.relays.is_empty() {
                    let relay = relay % self.relays.len();
                    self.relays[relay].gate.let_pass(calls).await;
                    self.reap(relay).await;
                }
            }
            Action::Crash { relay } => {
                if !self.relays.is_empty() {
                    let relay = self.relays.remove(relay % self.relays.len());
                    crash(relay).await;
                }
            }
            Action::LoseAnswer { cluster } => self.clusters[cluster].0.lock().unwrap().lose_answer = true,
            Action::FailPublish { cluster } => self.clusters[cluster].0.lock().unwrap().fail_publish = true,
            Action::FailEncode { cluster } => self.clusters[cluster].0.lock().unwrap().fail_encode = true,
            Action::Release { encodes_all } => self.encodes_all = encodes_all,
            Action::Copy { database } => {
                if self.sites.len() < DATABASES {
                    let original = database % self.sites.len();
                    self.crash_all(original).await;
                    let copy = self.maker.copy(&mut self.sites[original].database).await;
                    let cluster = self.sites[original].cluster;
                    let leases = self.sites[original].leases.clone();
                    self.sites.push(Site::new(copy, cluster, leases));
                }
            }
            Action::Backup { database } => {
                let database = database % self.sites.len();
                self.crash_all(database).await;
                let copy = self.maker.copy(&mut self.sites[database].database).await;
                self.backups.push((database, copy));
            }
            Action::Restore { backup } => {
                if !self.backups.is_empty() {
                    let backup = backup % self.backups.len();
                    let (database, mut backup) = self.backups.swap_remove(backup);
                    self.crash_all(database).await;
                    let restored = self.maker.copy(&mut backup).await;
                    self.sites[database].database = restored;
                    self.backups.push((database, backup));
                }
            }
            Action::Failover { database, kept, lease } => {
                let site = &self.sites[database % self.sites.len()];
                let events = site.database.events().await;
                let kept = kept % (events.len() + 1);
                let kept = if kept == 0 { 0 } else { events[kept - 1].0 };
                site.database.lose_events_after(kept).await;
                if lease && !site.leases.is_empty() {
                    site.database.set_lease(&site.leases[site.leases.len() / 2]).await;
                }
            }
            Action::ExpireMark { database } => {
                let site = &self.sites[database % self.sites.len()];
                let identity = site.database.identity().await;
                self.clusters[site.cluster].0.lock().unwrap().marks.remove(&identity);
            }
            Action::MoveMark { database, by } => {
                let site = &self.sites[database % self.sites.len()];
                let identity = site.database.identity().await;
                if let Some(mark) = self.clusters[site.cluster].0.lock().unwrap().marks.get_mut(&identity) {
                    mark.offset = (mark.offset + by).max(0);
                }
            }
            Action::ChangeCluster { database } => {
                let database = database % self.sites.len();
                self.crash_all(database).await;
                self.sites[database].cluster = 1 - self.sites[database].cluster;
            }
            Action::RecreateTopic { cluster } => self.clusters[cluster].0.lock().unwrap().marks.clear(),
        }
    }

    async fn insert(&mut self, database: usize, encodable: bool) {
        let number = self.inserted;
        self.inserted += 1;
        let kind = match (encodable, number % 2) {
            (true, _) => "vin",
            (false, 0) => UNENCODABLE,
            (false, _) => REFUSED,
        };
        let vin = format!("{kind}-{number}");
        let vehicle = parse_vehicle(&support::vehicle(&vin), 2026).unwrap();
        let new = NewVehicle::new(vehicle, &TraceContext::new_root()).unwrap();
        let index = database % self.sites.len();
        let store = self.sites[index].database.store().await;
        answer(async || store.appender().await?.append(&[&new]).await).await;
    }

    async fn start(&mut self, index: usize) {
        self.started += 1;
        let (number, encodes_all) = (self.started, self.encodes_all);
        let site = &mut self.sites[index];
        let store = site.database.store().await;
        let (log, lease) = answer(async || {
            let mut log = store.event_log().await?;
            let seen = log.lease().await?;
            let lease = log.take(&seen, &format!("relay-{number}")).await?;
            Ok((log, lease.unwrap()))
        })
        .await;
        site.leases.push(site.database.lease_statement().await);
        let gate = Gate::default();
        let replace_identity = site.fencings.is_shared_identity();
        let cluster = self.clusters[site.cluster].clone();
        let process = Arc::clone(&site.retries);
        let task = tokio::spawn({
            let gate = gate.clone();
            async move {
                let mut log = GatedLog {
                    inner: log,
                    gate: gate.clone(),
                    writes_position: number % 2 == 0,
                    has_written: false,
                };
                let mut retries = std::mem::take(&mut *process.lock().unwrap());
                let session = Session {
                    log: &mut log,
                    cluster: ModelProducer {
                        cluster,
                        gate: gate.clone(),
                        encodes_all,
                        begun: None,
                        sends_alone: false,
                    },
                    lease,
                    first_batch: 3,
                    retries: &mut retries,
                    settings: &SessionSettings {
                        batch_events: 3,
                        // Only with a permit of the test.
                        beat: Duration::from_secs(3_600),
                        look_again: Duration::ZERO,
                        pace: Duration::ZERO,
                        ..SessionSettings::default()
                    },
                    arrivals: Arc::default(),
                    metrics: RelayMetrics::default(),
                    shutdown: CancellationToken::new(),
                };
                let result = session.run(replace_identity).await;
                *process.lock().unwrap() = retries;
                gate.end();
                result
            }
        });
        self.relays.push(Relay { database: index, gate, task });
    }

    /// Records how a relay ended, if it has.
    async fn reap(&mut self, index: usize) {
        if !self.relays[index].gate.has_ended() {
            return;
        }
        let relay = self.relays.remove(index);
        let error = relay.task.await.unwrap().unwrap_err();
        match &error {
            // As good as a crash.
            SessionError::Database(DatabaseError::Unavailable(_)) => return,
            SessionError::Database(error) => panic!("{error:#}"),
            _ => {}
        }
        self.sites[relay.database].fencings.note(&error, Duration::ZERO);
    }

    async fn crash_all(&mut self, database: usize) {
        *self.sites[database].retries.lock().unwrap() = Retries::default();
        let (gone, left) = std::mem::take(&mut self.relays)
            .into_iter()
            .partition(|relay: &Relay| relay.database == database);
        self.relays = left;
        for relay in Vec::<Relay>::into_iter(gone) {
            crash(relay).await;
        }
        self.sites[database].database.close();
    }

    /// Lets every relay catch up with a release that encodes everything, then compares the results.
    pub async fn finish(mut self) -> Verdict {
        for relay in std::mem::take(&mut self.relays) {
            crash(relay).await;
        }
        for cluster in &self.clusters {
            let mut state = cluster.0.lock().unwrap();
            (state.lose_answer, state.fail_publish, state.fail_encode) = (false, false, false);
        }
        self.encodes_all = true;
        for site in &self.sites {
            *site.retries.lock().unwrap() = Retries::default();
        }
        let mut verdict = Verdict::default();
        for index in 0..self.sites.len() {
            self.catch_up(index).await;
            let site = &self.sites[index];
            let published = self.clusters[site.cluster].0.lock().unwrap().published.clone();
            let mut counts = BTreeMap::<String, usize>::new();
            for (_, event_id, vin) in site.database.events().await {
                let count = published.iter().filter(|&published| *published == event_id).count();
                // An event that could not be encoded may be in the log again under another id.
                *counts.entry(vin).or_default() += count;
            }
            for (vin, count) in counts {
                match count {
                    0 => verdict.lost.push(format!("{vin} of database {index}")),
                    1 => {}
                    count => verdict.doubled.push(format!("{vin} of database {index}: {count} times")),
                }
            }
        }
        self.sites.iter_mut().for_each(|site| site.database.close());
        self.maker.clear().await;
        verdict
    }

    async fn catch_up(&mut self, index: usize) {
        let mut calls = 0;
        while calls < PATIENCE {
            self.start(index).await;
            let place = self.relays.len() - 1;
            while calls < PATIENCE && !self.relays[place].gate.has_ended() {
                self.relays[place].gate.let_pass(1).await;
                calls += 1;
                if self.relays[place].gate.is_idle() {
                    crash(self.relays.remove(place)).await;
                    return;
                }
            }
            self.reap(place).await;
        }
        panic!("the relay of database {index} did not catch up");
    }
}

/// Aborts a relay at its current call.
async fn crash(relay: Relay) {
    relay.task.abort();
    let _ = relay.task.await;
}
