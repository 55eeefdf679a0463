//! Tests how the tools run on Kubernetes: the audit from its template, and `dlq` in the pod of an estimator.

use std::collections::BTreeSet;

use serde_json::json;
use vehicle_platform::cli::Command;
use vehicle_platform::dlq::DlqCommand;

use crate::compose_model::{Mode, memory_mib, text};
use crate::kubernetes::{allowed, container, object, objects, parsed, parsed_as, pod, template, variables};

#[test]
fn the_audit_runs_once_when_it_is_asked_for() {
    let spec = object("tools/audit.yaml", "CronJob")["spec"].clone();
    assert_eq!(spec["suspend"], true);
    assert_eq!(spec["jobTemplate"]["spec"]["backoffLimit"], 0, "findings would be reported twice");
    assert_eq!(pod("audit")["restartPolicy"], "Never");
    let example = objects("example/kustomization.yaml").remove(0);
    assert!(example["components"].as_array().unwrap().contains(&json!("../tools")));
}

#[test]
fn the_audit_accepts_its_settings_and_the_secrets_of_the_example() {
    let Command::Audit(audit) = parsed("audit") else { panic!("not audit") };
    assert!(!audit.repair);
    let named = ["STOCK_DATABASE_URL_FILE", "ADS_DATABASE_URL_FILE", "KAFKA_PROPERTIES_FILE"];
    assert!(named.iter().all(|name| variables("audit").contains_key(*name)));
    let Command::Audit(repair) = parsed_as("audit", vec!["audit".into(), "--repair".into()]) else {
        panic!("not audit")
    };
    assert!(repair.repair);
}

#[test]
fn the_audit_reaches_both_databases_and_kafka() {
    let policy = object("tools/audit.yaml", "NetworkPolicy");
    let labels = template("audit")["metadata"]["labels"].clone();
    assert_eq!(policy["spec"]["podSelector"]["matchLabels"], labels);
    assert_eq!(
        labels["app.kubernetes.io/name"], "vehicle-platform",
        "the policies of the base apply as well"
    );
    let of_the_roles: BTreeSet<_> = allowed("stock").union(&allowed("ads")).copied().collect();
    assert_eq!(allowed("audit"), of_the_roles);
}

#[test]
fn the_audit_has_the_memory_of_the_compose_cluster_and_sorts_on_disk() {
    let (container, service) = (container("audit"), &Mode::ZooKeeper.all_services()["audit"]);
    assert_eq!(container["image"], service["image"]);
    let memory = format!("{}Mi", memory_mib(service));
    assert_eq!(container["resources"]["limits"]["memory"], memory);
    assert_eq!(container["resources"]["requests"]["memory"], memory);
    assert_eq!(container["volumeMounts"][1]["mountPath"], variables("audit")["TMPDIR"]);
    let folder = pod("audit")["volumes"][1]["emptyDir"].clone();
    assert!(folder.get("medium").is_none(), "it would count as memory");
    assert!(folder["sizeLimit"].as_str().unwrap().ends_with("Gi"));
}

#[test]
fn dlq_runs_with_the_variables_of_an_estimator_and_of_the_audit() {
    let readme = text("compose/kubernetes/README.md");
    assert!(readme.contains("exec deployment/estimate -- /usr/local/bin/vehicle-platform dlq list"));
    assert!(readme.contains("with `[\"dlq\", \"list\"]` as `args`"));
    for name in ["estimate", "audit"] {
        let Command::Dlq(dlq) = parsed_as(name, vec!["dlq".into(), "list".into()]) else { panic!("not dlq") };
        assert!(matches!(dlq.command, DlqCommand::List(_)));
        for broker in variables(name)["KAFKA_BOOTSTRAP_SERVERS"].split(',') {
            let (_, port) = broker.rsplit_once(':').unwrap();
            assert!(allowed(name).contains(&port.parse().unwrap()), "{name} cannot reach {broker}");
        }
    }
}
