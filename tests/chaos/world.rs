//! The platform on the cluster, with a proxy on each line, and the faults that can be injected.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, OnceCell};

use crate::fault::{Engine, Fault};
use crate::load::{Ledger, Target};
use crate::poison::Written;
use crate::support::cluster::{ADS, ESTIMATES, Engines, NAMES, Platform, Role, Roles, STOCK, Setup};
use crate::support::engines::address;
use crate::support::node::{self, Node};
use crate::support::proxy::{Line, Proxy};
use crate::support::{BINARY, eventually};
use crate::twin::{Life, WAYS};
use crate::verdict::History;

pub const TOPICS: [&str; 2] = ["stock.vehicle-created", "stock.vehicle-processed"];

/// The time for a role to end: its deadline of 10 s and some slack for a busy machine.
const TERMINATION_LIMIT: Duration = Duration::from_secs(12);

const SIGTERM: i32 = 15;

const TWIN: &str = "the second stock";
const NAMESAKE: &str = "the second process with the same name";

/// The lines of one role.
pub struct Lines {
    brokers: Vec<Proxy>,
    registry: Proxy,
    database: Option<Proxy>,
}

impl Lines {
    fn to(&self, engine: Engine) -> Vec<Proxy> {
        match engine {
            Engine::Kafka => self.brokers.clone(),
            Engine::Broker(number) => vec![self.brokers[number - 1].clone()],
            Engine::Registry => vec![self.registry.clone()],
            Engine::Database => self.database.iter().cloned().collect(),
        }
    }
}

/// The environment of the run. Each role, line and node has at most one fault at a time.
pub struct World {
    pub platform: Arc<Platform>,
    pub ledger: Arc<Ledger>,
    roles: Vec<Mutex<Role>>,
    /// A second stock for each kind of lines, of which at most one is running.
    twins: [Mutex<Role>; WAYS.len()],
    /// The URL of the second stock that is running.
    twin_url: Arc<std::sync::Mutex<Option<String>>>,
    /// A second process for each role except stock, which runs only temporarily.
    namesakes: BTreeMap<usize, Mutex<Role>>,
    pub lines: Vec<Mutex<Lines>>,
    pub nodes: BTreeMap<&'static str, Mutex<Node>>,
    began: Instant,
    recreations: AtomicUsize,
    counts: Mutex<BTreeMap<&'static str, usize>>,
    pub written: Mutex<Vec<Written>>,
    /// The bytes that precede an event of each topic.
    pub frames: [OnceCell<Vec<u8>>; 2],
    pub archived: Mutex<[Vec<String>; 2]>,
    /// Unexpected events: a role that ended by itself or not as requested.
    breaches: Mutex<Vec<String>>,
}

impl World {
    /// Starts the roles. Reports and returns `None` when there is no cluster.
    pub async fn start(processing_time: &str, logs: &Path) -> Option<Self> {
        let base: u16 = address("the cluster", "TEST_CLUSTER_PORT_BASE")?.parse().unwrap();
        let mut nodes = BTreeMap::new();
        for name in node::names()? {
            nodes.insert(name, Mutex::new(Node::named(name)?));
        }
        let engine = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let mut lines = Vec::new();
        let mut addresses = Vec::new();
        for number in 1..=4 {
            let mut brokers = Vec::new();
            for broker in 1..=3 {
                // As the brokers advertise it: see role_port and proxied_port in tests/cluster/nodes.sh.
                let (listens, advertises) =
                    (base + 200 + 10 * number + broker, base + 300 + 10 * number + broker);
                brokers.push(Proxy::start(advertises, engine(listens)).await.0);
            }
            let (registry, registry_port) = Proxy::start(0, engine(base + 40)).await;
            let database_at = match usize::from(number) - 1 {
                STOCK => Some(base + 50),
                ADS => Some(base + 60),
                _ => None,
            };
            let (database, database_port) = match database_at {
                Some(port) => {
                    let (proxy, proxy_port) = Proxy::start(0, engine(port)).await;
                    (Some(proxy), Some((port, proxy_port)))
                }
                None => (None, None),
            };
            let bootstrap: Vec<_> =
                (1..=3).map(|broker| format!("127.0.0.1:{}", base + 300 + 10 * number + broker)).collect();
            addresses.push((bootstrap.join(","), registry_port, database_port));
            lines.push(Mutex::new(Lines { brokers, registry, database }));
        }
        // The engines of the first stock.
        let engines = std::cell::OnceCell::new();
        let reroute = |role: usize, direct: Engines| {
            if role == STOCK {
                engines.set(direct.clone()).unwrap();
            }
            let (bootstrap, registry_port, database_port) = &addresses[role];
            let moved = |url: String, from: u16, to: u16| {
                let (from, to) = (format!(":{from}/"), format!(":{to}/"));
                assert!(url.contains(&from), "an engine has an unexpected port");
                url.replace(&from, &to)
            };
            Engines {
                kafka: bootstrap.clone(),
                registry: moved(direct.registry, base + 40, *registry_port),
                database: direct.database.zip(*database_port).map(|(url, (from, to))| moved(url, from, to)),
            }
        };
        let binary = std::env::var("CHAOS_BINARY").unwrap_or_else(|_| BINARY.to_owned());
        let setup =
            Setup { processing_time, binary: &binary, logs: Some(logs.to_owned()), reroute: &reroute };
        let mut roles = Roles::prepare(&setup).await?;
        roles.start_all().await;
        for (role, name) in roles.roles.iter().zip(NAMES) {
            eventually(&format!("{name} to handle SIGTERM"), async || role.catches_sigterm().then_some(()))
                .await;
        }
        let stock = &roles.roles[STOCK];
        let (second, mut direct) = (stock.twin(), stock.twin());
        direct.reach(engines.get().unwrap());
        let namesakes =
            [ESTIMATES[0], ESTIMATES[1], ADS].map(|role| (role, Mutex::new(roles.roles[role].twin())));
        println!("the faults begin at {}", chrono::Utc::now().format("%T%.3f"));
        let world = Self {
            platform: Arc::new(roles.platform),
            ledger: Arc::default(),
            namesakes: namesakes.into(),
            twins: [second, direct].map(Mutex::new),
            twin_url: Arc::default(),
            roles: roles.roles.into_iter().map(Mutex::new).collect(),
            lines,
            nodes,
            began: Instant::now(),
            recreations: AtomicUsize::new(0),
            counts: Mutex::default(),
            written: Mutex::default(),
            frames: Default::default(),
            archived: Mutex::default(),
            breaches: Mutex::default(),
        };
        world.refuse_some_ads().await;
        Some(world)
    }

    /// Injects a fault and reverts it after `hold`.
    pub async fn inject(&self, fault: Fault, hold: Duration) {
        match fault {
            Fault::KillRole(role) => {
                let mut role = self.roles[role].lock().await;
                self.report(fault, hold).await;
                role.kill();
                tokio::time::sleep(hold).await;
                role.start();
            }
            Fault::TerminateRole(index) => {
                let mut role = self.roles[index].lock().await;
                self.report(fault, hold).await;
                self.terminate(&mut role, NAMES[index]).await;
                tokio::time::sleep(hold).await;
                role.start();
            }
            Fault::PauseRole(role) => {
                let role = self.roles[role].lock().await;
                self.report(fault, hold).await;
                role.pause();
                tokio::time::sleep(hold).await;
                role.resume();
            }
            Fault::KillNode(node) => self.disturb(fault, node, "kill", "start", hold).await,
            Fault::StopNode(node) => self.disturb(fault, node, "stop", "start", hold).await,
            Fault::PauseNode(node) => self.disturb(fault, node, "pause", "resume", hold).await,
            Fault::Sever(role, engine) => self.cut(fault, role, engine, Line::Severed, hold).await,
            Fault::Silence(role, engine) => self.cut(fault, role, engine, Line::Silent, hold).await,
            Fault::BlackHole(role, engine) => self.cut(fault, role, engine, Line::Dropped, hold).await,
            Fault::Poison(poison, topic) => {
                let _open = self.ledger.gate.read().await;
                self.report(fault, hold).await;
                self.poison(poison, topic).await;
            }
            Fault::Namesake { role, is_killed } => {
                let mut namesake = self.namesakes[&role].lock().await;
                self.report(fault, hold).await;
                namesake.start();
                tokio::time::sleep(hold).await;
                if is_killed {
                    namesake.kill();
                } else {
                    self.terminate(&mut namesake, NAMESAKE).await;
                }
            }
            Fault::Recreate(topic) => self.recreate(topic, fault).await,
        }
    }

    async fn disturb(&self, fault: Fault, node: &str, how: &'static str, back: &'static str, hold: Duration) {
        let node = self.nodes[node].lock().await;
        self.report(fault, hold).await;
        let run = async |command: &'static str| {
            let node = node.clone();
            tokio::task::spawn_blocking(move || node.run(command)).await.unwrap();
        };
        run(how).await;
        tokio::time::sleep(hold).await;
        run(back).await;
    }

    async fn cut(&self, fault: Fault, role: usize, engine: Engine, line: Line, hold: Duration) {
        let lines = self.lines[role].lock().await;
        self.report(fault, hold).await;
        let cut = lines.to(engine);
        cut.iter().for_each(|proxy| proxy.set(line));
        tokio::time::sleep(hold).await;
        cut.iter().for_each(|proxy| proxy.set(Line::Open));
    }

    /// Returns whether a fault can start now. A black hole occupies the lines of its role for a long time.
    pub fn has_room_for(&self, fault: Fault) -> bool {
        match fault {
            Fault::Sever(role, _) | Fault::Silence(role, _) | Fault::BlackHole(role, _) => {
                self.lines[role].try_lock().is_ok()
            }
            Fault::Namesake { role, .. } => self.namesakes[&role].try_lock().is_ok(),
            // Needs all lines and pauses the load meanwhile.
            Fault::Recreate(_) => self.lines.iter().all(|lines| lines.try_lock().is_ok()),
            _ => true,
        }
    }

    /// Starts the second stock and ends it.
    pub async fn host(&self, life: &Life) {
        let twin = &self.twins[life.way];
        self.note("second stocks started", &format!("start {TWIN}, {}", WAYS[life.way]), life.lasts).await;
        let url = {
            let mut twin = twin.lock().await;
            twin.start();
            twin.url()
        };
        *self.twin_url.lock().unwrap() = Some(url);
        tokio::time::sleep(life.lasts).await;
        if let Some(pause) = life.pause {
            {
                let twin = twin.lock().await;
                self.note("second stocks paused", &format!("pause {TWIN}"), pause).await;
                twin.pause();
                tokio::time::sleep(pause).await;
                twin.resume();
            }
            tokio::time::sleep(life.lasts).await;
        }
        let mut twin = twin.lock().await;
        if life.is_killed {
            self.note("second stocks killed", &format!("kill {TWIN}"), Duration::ZERO).await;
            twin.kill();
        } else {
            self.note("second stocks terminated", &format!("terminate {TWIN}"), Duration::ZERO).await;
            self.terminate(&mut twin, TWIN).await;
        }
        // Requests in progress at its end are the point of the fault, so clients use it until now.
        *self.twin_url.lock().unwrap() = None;
    }

    async fn terminate(&self, role: &mut Role, name: &str) {
        // A process that has just started may not have installed its signal handlers yet.
        let handles = role.catches_sigterm();
        let (status, took) = role.terminate().await;
        let well = status.code() == Some(0) || (status.signal() == Some(SIGTERM) && !handles);
        if !well || took > TERMINATION_LIMIT {
            let what = format!("{name} ended on SIGTERM after {took:?} with {status}");
            println!("{:7.1} s  {what}", self.age().as_secs_f64());
            self.breaches.lock().await.push(what);
        }
    }

    pub async fn report(&self, fault: Fault, hold: Duration) {
        self.note(fault.kind(), &fault.to_string(), hold).await;
    }

    pub async fn note(&self, kind: &'static str, what: &str, hold: Duration) {
        *self.counts.lock().await.entry(kind).or_default() += 1;
        println!("{:7.1} s  {what} ({:.1} s)", self.age().as_secs_f64(), hold.as_secs_f64());
    }

    /// Returns the time since the start.
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Returns whether no fault affects a node that publishing requires.
    pub fn publishing_nodes_are_up(&self) -> bool {
        self.nodes.iter().all(|(name, node)| *name == "mongodb" || node.try_lock().is_ok())
    }

    /// Returns the names and URLs of the running stocks.
    pub fn stocks(&self) -> Vec<(String, String)> {
        let twin = self.twin_url.lock().unwrap().clone().map(|url| (TWIN.to_owned(), url));
        let first = (NAMES[STOCK].to_owned(), self.platform.stock_url().to_owned());
        [first].into_iter().chain(twin).collect()
    }

    /// Returns a function that lists the stocks that accept vehicles at the time of the call.
    pub fn targets(&self) -> impl Fn() -> Vec<Target> + Clone + Send + Sync + 'static {
        let (first, twin) = (self.platform.stock_url().to_owned(), Arc::clone(&self.twin_url));
        move || {
            let twin = twin.lock().unwrap().clone().map(|url| Target { url, is_twin: true });
            [Target { url: first.clone(), is_twin: false }].into_iter().chain(twin).collect()
        }
    }

    /// Records each role that ended unexpectedly, and restarts it.
    pub async fn look_after_roles(&self) {
        let twins = self.twins.iter().map(|twin| (twin, TWIN));
        let namesakes = self.namesakes.values().map(|namesake| (namesake, NAMESAKE));
        for (role, name) in self.roles.iter().zip(NAMES).chain(twins).chain(namesakes) {
            // A locked role has a fault.
            let Ok(mut role) = role.try_lock() else { continue };
            if let Some(status) = role.ended() {
                let at = self.age().as_secs_f64();
                println!("{at:7.1} s  {name} ended by itself: {status}");
                self.breaches.lock().await.push(format!("{name} ended by itself with {status}"));
                role.start();
            }
        }
    }

    /// Returns the peak resident memory of each role since its start, in MiB, without the pages of files: those of a
    /// debug build are large, and the kernel drops them before it ends a process for its limit.
    pub fn memory(&self) -> Vec<u64> {
        let peak = |pid| mib(pid, "VmHWM:").saturating_sub(mib(pid, "RssFile:"));
        let mut sizes = Vec::new();
        for role in &self.roles {
            // A locked role has a fault.
            sizes.push(role.try_lock().map_or(0, |role| peak(role.pid())));
        }
        sizes
    }

    /// Terminates the roles gracefully.
    pub async fn end(&self) {
        for (role, name) in self.roles.iter().zip(NAMES) {
            let (status, took) = role.lock().await.terminate().await;
            if status.code() != Some(0) || took > TERMINATION_LIMIT {
                self.breaches.lock().await.push(format!("{name} ended after {took:?} with {status}"));
            }
        }
    }

    pub async fn counts(&self) -> BTreeMap<&'static str, usize> {
        self.counts.lock().await.clone()
    }

    /// Returns how often a topic was recreated.
    pub fn recreations(&self) -> usize {
        self.recreations.load(Ordering::Relaxed)
    }

    pub fn count_recreation(&self) {
        self.recreations.fetch_add(1, Ordering::Relaxed);
    }

    pub async fn history(&self) -> History {
        History { written: self.written.lock().await.clone(), archived: self.archived.lock().await.clone() }
    }

    pub async fn breaches(&self) -> Vec<String> {
        self.breaches.lock().await.clone()
    }
}

pub fn resident_mib(pid: u32) -> u64 {
    mib(pid, "VmRSS:")
}

fn mib(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) / 1024
}
