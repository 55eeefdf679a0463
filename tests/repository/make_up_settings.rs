//! Tests what `make up` makes of the settings, and the secrets that it creates.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::checkout::{Checkout, stderr, stdout};

#[test]
fn kafka_ui_gets_a_random_password_when_other_machines_can_reach_it() {
    for address in ["127.0.0.1", "127.0.0.2", "[::1]", "localhost"] {
        let checkout = Checkout::with_docker("");
        let output = checkout.up(&[("BIND_ADDRESS", address)]);
        assert!(stdout(&output).contains("admin / password"), "{output:?}");
        assert!(!checkout.compose().join("secrets/kafka-ui-password").exists(), "{address}");
    }
    for address in ["0.0.0.0", "192.168.1.5", "[::]"] {
        let checkout = Checkout::with_docker("");
        let output = checkout.up(&[("BIND_ADDRESS", address)]);
        let password = checkout.secret("kafka-ui-password");
        assert_eq!(password.len(), 48);
        assert!(checkout.calls().contains(&format!("password={password}\n")), "{address}");
        assert!(stdout(&output).contains("admin / compose/secrets/kafka-ui-password"), "{output:?}");
        checkout.up(&[("BIND_ADDRESS", address)]);
        assert_eq!(checkout.secret("kafka-ui-password"), password, "it changed");
    }
    let checkout = Checkout::with_docker("");
    let output = checkout.up(&[("BIND_ADDRESS", "0.0.0.0"), ("KAFKA_UI_PASSWORD", "chosen")]);
    assert!(stdout(&output).contains("admin / chosen"), "{output:?}");
}

/// Returns what the last start passed to compose as the setting of the console.
fn console_is_read_only(checkout: &Checkout) -> String {
    let calls = checkout.calls();
    let start = calls.lines().rfind(|call| call.starts_with("compose up --detach")).unwrap();
    let (_, value) = start.split_once(" read_only=").unwrap();
    value.split_once(' ').unwrap().0.to_owned()
}

#[test]
fn the_console_is_read_only_when_other_machines_can_reach_it() {
    for (address, chosen, expected) in [
        ("127.0.0.1", None, ""),
        ("[::1]", None, ""),
        ("0.0.0.0", None, "true"),
        ("192.168.1.5", None, "true"),
        // Compose publishes on all addresses then.
        ("", None, "true"),
        ("0.0.0.0", Some("false"), "false"),
        ("127.0.0.1", Some("true"), "true"),
    ] {
        let checkout = Checkout::with_docker("");
        let variables = [("COMPOSE_PROFILES", "console"), ("BIND_ADDRESS", address)];
        let chosen = chosen.map(|value| ("CONSOLE_READ_ONLY", value));
        let output = checkout.up(&variables.into_iter().chain(chosen).collect::<Vec<_>>());
        assert!(output.status.success(), "{output:?}");
        assert_eq!(console_is_read_only(&checkout), expected, "{address} {chosen:?}");
        let reported = stdout(&output).contains("read-only; CONSOLE_READ_ONLY=false");
        assert_eq!(reported, chosen.is_none() && expected == "true", "{output:?}");
    }
    let checkout = Checkout::with_docker("");
    checkout.set("BIND_ADDRESS=0.0.0.0\nCONSOLE_READ_ONLY=false\n");
    assert!(checkout.up(&[]).status.success());
    assert_eq!(console_is_read_only(&checkout), "", "compose reads it from the file");
}

#[test]
fn the_file_of_settings_is_read_as_compose_reads_it() {
    for (line, expected) in [
        ("STOCK_PORT=13002", "13002"),
        ("STOCK_PORT=13002\r", "13002"),
        ("STOCK_PORT=\"13002\"", "13002"),
        ("STOCK_PORT='13002'\r", "13002"),
        ("STOCK_PORT=13002 # for tests", "13002"),
        ("STOCK_PORT=\"13002\" # for tests", "13002"),
        ("STOCK_PORT='1 # 2'", "1 # 2"),
        ("STOCK_PORT=1#2", "1#2"),
        ("  export STOCK_PORT = 13002  ", "13002"),
        ("STOCK_PORT: 13002", "13002"),
        ("STOCK_PORT=1\nADS_PORT=2\nSTOCK_PORT=13002", "13002"),
        ("NOT_STOCK_PORT=1\nSTOCK_PORT_TOO=2\n#STOCK_PORT=3", "3002"),
    ] {
        let checkout = Checkout::with_docker("");
        checkout.set(&format!("{line}\n"));
        let output = checkout.up(&[]);
        let address = format!("  stock     http://127.0.0.1:{expected}/stock\n");
        assert!(stdout(&output).contains(&address), "{line:?}: {output:?}");
    }
    let checkout = Checkout::with_docker("");
    checkout.set("BIND_ADDRESS=\"127.0.0.1\"\r\nKAFKA_UI_PASSWORD='password' # the default\n");
    let output = checkout.up(&[]);
    assert!(stdout(&output).contains("admin / password"), "{output:?}");
    assert!(
        stdout(&checkout.up(&[("BIND_ADDRESS", "0.0.0.0")])).contains("compose/secrets/kafka-ui-password")
    );
}

#[test]
fn each_database_gets_a_user_with_a_password_of_its_own() {
    let checkout = Checkout::with_docker("");
    assert!(checkout.up(&[]).status.success());
    for (name, user, rest) in [
        ("stock-database-url", "postgres://stock:", "@postgres:5432/stock"),
        ("ads-database-url", "mongodb://ads:", "@mongodb:27017/vehicles"),
    ] {
        let url = checkout.secret(name);
        let password = url.strip_prefix(user).unwrap().strip_suffix(rest).unwrap();
        assert_eq!(password.len(), 48);
        for superuser in ["postgres-password", "mongodb-password"] {
            assert_ne!(checkout.secret(superuser), password);
        }
    }
    let folder = fs::metadata(checkout.compose().join("secrets")).unwrap();
    assert_eq!(folder.permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_missing_secret_of_an_existing_database_is_not_replaced() {
    for (database, secret) in [("postgres", "stock-database-url"), ("mongodb", "ads-database-url")] {
        let checkout = Checkout::with_docker("'volume inspect '*) [ -e volumes ] ;;");
        assert!(checkout.up(&[]).status.success());
        fs::write(checkout.path("volumes"), "").unwrap();
        assert!(checkout.up(&[]).status.success(), "the secrets exist");
        fs::remove_file(checkout.compose().join("secrets").join(secret)).unwrap();
        let output = checkout.up(&[]);
        let expected =
            format!("compose/secrets/{secret} is missing, but the volume vehicle-platform_{database}-data");
        assert!(stderr(&output).contains(&expected), "{output:?}");
    }
}

#[test]
fn kraft_selects_the_files_without_zookeeper() {
    for (value, expected) in [("1", "files=compose.yaml:kraft.yaml"), ("0", "files= "), ("", "files= ")] {
        let checkout = Checkout::with_docker("");
        assert!(checkout.up(&[("KRAFT", value)]).status.success());
        let calls = checkout.calls();
        let start = calls.lines().find(|call| call.starts_with("compose up --detach")).unwrap();
        assert!(start.contains(expected), "{start}");
    }
}
