//! Tests the messages and exit codes of the command line.

use crate::support;
use std::io::Read;
use std::process::{Command, Output, Stdio};
use vehicle_platform::https;

use crate::support::{BINARY, DEADLINE, Platform, RoleProcess, eventually, free_port, get, http_client};

/// What a pipe holds by default on Linux, in pages of which each may be filled in part.
const PIPE_BYTES: usize = 65_536;

fn run(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn a_taken_port_or_data_directory_is_an_error_that_names_the_flag() {
    let platform = Platform::start(&["--roles", "none"]).await;
    let data_dir = platform.data_dir().to_str().unwrap();
    let output = run(&["dev", "--kafka-port", "0", "--data-dir", data_dir]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--data-dir"), "{}", stderr(&output));

    let other = tempfile::tempdir().unwrap();
    let other = other.path().to_str().unwrap();
    let (_, taken) = platform.kafka().rsplit_once(':').unwrap();
    let ports = ["--kafka-port", "--registry-port", "--stock-port", "--ads-port", "--console-port"];
    for flag in ports {
        let mut arguments = vec!["dev", "--data-dir", other];
        for port in ports {
            arguments.extend([port, if port == flag { taken } else { "0" }]);
        }
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(flag), "{}", stderr(&output));
    }
    platform.finish().await;
}

#[test]
fn wrong_usage_exits_with_2_and_names_the_flag() {
    for (arguments, named) in [
        (vec!["estimate", "--processing-time", "soon"], "--processing-time"),
        (vec!["estimate", "--max-in-flight", "0"], "--max-in-flight"),
        (vec!["estimate", "--max-concurrent-estimates", "0"], "--max-concurrent-estimates"),
        (vec!["estimate", "--topic-retention", "1s"], "--topic-retention"),
        (vec!["stock", "--database-url", "mysql://h/d"], "--database-url"),
        (vec!["stock", "--database-url", "mongodb://h/d"], "--database-url"),
        (vec!["ads", "--database-url", "postgres://h/d"], "--database-url"),
        (vec!["stock", "--database-url-file", "/does/not/exist"], "--database-url-file"),
        (vec!["stock", "--schema-registry-url", "h:8081"], "--schema-registry-url"),
        (vec!["stock", "--kafka-property", "isolation.level=read_uncommitted"], "--kafka-property"),
        (vec!["estimate", "--kafka-property", "no.such.setting=1"], "--kafka-property"),
        (vec!["dev", "--roles", "stok"], "--roles"),
        (vec!["healthcheck"], "--port"),
        (vec!["stock", "--log", " "], "--log"),
        (vec!["nothing"], "nothing"),
    ] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(named), "{}", stderr(&output));
    }
}

#[test]
fn a_property_owned_by_the_platform_is_refused_under_each_of_its_names_with_the_alternative() {
    for (property, instead) in [
        ("acks", "--topic-min-insync-replicas"),
        ("allow.auto.create.topics", "--topic-partitions"),
        ("auto.offset.reset", "first record"),
        ("bootstrap.servers", "--kafka-bootstrap-servers"),
        ("metadata.broker.list", "--kafka-bootstrap-servers"),
        ("client.id", "quotas"),
        ("auto.commit.enable", "one transaction"),
        ("enable.auto.commit", "one transaction"),
        ("enable.auto.offset.store", "one transaction"),
        ("enable.idempotence", "transactions"),
        ("enable.partition.eof", "tools"),
        ("fetch.error.backoff.ms", "topic"),
        ("group.id", "--kafka-prefix"),
        ("group.instance.id", "member"),
        ("group.protocol", "protocol"),
        ("isolation.level", "committed"),
        ("log_level", "--log"),
        ("max.in.flight", "transactions"),
        ("max.in.flight.requests.per.connection", "transactions"),
        ("message.max.bytes", "brokers"),
        ("message.send.max.retries", "transactions"),
        ("partition.assignment.strategy", "members"),
        ("request.required.acks", "--topic-min-insync-replicas"),
        ("retries", "transactions"),
        ("statistics.interval.ms", "/metrics"),
        ("transaction.timeout.ms", "timeouts"),
        ("transactional.id", "--instance-id"),
    ] {
        let output = run(&["estimate", "--kafka-property", &format!("{property}=1")]);
        assert_eq!(output.status.code(), Some(2), "{property}");
        assert!(stderr(&output).contains(instead), "{property}: {}", stderr(&output));
    }
}

#[test]
fn a_wrong_setting_exits_with_1_and_names_the_flag() {
    for (arguments, named) in [
        (vec!["estimate", "--kafka-property", "security.protocol=sasl_plaintext"], "--kafka-property"),
        // Longer than a transaction may take.
        (vec!["estimate", "--kafka-property", "socket.timeout.ms=60000"], "--kafka-property"),
        (vec!["stock", "--port", "0", "--kafka-property", "message.timeout.ms=30000"], "--kafka-property"),
        (vec!["dev", "--roles", "stock,stock"], "--roles"),
    ] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains(named), "{}", stderr(&output));
    }
}

#[test]
fn a_wrong_value_that_may_be_a_secret_is_not_repeated() {
    for (variable, value) in [
        ("DATABASE_URL", "mysql://user:hidden@host/db"),
        ("KAFKA_PROPERTIES", "sasl.password:hidden"),
        ("SCHEMA_REGISTRY_URL", "ftp://user:hidden@host"),
    ] {
        let output = Command::new(BINARY).arg("stock").env(variable, value).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{variable}");
        assert!(!stderr(&output).contains("hidden"), "{}", stderr(&output));
    }
}

#[test]
fn help_shows_every_setting_with_its_variable_and_no_secret() {
    for command in ["stock", "estimate", "ads", "console", "dev"] {
        let output = Command::new(BINARY)
            .args([command, "--help"])
            .env("DATABASE_URL", "postgres://user:hidden@host/db")
            .env("KAFKA_PROPERTIES", "sasl.password=hidden")
            .output()
            .unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains("[env: SHUTDOWN_TIMEOUT="), "{help}");
        assert!(!help.contains("hidden"), "{help}");
    }
}

#[test]
fn shells_complete_the_commands_and_each_command_has_a_man_page() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(String::from_utf8(output.stdout).unwrap().contains("outbox-retention"), "{shell}");
    }
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man/man1");
    let output = run(&["man", pages.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let page = pages.join("vehicle-platform-stock.1");
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.contains("retention"), "{text}");
    let below_a_file = page.join("man1");
    let output = run(&["man", below_a_file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(below_a_file.to_str().unwrap()), "{}", stderr(&output));
}

/// Runs a shell script in which `$BINARY` is the executable.
fn shell(script: &str, platform: &Platform) -> Output {
    let database = |name: &str| format!("sqlite:{}", platform.data_dir().join(name).display());
    Command::new("bash")
        .args(["-o", "pipefail", "-c", script])
        .env("BINARY", BINARY)
        .env("KAFKA_BOOTSTRAP_SERVERS", platform.kafka())
        .env("STOCK_DATABASE_URL", database("stock.db"))
        .env("ADS_DATABASE_URL", database("ads.db"))
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_cannot_be_written_does_not_change_the_result_of_a_tool() {
    let platform = Platform::start(&["--processing-time", "0s"]).await;
    platform.accept("vin").await;
    platform.await_ads(1).await;
    let (_, port) = platform.stock().rsplit_once(':').unwrap();
    let healthcheck = format!("$BINARY healthcheck --port {port}");
    for (script, code) in [
        ("$BINARY audit --json | true", 0),
        ("$BINARY audit >&-", 0),
        ("$BINARY audit --json 2>/dev/full", 0),
        ("$BINARY audit --json >/dev/full", 1),
        ("$BINARY audit >/dev/full", 1),
        ("$BINARY audit --vin vin | true", 0),
        ("$BINARY audit --vin vin >/dev/full", 1),
        ("$BINARY dlq list | true", 0),
        ("$BINARY dlq list >/dev/full", 1),
        ("$BINARY audit --vin unknown 2>/dev/full", 1),
        ("$BINARY audit --vin unknown 2>&1 | true", 1),
        (&format!("{healthcheck} | true"), 0),
        (&format!("{healthcheck} >/dev/full 2>/dev/full"), 0),
    ] {
        let output = shell(script, &platform);
        assert_eq!(output.status.code(), Some(code), "{script}: {}", stderr(&output));
        if script.ends_with(" >/dev/full") {
            assert!(stderr(&output).contains("standard output"), "{script}: {}", stderr(&output));
        }
    }
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_continues_when_its_log_can_no_longer_be_written() {
    for script in ["exec \"$@\" 2>/dev/full", "exec \"$@\" 2> >(head -c 1 >/dev/null)"] {
        for format in ["text", "json"] {
            let port = free_port().to_string();
            let nowhere = free_port();
            let mut child = Command::new("bash")
                .args(["-c", script, "bash", BINARY, "estimate", "--port", &port, "--log-format", format])
                .args(["--kafka-bootstrap-servers", &format!("127.0.0.1:{nowhere}")])
                .args(["--schema-registry-url", &format!("http://127.0.0.1:{nowhere}")])
                .spawn()
                .unwrap();
            // By then it has logged that both are unavailable.
            eventually("the role to check its dependencies", async || {
                let answer = get(format!("http://127.0.0.1:{port}/readyz")).await.ok()?;
                (!answer.text().await.ok()?.contains("not checked yet")).then_some(())
            })
            .await;
            let status = support::terminate(&mut child).await;
            assert_eq!(status.code(), Some(0), "{script}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_serves_and_ends_when_nothing_reads_its_log() {
    let directory = tempfile::tempdir().unwrap();
    let database = format!("sqlite:{}", directory.path().join("stock.db").display());
    let (port, nowhere) = (free_port().to_string(), free_port());
    let child = Command::new(BINARY)
        .args(["stock", "--port", &port, "--database-url", &database])
        .args(["--log", "trace,actix_http=trace", "--kafka-property", "debug=all"])
        .args(["--kafka-bootstrap-servers", &format!("127.0.0.1:{nowhere}")])
        .args(["--schema-registry-url", &format!("http://127.0.0.1:{nowhere}")])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut role = RoleProcess { child };
    let mut log = role.child.stderr.take().unwrap();
    let client = https::client().timeout(DEADLINE).build().unwrap();
    let url = format!("http://127.0.0.1:{port}/healthz");
    eventually("the role to serve", async || client.get(&url).send().await.ok()).await;
    for request in 0..2_000 {
        let answer = client.get(&url).send().await;
        assert!(answer.is_ok_and(|answer| answer.status().is_success()), "request {request}");
    }
    let status = support::terminate(&mut role.child).await;
    assert_eq!(status.code(), Some(0));
    let mut lines = Vec::new();
    log.read_to_end(&mut lines).unwrap();
    assert!(lines.len() > PIPE_BYTES / 2, "{} bytes did not fill the pipe", lines.len());
}

#[test]
fn a_role_with_a_low_limit_on_open_files_exits_and_reports_the_reason() {
    let nowhere = free_port();
    let registry = format!("--schema-registry-url http://127.0.0.1:{nowhere}");
    let kafka = format!("--kafka-bootstrap-servers 127.0.0.1:{nowhere} {registry}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display();
    let ports = "--kafka-port 0 --registry-port 0 --stock-port 0 --ads-port 0";
    for files in [24, 64, 127] {
        for role in [
            format!("stock --port 0 --database-url sqlite:{path}/stock.db {kafka}"),
            format!("ads --port 0 --database-url sqlite:{path}/ads.db {kafka}"),
            format!("estimate {kafka}"),
            format!("dev --data-dir {path} {ports}"),
        ] {
            let script = format!("ulimit -n {files}; exec $BINARY {role}");
            let output = Command::new("bash").args(["-c", &script]).env("BINARY", BINARY).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{script}: {}", stderr(&output));
            assert!(stderr(&output).contains("ulimit -n"), "{script}: {}", stderr(&output));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_works_with_few_files_and_raises_a_soft_limit() {
    for limits in ["ulimit -n 256", "ulimit -Sn 24"] {
        let directory = tempfile::tempdir().unwrap();
        let ports = [(); 2].map(|()| free_port().to_string());
        let ports_of =
            ["--kafka-port", "0", "--registry-port", "0", "--stock-port", &ports[0], "--ads-port", &ports[1]];
        let mut dev = Command::new("bash")
            .args(["-c", &format!("{limits}; exec \"$@\""), "bash", BINARY, "dev", "--processing-time", "0s"])
            .arg("--data-dir")
            .arg(directory.path())
            .args(ports_of)
            .args(["--console-port", "none"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // More clients than allowed connections: the rest wait, and the platform continues.
        let client = http_client();
        let stock = format!("http://127.0.0.1:{}/stock", ports[0]);
        eventually("stock to answer", async || client.get(&stock).send().await.ok()).await;
        let idle: Vec<_> = (0..300)
            .map_while(|_| std::net::TcpStream::connect(("127.0.0.1", ports[0].parse().ok()?)).ok())
            .collect();
        drop(idle);
        let posted = eventually("a vehicle to be accepted", async || {
            client.post(&stock).json(&support::vehicle("vin")).send().await.ok()
        })
        .await;
        assert_eq!(posted.status(), 201, "{limits}");
        eventually("its ad", async || {
            let ads = client.get(format!("http://127.0.0.1:{}/ads", ports[1])).send().await.ok()?;
            ads.text().await.ok()?.contains("vin").then_some(())
        })
        .await;
        assert_eq!(support::terminate(&mut dev).await.code(), Some(0), "{limits}");
    }
}
