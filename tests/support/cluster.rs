//! The four roles as processes, on engines that run already.

use std::collections::HashSet;
use std::process::{Child, Command};

use reqwest::StatusCode;
use serde_json::Value;
use uuid::Uuid;

use super::engines::{MongoDatabase, PostgresDatabase, address};
use super::{BINARY, eventually, free_port, next_page, terminate, vehicle};

/// stock, two estimators and ads, with topics, groups and databases of their own.
pub struct Roles {
    kafka: String,
    registry: String,
    prefix: String,
    vehicles: PostgresDatabase,
    ads: MongoDatabase,
    commands: Vec<Vec<String>>,
    processes: Vec<Child>,
    stock_url: String,
    ads_url: String,
    client: reqwest::Client,
}

impl Roles {
    /// Starts them and waits until they are ready. `None`, after saying so, where an engine is missing.
    pub async fn start(processing_time: &str) -> Option<Self> {
        let kafka = address("Kafka", "KAFKA_BOOTSTRAP_SERVERS")?;
        let registry = address("the schema registry", "SCHEMA_REGISTRY_URL")?;
        let (vehicles, ads) = (PostgresDatabase::create().await?, MongoDatabase::create().await?);
        let prefix = format!("test-{}.", Uuid::now_v7().simple());
        let (stock_port, ads_port) = (free_port(), free_port());
        let own = |number: &str| format!("{prefix}{number}");
        let commands = [
            format!("stock --port {stock_port} --database-url {}", vehicles.url().as_str()),
            format!("estimate --processing-time {processing_time} --instance-id {}", own("1")),
            format!("estimate --processing-time {processing_time} --instance-id {}", own("2")),
            format!("ads --port {ads_port} --database-url {} --instance-id {}", ads.url().as_str(), own("1")),
        ];
        let commands = commands.map(|command| command.split(' ').map(str::to_owned).collect()).to_vec();
        let mut roles = Self {
            kafka,
            registry,
            prefix,
            vehicles,
            ads,
            commands,
            processes: Vec::new(),
            stock_url: format!("http://127.0.0.1:{stock_port}"),
            ads_url: format!("http://127.0.0.1:{ads_port}"),
            client: reqwest::Client::new(),
        };
        roles.spawn_all().await;
        Some(roles)
    }

    pub fn bootstrap(&self) -> &str {
        &self.kafka
    }

    pub fn registry(&self) -> &str {
        self.registry.trim_end_matches('/')
    }

    pub fn topic(&self, event: &str) -> String {
        format!("{}{event}", self.prefix)
    }

    async fn spawn_all(&mut self) {
        self.processes = self.commands.iter().map(|command| self.spawn(command)).collect();
        for url in [format!("{}/readyz", self.stock_url), format!("{}/readyz", self.ads_url)] {
            eventually(&url, async || {
                let answer = self.client.get(&url).send().await.ok()?;
                answer.status().is_success().then_some(())
            })
            .await;
        }
    }

    fn spawn(&self, arguments: &[String]) -> Child {
        Command::new(BINARY)
            .args(arguments)
            .env("KAFKA_BOOTSTRAP_SERVERS", &self.kafka)
            .env("SCHEMA_REGISTRY_URL", &self.registry)
            .env("KAFKA_PREFIX", &self.prefix)
            .spawn()
            .unwrap()
    }

    pub async fn kill_and_restart_all(&mut self) {
        self.kill_all();
        self.spawn_all().await;
    }

    fn kill_all(&mut self) {
        for process in &mut self.processes {
            process.kill().ok();
            process.wait().ok();
        }
    }

    /// Posts a vehicle until it is accepted, as a client that wants to be served does.
    pub async fn accept(&self, vin: &str) {
        let url = format!("{}/stock", self.stock_url);
        eventually(vin, async || {
            let answer = self.client.post(&url).json(&vehicle(vin)).send().await.ok()?;
            // A conflict is the answer to a try whose own answer was lost.
            matches!(answer.status(), StatusCode::CREATED | StatusCode::CONFLICT).then_some(())
        })
        .await;
    }

    /// Waits for `count` ads; their vins.
    pub async fn await_ads(&self, count: usize) -> Vec<String> {
        eventually(&format!("{count} ads"), async || {
            let mut vins = Vec::new();
            let mut next = Some(format!("{}/ads?limit=1000", self.ads_url));
            while let Some(url) = next {
                let answer = self.client.get(&url).send().await.ok()?;
                next = next_page(&self.ads_url, &answer);
                let page: Vec<Value> = answer.json().await.ok()?;
                vins.extend(page.iter().map(|ad| ad["vin"].as_str().unwrap().to_owned()));
            }
            (vins.iter().collect::<HashSet<_>>().len() >= count).then_some(vins)
        })
        .await
    }

    /// Ends the roles in good order, and removes what was theirs.
    pub async fn finish(mut self) {
        for process in &mut self.processes {
            assert_eq!(terminate(process).await.code(), Some(0));
        }
        self.vehicles.drop_database().await;
        self.ads.drop_database().await;
    }
}

/// A node of the cluster that is dead until this is dropped.
pub struct Killed {
    script: String,
    node: &'static str,
}

impl Killed {
    /// Kills a node at once. `None`, after saying so, where the cluster has no script for that.
    pub fn node(node: &'static str) -> Option<Self> {
        let script = address("the script of the cluster", "TEST_CLUSTER")?;
        let killed = Self { script, node };
        killed.run("kill");
        Some(killed)
    }

    fn run(&self, command: &str) {
        let status = Command::new(&self.script).args([command, self.node]).status().unwrap();
        assert!(status.success(), "cannot {command} {}", self.node);
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.run("start");
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        self.kill_all();
    }
}
