//! Starts engines that accept only TLS connections, from the programs that `tests/cluster/cluster install` names.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use mongodb::bson::doc;

use crate::support::engines::address;
use crate::support::home::Home;
use crate::support::{eventually, free_port};

/// The password of every user. It needs an encoding in URLs and none in librdkafka's settings.
pub const PASSWORD: &str = "secret%word";
pub const PASSWORD_IN_URL: &str = "secret%25word";

/// A process that listens on a port and is killed on drop.
struct Engine {
    child: Child,
    port: u16,
}

impl Engine {
    /// Starts the command that `command` returns for a free port, and waits until it listens.
    async fn start(home: &Home, name: &str, mut command: impl FnMut(u16) -> Command) -> Self {
        let (log, what) = (home.path(&format!("{name}.log")), format!("{name} to listen"));
        // A free port may be taken before the engine binds it.
        for _ in 0..5 {
            let port = free_port();
            let output = fs::File::create(&log).unwrap();
            let child = command(port).stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
            let mut engine = Self { child, port };
            let listens = eventually(&what, async || {
                if engine.child.try_wait().unwrap().is_some() {
                    return Some(false);
                }
                tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok().then_some(true)
            });
            if listens.await {
                return engine;
            }
        }
        panic!("{name} did not start: {}", fs::read_to_string(log).unwrap());
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Certificates for `localhost`: `server.crt` is signed by `ca.crt`, and `other.crt` is an authority that signed nothing.
pub struct Certificates(Home);

impl Certificates {
    pub fn make() -> Self {
        let home = Home::new();
        home.make_authority("ca");
        home.make_authority("other");
        home.make_certificate();
        let parts = ["server.key", "server.crt"].map(|name| fs::read_to_string(home.path(name)).unwrap());
        home.write("server.pem", &parts.concat());
        Self(home)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.text(name)
    }
}

/// A broker of Apache Kafka whose listener requires TLS and SASL/SCRAM. It knows the user `platform`.
pub struct Broker {
    engine: Engine,
    jars: String,
    /// The port of a listener without TLS, for the broker's own tools.
    internal: u16,
    _home: Home,
}

impl Broker {
    /// Starts a broker. Reports and returns `None` when Apache Kafka is not installed.
    pub async fn start(certificates: &Certificates) -> Option<Self> {
        let jars = address("Apache Kafka", "TEST_KAFKA_JARS")?;
        let home = Home::new();
        let settings = home.text("server.properties");
        let mut internal = 0;
        let engine = Engine::start(&home, "kafka", |port| {
            internal = free_port();
            home.write("server.properties", &properties(&home, certificates, port, internal));
            let scram = format!("SCRAM-SHA-512=[name=platform,password={PASSWORD}]");
            let format = [
                "format",
                "--ignore-formatted",
                "-t",
                "MkU3OEVBNTcwNTJENDM2Qg",
                "-c",
                &settings,
                "-S",
                &scram,
            ];
            run(&jars, "kafka.tools.StorageTool", &format);
            let mut broker = java(&jars, "kafka.Kafka");
            broker.arg(&settings);
            broker
        });
        let engine = engine.await;
        Some(Self { engine, jars, internal, _home: home })
    }

    pub fn port(&self) -> u16 {
        self.engine.port
    }

    pub fn add_user(&self, name: &str) {
        let servers = format!("127.0.0.1:{}", self.internal);
        let password = format!("SCRAM-SHA-512=[password={PASSWORD}]");
        let user = ["--alter", "--entity-type", "users", "--entity-name", name, "--add-config", &password];
        let arguments = [&["--bootstrap-server", &servers][..], &user].concat();
        run(&self.jars, "kafka.admin.ConfigCommand", &arguments);
    }
}

fn properties(home: &Home, certificates: &Certificates, port: u16, internal: u16) -> String {
    let controller = free_port();
    let (log, key_store) = (home.text("log"), certificates.path("server.pem"));
    format!(
        "\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=CONTROLLER://127.0.0.1:{controller},INTERNAL://127.0.0.1:{internal},CLIENTS://127.0.0.1:{port}
advertised.listeners=INTERNAL://127.0.0.1:{internal},CLIENTS://localhost:{port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,INTERNAL:PLAINTEXT,CLIENTS:SASL_SSL
inter.broker.listener.name=INTERNAL
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.clients.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location={key_store}
log.dirs={log}
auto.create.topics.enable=false
offsets.topic.num.partitions=3
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=3
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=16777216
"
    )
}

fn java(jars: &str, class: &str) -> Command {
    let mut command = Command::new("java");
    let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/log4j.properties");
    command.args(["-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    command.arg(format!("-Dlog4j.configuration=file:{}", settings.display()));
    command.args(["-cp", &format!("{jars}/*"), class]);
    command
}

fn run(jars: &str, class: &str, arguments: &[&str]) {
    let output = java(jars, class).args(arguments).output().unwrap();
    let said = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{class}: {said:?}");
}

/// A MongoDB server that requires TLS and a password. It knows the user `platform`.
pub struct Mongo {
    engine: Engine,
    _home: Home,
    client: mongodb::Client,
}

impl Mongo {
    /// Starts a server. Reports and returns `None` when MongoDB is not installed.
    pub async fn start(certificates: &Certificates) -> Option<Self> {
        let program = address("MongoDB", "TEST_MONGOD")?;
        let home = Home::new();
        fs::create_dir(home.path("db")).unwrap();
        let engine = Engine::start(&home, "mongodb", |port| {
            let mut command = Command::new(&program);
            command
                .args([
                    "--auth",
                    "--nounixsocket",
                    "--wiredTigerCacheSizeGB",
                    "0.25",
                    "--bind_ip",
                    "127.0.0.1",
                ])
                .args(["--port", &port.to_string(), "--dbpath", &home.text("db")])
                .args(["--tlsMode", "requireTLS", "--tlsAllowConnectionsWithoutCertificates"])
                .args(["--tlsCertificateKeyFile", &certificates.path("server.pem")])
                .args(["--tlsCAFile", &certificates.path("ca.crt")]);
            command
        });
        let engine = engine.await;
        // The first user can be created without a password from the server's machine, and creates the others.
        let options = format!("tls=true&tlsCAFile={}", certificates.path("ca.crt"));
        let first = mongodb::Client::with_uri_str(format!("mongodb://localhost:{}/?{options}", engine.port));
        let command = doc! { "createUser": "platform", "pwd": PASSWORD, "roles": ["root"] };
        first.await.unwrap().database("admin").run_command(command).await.unwrap();
        let url = format!("mongodb://platform:{PASSWORD_IN_URL}@localhost:{}/?{options}", engine.port);
        let client = mongodb::Client::with_uri_str(url).await.unwrap();
        Some(Self { engine, _home: home, client })
    }

    /// Returns the URL of this server for `user`, which authenticates with the database `admin`.
    pub fn url(&self, user: &str, host: &str, authority: &str) -> String {
        let port = self.engine.port;
        format!(
            "mongodb://{user}:{PASSWORD_IN_URL}@{host}:{port}/vehicles?authSource=admin&tls=true&tlsCAFile={authority}"
        )
    }

    pub async fn add_user(&self, name: &str) {
        let command = doc! { "createUser": name, "pwd": PASSWORD, "roles": ["root"] };
        self.client.database("admin").run_command(command).await.unwrap();
    }
}

/// An nginx that requires TLS and a password before it forwards to a schema registry.
pub struct Gateway {
    engine: Engine,
    home: Home,
}

impl Gateway {
    /// Starts nginx in front of `registry`, with the user `platform`.
    pub async fn start(certificates: &Certificates, registry: &str) -> Self {
        let home = Home::new();
        home.write("users", &format!("platform:{{PLAIN}}{PASSWORD}\n"));
        let engine = Engine::start(&home, "nginx", |port| {
            home.write("nginx.conf", &configuration(&home, certificates, port, registry));
            let installed = Path::new("/usr/sbin/nginx");
            let mut command = Command::new(if installed.exists() { installed } else { Path::new("nginx") });
            command.args(["-e", "stderr", "-c", &home.text("nginx.conf")]).stdin(Stdio::null());
            command
        });
        Self { engine: engine.await, home }
    }

    pub fn url(&self, user: &str, host: &str) -> String {
        format!("https://{user}:{PASSWORD_IN_URL}@{host}:{}", self.engine.port)
    }

    /// Adds a user. nginx reads the file for each request.
    pub fn add_user(&self, name: &str) {
        let users = fs::read_to_string(self.home.path("users")).unwrap();
        self.home.write("users", &format!("{users}{name}:{{PLAIN}}{PASSWORD}\n"));
    }
}

fn configuration(home: &Home, certificates: &Certificates, port: u16, registry: &str) -> String {
    let path = |name| home.text(name);
    let (certificate, key) = (certificates.path("server.crt"), certificates.path("server.key"));
    format!(
        "\
daemon off;
master_process off;
pid {pid};
events {{}}
http {{
    access_log off;
    client_body_temp_path {body}; proxy_temp_path {proxy}; fastcgi_temp_path {fastcgi};
    uwsgi_temp_path {uwsgi}; scgi_temp_path {scgi};
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        auth_basic registry;
        auth_basic_user_file {users};
        location / {{ proxy_pass {registry}; }}
    }}
}}
",
        pid = path("pid"),
        body = path("body"),
        proxy = path("proxy"),
        fastcgi = path("fastcgi"),
        uwsgi = path("uwsgi"),
        scgi = path("scgi"),
        users = path("users"),
    )
}
