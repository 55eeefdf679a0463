//! Drives compatibility checks and references of the embedded registry through its HTTP API.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use vehicle_platform::event::VehicleCreated;
use vehicle_platform::registry::CodecError;

use crate::registry::codec;
use crate::support::registry::{Api, body};
use crate::support::{Platform, vehicle};

async fn start() -> (Platform, Api) {
    let platform = Platform::start(&["--roles", "none"]).await;
    let api = Api::new(platform.registry());
    (platform, api)
}

fn closed(names: &[&str]) -> Value {
    let properties: serde_json::Map<_, _> =
        names.iter().map(|name| ((*name).to_owned(), json!({ "type": "string" }))).collect();
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

#[tokio::test]
async fn an_incompatible_schema_is_refused_with_the_rule_the_path_and_the_earlier_version() {
    let (mut platform, api) = start().await;
    api.register("a", &closed(&["x"])).await;
    api.register("a", &closed(&["x", "y"])).await;
    let shrunk = body(&closed(&["y"]));
    let message = api.assert_error(Method::POST, "/subjects/a/versions", Some(&shrunk), 409).await;
    for part in [
        "Schema being registered is incompatible with an earlier schema for subject \"a\", details: [{errorType:\"",
        "PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL",
        "'#/properties/x'",
        "{oldSchemaVersion: 2}",
        "{oldSchema: '{",
        "{validateFields: 'false', compatibility: 'BACKWARD'}]",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    platform.kill_and_restart().await;
    let api = Api::new(platform.registry());
    api.assert_error(Method::POST, "/subjects/a/versions", Some(&shrunk), 409).await;
    api.put("/config/a", json!({ "compatibility": "NONE" })).await;
    platform.kill_and_restart().await;
    Api::new(platform.registry()).register("a", &closed(&["y"])).await;
}

#[tokio::test]
async fn each_level_is_enforced() {
    let (_platform, api) = start().await;
    let (one, two, three) = (closed(&["x"]), closed(&["x", "y"]), closed(&["x", "y", "z"]));
    for (level, may_grow, may_shrink) in [
        ("NONE", true, true),
        ("BACKWARD", true, false),
        ("BACKWARD_TRANSITIVE", true, false),
        ("FORWARD", false, true),
        ("FORWARD_TRANSITIVE", false, true),
        ("FULL", false, false),
        ("FULL_TRANSITIVE", false, false),
    ] {
        for (schema, is_accepted) in [(&three, may_grow), (&one, may_shrink)] {
            let subject =
                format!("{level}-{is_accepted}-{}", schema["properties"].as_object().unwrap().len());
            api.register(&subject, &two).await;
            api.put(&format!("/config/{subject}"), json!({ "compatibility": level })).await;
            let path = format!("/subjects/{subject}/versions");
            let (status, answer) = api.call(Method::POST, &path, Some(&body(schema))).await;
            assert_eq!(status == StatusCode::OK, is_accepted, "{subject}: {answer}");
            assert!(is_accepted || answer["error_code"] == 409, "{answer}");
        }
    }
}

#[tokio::test]
async fn only_a_transitive_level_looks_at_earlier_versions_than_the_latest() {
    let (_platform, api) = start().await;
    let object = |properties: Value| json!({ "type": "object", "properties": properties });
    // Both steps are compatible, but the last schema writes what the first one refuses.
    let versions = [object(json!({ "x": { "type": "string" } })), object(json!({}))];
    let next = object(json!({ "x": {} }));
    for (level, is_accepted) in [("FORWARD", true), ("FORWARD_TRANSITIVE", false)] {
        api.put(&format!("/config/{level}"), json!({ "compatibility": "NONE" })).await;
        for version in &versions {
            api.register(level, version).await;
        }
        api.put(&format!("/config/{level}"), json!({ "compatibility": level })).await;
        let path = format!("/subjects/{level}/versions");
        let (status, answer) = api.call(Method::POST, &path, Some(&body(&next))).await;
        assert_eq!(status == StatusCode::OK, is_accepted, "{level}: {answer}");
        let message = answer["message"].as_str().unwrap_or("{oldSchemaVersion: 1}");
        assert!(message.contains("{oldSchemaVersion: 1}"), "{message}");
    }
}

#[tokio::test]
async fn compatibility_is_checked_without_registering() {
    let (_platform, api) = start().await;
    api.register("a", &closed(&["x"])).await;
    let check = async |path: &str, schema: &Value| {
        let (status, answer) = api.call(Method::POST, path, Some(&body(schema))).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    };
    for versions in ["versions", "versions/1", "versions/latest", "versions/-1"] {
        let path = format!("/compatibility/subjects/a/{versions}");
        assert_eq!(check(&path, &closed(&["x", "y"])).await, json!({ "is_compatible": true }));
        assert_eq!(check(&path, &closed(&[])).await, json!({ "is_compatible": false }));
        let verbose = format!("{path}?verbose=true");
        let messages = check(&verbose, &closed(&[])).await["messages"].take();
        assert!(
            messages[0].as_str().unwrap().contains("PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL"),
            "{messages}"
        );
        assert_eq!(check(&verbose, &closed(&["x"])).await, json!({ "is_compatible": true, "messages": [] }));
        let invalid = check(&verbose, &json!({ "type": "x" })).await;
        assert!(invalid["is_compatible"] == json!(false) && invalid["messages"][0].is_string(), "{invalid}");
    }
    assert_eq!(api.get("/subjects/a/versions").await, json!([1]));
    let schema = body(&closed(&[]));
    api.assert_error(Method::POST, "/compatibility/subjects/a/versions/2", Some(&schema), 40402).await;
    api.assert_error(Method::POST, "/compatibility/subjects/a/versions/0", Some(&schema), 42202).await;
    api.assert_error(Method::POST, "/compatibility/subjects/b/versions/1", Some(&schema), 40402).await;
    for path in ["/compatibility/subjects/b/versions", "/compatibility/subjects/b/versions/latest"] {
        assert_eq!(check(path, &closed(&[])).await, json!({ "is_compatible": true }));
    }
}

#[tokio::test]
async fn normalized_schemas_are_equal_whatever_the_order_of_their_names() {
    let (_platform, api) = start().await;
    let text = |schema: &str| json!({ "schemaType": "JSON", "schema": schema });
    let (one, other) =
        (text(r#"{"type":"string", "title":"A"}"#), text(r#"{ "title": "A","type":"string"}"#));
    let id = async |path: &str, body: &Value| api.call(Method::POST, path, Some(body)).await.1["id"].clone();
    let plain = "/subjects/a/versions";
    let (first, second) = (id(plain, &one).await, id(plain, &other).await);
    assert_ne!(first, second);
    let normalized = "/subjects/b/versions?normalize=true";
    assert_eq!(id(normalized, &one).await, id(normalized, &other).await);
    assert_eq!(api.get("/subjects/b/versions").await, json!([1]));
    assert_eq!(id("/subjects/b?normalize=true", &one).await, second);
    assert_eq!(api.get("/subjects/b/versions/1").await["schema"], r#"{"title":"A","type":"string"}"#);
}

#[tokio::test]
async fn references_are_resolved_when_a_schema_is_registered_compared_and_looked_up() {
    let (mut platform, api) = start().await;
    let year = |maximum: u32| json!({ "type": "integer", "maximum": maximum });
    api.register("year", &year(2000)).await;
    api.register("year", &year(3000)).await;
    let root = json!({ "type": "object", "properties": { "year": { "$ref": "year.json" } } });
    let with = |version: i32| {
        let references = json!([{ "name": "year.json", "subject": "year", "version": version }]);
        json!({ "schemaType": "JSON", "schema": root.to_string(), "references": references })
    };
    let path = "/subjects/car/versions";
    let message = api.assert_error(Method::POST, path, Some(&with(3)), 42201).await;
    assert!(message.contains("year.json") && message.contains('3'), "{message}");
    api.assert_error(Method::POST, path, Some(&body(&root)), 42201).await;
    let (status, answer) = api.call(Method::POST, path, Some(&with(1))).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let id = answer["id"].clone();
    assert_eq!(api.get(&format!("/schemas/ids/{id}")).await["references"][0]["version"], 1);
    assert_eq!(api.get("/subjects/year/versions/1/referencedby").await, json!([id]));
    assert_eq!(api.get("/subjects/year/versions/2/referencedby").await, json!([]));

    // The latest version of what it refers to is another schema, with the number that it has now.
    let (_, latest) = api.call(Method::POST, path, Some(&with(-1))).await;
    assert_ne!(latest["id"], id);
    assert_eq!(api.get("/subjects/car/versions/2").await["references"][0]["version"], 2);
    let (_, again) = api.call(Method::POST, path, Some(&with(1))).await;
    assert_eq!(again["id"], id);
    let (_, found) = api.call(Method::POST, "/subjects/car", Some(&with(1))).await;
    assert_eq!(found["version"], 1);

    platform.kill_and_restart().await;
    let api = Api::new(platform.registry());
    for path in ["/subjects/year", "/subjects/year/versions/1", "/subjects/year/versions/2"] {
        let message = api.assert_error(Method::DELETE, path, None, 42206).await;
        assert!(message.contains("year"), "{message}");
    }
    api.delete("/subjects/car").await;
    api.delete("/subjects/year").await;
}

#[tokio::test]
async fn a_record_is_read_with_the_direct_and_indirect_references_of_its_schema() {
    let (platform, api) = start().await;
    let post = async |subject: &str, schema: Value, references: Value| {
        let request = json!({ "schemaType": "JSON", "schema": schema.to_string(), "references": references });
        let path = format!("/subjects/{subject}/versions");
        let (status, answer) = api.call(Method::POST, &path, Some(&request)).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        u32::try_from(answer["id"].as_u64().unwrap()).unwrap()
    };
    let reference = |name: &str| json!([{ "name": format!("{name}.json"), "subject": name, "version": 1 }]);
    post("limit", json!({ "definitions": { "n": { "maximum": 3000 } } }), json!([])).await;
    let year = json!({ "allOf": [{ "type": "integer" }, { "$ref": "limit.json#/definitions/n" }] });
    post("year", year, reference("limit")).await;
    let mut schema: Value =
        serde_json::from_str(include_str!("../../schemas/stock.vehicle-created.json")).unwrap();
    schema["properties"]["year"] = json!({ "$ref": "year.json" });
    let id = post("stock.vehicle-created-value", schema, reference("year")).await;

    let codec = codec(platform.registry());
    let read = async |year: u32| {
        let mut value = vehicle("vin");
        (value["id"], value["year"]) = (json!(1), json!(year));
        let framed = [&[0][..], &id.to_be_bytes(), value.to_string().as_bytes()].concat();
        codec.decode::<VehicleCreated>("stock.vehicle-created", Some(&framed)).await
    };
    assert!(read(3000).await.is_ok());
    let Err(CodecError::Rejected(reason)) = read(3001).await else { panic!("accepted") };
    assert!(reason.contains("/year") && reason.contains("3000"), "{reason}");
}
