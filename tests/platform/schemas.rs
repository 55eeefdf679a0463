//! Runs `vehicle-platform schemas` against the embedded registry, with the evolutions of docs/SCHEMAS.md.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::Platform;
use crate::support::registry::Api;

const CREATED: &str = "stock.vehicle-created";
const SUBJECT: &str = "stock.vehicle-created-value";
const DOCUMENT: &str = include_str!("../../docs/SCHEMAS.md");

/// A platform without roles, and a directory for changed schemas.
struct World {
    platform: Platform,
    directory: TempDir,
}

impl World {
    async fn start() -> Self {
        let platform = Platform::start(&["--roles", "none"]).await;
        Self { platform, directory: tempfile::tempdir().unwrap() }
    }

    /// Starts with this schema registered.
    async fn with(schema: &Value) -> Self {
        let world = Self::start().await;
        Api::new(world.platform.registry()).register(SUBJECT, schema).await;
        world
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.platform.tool(&[&["schemas"], arguments].concat());
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    /// Checks a changed schema and returns the exit code and the output.
    fn check(&self, schema: &Value, arguments: &[&str]) -> (i32, String) {
        let path = self.directory.path().join("changed.json");
        fs::write(&path, schema.to_string()).unwrap();
        let file = format!("{CREATED}={}", path.display());
        let (code, stdout, _) = self.run(&[&["check", "--file", &file], arguments].concat());
        (code, stdout)
    }
}

fn ours() -> Value {
    serde_json::from_str(include_str!("../../schemas/stock.vehicle-created.json")).unwrap()
}

/// Returns the product's schema with an open content model, as the original services have it.
fn open() -> Value {
    let mut schema = ours();
    schema.as_object_mut().unwrap().remove("additionalProperties");
    schema
}

fn with_colour(mut schema: Value) -> Value {
    schema["properties"]["colour"] = json!({ "type": "string" });
    schema
}

/// Returns the example with this title in the document: the output in its code block.
fn documented(title: &str) -> &'static str {
    let section =
        DOCUMENT.split(&format!("## {title}\n")).nth(1).unwrap_or_else(|| panic!("no section {title}"));
    let block = section.split("```text\n").nth(1).unwrap();
    block.split("```").next().unwrap()
}

#[tokio::test]
async fn the_schemas_of_this_release_are_new_then_registered() {
    let world = World::start().await;
    let (code, stdout, _) = world.run(&["check"]);
    assert_eq!((code, stdout.matches(": new").count()), (0, 2), "{stdout}");
    let (code, stdout, _) = world.run(&["register"]);
    assert_eq!((code, stdout.lines().count()), (0, 2), "{stdout}");
    let (code, stdout, _) = world.run(&["check"]);
    assert_eq!((code, stdout.matches(": registered").count()), (0, 2), "{stdout}");
    let (_, stdout, _) = world.run(&["show"]);
    assert!(stdout.contains("stock.vehicle-created-value  versions 1  latest id 1  BACKWARD"), "{stdout}");
    let (_, stdout, _) = world.run(&["show", SUBJECT]);
    assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap(), ours());
    let (_, stdout, _) = world.run(&["show", SUBJECT, "--version", "1", "--json"]);
    let shown: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&shown["version"], &shown["schema"]), (&json!(1), &ours()));
    let (code, stdout, _) = world.run(&["check", "--kafka-prefix", "other."]);
    assert_eq!((code, stdout.matches("other.stock.").count()), (0, 2), "{stdout}");
}

#[tokio::test]
async fn an_optional_field_can_be_added_to_a_closed_schema() {
    let world = World::with(&ours()).await;
    let (code, stdout) = world.check(&with_colour(ours()), &[]);
    assert_eq!((code, stdout.as_str()), (0, documented("Add an optional field")));
}

#[tokio::test]
async fn a_field_cannot_be_added_to_an_open_schema() {
    let world = World::with(&open()).await;
    let (code, stdout) = world.check(&with_colour(open()), &[]);
    assert_eq!((code, stdout.as_str()), (1, documented("Add a field to an open schema")));
    // What the explanation proposes passes.
    let mut proposed = open();
    proposed["properties"]["colour"] = json!({});
    assert_eq!(world.check(&proposed, &[]).0, 0);
}

#[tokio::test]
async fn a_required_field_cannot_be_added() {
    let world = World::with(&ours()).await;
    let mut required = with_colour(ours());
    required["required"].as_array_mut().unwrap().push(json!("colour"));
    let (code, stdout) = world.check(&required, &[]);
    assert_eq!((code, stdout.as_str()), (1, documented("Add a required field")));
    required["properties"]["colour"]["default"] = json!("unknown");
    assert_eq!(world.check(&required, &[]).0, 0);
}

#[tokio::test]
async fn the_json_of_a_check_names_path_rule_and_content_model() {
    let world = World::with(&open()).await;
    let (code, stdout) = world.check(&with_colour(open()), &["--json"]);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &report["compatible"]), (1, &json!(false)));
    let subject = &report["subjects"][0];
    assert_eq!((&subject["subject"], &subject["verdict"]), (&json!(SUBJECT), &json!("incompatible")));
    assert_eq!((&subject["level"], &subject["versions"]), (&json!("BACKWARD"), &json!([1])));
    let found = &subject["incompatibilities"][0];
    assert_eq!(found["path"], "#/properties/colour");
    assert_eq!(found["rule"], "PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL");
    assert_eq!((&found["contentModel"], &found["reader"]), (&json!("open"), &json!("new")));
    assert!(found["message"].as_str().unwrap().starts_with("{errorType:\""), "{found}");
    assert!(!found["remedy"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn the_verdict_is_that_of_the_registry() {
    let world = World::with(&ours()).await;
    let api = Api::new(world.platform.registry());
    let mut without = ours();
    without["properties"].as_object_mut().unwrap().remove("model");
    without["required"] = json!([]);
    for (schema, level, code) in [
        (with_colour(ours()), "BACKWARD", 0),
        (with_colour(ours()), "FORWARD", 1),
        (with_colour(ours()), "FULL_TRANSITIVE", 1),
        (with_colour(ours()), "NONE", 0),
        (without.clone(), "BACKWARD", 1),
        (without, "NONE", 0),
    ] {
        api.put(&format!("/config/{SUBJECT}"), json!({ "compatibility": level })).await;
        assert_eq!(world.check(&schema, &[]).0, code, "{level}: {schema}");
        let path = format!("/compatibility/subjects/{SUBJECT}/versions");
        let request = crate::support::registry::body(&schema);
        let (_, answer) = api.call(reqwest::Method::POST, &path, Some(&request)).await;
        assert_eq!(answer["is_compatible"], json!(code == 0), "{level}: {schema}");
    }
    assert_eq!(world.check(&with_colour(ours()), &["--compatibility", "full"]).0, 1);
}

#[tokio::test]
async fn a_refused_schema_fails_the_registration_of_no_other() {
    let world = World::with(&open()).await;
    fs::write(world.directory.path().join(format!("{CREATED}.json")), with_colour(open()).to_string())
        .unwrap();
    fs::write(world.directory.path().join("zebra.json"), r#"{"type":"object"}"#).unwrap();
    let directory = world.directory.path().to_str().unwrap();
    let (code, stdout, stderr) = world.run(&["register", "--directory", directory, "--json"]);
    assert_eq!(code, 1, "{stdout}");
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines[0]["error"].as_str().unwrap().contains("409"), "{stdout}");
    assert_eq!((&lines[1]["subject"], lines[1]["id"].is_u64()), (&json!("zebra-value"), true));
    assert!(stderr.contains(SUBJECT) && stderr.contains("schemas check"), "{stderr}");
}

#[tokio::test]
async fn a_diff_lists_every_difference_in_both_directions() {
    let world = World::with(&ours()).await;
    let path = world.directory.path().join("changed.json");
    let mut changed = with_colour(ours());
    changed["title"] = json!("Renamed");
    fs::write(&path, changed.to_string()).unwrap();
    let file = format!("{CREATED}={}", path.display());
    let (code, stdout, _) = world.run(&["diff", "--file", &file]);
    assert_eq!(code, 0);
    for line in [
        "the new schema reads records of the old one: yes",
        "the old schema reads records of the new one: not all",
        "compatible    #/properties/colour  OPTIONAL_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL",
        "INCOMPATIBLE  #/properties/colour  PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL",
        "compatible    #/  TITLE_CHANGED",
    ] {
        assert!(stdout.contains(line), "{line}:\n{stdout}");
    }
    let (_, stdout, _) = world.run(&["diff", "--file", &file, "--version", "1", "--json"]);
    let diff: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(diff["oldReadsNew"][1]["contentModel"], "closed", "{diff}");
}

#[tokio::test]
async fn failures_and_usage_have_their_exit_codes() {
    let world = World::start().await;
    for arguments in [
        &["check", "--file", "no-path"][..],
        &["check", "--compatibility", "SIDEWAYS"],
        &["show", "--version", "1"],
        &["show", SUBJECT, "--version", "0"],
        &[],
    ] {
        assert_eq!(world.run(arguments).0, 2, "{arguments:?}");
    }
    let broken = world.directory.path().join("broken.json");
    fs::write(&broken, r#"{"type":"unknown"}"#).unwrap();
    let broken = format!("topic={}", broken.display());
    for (arguments, reason) in [
        (&["check", "--file", "topic=/missing.json"][..], "/missing.json"),
        (&["check", "--directory", "/missing"], "/missing"),
        (&["check", "--file", &broken], "not a JSON Schema"),
        (&["show", "unknown"], "no subject unknown"),
        (&["diff"], "no subject stock.vehicle-created-value"),
        (&["check", "--schema-registry-url", "http://127.0.0.1:1"], "127.0.0.1:1"),
    ] {
        let (code, _, stderr) = world.run(arguments);
        assert!(code == 1 && stderr.contains(reason), "{arguments:?}: {stderr}");
    }
}

#[tokio::test]
async fn a_registry_that_accepts_no_new_versions_refuses_all_that_are_not_registered() {
    let world = World::start().await;
    let api = Api::new(world.platform.registry());
    assert_eq!(world.run(&["register"]).0, 0);
    api.put("/mode", json!({ "mode": "READONLY" })).await;
    assert_eq!(world.run(&["check"]).0, 0, "registered");
    let (code, stdout, stderr) = world.run(&["check", "--kafka-prefix", "new."]);
    assert!(code == 1 && stderr.contains("would refuse new.stock.vehicle-created-value"), "{stderr}");
    let refused = "new.stock.vehicle-processed-value: REFUSED, the registry is in mode READONLY";
    assert!(stdout.contains(refused), "{stdout}");
}

#[tokio::test]
async fn schemas_with_references_are_compared() {
    let world = World::start().await;
    let api = Api::new(world.platform.registry());
    api.register("year", &json!({ "type": "integer" })).await;
    let schema = json!({ "type": "object", "properties": { "year": { "$ref": "year.json" } } });
    let references = json!([{ "name": "year.json", "subject": "year", "version": 1 }]);
    let request = json!({ "schemaType": "JSON", "schema": schema.to_string(), "references": references });
    let path = format!("/subjects/{SUBJECT}/versions");
    let (status, answer) = api.call(reqwest::Method::POST, &path, Some(&request)).await;
    assert_eq!(status, 200, "{answer}");
    let changed = |kind: &str| json!({ "type": "object", "properties": { "year": { "type": kind } } });
    assert_eq!(world.check(&changed("number"), &[]).0, 0);
    assert_eq!(world.check(&changed("string"), &[]).0, 1);
}

#[tokio::test]
async fn a_schema_that_is_too_large_together_with_its_references_is_not_compared() {
    let world = World::start().await;
    let api = Api::new(world.platform.registry());
    let names = ["a", "b", "c"];
    for name in names {
        api.register(name, &json!({ "$comment": "x".repeat(800_000), "title": name })).await;
    }
    let properties = names.map(|name| (name.to_owned(), json!({ "$ref": name })));
    let schema = json!({ "type": "object", "properties": serde_json::Map::from_iter(properties) });
    let references = names.map(|name| json!({ "name": name, "subject": name, "version": 1 }));
    let request = json!({ "schemaType": "JSON", "schema": schema.to_string(), "references": references });
    let path = format!("/subjects/{SUBJECT}/versions");
    let (status, answer) = api.call(reqwest::Method::POST, &path, Some(&request)).await;
    assert_eq!(status, 200, "{answer}");
    let (code, _, stderr) = world.run(&["check"]);
    assert!(code == 1 && stderr.contains("has more than 2097152 bytes"), "{stderr}");
}
