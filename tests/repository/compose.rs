//! Tests the compose files, which describe the cluster.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::compose_model::{
    Mode, defaults, environment, is_tool, memory_mib, mib, replicas, set, strings, text,
};

/// The memory that 8 GiB leave after the system, Docker and a browser.
const LAPTOP_MIB: u64 = 8_192 - 1_760;

const ROLES: [&str; 3] = ["stock", "estimate", "ads"];

#[test]
fn seventeen_containers_run_by_default_and_fourteen_without_zookeeper() {
    for (mode, containers, brokers_and_ui, zookeepers) in
        [(Mode::ZooKeeper, 17, 4, 3), (Mode::KRaft, 14, 4, 0)]
    {
        let services = mode.services();
        assert_eq!(services.values().map(replicas).sum::<u64>(), containers);
        let count = |prefix: &str| services.keys().filter(|name| name.starts_with(prefix)).count();
        for (kind, expected) in
            [("zookeeper-", zookeepers), ("kafka-", brokers_and_ui), ("schema-registry-", 3)]
        {
            assert_eq!(count(kind), expected, "{kind}");
        }
        for name in ["nginx", "kafka-ui", "stock", "postgres", "estimate", "ads", "mongodb"] {
            assert!(services.contains_key(name), "{name}");
        }
        assert_eq!(replicas(&services["estimate"]), 2);
        assert_eq!(mode.with_profile("observability").values().map(replicas).sum::<u64>(), containers + 3);
        let console = mode.with_profile("console");
        assert_eq!(
            console.keys().filter(|name| !services.contains_key(*name)).collect::<Vec<_>>(),
            ["console"]
        );
    }
    assert_eq!(defaults()["COMPOSE_FILE"], Mode::ZooKeeper.files());
    assert!(text("compose/up").contains(&format!("export COMPOSE_FILE={}", Mode::KRaft.files())));
}

#[test]
fn four_containers_run_the_image_that_is_built_here() {
    let services = Mode::ZooKeeper.services();
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
fn audit_and_dlq_run_once_in_the_image_that_make_up_built() {
    let services = Mode::ZooKeeper.all_services();
    for name in services.keys().filter(|name| is_tool(name)) {
        let service = &services[name];
        assert_eq!(service["image"], services["stock"]["image"], "{name}");
        assert_eq!(service["pull_policy"], "never", "{name}");
        assert_eq!(strings(&service["profiles"]), ["tools"], "{name}");
        assert_eq!(service["restart"], "no", "{name}");
        assert_eq!(service["healthcheck"]["disable"], true, "{name}");
        assert_eq!(strings(&service["entrypoint"]), ["/usr/local/bin/vehicle-platform", name], "{name}");
        assert!(service.get("depends_on").is_none(), "{name} would start what is stopped");
        assert!(text("Makefile").contains(&format!("run --rm --no-TTY {name} $(ARGS)")), "{name}");
    }
    assert_eq!(strings(&services["audit"]["volumes"]), ["/tmp"], "the vins are sorted in a file");
    assert!(services["audit"].get("tmpfs").is_none(), "a tmpfs counts as memory");
}

#[test]
fn the_memory_limits_fit_a_laptop_and_match_the_documentation() {
    let sum = |services: Map<String, Value>| -> u64 {
        services.values().map(|service| memory_mib(service) * replicas(service)).sum()
    };
    let [usual, kraft] = Mode::ALL.map(|mode| sum(mode.services()));
    let added = |profile: &str| sum(Mode::ZooKeeper.with_profile(profile)) - usual;
    let (observability, console) = (added("observability"), added("console"));
    assert!(usual <= LAPTOP_MIB, "{usual} MiB are more than {LAPTOP_MIB}");
    for (file, sentence) in [
        ("compose/compose.yaml", format!("add up to {usual} MiB")),
        ("compose/compose.yaml", format!("Without ZooKeeper, they add up to {kraft} MiB")),
        ("compose/up", format!("\nLIMITS_MIB={usual}\n")),
        ("compose/up", format!("\nKRAFT_LIMITS_MIB={kraft}\n")),
        ("compose/up", format!("\nOBSERVABILITY_MIB={observability}\n")),
        ("compose/up", format!("\nCONSOLE_MIB={console}\n")),
        ("README.md", format!("{usual} MiB")),
        ("README.md", format!("{kraft} MiB")),
        ("README.md", format!("{} MiB", usual + observability)),
    ] {
        assert!(text(file).contains(&sentence), "{file} does not contain: {sentence}");
    }
}

/// Go does not detect the limit of a container, and a heap is only a part of the memory of a Java process.
#[test]
fn runtimes_with_a_heap_know_their_limit() {
    for (name, service) in Mode::ALL.into_iter().flat_map(Mode::lasting_services) {
        let (limit, variables) = (memory_mib(&service), environment(&service));
        if let Some(soft) = variables.get("GOMEMLIMIT") {
            assert!(mib(soft) * 10 <= limit * 9, "{name}");
        }
        let heap = ["KAFKA_HEAP_OPTS", "SCHEMA_REGISTRY_HEAP_OPTS", "JAVA_OPTS"]
            .iter()
            .find_map(|name| variables.get(*name));
        let Some((_, heap)) = heap.and_then(|heap| heap.split_once("-Xmx")) else { continue };
        assert!(mib(heap) * 2 <= limit * 13 / 10, "{name} has a heap of {heap} within {limit} MiB");
        // Kafka UI has no collector of its own: Java chooses this one within so little memory.
        let collector = ["KAFKA_JVM_PERFORMANCE_OPTS", "SCHEMA_REGISTRY_JVM_PERFORMANCE_OPTS"];
        let collector = collector.iter().find_map(|name| variables.get(*name));
        assert!(name == "kafka-ui" || collector.unwrap().contains("-XX:+UseSerialGC"), "{name}");
    }
    assert!(environment(&Mode::ZooKeeper.all_services()["grafana"]).contains_key("GOMEMLIMIT"));
}

#[test]
fn every_container_is_monitored_restarted_and_confined() {
    for (name, service) in Mode::ALL.into_iter().flat_map(Mode::lasting_services) {
        let test = strings(&service["healthcheck"]["test"]);
        assert!(test.len() > 1 && test[0].starts_with("CMD"), "{name} has no health check");
        for period in ["interval", "timeout", "start_period"] {
            assert!(service["healthcheck"][period].is_string(), "{name} has no {period}");
        }
        assert_eq!(service["restart"], "unless-stopped", "{name}");
    }
    for (name, service) in Mode::ALL.into_iter().flat_map(Mode::all_services) {
        assert!(memory_mib(&service) > 0, "{name}");
        assert_eq!(strings(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
        assert_eq!(strings(&service["cap_drop"]), ["ALL"], "{name}");
        assert!(service["pids_limit"].as_u64().unwrap() <= 512, "{name}");
        for key in ["cap_add", "privileged", "network_mode", "pid", "container_name"] {
            assert!(service.get(key).is_none(), "{name} has {key}");
        }
    }
}

#[test]
fn the_platforms_containers_are_read_only_and_not_root() {
    let services = Mode::ZooKeeper.all_services();
    for name in ROLES.into_iter().chain(["audit", "dlq"]) {
        assert_eq!(services[name]["read_only"], true, "{name}");
        assert_eq!(services[name]["user"], "65532:65532", "{name}");
    }
    for name in ROLES {
        let service = &services[name];
        assert_eq!(strings(&service["tmpfs"]), ["/tmp:size=1m"], "{name} locks a file there");
        assert!(service.get("volumes").is_none(), "{name}");
    }
}

#[test]
fn a_health_check_uses_the_port_that_the_role_serves() {
    let services = Mode::ZooKeeper.services();
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
fn the_console_takes_from_compose_whether_it_is_read_only() {
    assert_eq!(defaults()["CONSOLE_READ_ONLY"], "", "compose/up decides");
    assert!(text("compose/compose.yaml").contains("READ_ONLY: \"${CONSOLE_READ_ONLY}\""));
}

#[test]
fn three_ports_are_published_on_this_machine_only() {
    let published = |services: Map<String, Value>| -> BTreeSet<String> {
        services.values().flat_map(|service| strings(&service["ports"])).collect()
    };
    let expected = ["127.0.0.1:3002:3002", "127.0.0.1:3003:3003", "127.0.0.1:8080:8080"];
    assert_eq!(published(Mode::ZooKeeper.services()), set(expected));
    assert_eq!(
        published(Mode::ZooKeeper.all_services()),
        set(expected.into_iter().chain([
            "127.0.0.1:3000:3000",
            "127.0.0.1:16686:16686",
            "127.0.0.1:8000:8000"
        ]))
    );
}

#[test]
fn no_secret_is_in_the_environment_except_the_documented_one() {
    for (name, service) in Mode::ALL.into_iter().flat_map(Mode::all_services) {
        for (variable, value) in environment(&service) {
            let hides =
                ["PASS", "SECRET", "TOKEN", "DATABASE_URL"].iter().any(|word| variable.contains(word));
            if hides && variable != "SPRING_SECURITY_USER_PASSWORD" {
                assert!(variable.ends_with("_FILE"), "{name}: {variable}");
                let secret = value.strip_prefix("/run/secrets/").unwrap();
                assert!(strings(&service["secrets"]).contains(&secret.to_owned()), "{name}: {variable}");
            }
            let names_voters = variable == "KAFKA_CONTROLLER_QUORUM_VOTERS";
            assert!(!value.contains('@') || names_voters, "{name}: {variable} may hold a password");
        }
    }
    let ui = environment(&Mode::ZooKeeper.services()["kafka-ui"]);
    let user = ["SPRING_SECURITY_USER_NAME", "SPRING_SECURITY_USER_PASSWORD"].map(|name| ui[name].as_str());
    assert_eq!(user, ["admin", "password"]);
}

#[test]
fn the_roles_send_their_traces_to_the_configured_collector() {
    for name in ROLES {
        assert_eq!(
            environment(&Mode::ZooKeeper.services()[name])["OTEL_EXPORTER_OTLP_ENDPOINT"],
            "",
            "{name}"
        );
    }
    assert!(text("compose/compose.yaml").contains(r#"OTEL_EXPORTER_OTLP_ENDPOINT: "${OTLP_ENDPOINT}""#));
    assert!(Mode::ZooKeeper.all_services().contains_key("jaeger"));
    assert!(text("compose/up").contains("export OTLP_ENDPOINT=http://jaeger:4318"));
    assert_eq!(environment(&Mode::ZooKeeper.all_services()["console"])["JAEGER_URL"], "");
    assert!(text("compose/up").contains("JAEGER_URL=http://$(host):$(setting JAEGER_PORT)"));
}

#[test]
fn secrets_come_from_files_that_git_ignores() {
    let model = Mode::ZooKeeper.model();
    let declared = model["secrets"].as_object().unwrap();
    let used: BTreeSet<_> =
        Mode::ZooKeeper.all_services().values().flat_map(|s| strings(&s["secrets"])).collect();
    assert_eq!(used, set(declared.keys().map(String::as_str)));
    for (name, secret) in declared {
        assert_eq!(secret["file"], format!("./secrets/{name}"));
    }
    assert!(text(".gitignore").lines().any(|line| line == "/compose/secrets"));
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
