//! Runs the four roles as processes on running engines.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use mongodb::bson::Document;
use reqwest::{Response, StatusCode};
use serde_json::Value;
use uuid::Uuid;
use vehicle_platform::https;

use super::engines::{MongoDatabase, PostgresDatabase, address};
use super::{
    ALLOCATOR, BINARY, DEADLINE, eventually, eventually_within, free_port, next_page, signal, vehicle,
};

/// The indexes of the roles in [`Roles`].
pub const STOCK: usize = 0;
pub const ESTIMATES: [usize; 2] = [1, 2];
pub const ADS: usize = 3;
pub const NAMES: [&str; 4] = ["stock", "estimate-1", "estimate-2", "ads"];

/// The addresses of the engines for one role.
#[derive(Clone, Debug)]
pub struct Engines {
    pub kafka: String,
    pub registry: String,
    /// The database URL of stock or ads.
    pub database: Option<String>,
}

/// The settings for starting the roles.
pub struct Setup<'a> {
    pub processing_time: &'a str,
    /// The path of the executable.
    pub binary: &'a str,
    /// The directory for the logs of the roles; `None` writes to the test's output.
    pub logs: Option<PathBuf>,
    /// Returns the addresses for a role to use in place of the real ones.
    pub reroute: &'a dyn Fn(usize, Engines) -> Engines,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { processing_time: "1s", binary: BINARY, logs: None, reroute: &|_, engines| engines }
    }
}

/// One role, which may be running.
pub struct Role {
    command: Vec<String>,
    binary: String,
    environment: [(&'static str, String); 3],
    log: Option<PathBuf>,
    child: Option<Child>,
}

impl Role {
    pub fn start(&mut self) {
        let mut command = Command::new(&self.binary);
        command.args(&self.command).envs(self.environment.clone()).envs([ALLOCATOR]);
        if let Some(path) = &self.log {
            let log = File::options().create(true).append(true).open(path).unwrap();
            command.stdout(log.try_clone().unwrap()).stderr(Stdio::from(log));
        }
        self.child = Some(command.spawn().unwrap());
    }

    /// Returns a second process of the same role, not started yet.
    pub fn twin(&self) -> Self {
        let mut command = self.command.clone();
        let port = command.iter().position(|argument| argument == "--port").unwrap() + 1;
        command[port] = free_port().to_string();
        Self {
            command,
            binary: self.binary.clone(),
            environment: self.environment.clone(),
            log: self.log.as_ref().map(|log| log.with_extension("twin.log")),
            child: None,
        }
    }

    /// Changes the addresses of the engines. Takes effect at the next start.
    pub fn reach(&mut self, engines: &Engines) {
        for (name, value) in &mut self.environment {
            match *name {
                "KAFKA_BOOTSTRAP_SERVERS" => value.clone_from(&engines.kafka),
                "SCHEMA_REGISTRY_URL" => value.clone_from(&engines.registry),
                _ => {}
            }
        }
        let database = self.command.iter().position(|argument| argument == "--database-url");
        if let (Some(index), Some(url)) = (database, &engines.database) {
            self.command[index + 1].clone_from(url);
        }
    }

    /// Returns the URL of the role.
    pub fn url(&self) -> String {
        let port = self.command.iter().position(|argument| argument == "--port").unwrap() + 1;
        format!("http://127.0.0.1:{}", self.command[port])
    }

    /// Kills the role (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Terminates the role gracefully (SIGTERM). Returns the exit status and the time that it took.
    pub async fn terminate(&mut self) -> (ExitStatus, Duration) {
        let child = self.child.as_mut().unwrap();
        let began = Instant::now();
        signal(child, "TERM");
        let status = eventually("the role to end", async || child.try_wait().unwrap()).await;
        self.child = None;
        (status, began.elapsed())
    }

    /// Suspends the role (SIGSTOP).
    pub fn pause(&self) {
        signal(self.child.as_ref().unwrap(), "STOP");
    }

    /// Resumes a suspended role (SIGCONT).
    pub fn resume(&self) {
        signal(self.child.as_ref().unwrap(), "CONT");
    }

    /// Returns the exit status if the role ended without a request.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().unwrap()
    }

    /// Returns whether the role has installed a handler for SIGTERM.
    pub fn catches_sigterm(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        // A bit mask whose lowest bit is signal number 1.
        u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << 14) != 0
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The URLs of the roles and their resources on the engines.
pub struct Platform {
    kafka: String,
    registry: String,
    prefix: String,
    vehicles: PostgresDatabase,
    ads: MongoDatabase,
    stock_url: String,
    estimate_urls: [String; 2],
    ads_url: String,
    client: reqwest::Client,
}

/// stock, two estimators and ads, with separate topics, groups and databases.
pub struct Roles {
    pub roles: [Role; 4],
    pub platform: Platform,
}

impl Roles {
    /// Starts the roles and waits until they are ready. Reports and returns `None` when an engine is missing.
    pub async fn start(processing_time: &str) -> Option<Self> {
        let mut roles = Self::prepare(&Setup { processing_time, ..Setup::default() }).await?;
        roles.start_all().await;
        Some(roles)
    }

    /// Prepares the roles without starting them.
    pub async fn prepare(setup: &Setup<'_>) -> Option<Self> {
        let kafka = address("Kafka", "KAFKA_BOOTSTRAP_SERVERS")?;
        let registry = address("the schema registry", "SCHEMA_REGISTRY_URL")?;
        let (vehicles, ads) = (PostgresDatabase::create().await?, MongoDatabase::create().await?);
        let prefix = format!("test-{}.", Uuid::now_v7().simple());
        let (stock_port, ads_port) = (free_port(), free_port());
        let estimate_ports = [free_port(), free_port()];
        let role = |index: usize, command: String, database: Option<&str>| {
            let engines = Engines {
                kafka: kafka.clone(),
                registry: registry.clone(),
                database: database.map(str::to_owned),
            };
            let engines = (setup.reroute)(index, engines);
            let mut command: Vec<_> = command.split(' ').map(str::to_owned).collect();
            command.extend(engines.database.into_iter().flat_map(|url| ["--database-url".to_owned(), url]));
            Role {
                command,
                binary: setup.binary.to_owned(),
                environment: [
                    ("KAFKA_BOOTSTRAP_SERVERS", engines.kafka),
                    ("SCHEMA_REGISTRY_URL", engines.registry),
                    ("KAFKA_PREFIX", prefix.clone()),
                ],
                log: setup.logs.as_ref().map(|logs| logs.join(format!("{}.log", NAMES[index]))),
                child: None,
            }
        };
        let estimate = |number: usize| {
            let (index, port, time) = (ESTIMATES[number], estimate_ports[number], setup.processing_time);
            let instance = format!("--port {port} --instance-id {prefix}{index}");
            role(index, format!("estimate --processing-time {time} {instance}"), None)
        };
        let roles = [
            role(STOCK, format!("stock --port {stock_port}"), Some(vehicles.url().as_str())),
            estimate(0),
            estimate(1),
            role(ADS, format!("ads --port {ads_port} --instance-id {prefix}{ADS}"), Some(ads.url().as_str())),
        ];
        let platform = Platform {
            kafka,
            registry,
            prefix,
            vehicles,
            ads,
            stock_url: format!("http://127.0.0.1:{stock_port}"),
            estimate_urls: estimate_ports.map(|port| format!("http://127.0.0.1:{port}")),
            ads_url: format!("http://127.0.0.1:{ads_port}"),
            client: https::client().timeout(Duration::from_secs(10)).build().unwrap(),
        };
        Some(Self { roles, platform })
    }

    /// Starts the roles that are not running, and waits until stock and ads are ready.
    pub async fn start_all(&mut self) {
        for role in &mut self.roles {
            if role.child.is_none() {
                role.start();
            }
        }
        self.platform.await_ready(&self.platform.stock_url).await;
        self.platform.await_ready(&self.platform.ads_url).await;
    }

    pub async fn kill_and_restart_all(&mut self) {
        self.roles.iter_mut().for_each(Role::kill);
        self.start_all().await;
    }

    /// Terminates the roles gracefully and removes their resources.
    pub async fn finish(mut self) {
        for (role, name) in self.roles.iter_mut().zip(NAMES) {
            let (status, _) = role.terminate().await;
            assert_eq!(status.code(), Some(0), "{name}");
        }
        self.platform.remove().await;
    }
}

impl Platform {
    pub fn bootstrap(&self) -> &str {
        &self.kafka
    }

    pub fn registry(&self) -> &str {
        self.registry.trim_end_matches('/')
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    pub fn topic(&self, event: &str) -> String {
        format!("{}{event}", self.prefix)
    }

    pub fn stock_url(&self) -> &str {
        &self.stock_url
    }

    pub fn ads_url(&self) -> &str {
        &self.ads_url
    }

    /// Runs one of the tools on this platform.
    pub fn tool(&self, arguments: &[&str]) -> Output {
        Command::new(BINARY)
            .args(arguments)
            .env("KAFKA_BOOTSTRAP_SERVERS", &self.kafka)
            .env("SCHEMA_REGISTRY_URL", &self.registry)
            .env("KAFKA_PREFIX", &self.prefix)
            .env("STOCK_DATABASE_URL", self.vehicles.url().as_str())
            .env("ADS_DATABASE_URL", self.ads.url().as_str())
            .output()
            .unwrap()
    }

    /// Returns the value of a metric of `role`.
    pub async fn metric(&self, role: usize, name: &str) -> Option<usize> {
        let [first, second] = &self.estimate_urls;
        let url = [&self.stock_url, first, second, &self.ads_url][role];
        let metrics = self.client.get(format!("{url}/metrics")).send().await.ok()?.text().await.ok()?;
        metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    async fn await_ready(&self, role: &str) {
        eventually(&format!("{role}/readyz"), async || self.is_ready(role).await.then_some(())).await;
    }

    /// Posts a vehicle. Returns `None` when there was no answer.
    pub async fn post(&self, vin: &str) -> Option<Response> {
        self.post_to(&self.stock_url, vin).await
    }

    /// Posts a vehicle to the stock at `url`. Returns `None` when there was no answer.
    pub async fn post_to(&self, url: &str, vin: &str) -> Option<Response> {
        self.client.post(format!("{url}/stock")).json(&vehicle(vin)).send().await.ok()
    }

    /// Returns whether the role at `url` reports that it is ready.
    pub async fn is_ready(&self, url: &str) -> bool {
        let answer = self.client.get(format!("{url}/readyz")).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// Posts a vehicle until it is accepted.
    pub async fn accept(&self, vin: &str) {
        eventually(vin, async || {
            // A conflict means that a previous attempt was accepted, but its response was lost.
            let status = self.post(vin).await?.status();
            matches!(status, StatusCode::CREATED | StatusCode::CONFLICT).then_some(())
        })
        .await;
    }

    /// Returns how many vehicles each estimator holds, or `None` when one did not answer.
    pub async fn in_flight(&self) -> Option<[usize; 2]> {
        let held = |role| self.metric(role, "estimate_records_in_flight ");
        Some([held(ESTIMATES[0]).await?, held(ESTIMATES[1]).await?])
    }

    /// Returns the page of ads at `url` and the URL of the next page, or `None` when there was no answer.
    pub async fn ads_page(&self, url: &str) -> Option<(Vec<Value>, Option<String>)> {
        let answer = self.client.get(url).send().await.ok()?;
        let next = next_page(&self.ads_url, &answer);
        Some((answer.error_for_status().ok()?.json().await.ok()?, next))
    }

    /// Returns the vins of all ads, or `None` when there was no answer.
    pub async fn ad_vins(&self) -> Option<Vec<String>> {
        let mut vins = Vec::new();
        let mut next = Some(format!("{}/ads?limit=1000", self.ads_url));
        while let Some(url) = next {
            let (page, following) = self.ads_page(&url).await?;
            vins.extend(page.iter().map(|ad| ad["vin"].as_str().unwrap().to_owned()));
            next = following;
        }
        Some(vins)
    }

    /// Waits for `count` ads and returns their vins.
    pub async fn await_ads(&self, count: usize) -> Vec<String> {
        self.await_ads_within(DEADLINE, count).await
    }

    pub async fn await_ads_within(&self, limit: Duration, count: usize) -> Vec<String> {
        let ads = async || self.ad_vins().await.filter(|vins| vins.len() >= count);
        eventually_within(limit, &format!("{count} ads"), ads).await
    }

    /// Configures MongoDB to refuse ads that do not match.
    pub async fn validate_ads(&self, validator: Document) {
        self.ads.validate("ads", validator).await;
    }

    /// Removes the platform's databases.
    pub async fn remove(&self) {
        self.vehicles.drop_database().await;
        self.ads.drop_database().await;
    }
}
