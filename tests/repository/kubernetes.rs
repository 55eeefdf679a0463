//! Tests the manifests in compose/kubernetes: what they set exists, and what they repeat agrees.
//! `make test-kubernetes` validates them against the schemas of Kubernetes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use serde_json::{Value, json};
use vehicle_platform::cli::{Cli, Command};
use vehicle_platform::environment::{command_of, try_parse};

use crate::compose_model::{Mode, environment, memory_mib, strings, text};

const ROLES: [&str; 3] = ["stock", "estimate", "ads"];
const PODS: [&str; 4] = ["stock", "estimate", "ads", "audit"];
/// The folder of a pod that contains its secrets.
const SECRETS: &str = "/etc/vehicle-platform/";

/// Returns the objects in a file.
pub fn objects(file: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&text(&format!("compose/kubernetes/{file}"))).unwrap()
}

pub fn object(file: &str, kind: &str) -> Value {
    objects(file).into_iter().find(|object| object["kind"] == kind).unwrap()
}

fn deployment(role: &str) -> Value {
    object(&format!("base/{role}.yaml"), "Deployment")
}

/// Returns the template of the pods of a role, or of that of the audit.
pub fn template(name: &str) -> Value {
    if name == "audit" {
        return object("tools/audit.yaml", "CronJob")["spec"]["jobTemplate"]["spec"]["template"].clone();
    }
    deployment(name)["spec"]["template"].clone()
}

pub fn pod(name: &str) -> Value {
    template(name)["spec"].clone()
}

pub fn container(role: &str) -> Value {
    let pod = pod(role);
    let [container] = &pod["containers"].as_array().unwrap()[..] else {
        panic!("{role} has several containers");
    };
    container.clone()
}

/// Returns the settings that all roles share: those of the base, and those of the example.
fn shared() -> BTreeMap<String, String> {
    let generators = ["base", "example"].map(|overlay| {
        let kustomization = objects(&format!("{overlay}/kustomization.yaml")).remove(0);
        strings(&kustomization["configMapGenerator"][0]["literals"])
    });
    let literals = generators.into_iter().flatten();
    literals
        .map(|literal| literal.split_once('=').map(|(name, value)| (name.into(), value.into())).unwrap())
        .collect()
}

/// Returns the variables of a container.
pub fn variables(role: &str) -> BTreeMap<String, String> {
    let container = container(role);
    assert_eq!(container["envFrom"], json!([{ "configMapRef": { "name": "vehicle-platform" } }]), "{role}");
    let own = container["env"].as_array().unwrap().iter().map(|variable| {
        let value = variable["value"]
            .as_str()
            .unwrap_or_else(|| variable["valueFrom"]["fieldRef"]["fieldPath"].as_str().unwrap());
        (variable["name"].as_str().unwrap().to_owned(), value.to_owned())
    });
    shared().into_iter().chain(own).collect()
}

/// Returns where the example keeps the file of a secret.
fn example_of(role: &str, path: &str) -> Option<String> {
    path.strip_prefix(SECRETS).map(|file| format!("compose/kubernetes/example/secrets/{role}/{file}"))
}

/// Parses the command line and the variables of a container as the program in it does.
pub fn parsed(role: &str) -> Command {
    parsed_as(role, strings(&container(role)["args"]))
}

/// Parses these arguments with the variables of a container.
pub fn parsed_as(role: &str, arguments: Vec<String>) -> Command {
    let variables = variables(role);
    let directory = format!("{}/", env!("CARGO_MANIFEST_DIR"));
    let lookup = |name: &OsStr| {
        // librdkafka has SASL_SSL only with this feature.
        if name == "KAFKA_PROPERTIES_FILE" && !cfg!(feature = "tls") {
            return None;
        }
        let value = variables.get(name.to_str()?)?;
        Some(OsString::from(example_of(role, value).map_or(value.clone(), |file| directory.clone() + &file)))
    };
    let arguments = std::iter::once("vehicle-platform".to_owned()).chain(arguments);
    try_parse::<Cli>(arguments.map(OsString::from).collect(), &lookup)
        .unwrap_or_else(|error| panic!("{role}: {error}"))
        .command
}

fn seconds(duration: &str) -> u64 {
    duration.strip_suffix('s').unwrap().parse().unwrap()
}

#[test]
fn every_variable_is_a_setting_of_its_role() {
    let command = command_of::<Cli>();
    for role in ROLES {
        let own = command.find_subcommand(role).unwrap();
        let known: BTreeSet<_> = [&command, own]
            .into_iter()
            .flat_map(clap::Command::get_arguments)
            .filter_map(|argument| argument.get_env()?.to_str())
            .collect();
        for name in variables(role).keys() {
            assert!(known.contains(name.as_str()), "{role} has no setting {name}");
        }
    }
}

#[test]
fn every_role_accepts_its_settings_and_the_secrets_of_the_example() {
    let Command::Stock(stock) = parsed("stock") else { panic!("not stock") };
    let Command::Estimate { estimate, .. } = parsed("estimate") else { panic!("not estimate") };
    let Command::Ads(ads) = parsed("ads") else { panic!("not ads") };
    for (role, args) in
        [("stock", &stock.args.role), ("estimate", &estimate.args.role), ("ads", &ads.args.role)]
    {
        assert_eq!(args.http.admin_port.unwrap().to_string(), variables(role)["ADMIN_PORT"], "{role}");
    }
    assert_eq!(estimate.args.instance_id.as_deref(), Some("metadata.name"));
    assert_eq!(ads.args.instance_id.as_deref(), Some("metadata.name"));
}

#[test]
fn a_pod_mounts_the_files_that_it_reads_and_the_example_generates_them() {
    let example = objects("example/kustomization.yaml").remove(0);
    let generators = example["secretGenerator"].as_array().unwrap();
    assert_eq!(generators.len(), PODS.len());
    for role in PODS {
        let read: BTreeSet<_> =
            variables(role).values().filter_map(|value| example_of(role, value)).collect();
        let generator = generators.iter().find(|generator| generator["name"] == role).unwrap();
        let generated =
            strings(&generator["files"]).into_iter().map(|file| format!("compose/kubernetes/example/{file}"));
        assert_eq!(read, generated.collect(), "{role}");
        assert_eq!(pod(role)["volumes"][0]["secret"]["secretName"], role);
        assert_eq!(container(role)["volumeMounts"][0]["mountPath"], SECRETS.trim_end_matches('/'), "{role}");
        for (name, value) in variables(role) {
            assert!(!value.contains('@') && !name.contains("PASS"), "{role}: {name} may hold a password");
        }
    }
}

#[test]
fn ports_images_and_memory_are_those_of_the_compose_cluster() {
    let services = Mode::ZooKeeper.services();
    for role in ROLES {
        let (container, service) = (container(role), &services[role]);
        assert_eq!(container["image"], service["image"], "{role}");
        assert_eq!(strings(&container["args"]), strings(&service["command"]));
        let memory = format!("{}Mi", memory_mib(service));
        assert_eq!(container["resources"]["limits"]["memory"], memory, "{role}");
        assert_eq!(container["resources"]["requests"]["memory"], memory, "{role}");
        assert!(container["resources"]["requests"]["cpu"].is_string(), "{role}");

        let variables = variables(role);
        let mut ports = vec![
            json!({ "name": "admin", "containerPort": variables["ADMIN_PORT"].parse::<u16>().unwrap() }),
        ];
        if role != "estimate" {
            let port = environment(service)["PORT"].clone();
            assert_eq!(variables["PORT"], port, "{role}");
            let number: u16 = port.parse().unwrap();
            ports.insert(0, json!({ "name": "http", "containerPort": number }));
            let service = object(&format!("base/{role}.yaml"), "Service");
            assert_eq!(
                service["spec"]["ports"],
                json!([{ "name": "http", "port": number, "targetPort": "http" }])
            );
        }
        assert_eq!(container["ports"], Value::Array(ports), "{role}");
    }
}

#[test]
fn only_what_a_client_needs_decides_on_traffic_and_nothing_but_a_dead_process_on_a_restart() {
    for (role, path) in [("stock", "/readyz?for=http"), ("estimate", "/readyz"), ("ads", "/readyz?for=http")]
    {
        let container = container(role);
        assert_eq!(
            container["readinessProbe"]["httpGet"],
            json!({ "port": "admin", "path": path }),
            "{role}"
        );
        assert_eq!(
            container["livenessProbe"]["httpGet"],
            json!({ "port": "admin", "path": "/healthz" }),
            "{role}"
        );
        assert!(container.get("startupProbe").is_none(), "{role} would be restarted while it waits");
    }
}

#[test]
fn a_pod_has_more_time_to_end_than_its_role() {
    for role in ROLES {
        let pause = container(role)
            .pointer("/lifecycle/preStop/sleep/seconds")
            .map_or(0, |value| value.as_u64().unwrap());
        let needed = pause + seconds(&variables(role)["SHUTDOWN_TIMEOUT"]);
        assert!(pod(role)["terminationGracePeriodSeconds"].as_u64().unwrap() >= needed + 5, "{role}");
        assert_eq!(pause > 0, role != "estimate", "{role}: a Service sends requests for a moment longer");
    }
}

#[test]
fn the_pods_are_confined() {
    for role in PODS {
        let (pod, container) = (pod(role), container(role));
        let user = json!({
            "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
            "seccompProfile": { "type": "RuntimeDefault" }
        });
        assert_eq!(pod["securityContext"], user, "{role}");
        let confined = json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] }
        });
        assert_eq!(container["securityContext"], confined, "{role}");
        assert_eq!(pod["automountServiceAccountToken"], false, "{role}");
        assert_eq!(pod["enableServiceLinks"], false, "{role}: a Service could set a variable of the role");
        assert_eq!(pod["volumes"][0]["secret"]["defaultMode"], 0o440, "{role}");
        assert!(pod["volumes"][1]["emptyDir"]["sizeLimit"].is_string(), "{role}");
    }
}

#[test]
fn the_pods_of_a_role_are_spread() {
    for role in ROLES {
        let pod = pod(role);
        let keys =
            pod["topologySpreadConstraints"].as_array().unwrap().iter().map(|spread| &spread["topologyKey"]);
        assert_eq!(
            keys.collect::<Vec<_>>(),
            ["kubernetes.io/hostname", "topology.kubernetes.io/zone"],
            "{role}"
        );
    }
}

#[test]
fn every_selector_selects_the_pods_of_its_role() {
    for role in ROLES {
        let labels =
            json!({ "app.kubernetes.io/name": "vehicle-platform", "app.kubernetes.io/component": role });
        assert_eq!(deployment(role)["spec"]["template"]["metadata"]["labels"], labels);
        let spreads = pod(role)["topologySpreadConstraints"].as_array().unwrap().clone();
        let mut selectors: Vec<_> =
            spreads.iter().map(|spread| spread["labelSelector"]["matchLabels"].clone()).collect();
        for object in objects(&format!("base/{role}.yaml")) {
            assert_eq!(object["metadata"]["name"], role);
            let selector = &object["spec"]["selector"];
            selectors.push(selector.get("matchLabels").unwrap_or(selector).clone());
        }
        for policy in objects("base/network.yaml") {
            if policy["metadata"]["name"] == role {
                selectors.push(policy["spec"]["podSelector"]["matchLabels"].clone());
            }
        }
        assert!(selectors.iter().all(|selector| *selector == labels), "{role}: {selectors:#?}");
        let budget = object(&format!("base/{role}.yaml"), "PodDisruptionBudget");
        assert_eq!(budget["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow", "{role} would block a drain");
    }
}

#[test]
fn estimators_scale_between_two_and_the_number_of_partitions() {
    let partitions: u64 = shared()["TOPIC_PARTITIONS"].parse().unwrap();
    let scaler = object("autoscaling/estimate.yaml", "ScaledObject")["spec"].clone();
    assert_eq!(scaler["scaleTargetRef"]["name"], deployment("estimate")["metadata"]["name"]);
    assert_eq!(scaler["minReplicaCount"], deployment("estimate")["spec"]["replicas"]);
    assert_eq!(scaler["maxReplicaCount"], partitions);
    let trigger = &scaler["triggers"][0]["metadata"];
    let namespace = objects("example/kustomization.yaml").remove(0)["namespace"].as_str().unwrap().to_owned();
    assert!(trigger["query"].as_str().unwrap().contains(&format!("{{namespace=\"{namespace}\"}}")));
    assert!(text("docs/OPERATIONS.md").contains("`<role>_group_lag`"));
    let Command::Estimate { estimate, .. } = parsed("estimate") else { panic!("not estimate") };
    let threshold: usize = trigger["threshold"].as_str().unwrap().parse().unwrap();
    assert_eq!(threshold * 2, estimate.args.work.max_in_flight);
}

#[test]
fn one_instance_of_ads_writes_at_a_time() {
    let spec = deployment("ads")["spec"].clone();
    assert_eq!((&spec["replicas"], &spec["strategy"]), (&json!(1), &json!({ "type": "Recreate" })));
}

/// Returns the ports that the policies let the pods of a role or of the audit reach.
pub fn allowed(role: &str) -> BTreeSet<u64> {
    let mut policies = objects("base/network.yaml");
    policies.push(object("tools/audit.yaml", "NetworkPolicy"));
    let of_role = policies
        .iter()
        .filter(|policy| ["vehicle-platform", role].iter().any(|name| policy["metadata"]["name"] == *name));
    let rules = of_role.flat_map(|policy| policy["spec"]["egress"].as_array().unwrap());
    rules
        .flat_map(|rule| rule["ports"].as_array().unwrap())
        .map(|port| port["port"].as_u64().unwrap())
        .collect()
}

#[test]
fn the_network_policies_allow_what_each_role_connects_to_and_no_other_engine() {
    let deny = &objects("base/network.yaml")[0];
    assert_eq!(deny["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert!(deny["spec"].get("ingress").is_none());
    let (kafka, registry) = ([9092, 9093], [8081, 443]);
    for (role, database) in [("stock", Some(5432)), ("estimate", None), ("ads", Some(27017))] {
        let expected = kafka.into_iter().chain(registry).chain([53]).chain(database).collect();
        assert_eq!(allowed(role), expected, "{role}");
    }
    let brokers = &shared()["KAFKA_BOOTSTRAP_SERVERS"];
    assert!(brokers.split(',').all(|broker| broker.ends_with(":9093")), "{brokers}");
}

#[test]
fn prometheus_scrapes_every_role_under_the_name_that_the_alerts_expect() {
    let [service, monitor, policy] = &objects("monitoring/metrics.yaml")[..] else { panic!("three objects") };
    assert_eq!(service["spec"]["publishNotReadyAddresses"], true);
    assert_eq!(service["metadata"]["labels"], monitor["spec"]["selector"]["matchLabels"]);
    let name = json!({ "app.kubernetes.io/name": "vehicle-platform" });
    assert_eq!((&service["spec"]["selector"], &policy["spec"]["podSelector"]["matchLabels"]), (&name, &name));
    let endpoint = &monitor["spec"]["endpoints"][0];
    assert_eq!(
        (&endpoint["port"], &endpoint["path"]),
        (&service["spec"]["ports"][0]["name"], &json!("/metrics"))
    );
    for role in ROLES {
        assert_eq!(variables(role)["ADMIN_PORT"], service["spec"]["ports"][0]["port"].to_string(), "{role}");
    }
    let job = json!([{
        "sourceLabels": ["__meta_kubernetes_pod_label_app_kubernetes_io_component"], "targetLabel": "job"
    }]);
    assert_eq!(endpoint["relabelings"], job);
    let scraped: Value = serde_saphyr::from_str(&text("compose/prometheus/prometheus.yml")).unwrap();
    let jobs = scraped["scrape_configs"].as_array().unwrap().iter().map(|scrape| &scrape["job_name"]);
    assert_eq!(jobs.collect::<Vec<_>>(), ROLES);
}

#[test]
fn the_alert_rules_are_those_of_the_compose_cluster() {
    let rule = object("monitoring/alerts.yaml", "PrometheusRule");
    let rules: Value = serde_saphyr::from_str(&text("compose/prometheus/alerts.yml")).unwrap();
    assert_eq!(rule["spec"], rules, "run `make kubernetes-alerts`");
}
