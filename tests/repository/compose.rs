//! Tests compose.yaml, which describes the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

/// The memory that 8 GiB leave after the system, Docker and a browser.
const LAPTOP_MIB: u64 = 8_192 - 1_760;

const ROLES: [&str; 3] = ["stock", "estimate", "ads"];
const BROKERS: &str = "kafka-1:9092,kafka-2:9092,kafka-3:9092";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap()
}

/// Returns the settings in compose/.env, without environment variables.
fn defaults() -> BTreeMap<String, String> {
    let file = text("compose/.env");
    let lines = file.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once('=').map(|(name, value)| (name.into(), value.into())).unwrap()).collect()
}

/// Replaces `${NAME}` and `${NAME:-default}` with settings, and `$$` with `$`.
fn interpolated(text: &str) -> String {
    let defaults = defaults();
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            result.push('$');
            rest = after;
            continue;
        }
        let (expression, after) = after.strip_prefix('{').and_then(|after| after.split_once('}')).unwrap();
        let (name, default) = expression.split_once(":-").map_or((expression, None), |(n, d)| (n, Some(d)));
        let value = defaults.get(name).map(String::as_str).or(default);
        result.push_str(value.unwrap_or_else(|| panic!("{name} is not in .env and has no default")));
        rest = after;
    }
    result + rest
}

fn model() -> Value {
    serde_saphyr::from_str(&interpolated(&text("compose/compose.yaml"))).unwrap()
}

fn all_services() -> Map<String, Value> {
    model()["services"].as_object().unwrap().clone()
}

/// Returns the services without a profile, which `make up` starts.
fn services() -> Map<String, Value> {
    all_services().into_iter().filter(|(_, service)| service.get("profiles").is_none()).collect()
}

/// Returns the services that run with this profile.
fn with_profile(profile: &str) -> Map<String, Value> {
    let runs = |service: &Value| {
        service.get("profiles").is_none_or(|names| strings(names).contains(&profile.to_owned()))
    };
    all_services().into_iter().filter(|(_, service)| runs(service)).collect()
}

fn replicas(service: &Value) -> u64 {
    service.pointer("/deploy/replicas").map_or(1, |replicas| replicas.as_u64().unwrap())
}

fn memory_mib(service: &Value) -> u64 {
    service["mem_limit"].as_str().and_then(|limit| limit.strip_suffix('m')).unwrap().parse().unwrap()
}

fn environment(service: &Value) -> BTreeMap<String, String> {
    let variables = service.get("environment").and_then(Value::as_object).cloned().unwrap_or_default();
    let as_text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    variables.into_iter().map(|(name, value)| (name, as_text(value))).collect()
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

fn set<'a>(items: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    items.into_iter().map(str::to_owned).collect()
}

#[test]
fn seventeen_containers_run_by_default() {
    let services = services();
    assert_eq!(services.values().map(replicas).sum::<u64>(), 17);
    let count = |prefix: &str| services.keys().filter(|name| name.starts_with(prefix)).count();
    for (kind, expected) in [("zookeeper-", 3), ("kafka-", 4), ("schema-registry-", 3)] {
        assert_eq!(count(kind), expected, "{kind}");
    }
    for name in ["nginx", "kafka-ui", "stock", "postgres", "estimate", "ads", "mongodb"] {
        assert!(services.contains_key(name), "{name}");
    }
    assert_eq!(replicas(&services["estimate"]), 2);
    assert_eq!(with_profile("observability").values().map(replicas).sum::<u64>(), 20);
    assert_eq!(
        with_profile("console").keys().filter(|name| !services.contains_key(*name)).collect::<Vec<_>>(),
        ["console"]
    );
}

#[test]
fn four_containers_run_the_image_that_is_built_here() {
    let services = services();
    let image = &services["stock"]["image"];
    let ours: Vec<_> = services.iter().filter(|(_, service)| service["image"] == *image).collect();
    assert_eq!(ours.iter().map(|(_, service)| replicas(service)).sum::<u64>(), 4);
    for (name, service) in ours {
        assert!(ROLES.contains(&name.as_str()), "{name}");
        assert_eq!(strings(&service["command"]), [name.as_str()]);
        assert_eq!(service["build"]["context"], "..", "{name}");
        assert_eq!(service["pull_policy"], "build", "{name} could be an unrelated image");
    }
}

#[test]
fn the_memory_limits_fit_a_laptop_and_match_the_documentation() {
    let sum = |services: Map<String, Value>| -> u64 {
        services.values().map(|service| memory_mib(service) * replicas(service)).sum()
    };
    let (usual, all) = (sum(services()), sum(with_profile("observability")));
    assert!(usual <= LAPTOP_MIB, "{usual} MiB are more than {LAPTOP_MIB}");
    for (file, sentence) in [
        ("compose/compose.yaml", format!("add up to {usual} MiB")),
        ("compose/up", format!("\nLIMITS_MIB={usual}\n")),
        ("compose/up", format!("\nOBSERVABILITY_MIB={}\n", all - usual)),
        ("README.md", format!("{usual} MiB")),
        ("README.md", format!("{all} MiB")),
    ] {
        assert!(text(file).contains(&sentence), "{file} does not contain: {sentence}");
    }
}

#[test]
fn every_container_is_monitored_restarted_and_confined() {
    for (name, service) in all_services() {
        let test = strings(&service["healthcheck"]["test"]);
        assert!(test.len() > 1 && test[0].starts_with("CMD"), "{name} has no health check");
        for period in ["interval", "timeout", "start_period"] {
            assert!(service["healthcheck"][period].is_string(), "{name} has no {period}");
        }
        assert_eq!(service["restart"], "unless-stopped", "{name}");
        assert!(memory_mib(&service) > 0, "{name}");
        assert_eq!(strings(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
        assert_eq!(strings(&service["cap_drop"]), ["ALL"], "{name}");
        for key in ["cap_add", "privileged", "network_mode", "pid", "container_name"] {
            assert!(service.get(key).is_none(), "{name} has {key}");
        }
    }
}

#[test]
fn the_platforms_containers_are_read_only_and_not_root() {
    for name in ROLES {
        let service = &services()[name];
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["user"], "65532:65532", "{name}");
        assert_eq!(strings(&service["tmpfs"]), ["/tmp:size=1m"], "{name} locks a file there");
        assert!(service.get("volumes").is_none(), "{name}");
    }
}

#[test]
fn a_health_check_uses_the_port_that_the_role_serves() {
    let services = services();
    for name in ROLES {
        assert!(environment(&services[name]).contains_key("PORT"), "{name}");
        let test = strings(&services[name]["healthcheck"]["test"]);
        assert_eq!(test, ["CMD", "/usr/local/bin/vehicle-platform", "healthcheck"], "{name}");
    }
    for name in ["stock", "ads"] {
        let port = environment(&services[name])["PORT"].clone();
        assert!(strings(&services[name]["ports"])[0].ends_with(&format!(":{port}")), "{name}");
    }
}

#[test]
fn three_ports_are_published_on_this_machine_only() {
    let published = |services: Map<String, Value>| -> BTreeSet<String> {
        services.values().flat_map(|service| strings(&service["ports"])).collect()
    };
    let expected = ["127.0.0.1:3002:3002", "127.0.0.1:3003:3003", "127.0.0.1:8080:8080"];
    assert_eq!(published(services()), set(expected));
    assert_eq!(
        published(all_services()),
        set(expected.into_iter().chain(["127.0.0.1:3000:3000", "127.0.0.1:16686:16686"]))
    );
}

#[test]
fn no_secret_is_in_the_environment_except_the_documented_one() {
    for (name, service) in all_services() {
        for (variable, value) in environment(&service) {
            let hides =
                ["PASS", "SECRET", "TOKEN", "DATABASE_URL"].iter().any(|word| variable.contains(word));
            if hides && variable != "SPRING_SECURITY_USER_PASSWORD" {
                assert!(variable.ends_with("_FILE"), "{name}: {variable}");
                let secret = value.strip_prefix("/run/secrets/").unwrap();
                assert!(strings(&service["secrets"]).contains(&secret.to_owned()), "{name}: {variable}");
            }
            assert!(!value.contains('@'), "{name}: {variable} may hold a password");
        }
    }
    let ui = environment(&services()["kafka-ui"]);
    let user = ["SPRING_SECURITY_USER_NAME", "SPRING_SECURITY_USER_PASSWORD"].map(|name| ui[name].as_str());
    assert_eq!(user, ["admin", "password"]);
}

#[test]
fn the_roles_send_their_traces_to_the_configured_collector() {
    for name in ROLES {
        assert_eq!(environment(&services()[name])["OTEL_EXPORTER_OTLP_ENDPOINT"], "", "{name}");
    }
    assert!(text("compose/compose.yaml").contains(r#"OTEL_EXPORTER_OTLP_ENDPOINT: "${OTLP_ENDPOINT}""#));
    assert!(all_services().contains_key("jaeger"));
    assert!(text("compose/up").contains("export OTLP_ENDPOINT=http://jaeger:4318"));
}

#[test]
fn secrets_come_from_files_that_git_ignores() {
    let model = model();
    let declared = model["secrets"].as_object().unwrap();
    let used: BTreeSet<_> = all_services().values().flat_map(|s| strings(&s["secrets"])).collect();
    assert_eq!(used, set(declared.keys().map(String::as_str)));
    for (name, secret) in declared {
        assert_eq!(secret["file"], format!("./secrets/{name}"));
    }
    assert!(text(".gitignore").lines().any(|line| line == "/compose/secrets"));
}

#[test]
fn every_client_knows_all_zookeepers_and_all_brokers() {
    let services = services();
    for number in 1..=3 {
        let zookeeper = environment(&services[&format!("zookeeper-{number}")]);
        assert_eq!(zookeeper["ZOOKEEPER_SERVER_ID"], number.to_string());
        assert_eq!(zookeeper["ZOOKEEPER_CLIENT_PORT"], "2181");
        let peers = "zookeeper-1:2888:3888;zookeeper-2:2888:3888;zookeeper-3:2888:3888";
        assert_eq!(zookeeper["ZOOKEEPER_SERVERS"], peers);

        let kafka = environment(&services[&format!("kafka-{number}")]);
        assert_eq!(kafka["KAFKA_BROKER_ID"], number.to_string());
        assert_eq!(kafka["KAFKA_ZOOKEEPER_CONNECT"], "zookeeper-1:2181,zookeeper-2:2181,zookeeper-3:2181");
        assert_eq!(kafka["KAFKA_ADVERTISED_LISTENERS"], format!("PLAINTEXT://kafka-{number}:9092"));

        let name = format!("schema-registry-{number}");
        let registry = environment(&services[&name]);
        assert_eq!(registry["SCHEMA_REGISTRY_HOST_NAME"], name);
        let brokers = registry["SCHEMA_REGISTRY_KAFKASTORE_BOOTSTRAP_SERVERS"].replace("PLAINTEXT://", "");
        assert_eq!(brokers, BROKERS);
        let nginx = text("compose/nginx/nginx.conf");
        assert!(nginx.contains(&format!("server {name}:8081 ")), "{name}");
    }
    assert_eq!(environment(&services["kafka-ui"])["KAFKA_CLUSTERS_0_BOOTSTRAPSERVERS"], BROKERS);
    assert_eq!(environment(&services["kafka-ui"])["KAFKA_CLUSTERS_0_SCHEMAREGISTRY"], "http://nginx:8081");
    for name in ROLES {
        let role = environment(&services[name]);
        assert_eq!(role["KAFKA_BOOTSTRAP_SERVERS"], BROKERS, "{name}");
        assert_eq!(role["SCHEMA_REGISTRY_URL"], "http://nginx:8081", "{name}");
    }
}

#[test]
fn containers_start_in_the_order_of_their_health() {
    let kafka = ["kafka-1", "kafka-2", "kafka-3"];
    let registries = ["schema-registry-1", "schema-registry-2", "schema-registry-3"];
    let platform = || kafka.into_iter().chain(["nginx"]);
    for (name, service) in services() {
        let conditions = service.get("depends_on").and_then(Value::as_object).cloned().unwrap_or_default();
        for (dependency, how) in &conditions {
            assert_eq!(how["condition"], "service_healthy", "{name} on {dependency}");
        }
        let expected = match name.as_str() {
            "zookeeper-1" | "zookeeper-2" | "zookeeper-3" | "postgres" | "mongodb" => set([]),
            "kafka-1" | "kafka-2" | "kafka-3" => set(["zookeeper-1", "zookeeper-2", "zookeeper-3"]),
            "nginx" => set(registries),
            "kafka-ui" | "estimate" => set(platform()),
            "stock" => set(platform().chain(["postgres"])),
            "ads" => set(platform().chain(["mongodb"])),
            _ => set(kafka),
        };
        assert_eq!(conditions.keys().cloned().collect::<BTreeSet<_>>(), expected, "{name}");
    }
}

#[test]
fn data_is_stored_in_named_volumes() {
    let model = model();
    let declared: BTreeSet<_> = model["volumes"].as_object().unwrap().keys().cloned().collect();
    let mut used = BTreeSet::new();
    for (name, service) in all_services() {
        for volume in strings(&service["volumes"]) {
            let (source, _) =
                volume.split_once(':').unwrap_or_else(|| panic!("{name}: {volume} has no name"));
            if let Some(file) = source.strip_prefix("./") {
                assert!(repository().join("compose").join(file).exists(), "{name}: {file}");
                assert!(volume.ends_with(":ro"), "{name}: {volume}");
            } else {
                assert!(used.insert(source.to_owned()), "{source} belongs to two services");
            }
        }
    }
    assert_eq!(used, declared);
}

#[test]
fn the_image_is_built_with_the_toolchain_that_is_pinned() {
    let toolchain = text("rust-toolchain.toml");
    let (_, channel) = toolchain.split_once("channel = \"").unwrap();
    let (channel, _) = channel.split_once('"').unwrap();
    assert!(text("Dockerfile").contains(&format!("ARG RUST_VERSION={channel}\n")), "{channel}");
}

#[test]
fn memory_is_measured_with_the_allocators_setting_of_the_image() {
    let harness = text("tests/support/mod.rs");
    let (_, setting) = harness.split_once("ALLOCATOR: (&str, &str) = (\"").unwrap();
    let (name, rest) = setting.split_once("\", \"").unwrap();
    let (value, _) = rest.split_once('"').unwrap();
    assert!(text("Dockerfile").contains(&format!("\nENV {name}={value}\n")), "{name}={value}");
}

#[test]
fn the_build_context_contains_exactly_the_copied_files() {
    let dockerfile = text("Dockerfile");
    let copies = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY "));
    let local = copies.filter(|arguments| !arguments.starts_with("--from"));
    let sources: BTreeSet<_> = local
        .flat_map(|arguments| arguments.rsplit_once(' ').unwrap().0.split_whitespace().map(str::to_owned))
        .collect();
    let ignore = text(".dockerignore");
    assert!(ignore.lines().any(|line| line == "*"));
    assert_eq!(sources, set(ignore.lines().filter_map(|line| line.strip_prefix('!'))));
}
