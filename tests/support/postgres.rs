//! Runs private PostgreSQL servers and `PgBouncer`s for tests, using installed programs.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};

use vehicle_platform::database::postgres::PostgresAddress;

use super::home::{Home, unprivileged};
use crate::support::{eventually, free_port};

pub const PASSWORD: &str = "secret%word";
const PASSWORD_IN_URL: &str = "secret%25word";
const PGBOUNCER: &str = "/usr/sbin/pgbouncer";

/// The access rules. Each test selects a database; the first two rules refuse one kind of connection.
const HBA: &str = "\
hostnossl tls_only all all reject
hostssl plain_only all all reject
local all all scram-sha-256
host all all all scram-sha-256
";

/// Returns the directory of the server's programs. Reports that the test is skipped and returns `None` when a program
/// is missing.
///
/// # Panics
/// Panics when `REQUIRE_ENGINES=1` and a program is missing.
pub fn installed() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut binaries: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    binaries.retain(|directory| directory.join("postgres").exists() && directory.join("initdb").exists());
    binaries.sort();
    let openssl = Command::new("openssl").arg("version").stdout(Stdio::null()).status();
    let complete = Path::new(PGBOUNCER).exists() && openssl.is_ok_and(|status| status.success());
    if let Some(found) = binaries.pop().filter(|_| complete) {
        return Some(found);
    }
    let missing = "postgresql, pgbouncer and openssl are not installed";
    let required = std::env::var("REQUIRE_ENGINES").is_ok_and(|value| value == "1");
    assert!(!required, "REQUIRE_ENGINES=1, but {missing}");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // The output of eprintln is not shown for tests that pass.
    let mut stderr = std::io::stderr();
    writeln!(stderr, "skipped {test}: {missing}").unwrap();
    None
}

/// The certificate that a server presents.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// A certificate for `localhost`, signed by the authority in `ca.crt`.
    Signed,
    /// A self-signed certificate for `localhost`.
    SelfSigned,
    /// No certificate: the server does not support TLS.
    None,
}

/// Returns the command that starts a server, as arguments of `env`.
fn server_command(home: &Home, binaries: &Path, port: u16, options: Options<'_>) -> Vec<String> {
    let command = unprivileged(&binaries.join("postgres"));
    let mut words: Vec<_> =
        options.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    words.extend([command.get_program()].into_iter().chain(command.get_args()).map(text));
    words.extend(["-D", &home.text("data"), "-h", "127.0.0.1", "-p", &port.to_string()].map(str::to_owned));
    words.extend(["-k".to_owned(), home.text("")]);
    let tls = if options.certificate == Certificate::None { "ssl=off" } else { "ssl=on" };
    let files = [("ssl_cert_file", "server.crt"), ("ssl_key_file", "server.key")]
        .map(|(setting, file)| format!("{setting}={}", home.text(file)));
    let settings = ["fsync=off", "max_connections=60", "max_prepared_transactions=10", tls];
    for setting in settings.iter().chain(options.settings).map(ToString::to_string).chain(files) {
        words.extend(["-c".to_owned(), setting]);
    }
    words
}

fn text(word: &std::ffi::OsStr) -> String {
    word.to_str().unwrap().to_owned()
}

/// A running server, stopped on drop.
struct Process(Child);

impl Process {
    /// Starts `command` and waits until it listens. Returns `None` when it ends before.
    async fn start(mut command: Command, port: u16, log: &Path) -> Option<Self> {
        let log = fs::File::create(log).unwrap();
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut process = Self(child);
        let listens = eventually("a server to listen", async || {
            if process.0.try_wait().unwrap().is_some() {
                return Some(false);
            }
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok().then_some(true)
        });
        listens.await.then_some(process)
    }
}

impl Process {
    fn signal(&self, name: &str) {
        send(name, self.0.id());
    }

    /// Sends a signal to the process and its children.
    fn signal_all(&self, name: &str) {
        self.signal(name);
        let parent = self.0.id().to_string();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
            let mut parents = status.lines().filter_map(|line| line.strip_prefix("PPid:"));
            if parents.next().is_some_and(|id| id.trim() == parent) {
                send(name, id);
            }
        }
    }
}

fn send(name: &str, id: u32) {
    // A process that has ended meanwhile needs no signal.
    _ = Command::new("kill").args([&format!("-{name}"), &id.to_string()]).stderr(Stdio::null()).status();
}

impl Drop for Process {
    fn drop(&mut self) {
        // A suspended server would not end.
        self.signal_all("CONT");
        // PostgreSQL's fast shutdown frees its shared memory; PgBouncer handles the signal as well.
        self.signal("INT");
        _ = self.0.wait();
    }
}

/// The options of a server.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    pub certificate: Certificate,
    pub settings: &'a [&'a str],
    pub environment: &'a [(&'a str, &'a str)],
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { certificate: Certificate::Signed, settings: &[], environment: &[] }
    }
}

/// A running PostgreSQL server.
pub struct Server {
    // Stopped before its directory is removed.
    process: Mutex<Option<Process>>,
    home: Home,
    port: u16,
    /// The program with its arguments and environment.
    start: Vec<String>,
}

impl Server {
    /// Starts a server with a certificate of `ca.crt`. Reports and returns `None` when the test is skipped.
    pub async fn start() -> Option<Self> {
        Self::start_with(Certificate::Signed).await
    }

    pub async fn start_with(certificate: Certificate) -> Option<Self> {
        Self::start_as(Options { certificate, ..Options::default() }).await
    }

    pub async fn start_as(options: Options<'_>) -> Option<Self> {
        let binaries = installed()?;
        let mut home = Home::new();
        home.write("password", PASSWORD);
        let initdb = unprivileged(&binaries.join("initdb"))
            .args(["-U", "postgres", "-A", "scram-sha-256", "--no-sync", "-E", "UTF8", "--locale=C"])
            .args(["-D", &home.text("data"), "--pwfile", &home.text("password")])
            .output()
            .unwrap();
        assert!(initdb.status.success(), "{}", String::from_utf8_lossy(&initdb.stderr));
        home.write("data/pg_hba.conf", HBA);
        home.make_authority("ca");
        home.make_authority("other");
        match options.certificate {
            Certificate::Signed => home.make_certificate(),
            Certificate::SelfSigned | Certificate::None => home.make_authority("server"),
        }
        home.hand_over("server.key");
        fs::set_permissions(home.path("server.key"), fs::Permissions::from_mode(0o600)).unwrap();
        // A free port may be taken before the server binds it.
        for _ in 0..5 {
            let port = free_port();
            let command = server_command(&home, &binaries, port, options);
            let server = Self { process: Mutex::default(), home, port, start: command };
            if server.launch().await {
                return Some(server);
            }
            home = server.home;
        }
        panic!("PostgreSQL did not start: {}", fs::read_to_string(home.path("log")).unwrap());
    }

    /// Starts the program and waits until it accepts connections. Returns `false` when the program ended, as on a
    /// taken port.
    async fn launch(&self) -> bool {
        let mut command = Command::new("env");
        command.args(&self.start);
        let Some(process) = Process::start(command, self.port, &self.home.path("log")).await else {
            return false;
        };
        *self.process() = Some(process);
        // The server listens before it has started up.
        let address = self.address("postgres");
        eventually("PostgreSQL to start", async || address.connect().await.ok()).await;
        true
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap()
    }

    /// Kills the server as a crash would, and restarts it.
    pub async fn crash_and_restart(&self) {
        let process = self.process().take().unwrap();
        process.signal("QUIT");
        drop(process);
        assert!(self.launch().await, "{}", fs::read_to_string(self.home.path("log")).unwrap());
    }

    /// Suspends the server and its processes.
    pub fn freeze(&self) {
        self.process().as_ref().unwrap().signal_all("STOP");
    }

    pub fn thaw(&self) {
        self.process().as_ref().unwrap().signal_all("CONT");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the path of a file next to the server's data, such as `ca.crt`.
    pub fn file(&self, name: &str) -> String {
        self.home.text(name)
    }

    /// Returns the URL of this server with the host name `host`, and `rest` after the slash.
    pub fn url(&self, host: &str, rest: &str) -> String {
        format!("postgres://postgres:{PASSWORD_IN_URL}@{host}:{}/{rest}", self.port)
    }

    pub fn address(&self, rest: &str) -> PostgresAddress {
        address(&self.url("127.0.0.1", rest))
    }
}

pub fn address(url: &str) -> PostgresAddress {
    PostgresAddress::parse(&url.parse().unwrap()).unwrap()
}

/// A `PgBouncer` in front of a server.
pub struct Pooler {
    _process: Process,
    _home: Home,
    port: u16,
}

impl Pooler {
    /// Starts a pooler that maps every database name to `database` of `server`.
    pub async fn start(server: &Server, mode: &str, database: &str) -> Self {
        let home = Home::new();
        for _ in 0..5 {
            let port = free_port();
            let settings = format!(
                "[databases]\n* = host=127.0.0.1 port={} dbname={database} user=postgres password='{PASSWORD}'\n\
                 [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
                 pool_mode = {mode}\n",
                server.port
            );
            home.write("pgbouncer.ini", &settings);
            let mut command = unprivileged(Path::new(PGBOUNCER));
            command.arg(home.path("pgbouncer.ini"));
            if let Some(process) = Process::start(command, port, &home.path("log")).await {
                return Self { _process: process, _home: home, port };
            }
        }
        panic!("PgBouncer did not start: {}", fs::read_to_string(home.path("log")).unwrap());
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn address(&self, rest: &str) -> PostgresAddress {
        address(&format!("postgres://postgres:any@127.0.0.1:{}/{rest}", self.port))
    }
}
