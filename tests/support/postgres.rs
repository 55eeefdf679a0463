//! PostgreSQL servers and `PgBouncer`s of a test's own, from the programs that are installed.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use vehicle_platform::database::postgres::PostgresAddress;

use crate::support::eventually;

pub const PASSWORD: &str = "secret%word";
const PASSWORD_IN_URL: &str = "secret%25word";
const PGBOUNCER: &str = "/usr/sbin/pgbouncer";

/// Each test names the database; these refuse one kind of connection.
const HBA: &str = "\
hostnossl tls_only all all reject
hostssl plain_only all all reject
local all all scram-sha-256
host all all all scram-sha-256
";

/// The directory of the server's programs, or `None` after saying that the test is skipped.
///
/// # Panics
/// When `REQUIRE_ENGINES=1` and a program is missing.
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
    // Not by eprintln, whose output a test that passes does not show.
    let mut stderr = std::io::stderr();
    writeln!(stderr, "skipped {test}: {missing}").unwrap();
    None
}

/// The certificate that a server presents.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// One for `localhost`, signed by the authority in `ca.crt`.
    Signed,
    /// One for `localhost` that is its own authority.
    SelfSigned,
    /// None: the server does not support TLS.
    None,
}

/// A directory that the unprivileged user of the servers owns.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = Self(directory);
        home.hand_over("");
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
        self.hand_over(name);
    }

    /// Both servers refuse to run as root.
    fn hand_over(&self, name: &str) {
        if is_root() {
            let id = |flag| {
                let output = Command::new("id").args([flag, "postgres"]).output().unwrap();
                String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
            };
            chown(self.path(name), Some(id("-u")), Some(id("-g"))).unwrap();
        }
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = Command::new(program).args(arguments).current_dir(self.0.path()).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Makes `<name>.crt` and `<name>.key` of an authority, or of a server that is its own.
    fn make_authority(&self, name: &str) {
        let (key, certificate, subject) =
            (format!("{name}.key"), format!("{name}.crt"), format!("/CN={name}"));
        self.run(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
                "-subj",
                &subject,
                "-addext",
                "subjectAltName=DNS:localhost",
                "-keyout",
                &key,
                "-out",
                &certificate,
            ],
        );
    }

    fn make_certificate(&self) {
        self.run(
            "openssl",
            &[
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-subj",
                "/CN=localhost",
                "-keyout",
                "server.key",
                "-out",
                "server.csr",
            ],
        );
        self.write("names", "subjectAltName=DNS:localhost");
        self.run(
            "openssl",
            &[
                "x509",
                "-req",
                "-in",
                "server.csr",
                "-CA",
                "ca.crt",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-days",
                "2",
                "-extfile",
                "names",
                "-out",
                "server.crt",
            ],
        );
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// A command that runs as an unprivileged user.
fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]).arg(program);
    command
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A running server, stopped on drop.
struct Process(Child);

impl Process {
    /// Starts `command` and waits until it listens, or returns `None` when it ends before.
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

impl Drop for Process {
    fn drop(&mut self) {
        // PostgreSQL's fast shutdown, which frees its shared memory; PgBouncer's as well.
        let id = self.0.id().to_string();
        _ = Command::new("kill").args(["-INT", &id]).stderr(Stdio::null()).status();
        _ = self.0.wait();
    }
}

/// A PostgreSQL server.
pub struct Server {
    // Stopped before its directory is removed.
    _process: Process,
    home: Home,
    port: u16,
}

impl Server {
    /// Returns a server with a certificate of `ca.crt`, or `None` after saying that the test is skipped.
    pub async fn start() -> Option<Self> {
        Self::start_with(Certificate::Signed).await
    }

    pub async fn start_with(certificate: Certificate) -> Option<Self> {
        let binaries = installed()?;
        let home = Home::new();
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
        match certificate {
            Certificate::Signed => home.make_certificate(),
            Certificate::SelfSigned | Certificate::None => home.make_authority("server"),
        }
        home.hand_over("server.key");
        fs::set_permissions(home.path("server.key"), fs::Permissions::from_mode(0o600)).unwrap();
        // A port that was free may be taken meanwhile.
        for _ in 0..5 {
            let port = free_port();
            let mut command = unprivileged(&binaries.join("postgres"));
            command.args(["-D", &home.text("data"), "-h", "127.0.0.1", "-p", &port.to_string()]);
            command.args(["-k", &home.text("")]);
            for setting in [
                "fsync=off",
                "max_connections=60",
                if certificate == Certificate::None { "ssl=off" } else { "ssl=on" },
                &format!("ssl_cert_file={}", home.text("server.crt")),
                &format!("ssl_key_file={}", home.text("server.key")),
            ] {
                command.args(["-c", setting]);
            }
            if let Some(process) = Process::start(command, port, &home.path("log")).await {
                let server = Self { _process: process, home, port };
                // It listens before it has started up.
                let address = server.address("postgres");
                eventually("PostgreSQL to start", async || address.connect().await.ok()).await;
                return Some(server);
            }
        }
        panic!("PostgreSQL does not start: {}", fs::read_to_string(home.path("log")).unwrap());
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path of a file next to the server's, such as `ca.crt`.
    pub fn file(&self, name: &str) -> String {
        self.home.text(name)
    }

    /// The URL of this server, under the name `host`, with `rest` after the slash.
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
    /// Starts a pooler whose every database is `database` of `server`.
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
        panic!("PgBouncer does not start: {}", fs::read_to_string(home.path("log")).unwrap());
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn address(&self, rest: &str) -> PostgresAddress {
        address(&format!("postgres://postgres:any@127.0.0.1:{}/{rest}", self.port))
    }
}
