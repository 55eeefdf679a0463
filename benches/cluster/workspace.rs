//! Creates and removes the databases and topics of the bench.

use std::cell::{Cell, RefCell};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use uuid::Uuid;
use vehicle_platform::event::{VEHICLE_CREATED, VEHICLE_PROCESSED};

use crate::processes::Process;
use crate::settings::Settings;
use crate::stats::say;
use crate::support::engines::{MongoDatabase, PostgresDatabase, address};
use crate::support::http_client;

const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The engines and the resources of this run on them.
pub struct Workspace {
    pub settings: Settings,
    pub kafka: String,
    pub registry: String,
    /// The processes of PostgreSQL, MongoDB and the brokers.
    pub engines: Vec<Process>,
    name: String,
    sites: RefCell<Vec<Rc<Site>>>,
    created: Cell<u32>,
}

/// A pair of databases and a topic prefix for one measure.
pub struct Site {
    pub database: PostgresDatabase,
    ads: MongoDatabase,
    pub prefix: String,
}

impl Site {
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub fn url(&self) -> &str {
        self.database.url().as_str()
    }

    /// Returns the URL of a MongoDB database that exists once something is written to it.
    pub fn ads_url(&self) -> &str {
        self.ads.url().as_str()
    }
}

impl Workspace {
    /// Reads the addresses of the engines. Panics when `tests/cluster/with` has not set them.
    pub fn new(settings: Settings) -> Self {
        let required = |what, variable| address(what, variable).expect("run it with tests/cluster/with");
        Self {
            settings,
            kafka: required("Kafka", "KAFKA_BOOTSTRAP_SERVERS"),
            registry: required("the schema registry", "SCHEMA_REGISTRY_URL"),
            engines: engines(&cluster("status")),
            name: format!("bench-{}", Uuid::now_v7().simple()),
            sites: RefCell::default(),
            created: Cell::new(0),
        }
    }

    /// Creates empty databases and a new topic prefix.
    pub async fn site(&self) -> Rc<Site> {
        let number = self.created.get() + 1;
        self.created.set(number);
        let database = PostgresDatabase::create().await.expect("PostgreSQL is available");
        let ads = MongoDatabase::create().await.expect("MongoDB is available");
        let site = Rc::new(Site { database, ads, prefix: format!("{}.{number}.", self.name) });
        self.sites.borrow_mut().push(Rc::clone(&site));
        site
    }

    /// Removes a site: its databases, topics, consumer groups and schema subjects.
    pub async fn remove(&self, site: Rc<Site>) {
        self.sites.borrow_mut().retain(|other| !Rc::ptr_eq(other, &site));
        site.database.drop_database().await;
        site.ads.drop_database().await;
        self.remove_from_kafka(&site.prefix).await;
        self.remove_subjects(&site.prefix).await;
    }

    /// Removes the sites that are left, for example after a failed measure.
    pub async fn remove_all(&self) {
        let sites = self.sites.take();
        for site in sites {
            self.remove(site).await;
        }
    }

    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.kafka).create().unwrap()
    }

    /// Creates a topic with the same settings as those of the platform.
    pub async fn create_topic(&self, name: &str) {
        let topic = NewTopic::new(name, 3, TopicReplication::Fixed(3))
            .set("min.insync.replicas", "2")
            .set("message.timestamp.type", "LogAppendTime")
            .set("retention.ms", "-1");
        let results = self.admin().create_topics([&topic], &AdminOptions::new()).await.unwrap();
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    async fn remove_from_kafka(&self, prefix: &str) {
        let (topics, groups) = self.names_on_kafka(prefix).await;
        let admin = self.admin();
        let options = AdminOptions::new();
        let topics: Vec<_> = topics.iter().map(String::as_str).collect();
        let groups: Vec<_> = groups.iter().map(String::as_str).collect();
        if !topics.is_empty()
            && let Err(error) = admin.delete_topics(&topics, &options).await
        {
            say(&format!("cannot delete the topics {topics:?}: {error}"));
        }
        if !groups.is_empty()
            && let Err(error) = admin.delete_groups(&groups, &options).await
        {
            say(&format!("cannot delete the groups {groups:?}: {error}"));
        }
    }

    async fn names_on_kafka(&self, prefix: &str) -> (Vec<String>, Vec<String>) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.kafka);
        let prefix = prefix.to_owned();
        let list = move || {
            let consumer: BaseConsumer = config.create().unwrap();
            let metadata = consumer.fetch_metadata(None, CALL_TIMEOUT).unwrap();
            let groups = consumer.fetch_group_list(None, CALL_TIMEOUT).unwrap();
            let ours = |name: &&str| name.starts_with(&prefix);
            let topics = metadata.topics().iter().map(|topic| topic.name()).filter(ours).map(str::to_owned);
            let groups = groups.groups().iter().map(|group| group.name()).filter(ours).map(str::to_owned);
            (topics.collect(), groups.collect())
        };
        tokio::task::spawn_blocking(list).await.unwrap()
    }

    async fn remove_subjects(&self, prefix: &str) {
        let client = http_client();
        for event in [VEHICLE_CREATED, VEHICLE_PROCESSED] {
            let registry = self.registry.trim_end_matches('/');
            let subject = format!("{registry}/subjects/{prefix}{}-value", event.topic);
            // A 404 is fine: not every site publishes.
            if let Err(error) = client.delete(&subject).timeout(CALL_TIMEOUT).send().await {
                say(&format!("cannot delete {subject}: {error}"));
            }
        }
    }
}

/// Runs a command of the cluster script and returns its output.
pub fn cluster(command: &str) -> String {
    let script =
        address("the script of the cluster", "TEST_CLUSTER").expect("run it with tests/cluster/with");
    let output = Command::new(script).arg(command).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Parses the nodes that the roles work with from lines such as "kafka-1 running pid 123 port 19021".
fn engines(status: &str) -> Vec<Process> {
    let nodes = status.lines().filter_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [name, "running", "pid", pid, ..]
            if matches!(name, "postgres" | "mongodb") || name.starts_with("kafka-") =>
        {
            Some(Process::new(name, pid.parse().ok()?))
        }
        _ => None,
    });
    nodes.collect()
}
