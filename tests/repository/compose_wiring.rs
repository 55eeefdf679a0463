//! Tests how the containers of the compose files depend on and reach each other, and what they store.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::compose_model::{Mode, defaults, environment, repository, set, strings, text};

const ROLES: [&str; 3] = ["stock", "estimate", "ads"];
const BROKERS: &str = "kafka-1:9092,kafka-2:9092,kafka-3:9092";

#[test]
fn every_client_knows_all_brokers() {
    for mode in Mode::ALL {
        let services = mode.services();
        for number in 1..=3 {
            let kafka = environment(&services[&format!("kafka-{number}")]);
            assert_eq!(kafka["KAFKA_ADVERTISED_LISTENERS"], format!("PLAINTEXT://kafka-{number}:9092"));

            let name = format!("schema-registry-{number}");
            let registry = environment(&services[&name]);
            assert_eq!(registry["SCHEMA_REGISTRY_HOST_NAME"], name);
            let brokers =
                registry["SCHEMA_REGISTRY_KAFKASTORE_BOOTSTRAP_SERVERS"].replace("PLAINTEXT://", "");
            assert_eq!(brokers, BROKERS);
            let nginx = text("compose/nginx/nginx.conf");
            assert!(nginx.contains(&format!("server {name}:8081 ")), "{name}");
        }
        assert_eq!(environment(&services["kafka-ui"])["KAFKA_CLUSTERS_0_BOOTSTRAPSERVERS"], BROKERS);
        assert_eq!(
            environment(&services["kafka-ui"])["KAFKA_CLUSTERS_0_SCHEMAREGISTRY"],
            "http://nginx:8081"
        );
        for name in ROLES {
            let role = environment(&services[name]);
            assert_eq!(role["KAFKA_BOOTSTRAP_SERVERS"], BROKERS, "{name}");
            assert_eq!(role["SCHEMA_REGISTRY_URL"], "http://nginx:8081", "{name}");
        }
    }
}

#[test]
fn three_zookeepers_or_three_controllers_form_a_quorum() {
    let services = Mode::ZooKeeper.services();
    for number in 1..=3 {
        let zookeeper = environment(&services[&format!("zookeeper-{number}")]);
        assert_eq!(zookeeper["ZOOKEEPER_SERVER_ID"], number.to_string());
        assert_eq!(zookeeper["ZOOKEEPER_CLIENT_PORT"], "2181");
        let peers = "zookeeper-1:2888:3888;zookeeper-2:2888:3888;zookeeper-3:2888:3888";
        assert_eq!(zookeeper["ZOOKEEPER_SERVERS"], peers);
        let kafka = environment(&services[&format!("kafka-{number}")]);
        assert_eq!(kafka["KAFKA_BROKER_ID"], number.to_string());
        assert_eq!(kafka["KAFKA_ZOOKEEPER_CONNECT"], "zookeeper-1:2181,zookeeper-2:2181,zookeeper-3:2181");
        assert_eq!(kafka["KAFKA_ZOOKEEPER_SESSION_TIMEOUT_MS"], "6000");
    }
    let services = Mode::KRaft.services();
    for number in 1..=3 {
        let kafka = environment(&services[&format!("kafka-{number}")]);
        assert_eq!(kafka["KAFKA_NODE_ID"], number.to_string());
        assert_eq!(kafka["KAFKA_PROCESS_ROLES"], "broker,controller");
        let voters = "1@kafka-1:9093,2@kafka-2:9093,3@kafka-3:9093";
        assert_eq!(kafka["KAFKA_CONTROLLER_QUORUM_VOTERS"], voters);
        assert_eq!(kafka["CLUSTER_ID"], "", "make up sets it");
        assert!(kafka["KAFKA_LISTENERS"].contains("CONTROLLER://0.0.0.0:9093"));
        assert!(!kafka.keys().any(|name| name.contains("ZOOKEEPER") || name.contains("ZK")), "{kafka:?}");
    }
}

#[test]
fn the_modes_differ_in_how_kafka_keeps_its_metadata_only() {
    let without_metadata = |mode: Mode| {
        let mut services = mode.all_services();
        services.retain(|name, _| !name.starts_with("zookeeper-"));
        for number in 1..=3 {
            let broker = services[&format!("kafka-{number}")].as_object_mut().unwrap();
            for key in ["image", "depends_on", "networks", "volumes", "tmpfs", "environment"] {
                broker.remove(key);
            }
        }
        services
    };
    assert_eq!(without_metadata(Mode::ZooKeeper), without_metadata(Mode::KRaft));
    let [zookeeper, kraft] = Mode::ALL.map(|mode| environment(&mode.services()["kafka-1"]));
    for (name, value) in &zookeeper {
        let metadata = ["ZOOKEEPER", "ZK", "BROKER_ID"].iter().any(|word| name.contains(word));
        assert!(metadata || kraft.get(name) == Some(value), "{name}");
    }
}

/// The registry creates its topic with as many replicas as there are brokers, but at most three, and never changes it.
#[test]
fn the_topic_of_schemas_gets_three_replicas_and_a_registry_restarts_while_a_broker_is_down() {
    for mode in Mode::ALL {
        let services = mode.services();
        for name in services.keys().filter(|name| name.starts_with("schema-registry-")) {
            let registry = environment(&services[name]);
            assert_eq!(registry["SCHEMA_REGISTRY_KAFKASTORE_TOPIC_REPLICATION_FACTOR"], "3");
            assert_eq!(dependencies(&services[name]), set(["kafka-1", "kafka-2", "kafka-3"]), "{name}");
            assert_eq!(registry["SCHEMA_REGISTRY_CUB_KAFKA_MIN_BROKERS"], "1");
            assert_eq!(registry["SCHEMA_REGISTRY_CUB_KAFKA_TIMEOUT"], "120");
            assert_eq!(registry["SCHEMA_REGISTRY_LEADER_ELECTION_STICKY"], "true");
            let timeout = &registry["SCHEMA_REGISTRY_KAFKASTORE_TIMEOUT_MS"];
            assert!((2_000..10_000).contains(&timeout.parse().unwrap()), "nginx waits for 10 s");
        }
    }
}

fn dependencies(service: &Value) -> BTreeSet<String> {
    let conditions = service.get("depends_on").and_then(Value::as_object).cloned().unwrap_or_default();
    for (dependency, how) in &conditions {
        assert_eq!(how["condition"], "service_healthy", "{dependency}");
    }
    conditions.keys().cloned().collect()
}

#[test]
fn containers_start_in_the_order_of_their_health() {
    let kafka = ["kafka-1", "kafka-2", "kafka-3"];
    let registries = ["schema-registry-1", "schema-registry-2", "schema-registry-3"];
    let platform = || kafka.into_iter().chain(["nginx"]);
    for mode in Mode::ALL {
        for (name, service) in mode.services() {
            let expected = match name.as_str() {
                "zookeeper-1" | "zookeeper-2" | "zookeeper-3" | "postgres" | "mongodb" => set([]),
                "kafka-1" | "kafka-2" | "kafka-3" if mode == Mode::KRaft => set([]),
                "kafka-1" | "kafka-2" | "kafka-3" => set(["zookeeper-1", "zookeeper-2", "zookeeper-3"]),
                "nginx" => set(registries),
                "kafka-ui" | "estimate" => set(platform()),
                "stock" => set(platform().chain(["postgres"])),
                "ads" => set(platform().chain(["mongodb"])),
                _ => set(kafka),
            };
            assert_eq!(dependencies(&service), expected, "{name}");
        }
    }
}

fn members<'a>(services: &'a Map<String, Value>, network: &str) -> BTreeSet<&'a str> {
    let joined =
        services.iter().filter(|(_, service)| strings(&service["networks"]).iter().any(|n| n == network));
    joined.map(|(name, _)| name.as_str()).collect()
}

#[test]
fn a_container_joins_only_the_networks_of_what_it_uses() {
    for mode in Mode::ALL {
        let (model, services) = (mode.model(), mode.all_services());
        let networks = model["networks"].as_object().unwrap();
        let used: BTreeSet<_> = services.values().flat_map(|service| strings(&service["networks"])).collect();
        assert_eq!(used, set(networks.keys().map(String::as_str)));
        assert!(services.values().all(|service| !strings(&service["networks"]).is_empty()));

        assert_eq!(members(&services, "postgres"), ["audit", "postgres", "stock"].into());
        assert_eq!(members(&services, "mongodb"), ["ads", "audit", "mongodb"].into());
        let registries = ["nginx", "schema-registry-1", "schema-registry-2", "schema-registry-3"];
        assert_eq!(members(&services, "registry"), registries.into());
        assert!(
            members(&services, "zookeeper")
                .iter()
                .all(|name| name.contains("kafka-") || name.contains("zookeeper-"))
        );
        let observers = ["ads", "console", "estimate", "grafana", "jaeger", "prometheus", "stock"];
        assert_eq!(members(&services, "observability"), observers.into());
        assert_eq!(members(&services, "public"), ["ads", "kafka-ui", "stock"].into());
        for (name, settings) in networks {
            let leads_out = ["observability", "public"].contains(&name.as_str());
            assert_eq!(settings.get("internal") == Some(&Value::Bool(true)), !leads_out, "{name}");
        }
        for (name, service) in services.iter().filter(|(_, service)| service.get("ports").is_some()) {
            let networks = strings(&service["networks"]);
            assert!(
                networks.iter().any(|n| n == "observability" || n == "public"),
                "{name} publishes a port"
            );
        }
        for (name, service) in &services {
            for dependency in dependencies(service) {
                let theirs = strings(&services[&dependency]["networks"]);
                let shares = strings(&service["networks"]).iter().any(|network| theirs.contains(network));
                let through_nginx = name == "nginx" || dependency == "nginx";
                assert!(shares || through_nginx, "{name} cannot reach {dependency}");
            }
        }
    }
}

#[test]
fn data_is_stored_in_named_volumes() {
    for mode in Mode::ALL {
        let model = mode.model();
        let declared: BTreeSet<_> = model["volumes"].as_object().unwrap().keys().cloned().collect();
        let mut used = BTreeSet::new();
        for (name, service) in mode.lasting_services() {
            for volume in strings(&service["volumes"]) {
                let (source, _) =
                    volume.split_once(':').unwrap_or_else(|| panic!("{name}: {volume} has no name"));
                if let Some(file) = source.strip_prefix("./") {
                    assert!(repository().join("compose").join(file).exists(), "{name}: {file}");
                    assert!(volume.ends_with(":ro,z"), "{name}: {volume} cannot be read with SELinux");
                    let folder = file.split('/').next().unwrap();
                    let made_readable = mounted_by_up();
                    assert!(made_readable.contains(folder), "compose/up does not make {folder} readable");
                } else {
                    assert!(used.insert(source.to_owned()), "{source} belongs to two services");
                }
            }
        }
        assert_eq!(used, declared);
    }
    let brokers = |mode: Mode| strings(&mode.services()["kafka-1"]["volumes"]);
    assert_ne!(brokers(Mode::ZooKeeper), brokers(Mode::KRaft), "the formats differ");
}

/// Returns the folders that compose/up makes readable for the users in the containers.
fn mounted_by_up() -> BTreeSet<String> {
    let script = text("compose/up");
    let (_, rest) = script.split_once("\nMOUNTED=(").unwrap();
    set(rest.split_once(')').unwrap().0.split_whitespace())
}

#[test]
fn stock_and_ads_use_databases_with_users_of_their_own() {
    let services = Mode::ZooKeeper.services();
    let postgres = &services["postgres"];
    assert!(!environment(postgres).contains_key("POSTGRES_USER"), "stock would be the superuser");
    for (database, role, script) in [("postgres", "stock", "stock.sql"), ("mongodb", "ads", "ads.js")] {
        let secret = format!("{role}-database-url");
        let url = format!("/run/secrets/{secret}");
        assert_eq!(environment(&services[role])["DATABASE_URL_FILE"], url);
        let volumes = strings(&services[database]["volumes"]);
        let mount = format!("./{database}/{script}:/docker-entrypoint-initdb.d/{script}:ro,z");
        assert!(volumes.contains(&mount), "{database}");
        assert!(strings(&services[database]["secrets"]).contains(&secret), "{database}");
        assert!(text(&format!("compose/{database}/{script}")).contains(&url), "{script}");
        // An interrupted initialization leaves a database without this user.
        let check = strings(&services[database]["healthcheck"]["test"]);
        assert!(check[1].contains(&url), "{database} is not checked as {role}");
    }
    assert_eq!(environment(&services["mongodb"])["GLIBC_TUNABLES"], "glibc.pthread.rseq=1");
}

#[test]
fn the_tag_of_every_image_names_one_release() {
    for (name, image) in defaults().iter().filter(|(name, _)| name.ends_with("_IMAGE")) {
        let (_, tag) = image.rsplit_once(':').unwrap();
        let version = tag.trim_start_matches('v').split('-').next().unwrap();
        let numbers: Vec<_> = version.split('.').collect();
        let exact = numbers.len() >= if name == "POSTGRES_IMAGE" { 2 } else { 3 };
        let numeric = numbers.iter().all(|number| number.parse::<u32>().is_ok());
        assert!(name == "PLATFORM_IMAGE" || exact && numeric, "{name}={image}");
    }
}

#[test]
fn nginx_gives_an_upstream_eight_memory_pages_of_any_size() {
    for file in ["compose/nginx/nginx.conf", "tests/cluster/nodes.sh"] {
        assert!(text(file).contains("zone schema-registry 1m;"), "{file}");
    }
}
