//! Tests that every setting can come from a flag, a variable or, for a secret, a file.

mod sample;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::process::{Command as Process, Output};

use clap::Arg;
use proptest::prelude::*;
use vehicle_platform::cli::{Cli, Command};
use vehicle_platform::environment::{command_of, try_parse};

use crate::support::{BINARY, free_port};
use sample::sample;

/// Flags whose value is what a tool works on rather than a setting.
const NO_SETTINGS: &str = "vin files directory version compatibility reason since max rate connections length count seed run estimator_process";

/// A command, with arguments that it requires and arguments with which it ends by itself with an error, but only after
/// all settings have been parsed.
struct Tested {
    path: &'static [&'static str],
    required: &'static [&'static str],
    fails: &'static [&'static str],
}

/// Needs credentials, so no client can be created.
const NO_CREDENTIALS: &str = "--kafka-property=security.protocol=sasl_plaintext";
const NO_FILE: &str = "--file=topic=/does/not/exist";
const NO_DATABASE: &str = "--stock-database-url=sqlite:/does/not/exist";

const COMMANDS: &[Tested] = &[
    Tested { path: &["stock"], required: &[], fails: &["--port=0", NO_CREDENTIALS] },
    Tested { path: &["estimate"], required: &[], fails: &[NO_CREDENTIALS] },
    Tested { path: &["ads"], required: &[], fails: &["--port=0", NO_CREDENTIALS] },
    Tested { path: &["console"], required: &[], fails: &["--port=0", NO_CREDENTIALS] },
    Tested { path: &["dev"], required: &[], fails: &["--roles=stock,stock"] },
    Tested { path: &["audit"], required: &[], fails: &[NO_DATABASE] },
    Tested { path: &["dlq", "list"], required: &[], fails: &[NO_CREDENTIALS] },
    Tested {
        path: &["dlq", "show"],
        required: &["stock.vehicle-created/0/0"],
        fails: &["stock.vehicle-created/0/0", NO_CREDENTIALS],
    },
    Tested { path: &["dlq", "replay"], required: &["--all"], fails: &["--all", NO_CREDENTIALS] },
    Tested { path: &["dlq", "discard"], required: &["--all"], fails: &["--all", NO_CREDENTIALS] },
    Tested { path: &["load"], required: &[], fails: &["--stock-url=http://127.0.0.1:1"] },
    Tested { path: &["schemas", "check"], required: &[], fails: &[NO_FILE] },
    Tested { path: &["schemas", "register"], required: &[], fails: &[NO_FILE] },
    Tested { path: &["schemas", "diff"], required: &[], fails: &[NO_FILE] },
    Tested {
        path: &["schemas", "show"],
        required: &[],
        fails: &["--schema-registry-url=http://127.0.0.1:1"],
    },
    // Privileged, so no role listens there.
    Tested { path: &["healthcheck"], required: &["--port=9"], fails: &["--port=9"] },
    Tested { path: &["completions"], required: &["bash"], fails: &[] },
    Tested { path: &["man"], required: &["."], fails: &["/dev/null/man"] },
];

impl Tested {
    /// Returns the arguments of the command, those of the whole program included, that have a value.
    fn settings(&self) -> Vec<Arg> {
        let mut command = command_of::<Cli>();
        let mut settings: Vec<Arg> = command.get_arguments().cloned().collect();
        for name in self.path {
            command = command.find_subcommand(name).unwrap().clone();
            settings.extend(command.get_arguments().cloned());
        }
        settings.retain(|argument| argument.get_action().takes_values() && !argument.is_positional());
        settings.retain(|argument| NO_SETTINGS.split(' ').all(|name| name != argument.get_id().as_str()));
        settings
    }

    fn variables(&self) -> Vec<String> {
        self.settings()
            .iter()
            .map(|argument| argument.get_env().unwrap().to_str().unwrap().to_owned())
            .collect()
    }

    /// Parses the command with one variable. The result is shown without the values of secrets.
    fn parse(&self, name: &str, value: &str) -> Result<String, String> {
        let arguments = ["vehicle-platform"].iter().chain(self.path).chain(self.required_without(name));
        let variable = |asked: &OsStr| (asked == name).then(|| value.into());
        match try_parse::<Cli>(arguments.map(OsString::from).collect(), &variable) {
            Ok(cli) => Ok(format!("{cli:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Returns the required arguments other than the flag of a variable that is under test.
    fn required_without(&self, name: &str) -> impl Iterator<Item = &'static &'static str> {
        let port = if name == "PORT" { "--port=9" } else { "" };
        self.required.iter().filter(move |argument| **argument != port)
    }

    /// Runs the command so that it fails, with these variables.
    fn run(&self, variables: &BTreeMap<String, String>) -> Output {
        let mut command = Process::new(BINARY);
        command.args(self.path).args(self.fails).envs(variables);
        command.output().unwrap()
    }
}

fn leaves(command: &clap::Command) -> usize {
    let inner = command.get_subcommands().count();
    if inner == 0 { 1 } else { command.get_subcommands().map(leaves).sum() }
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs a command that must fail because of how it is used, and returns its error.
fn usage_error(arguments: &[&str], variables: &[(&str, &OsStr)]) -> String {
    let output = Process::new(BINARY).args(arguments).envs(variables.iter().copied()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?} {variables:?}: {}", stderr(&output));
    stderr(&output)
}

#[test]
fn every_command_is_tested() {
    assert_eq!(leaves(&command_of::<Cli>()), COMMANDS.len());
}

#[test]
fn every_setting_has_a_variable_of_its_own_and_every_secret_a_file() {
    let mut flags = BTreeMap::new();
    for command in COMMANDS {
        let variables = command
            .settings()
            .into_iter()
            .map(|argument| {
                let flag = argument.get_long().unwrap().to_owned();
                let variable = argument.get_env().unwrap_or_else(|| panic!("--{flag} has no variable"));
                let variable = variable.to_str().unwrap().to_owned();
                assert_eq!(flags.entry(flag.clone()).or_insert(variable.clone()), &variable, "--{flag}");
                (variable, argument)
            })
            .collect::<BTreeMap<_, _>>();
        for (variable, argument) in &variables {
            let is_secret = argument.is_hide_env_values_set();
            assert_eq!(variables.contains_key(&format!("{variable}_FILE")), is_secret, "{variable}");
        }
    }
    for file in
        ["database-url-file", "kafka-properties-file", "schema-registry-url-file", "otlp-headers-file"]
    {
        assert!(flags.contains_key(file), "{file}");
    }
}

#[test]
fn the_documentation_lists_every_setting() {
    let page = include_str!("../../docs/OPERATIONS.md");
    let listed: Vec<_> = page.lines().filter(|line| line.starts_with("| `--")).collect();
    for argument in COMMANDS.iter().flat_map(Tested::settings).filter(|argument| !argument.is_hide_set()) {
        let (flag, variable) = (argument.get_long().unwrap(), argument.get_env().unwrap().to_str().unwrap());
        let is_described = listed.iter().any(|line| {
            let flag_is_named =
                line.contains(&format!("`--{flag}`")) || line.contains(&format!("`--{flag} "));
            flag_is_named && line.contains(&format!("`{variable}`"))
        });
        assert!(is_described, "--{flag} and {variable} are not in one row of docs/OPERATIONS.md");
    }
}

#[test]
fn every_variable_may_be_empty_and_surrounded_by_white_space() {
    let directory = tempfile::tempdir().unwrap();
    for command in COMMANDS {
        let path = command.path;
        let port = if path == ["healthcheck"] { ("PORT", "9") } else { ("UNRELATED", "") };
        for argument in command.settings() {
            let variable = argument.get_env().unwrap().to_str().unwrap();
            let unset = command.parse(port.0, port.1).unwrap();
            // A health check needs one of the ports.
            if variable != "PORT" || port.0 != "PORT" {
                for empty in ["", " ", "\r\n", " \t\r\n\u{a0}"] {
                    assert_eq!(command.parse(variable, empty).as_ref(), Ok(&unset), "{path:?} {variable}");
                }
            }
            let value = sample(variable, directory.path());
            let set = command.parse(variable, &value).unwrap();
            assert_ne!(set, unset, "{path:?} ignores {variable}");
            let padded = command.parse(variable, &format!(" \t\r\n{value}\r\n \t"));
            assert_eq!(padded.as_ref(), Ok(&set), "{path:?} {variable}");
            if let Some(delimiter) = argument.get_value_delimiter() {
                let value = value.replace(delimiter, &format!(" \r\n {delimiter}{delimiter}\r\n\r\n "));
                let list =
                    command.parse(variable, &format!("{delimiter}\r\n{value}{delimiter} \r\n{delimiter}"));
                assert_eq!(list.as_ref(), Ok(&set), "{path:?} {variable}");
            }
        }
    }
}

#[test]
fn the_executable_accepts_each_variable_empty_and_surrounded_by_white_space() {
    let directory = tempfile::tempdir().unwrap();
    for command in COMMANDS.iter().filter(|command| !command.fails.is_empty()) {
        let values = |value: &dyn Fn(&str) -> String| -> BTreeMap<String, String> {
            command.variables().into_iter().map(|name| (name.clone(), value(&name))).collect()
        };
        for variables in [
            values(&|_| String::new()),
            values(&|_| " \r\n".to_owned()),
            values(&|name| format!(" \r\n{}\t\r\n", sample(name, directory.path()))),
        ] {
            let output = command.run(&variables);
            assert_eq!(output.status.code(), Some(1), "{:?}: {}", command.path, stderr(&output));
        }
    }
}

#[test]
fn an_error_in_a_variable_names_it() {
    let unreadable = OsString::from_vec(b"\xff".to_vec());
    for (command, variable, value) in [
        ("stock", "PORT", "70000"),
        ("stock", "TOPIC_PARTITIONS", "0"),
        ("stock", "SHUTDOWN_TIMEOUT", "soon"),
        ("stock", "LOG", "a=b=c"),
        ("stock", "LOG_FORMAT", "xml"),
        ("stock", "KAFKA_BOOTSTRAP_SERVERS", "host:99999"),
        ("stock", "DATABASE_URL", "postgres://h:0/d"),
        ("stock", "DATABASE_URL", "mongodb://h/d"),
        ("ads", "DATABASE_URL", "mongodb://h:x/d"),
        ("audit", "ADS_DATABASE_URL", "mongodb://h:x/d"),
        ("dev", "ROLES", "stok"),
        ("estimate", "KAFKA_PROPERTIES", "acks=0"),
        ("estimate", "KAFKA_PROPERTIES", "no.such.property=1"),
        ("estimate", "SCHEMA_REGISTRY_URL", "h:1"),
        ("estimate", "OTEL_EXPORTER_OTLP_ENDPOINT", "h:1"),
        ("estimate", "OTEL_EXPORTER_OTLP_HEADERS", "x"),
        ("healthcheck", "ADMIN_PORT", "x"),
    ] {
        let error = usage_error(&[command], &[(variable, value.as_ref())]);
        assert!(error.contains(&format!("the variable {variable}")), "{error}");
        let error = usage_error(&[command], &[(variable, &unreadable)]);
        assert!(error.contains(&format!("the variable {variable} is not UTF-8")), "{error}");
    }
}

#[test]
fn a_flag_wins_over_a_variable_and_the_variable_of_a_file_over_that_of_the_value() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, format!("sqlite:{name}")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (flag_file, variable_file) = (file("file of the flag"), file("file of the variable"));
    let variables = [("DATABASE_URL", "sqlite:variable"), ("DATABASE_URL_FILE", &variable_file)];
    for (flags, variables, database) in [
        (vec![], &variables[..1], "variable"),
        (vec![], &variables[1..], "file of the variable"),
        (vec![], &variables[..], "file of the variable"),
        (vec!["--database-url", "sqlite:flag"], &variables[..], "flag"),
        (vec!["--database-url-file", &flag_file], &variables[..], "file of the flag"),
        (vec!["--database-url=sqlite:flag"], &[("DATABASE_URL_FILE", "/does/not/exist")][..], "flag"),
    ] {
        let arguments = ["vehicle-platform", "stock"].into_iter().chain(flags).map(OsString::from).collect();
        let value =
            |name: &OsStr| variables.iter().find(|variable| name == variable.0).map(|(_, text)| text.into());
        let Ok(Cli { command: Command::Stock(stock), .. }) = try_parse(arguments, &value) else { panic!() };
        assert_eq!(stock.args.database_url.sqlite_path(), Some(database));
    }
    let both = ["stock", "--database-url", "sqlite:flag", "--database-url-file", &flag_file];
    let error = usage_error(&both, &[]);
    assert!(error.contains("--database-url and --database-url-file cannot be used together"), "{error}");
}

#[test]
fn help_explains_which_of_several_values_wins() {
    for command in ["stock", "estimate", "ads", "dev", "audit"] {
        let output = Process::new(BINARY).args([command, "--help"]).env("LOG", "").output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains("A flag wins over a variable"), "{help}");
        // Help also shows a variable that is empty.
        assert!(help.contains("[env: LOG=]"), "{help}");
    }
}

#[test]
fn an_error_in_a_flag_does_not_name_the_variable() {
    let error = usage_error(&["stock", "--port", "x"], &[("PORT", "3002".as_ref())]);
    assert!(error.contains("--port") && !error.contains("PORT,") && !error.contains("variable"), "{error}");
    // Also when only one of them is wrong, or the variable is not used at all.
    let error = usage_error(&["stock", "--port"], &[("PORT", "3002".as_ref())]);
    assert!(!error.contains("variable"), "{error}");
    let error = usage_error(&["stock", "--unknown"], &[("PORT", "x".as_ref())]);
    assert!(error.contains("--unknown") && !error.contains("variable"), "{error}");
    let broken = Process::new(BINARY).args(["completions", "bash"]).env("PORT", "x").output().unwrap();
    assert!(broken.status.success());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_error_in_a_secret_repeats_a_part_of_it(
        which in any::<prop::sample::Index>(),
        scheme in "(postgres|postgresql|mongodb|mongodb\\+srv|http|https|mysql|amqp|[a-z]{0,3})(://|:)?",
        before in "[a-z%:/?#@,=&. $\u{e9}0-9]{0,8}",
        after in "[a-z%:/?#@,=&. $\u{e9}0-9]{0,8}",
        rest in "(@h(:1)?(/d)?(\\?tls=true)?)?",
    ) {
        let commands = COMMANDS.iter().flat_map(|command| command.settings().into_iter().map(move |argument| (command, argument)));
        let secrets: Vec<_> = commands.filter(|(_, argument)| argument.is_hide_env_values_set()).collect();
        let (command, argument) = which.get(&secrets);
        let value = format!("{scheme}user:{before}zq9marker7x{after}{rest}");
        let flag = format!("--{}={value}", argument.get_long().unwrap());
        let arguments = ["vehicle-platform"].iter().chain(command.path).chain(command.required);
        let arguments = arguments.map(OsString::from).chain([flag.into()]).collect();
        let by_flag = try_parse::<Cli>(arguments, &|_| None).err().map(|error| error.to_string());
        let by_variable = command.parse(argument.get_env().unwrap().to_str().unwrap(), &value).err();
        for error in by_flag.into_iter().chain(by_variable) {
            prop_assert!(!error.to_lowercase().contains("zq9marker7x"), "{value}: {error}");
        }
    }
}

#[test]
fn a_host_that_another_program_has_set_is_refused_with_the_way_out() {
    for command in ["stock", "estimate", "ads", "healthcheck"] {
        let error = usage_error(&[command, "--port", "4001"], &[("HOST", "x86_64-conda-linux-gnu".as_ref())]);
        for part in ["the variable HOST", "not an IP address or a host name", "conda", "unset it", "--host"] {
            assert!(error.contains(part), "{error}");
        }
    }
}

#[test]
fn a_number_that_would_overflow_later_is_refused_with_the_bound() {
    for (arguments, bound) in [
        (["stock", "--shutdown-timeout", "18446744073709551615s"], "100 years"),
        (["stock", "--outbox-retention", "18446744073709551615s"], "100 years"),
        (["stock", "--topic-retention", "18446744073709551615s"], "100 years"),
        (["estimate", "--processing-time", "18446744073709551615s"], "100 years"),
        (["audit", "--processing-time", "18446744073709551615s"], "100 years"),
        (["dev", "--processing-time", "18446744073709551616s"], "100 years"),
        (["estimate", "--max-in-flight-bytes", "16EiB"], "1TiB"),
        (["estimate", "--max-in-flight-bytes", "99999999999999999999999YB"], "SI unit"),
        (["estimate", "--max-in-flight", "18446744073709551615"], "10000000"),
        (["estimate", "--max-concurrent-estimates", "18446744073709551616"], "10000000"),
        (["healthcheck", "--port", "0"], "1..=65535"),
        (["healthcheck", "--port", "65536"], "1..=65535"),
    ] {
        let error = usage_error(&arguments, &[]);
        assert!(error.contains(bound), "{arguments:?}: {error}");
    }
    // The longest accepted durations work.
    let port = free_port().to_string();
    let output = Process::new(BINARY)
        .args(["stock", "--port", &port, NO_CREDENTIALS, "--shutdown-timeout", "99years"])
        .args(["--outbox-retention", "99years", "--topic-retention", "99years"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(!stderr(&output).contains("panic"), "{}", stderr(&output));
}
