//! Measures the limit for POST: pgbench runs a transaction of two inserts.

use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;

use crate::sql::Sql;
use crate::workspace::{Site, Workspace};

/// Tables of the same shape as those of stock: vehicles and their events.
const TABLES: &str = "
CREATE TABLE vehicles (
    id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    vin           TEXT NOT NULL UNIQUE,
    model         TEXT NOT NULL,
    manufacturer  TEXT NOT NULL,
    year          INTEGER NOT NULL,
    odometer      DOUBLE PRECISION NOT NULL,
    odometer_unit TEXT NOT NULL,
    created_at    TIMESTAMPTZ NOT NULL
);
CREATE TABLE outbox (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    vin         TEXT NOT NULL,
    event       TEXT NOT NULL,
    traceparent TEXT NOT NULL
);";

/// The transaction. Its VINs arrive in random order, as those of the load generator do.
const SCRIPT: &str = r#"\set n random(1, 9000000000000000000)
BEGIN;
INSERT INTO vehicles (vin, model, manufacturer, year, odometer, odometer_unit, created_at) VALUES ('V' || lpad(to_hex(:n::bigint), 16, '0'), 'model', 'manufacturer', 2022, 1000, 'km', now());
INSERT INTO outbox (vin, event, traceparent) VALUES ('V' || lpad(to_hex(:n::bigint), 16, '0'), '{"id":1234567,"vin":"V0123456789abcdef","model":"model","manufacturer":"manufacturer","year":2022,"odometer":1000,"odometerUnit":"km"}', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01');
COMMIT;
"#;

/// The protocol that pgbench uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Simple,
    Prepared,
}

impl Mode {
    pub const ALL: [Self; 2] = [Self::Simple, Self::Prepared];

    pub fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Prepared => "prepared",
        }
    }
}

/// The result that pgbench reports.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub per_second: f64,
    pub mean_milliseconds: f64,
}

/// pgbench with its own database.
pub struct Pgbench {
    pub site: Rc<Site>,
    script: PathBuf,
}

impl Pgbench {
    pub async fn prepare(workspace: &Workspace) -> Self {
        let site = workspace.site().await;
        Sql::connect(site.url()).await.run(TABLES).await;
        let script = workspace.settings.output.join("two-inserts.sql");
        std::fs::write(&script, SCRIPT).unwrap();
        Self { site, script }
    }

    pub async fn run(&self, clients: u32, mode: Mode, seconds: u64) -> Outcome {
        let mut command = Command::new("pgbench");
        command
            .args(["--no-vacuum", "--protocol", mode.name(), "--time", &seconds.to_string()])
            .args(["--client", &clients.to_string(), "--jobs", &clients.min(2).to_string()])
            .arg("--file")
            .arg(&self.script)
            .arg(self.site.url());
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
        let output = output.expect("pgbench from PostgreSQL's packages is installed");
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "pgbench failed: {stderr}");
        let number = |start: &str| {
            let rest = stdout.lines().find_map(|line| line.strip_prefix(start)).unwrap();
            rest.split_whitespace().next().unwrap().parse().unwrap()
        };
        Outcome { per_second: number("tps = "), mean_milliseconds: number("latency average = ") }
    }
}
