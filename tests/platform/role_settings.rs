//! Tests that a running role uses its settings, wherever they come from.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::TcpListener;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use tempfile::TempDir;
use vehicle_platform::cli::Cli;
use vehicle_platform::environment::try_parse;

use crate::support::{BINARY, RoleProcess, eventually, free_port, http_client, terminate, vehicle};

/// A role whose brokers and registry do not exist.
struct Alone {
    directory: TempDir,
    variables: Vec<(&'static str, String)>,
    port: String,
}

impl Alone {
    fn new(host: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("url");
        fs::write(&database, format!("sqlite:{}/stock.db\r\n", directory.path().display())).unwrap();
        let properties = directory.path().join("properties");
        fs::write(&properties, "# Kafka\r\n\r\nlinger.ms=7\r\n  security.protocol=plaintext  \r\n").unwrap();
        let (port, nowhere) = (free_port().to_string(), free_port());
        let variables = vec![
            ("HOST", format!("{host}\r")),
            ("PORT", format!(" {port}\r\n")),
            ("DATABASE_URL", "sqlite:/does/not/exist/stock.db".to_owned()),
            ("DATABASE_URL_FILE", format!("{}\n", database.display())),
            ("KAFKA_BOOTSTRAP_SERVERS", format!("127.0.0.1:{nowhere},\r\n")),
            ("KAFKA_PROPERTIES", "no.such.property=1".to_owned()),
            ("KAFKA_PROPERTIES_FILE", properties.display().to_string()),
            ("SCHEMA_REGISTRY_URL", format!("http://127.0.0.1:{nowhere},\n")),
            ("LOG", String::new()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", " ".to_owned()),
        ];
        Self { directory, variables, port }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(arguments).envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn spawn(&self, arguments: &[&str]) -> RoleProcess {
        RoleProcess { child: self.command(arguments).spawn().unwrap() }
    }

    /// Waits for an answer of the role to a health check with the same variables.
    async fn await_answer(&self) -> Output {
        eventually("an answer of the role", async || {
            let output = self.command(&["healthcheck"]).output().unwrap();
            (!stderr(&output).contains("no role answers")).then_some(output)
        })
        .await
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_and_its_health_check_work_with_variables_that_end_in_line_breaks_and_with_files() {
    let alone = Alone::new("localhost");
    let mut stock = alone.spawn(&["stock"]);
    let answer = alone.await_answer().await;
    assert!(stderr(&answer).contains("waiting for"), "{}", stderr(&answer));
    let url = format!("http://localhost:{}/stock", alone.port);
    let posted = eventually("a vehicle to be accepted", async || {
        let posted = http_client().post(&url).json(&vehicle("vin")).send().await.ok()?;
        posted.status().is_success().then_some(posted)
    })
    .await;
    assert_eq!(posted.status(), 201);
    assert!(alone.directory.path().join("stock.db").exists());
    assert_eq!(terminate(&mut stock.child).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_health_check_finds_a_role_on_any_address() {
    for host in ["127.0.0.2", "0.0.0.0", "::1", "::"] {
        if TcpListener::bind((host, 0)).is_err() {
            // This machine has no IPv6.
            continue;
        }
        let alone = Alone::new(host);
        let mut estimate = alone.spawn(&["estimate"]);
        let answer = alone.await_answer().await;
        assert!(stderr(&answer).contains("waiting for"), "{host}: {}", stderr(&answer));
        // A port for health alone wins over the other.
        let (wrong, port) = (free_port().to_string(), &alone.port);
        let answer =
            alone.command(&["healthcheck", "--port", &wrong, "--admin-port", port]).output().unwrap();
        assert!(stderr(&answer).contains("waiting for"), "{host}: {}", stderr(&answer));
        assert_eq!(terminate(&mut estimate.child).await.code(), Some(0));
    }
}

#[test]
fn an_error_in_a_file_names_the_file_and_how_it_was_given_and_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let long = "hunter2 ".repeat(200_000);
    for (role, variable, path, reason) in [
        ("stock", "DATABASE_URL_FILE", "/does/not/exist".to_owned(), "No such file"),
        ("stock", "DATABASE_URL_FILE", directory.path().to_str().unwrap().to_owned(), "Is a directory"),
        ("stock", "DATABASE_URL_FILE", write("empty", b" \r\n"), "is empty"),
        ("stock", "DATABASE_URL_FILE", write("binary", b"hunter2\xff"), "is not UTF-8"),
        ("stock", "DATABASE_URL_FILE", write("long", long.as_bytes()), "more than 1 MiB"),
        ("stock", "DATABASE_URL_FILE", write("lines", b"sqlite:a\nhunter2"), "more than one line"),
        ("stock", "DATABASE_URL_FILE", write("scheme", b"mysql://u:hunter2@h/d"), "must begin with"),
        (
            "ads",
            "DATABASE_URL_FILE",
            write("mongodb", b"mongodb://u:p?hunter2@h/d"),
            "does not have the form",
        ),
        (
            "audit",
            "STOCK_DATABASE_URL_FILE",
            write("postgres", b"postgres://u:hunter2@h:x/d"),
            "the port must be",
        ),
        (
            "audit",
            "ADS_DATABASE_URL_FILE",
            write("ads", b"mongodb://u:hunter2@h:x/d"),
            "does not have the form",
        ),
        ("estimate", "KAFKA_PROPERTIES_FILE", write("property", b"a=b\nhunter2\n"), "must be KEY=VALUE"),
        ("estimate", "KAFKA_PROPERTIES_FILE", write("comments", b"# hunter2\n"), "contains no value"),
        ("estimate", "SCHEMA_REGISTRY_URL_FILE", write("registry", b"http://u:hunter2@h:x"), "invalid port"),
        ("estimate", "OTEL_EXPORTER_OTLP_HEADERS_FILE", write("headers", b"hunter2"), "must be NAME=VALUE"),
    ] {
        let output = Command::new(BINARY).arg(role).env(variable, &path).output().unwrap();
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{role} {path}: {error}");
        for part in [&path, variable, reason] {
            assert!(error.contains(part), "{role} {path}: {error}");
        }
        assert!(!error.contains("hunter2"), "{role} {path}: {error}");
    }
    let path = write("flag", b"mysql://u:hunter2@h/d");
    let output = Command::new(BINARY).args(["stock", "--database-url-file", &path]).output().unwrap();
    assert!(
        stderr(&output).contains(&format!("the file {path} (--database-url-file)")),
        "{}",
        stderr(&output)
    );
}

type Headers = Vec<(String, String)>;

/// Returns a collector's URL and the headers of the requests that it receives.
fn collector() -> (String, Arc<Mutex<Vec<Headers>>>) {
    let received = Arc::<Mutex<Vec<Headers>>>::default();
    let kept = web::Data::from(Arc::clone(&received));
    let receive = async |request: HttpRequest, kept: web::Data<Mutex<Vec<Headers>>>| {
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
        let headers =
            request.headers().iter().map(|(name, value)| (name.to_string(), text(value.as_bytes())));
        kept.lock().unwrap().push(headers.collect());
        HttpResponse::Ok().content_type("application/x-protobuf").finish()
    };
    let app = move || App::new().app_data(kept.clone()).route("/v1/traces", web::post().to(receive));
    let server = HttpServer::new(app).workers(1).disable_signals().bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", server.addrs()[0]);
    tokio::spawn(server.run());
    (url, received)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_collector_receives_the_headers_of_the_settings_and_no_others() {
    let (url, received) = collector();
    let variable = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20variable,tenant=variable");
    for (from_file, authorization) in [(false, "Bearer flag"), (true, "Bearer file")] {
        let mut alone = Alone::new("127.0.0.1");
        alone.variables.push(("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()));
        alone.variables.push((variable.0, variable.1.to_owned()));
        let mut arguments = vec!["stock", "--otlp-endpoint", &url];
        if from_file {
            let file = alone.directory.path().join("headers");
            fs::write(&file, "# tenant=none\nauthorization=Bearer%20file\r\n").unwrap();
            alone.variables.push(("OTEL_EXPORTER_OTLP_HEADERS_FILE", file.display().to_string()));
        } else {
            arguments.extend(["--otlp-headers", "authorization=Bearer%20flag"]);
        }
        received.lock().unwrap().clear();
        let mut stock = alone.spawn(&arguments);
        let stock_url = format!("http://127.0.0.1:{}/stock", alone.port);
        let headers = eventually("spans at the collector", async || {
            let posted = http_client().post(&stock_url).json(&vehicle("vin")).send().await;
            posted.ok()?;
            received.lock().unwrap().pop()
        })
        .await;
        let value = |wanted| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        assert_eq!(value("authorization"), Some(authorization), "{headers:?}");
        assert_eq!(value("tenant"), None, "{headers:?}");
        assert_eq!(value("content-type"), Some("application/x-protobuf"), "{headers:?}");
        assert_eq!(terminate(&mut stock.child).await.code(), Some(0));
    }
}

/// Otherwise a key that looks like a comment would leave the API open.
#[test]
fn a_list_without_a_value_is_refused() {
    for (name, value) in [("API_KEY", "#s3cret-0123456789"), ("API_KEY", ","), ("CORS_ORIGIN", ", ,")] {
        let variable = |wanted: &OsStr| (wanted == name).then(|| OsString::from(value));
        let error = try_parse::<Cli>(vec!["vehicle-platform".into(), "stock".into()], &variable).unwrap_err();
        assert!(error.to_string().contains(&format!("the variable {name} ")), "{error}");
        assert!(error.to_string().contains("contains no value"), "{error}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}
