//! Tests a database that responds but refuses statements.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use futures::future::join_all;
use reqwest::StatusCode;
use tempfile::TempDir;

use super::load;
use super::world::{Sql, World, vehicle_of};
use crate::support::vehicle;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_free_connections_is_reported_and_retried() {
    let Some(world) = World::shared().await else { return };
    let sql = world.operator().await;
    let stock = world.stock().await;
    stock.await_ready().await;
    world.accept(&stock, "before").await;
    let user = &world.database;
    sql.run(&format!("ALTER ROLE {user} CONNECTION LIMIT 0")).await;
    sql.run(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{user}'"))
        .await;
    world.await_refusal(&stock, "until").await;
    stock.await_unready("database", &["53300"]).await;
    world.post(&stock, "refused").await.assert_unavailable();
    sql.run(&format!("ALTER ROLE {user} CONNECTION LIMIT -1")).await;
    world.accept_eventually(&stock, "after").await;
    stock.await_ready().await;
    world.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_refuses_connections_is_unavailable_until_it_accepts_them() {
    let Some(world) = World::shared().await else { return };
    let sql = Sql::connect(&world.server.url("127.0.0.1", "postgres")).await;
    let stock = world.stock().await;
    stock.await_ready().await;
    let name = &world.database;
    for (code, refuse, accept) in [
        (
            "55000",
            format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"),
            format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"),
        ),
        (
            "42501",
            format!("REVOKE CONNECT ON DATABASE {name} FROM PUBLIC, {name}"),
            format!("GRANT CONNECT ON DATABASE {name} TO {name}"),
        ),
    ] {
        world.accept_eventually(&stock, &format!("before-{code}")).await;
        sql.run(&refuse).await;
        sql.run(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{name}'"))
            .await;
        world.await_refusal(&stock, &format!("until-{code}")).await;
        stock.await_unready("database", &[code]).await;
        world.post(&stock, &format!("refused-{code}")).await.assert_unavailable();
        sql.run(&accept).await;
        world.accept_eventually(&stock, &format!("after-{code}")).await;
        stock.await_ready().await;
    }
    world.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_an_operator_locks_is_reported_and_retried() {
    let Some(world) = World::shared().await else { return };
    let sql = world.operator().await;
    let stock = world.stock().await;
    stock.await_ready().await;
    world.accept(&stock, "before").await;
    sql.run("BEGIN; LOCK TABLE vehicles").await;
    // Exceeds the lock timeout of the session.
    world.await_refusal(&stock, "until").await;
    stock.await_unready("database", &["55P03", "psql"]).await;
    sql.run("ROLLBACK").await;
    world.accept_eventually(&stock, "between").await;
    stock.await_ready().await;
    // Exceeds the statement timeout of the session.
    sql.run(
        "CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_sleep(60);
            RETURN NEW;
         END $$;
         CREATE TRIGGER sleep BEFORE INSERT ON vehicles FOR EACH ROW EXECUTE FUNCTION sleep()",
    )
    .await;
    world.await_refusal(&stock, "slow").await;
    stock.await_unready("database", &["57014"]).await;
    sql.run("DROP TRIGGER sleep ON vehicles").await;
    world.accept_eventually(&stock, "after").await;
    stock.await_ready().await;
    world.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_constraint_that_an_operator_adds_refuses_only_one_vehicle() {
    let Some(world) = World::shared().await else { return };
    let sql = world.operator().await;
    let stock = world.stock().await;
    stock.await_ready().await;
    sql.run("ALTER TABLE vehicles ADD CONSTRAINT no_bad_model CHECK (model <> 'bad')").await;
    // A lock delays the first insert, so that the others are written in one batch.
    sql.run("BEGIN; LOCK TABLE vehicles IN SHARE MODE").await;
    let posts = join_all((0..50).map(async |number| {
        let vin = format!("neighbour-{number}");
        if number == 17 {
            let answer = stock.post(&vehicle_of(&vin, "bad")).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
        } else {
            world.accept(&stock, &vin).await;
        }
    }));
    let release = async {
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'vehicles'::regclass";
        crate::support::eventually("an insert to wait", async || (sql.ask(waits).await != "0").then_some(()))
            .await;
        sql.run("ROLLBACK").await;
    };
    tokio::join!(posts, release);
    assert!(stock.metric("stock_commit_vehicles_sum").await >= 49.0);
    assert!(stock.metric("stock_commit_vehicles_count").await < 40.0, "nothing was written in a batch");
    stock.await_ready().await;
    world.audit().await;
}

/// A small file system that is removed on drop.
struct SmallDisk(TempDir);

impl SmallDisk {
    const MIB: u64 = 24;

    /// Mounts the file system. Returns `None` where file systems cannot be mounted.
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={}m", Self::MIB), "tmpfs"]);
        let mounted = mount.arg(directory.path()).stderr(Stdio::null()).status();
        if !mounted.is_ok_and(|status| status.success()) {
            return None;
        }
        let disk = Self(directory);
        let home = fs::metadata("/var/lib/postgresql").ok().map(|home| {
            use std::os::unix::fs::MetadataExt as _;
            (home.uid(), home.gid())
        });
        let (user, group) = home?;
        chown(disk.0.path(), Some(user), Some(group)).unwrap();
        // The parent directory is private to the test unless others have permission to traverse it.
        Some(disk)
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }

    fn fill(&self) {
        use std::io::Write as _;
        let mut file = fs::File::create(self.filler()).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_reported_and_loses_nothing() {
    let Some(world) = World::shared().await else { return };
    let sql = world.operator().await;
    let stock = world.stock().await;
    stock.await_ready().await;
    world.accept(&stock, "before").await;
    let disk = SmallDisk::mount();
    match &disk {
        Some(disk) => {
            let name = format!("small_{}", world.database);
            let path = disk.0.path().display().to_string();
            sql.run(&format!("CREATE TABLESPACE {name} LOCATION '{path}'")).await;
            sql.run(&format!("ALTER TABLE vehicles SET TABLESPACE {name}")).await;
            sql.run(&format!("ALTER TABLE event_log SET TABLESPACE {name}")).await;
            disk.fill();
        }
        None => {
            use std::io::Write as _;
            writeln!(std::io::stderr(), "no file system can be mounted, so a trigger reports the full disk")
                .unwrap();
            sql.run(
                "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    RAISE EXCEPTION 'no space' USING ERRCODE = '53100';
                 END $$;
                 CREATE TRIGGER full_disk BEFORE INSERT ON vehicles FOR EACH ROW EXECUTE FUNCTION full_disk()",
            )
            .await;
        }
    }
    world.await_refusal(&stock, "until").await;
    let full = async {
        stock.await_unready("database", &["53100"]).await;
        world.post(&stock, "refused").await.assert_unavailable();
        match &disk {
            Some(disk) => disk.empty(),
            None => sql.run("DROP TRIGGER full_disk ON vehicles").await,
        }
        stock.await_ready().await;
    };
    let answers = load::during(&world, &stock, 4, full).await;
    println!("answers around the full disk: {answers:?}");
    world.accept(&stock, "after").await;
    world.audit().await;
    if disk.is_some() {
        drop(stock);
        let name = format!("small_{}", world.database);
        sql.run("ALTER TABLE vehicles SET TABLESPACE pg_default").await;
        sql.run("ALTER TABLE event_log SET TABLESPACE pg_default").await;
        sql.run(&format!("DROP TABLESPACE {name}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_201_is_flushed_to_disk_regardless_of_the_roles_default() {
    let Some(world) = World::shared().await else { return };
    let sql = world.operator().await;
    let user = &world.database;
    sql.run(&format!("ALTER ROLE {user} SET synchronous_commit = off")).await;
    let stock = world.stock().await;
    stock.await_ready().await;
    // A deferred trigger runs at commit, after which nothing changes the setting.
    sql.run(
        "CREATE TABLE seen (setting text);
         GRANT ALL ON seen TO public;
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO seen VALUES (current_setting('synchronous_commit'));
            RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER see AFTER INSERT ON vehicles DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION see();
         CREATE CONSTRAINT TRIGGER see AFTER INSERT ON event_log DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION see()",
    )
    .await;
    for number in 0..3 {
        world.accept(&stock, &format!("flushed-{number}")).await;
    }
    // The same trigger also applies to other writers.
    sql.run("SET synchronous_commit = off").await;
    sql.run(
        "INSERT INTO vehicles (vin, model, manufacturer, year, odometer, odometer_unit, created_at)
         VALUES ('foreign-1', 'm', 'm', 2022, 1, 'km', now())",
    )
    .await;
    assert_eq!(sql.column("SELECT setting FROM seen").await, ["on"; 7]);
    let answer = stock.post(&vehicle("flushed-0")).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    world.audit().await;
}
