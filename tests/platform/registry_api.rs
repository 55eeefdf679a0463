//! Drives the embedded registry through its HTTP API, as clients, consoles and CI tools do.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::Platform;
use crate::support::http_client;
use crate::support::registry::{Api, body};

async fn start() -> (Platform, Api) {
    let platform = Platform::start(&["--roles", "none"]).await;
    let api = Api::new(platform.registry());
    (platform, api)
}

fn of_type(name: &str) -> Value {
    json!({ "type": name })
}

#[tokio::test]
async fn a_subject_without_a_level_reports_so_unless_the_global_one_is_wanted() {
    let (_platform, api) = start().await;
    let message = api.assert_error(Method::GET, "/config/a-value", None, 40408).await;
    assert!(message.contains("a-value"), "{message}");
    let backward = json!({ "compatibilityLevel": "BACKWARD" });
    assert_eq!(api.get("/config").await, backward);
    assert_eq!(api.get("/config/a-value?defaultToGlobal=true").await, backward);
    assert_eq!(
        api.put("/config/a-value", json!({ "compatibility": "full" })).await,
        json!({ "compatibility": "FULL" })
    );
    assert_eq!(api.get("/config/a-value").await, json!({ "compatibilityLevel": "FULL" }));
    assert_eq!(
        api.put("/config", json!({ "compatibility": "NONE" })).await,
        json!({ "compatibility": "NONE" })
    );
    assert_eq!(api.get("/config").await, json!({ "compatibilityLevel": "NONE" }));
    assert_eq!(api.delete("/config/a-value").await, json!({ "compatibilityLevel": "FULL" }));
    api.assert_error(Method::GET, "/config/a-value", None, 40408).await;
    api.assert_error(Method::DELETE, "/config/a-value", None, 40401).await;
    assert_eq!(api.delete("/config").await, json!({ "compatibilityLevel": "NONE" }));
    assert_eq!(api.get("/config").await, backward);
    for wrong in [json!({ "compatibility": "SIDEWAYS" }), json!({ "compatibility": 3 }), json!({}), json!([])]
    {
        api.assert_error(Method::PUT, "/config/a-value", Some(&wrong), 42203).await;
        api.assert_error(Method::PUT, "/config", Some(&wrong), 42203).await;
    }
}

#[tokio::test]
async fn the_clients_of_the_original_services_register_their_schemas() {
    let (_platform, api) = start().await;
    // What `register()` of @kafkajs/confluent-schema-registry 3.2 sends.
    let open =
        json!({ "type": "object", "properties": { "vin": { "type": "string" } }, "required": ["vin"] });
    for id in [1, 1] {
        let level = api.call(Method::GET, "/config/stock.vehicle-created-value", None).await;
        if level.0 == StatusCode::NOT_FOUND {
            api.put("/config/stock.vehicle-created-value", json!({ "compatibility": "BACKWARD" })).await;
        } else {
            assert_eq!(level.1, json!({ "compatibilityLevel": "BACKWARD" }));
        }
        let request = json!({ "schemaType": "JSON", "schema": open.to_string(), "references": null });
        let path = "/subjects/stock.vehicle-created-value/versions";
        let (status, answer) = api.call(Method::POST, path, Some(&request)).await;
        assert_eq!((status, answer), (StatusCode::OK, json!({ "id": id })));
    }
}

#[tokio::test]
async fn a_schema_is_found_by_id_subject_and_text() {
    let (_platform, api) = start().await;
    let id = api.register("a-value", &of_type("integer")).await;
    let text = of_type("integer").to_string();
    assert_eq!(api.register("b-value", &of_type("integer")).await, id);
    let number = api.register("a-value", &of_type("number")).await;

    assert_eq!(api.get(&format!("/schemas/ids/{id}")).await, json!({ "schemaType": "JSON", "schema": text }));
    assert_eq!(api.get(&format!("/schemas/ids/{id}?fetchMaxId=true")).await["maxId"], number);
    assert_eq!(api.get(&format!("/schemas/ids/{id}/schema")).await, of_type("integer"));
    assert_eq!(api.get(&format!("/schemas/ids/{id}/subjects")).await, json!(["a-value", "b-value"]));
    let places = json!([{ "subject": "a-value", "version": 1 }, { "subject": "b-value", "version": 1 }]);
    assert_eq!(api.get(&format!("/schemas/ids/{id}/versions")).await, places);
    assert_eq!(api.get("/subjects/a-value/versions").await, json!([1, 2]));
    assert_eq!(api.get("/subjects/a-value/versions?offset=1&limit=1").await, json!([2]));
    for latest in ["latest", "-1", "2"] {
        assert_eq!(api.get(&format!("/subjects/a-value/versions/{latest}")).await["id"], number);
    }
    assert_eq!(api.get("/subjects/a-value/versions/1/schema").await, of_type("integer"));
    let (_, found) = api.call(Method::POST, "/subjects/a-value", Some(&body(&of_type("integer")))).await;
    assert_eq!((&found["version"], &found["id"]), (&json!(1), &json!(id)));

    let all = api.get("/schemas?subjectPrefix=a").await;
    assert_eq!(all.as_array().unwrap().len(), 2, "{all}");
    assert_eq!(api.get("/schemas?latestOnly=true&offset=1").await[0]["subject"], "b-value");
    api.assert_error(Method::POST, "/subjects/a-value", Some(&body(&of_type("null"))), 40403).await;
    api.assert_error(Method::POST, "/subjects/c-value", Some(&body(&of_type("null"))), 40401).await;
    api.assert_error(Method::GET, "/subjects/c-value/versions", None, 40401).await;
    api.assert_error(Method::GET, "/subjects/c-value/versions/1", None, 40401).await;
    api.assert_error(Method::GET, "/subjects/a-value/versions/3", None, 40402).await;
    for wrong in ["0", "-2", "x", "1.5", "3000000000", ""] {
        let path = format!("/subjects/a-value/versions/{wrong}");
        let code = if wrong.is_empty() { 404 } else { 42202 };
        api.assert_error(Method::GET, &path, None, code).await;
    }
    for suffix in ["", "/schema", "/subjects", "/versions"] {
        api.assert_error(Method::GET, &format!("/schemas/ids/99{suffix}"), None, 40403).await;
    }
}

#[tokio::test]
async fn subjects_are_listed_by_prefix_and_page_and_may_have_any_name() {
    let (_platform, api) = start().await;
    let odd = ["a%2Fb", "a%20c", "a%25d"];
    for subject in ["b-value", "a-key"].iter().chain(&odd) {
        api.register(subject, &of_type("string")).await;
    }
    assert_eq!(api.get("/subjects").await, json!(["a c", "a%d", "a-key", "a/b", "b-value"]));
    assert_eq!(api.get("/subjects?subjectPrefix=a-").await, json!(["a-key"]));
    assert_eq!(api.get("/subjects?subjectPrefix=:*:").await.as_array().unwrap().len(), 5);
    assert_eq!(api.get("/subjects?offset=1&limit=2").await, json!(["a%d", "a-key"]));
    assert_eq!(api.get("/subjects?offset=9").await, json!([]));
    assert_eq!(api.get("/subjects/a%2Fb/versions/latest").await["subject"], "a/b");
    for invalid in ["__GLOBAL", "__EMPTY", "a%0Ab", "a%1Bb"] {
        let path = format!("/subjects/{invalid}/versions");
        api.assert_error(Method::POST, &path, Some(&body(&of_type("string"))), 42208).await;
        let level = json!({ "compatibility": "FULL" });
        api.assert_error(Method::PUT, &format!("/config/{invalid}"), Some(&level), 42208).await;
    }
    assert_eq!(api.get("/schemas/types").await, json!(["JSON"]));
    assert_eq!(api.get("/contexts").await, json!(["."]));
}

#[tokio::test]
async fn a_version_is_deleted_softly_before_it_is_deleted_permanently() {
    let (mut platform, api) = start().await;
    let one = api.register("a", &of_type("integer")).await;
    let two = api.register("a", &of_type("number")).await;
    api.assert_error(Method::DELETE, "/subjects/a/versions/2?permanent=true", None, 40407).await;
    assert_eq!(api.delete("/subjects/a/versions/latest").await, json!(2));
    api.assert_error(Method::DELETE, "/subjects/a/versions/2", None, 40406).await;
    api.assert_error(Method::GET, "/subjects/a/versions/2", None, 40402).await;
    assert_eq!(api.get("/subjects/a/versions/2?deleted=true").await["id"], two);
    assert_eq!(api.get("/subjects/a/versions/latest?deleted=true").await["id"], one);
    assert_eq!(api.get("/subjects/a/versions").await, json!([1]));
    assert_eq!(api.get("/subjects/a/versions?deleted=true").await, json!([1, 2]));
    assert_eq!(api.get("/subjects/a/versions?deletedOnly=true").await, json!([2]));
    // Records that name the id remain readable.
    assert_eq!(api.get(&format!("/schemas/ids/{two}/schema")).await, of_type("number"));

    platform.kill_and_restart().await;
    let api = Api::new(platform.registry());
    // The same schema becomes a new version with the same id.
    assert_eq!(api.register("a", &of_type("number")).await, two);
    assert_eq!(api.get("/subjects/a/versions").await, json!([1, 3]));
    assert_eq!(api.delete("/subjects/a/versions/2?permanent=true").await, json!(2));
    assert_eq!(api.get("/subjects/a/versions?deleted=true").await, json!([1, 3]));

    api.put("/config/a", json!({ "compatibility": "NONE" })).await;
    api.assert_error(Method::DELETE, "/subjects/a?permanent=true", None, 40405).await;
    assert_eq!(api.delete("/subjects/a").await, json!([1, 3]));
    api.assert_error(Method::DELETE, "/subjects/a", None, 40404).await;
    assert_eq!(api.get("/subjects").await, json!([]));
    assert_eq!(api.get("/subjects?deleted=true").await, json!(["a"]));
    assert_eq!(api.get("/subjects?deletedOnly=true").await, json!(["a"]));
    assert_eq!(api.delete("/subjects/a?permanent=true").await, json!([1, 3]));
    api.assert_error(Method::DELETE, "/subjects/a", None, 40401).await;
    api.assert_error(Method::GET, &format!("/schemas/ids/{one}"), None, 40403).await;
    api.assert_error(Method::GET, "/config/a", None, 40408).await;
    // Ids are never assigned again, also after a restart.
    platform.kill_and_restart().await;
    let api = Api::new(platform.registry());
    assert!(api.register("a", &of_type("integer")).await > two);
    assert_eq!(api.get("/subjects/a/versions").await, json!([1]));
}

#[tokio::test]
async fn a_subject_in_read_only_mode_is_not_changed() {
    let (_platform, api) = start().await;
    api.register("a", &of_type("integer")).await;
    assert_eq!(api.get("/mode").await, json!({ "mode": "READWRITE" }));
    api.assert_error(Method::GET, "/mode/a", None, 40409).await;
    assert_eq!(api.get("/mode/a?defaultToGlobal=true").await, json!({ "mode": "READWRITE" }));
    assert_eq!(api.put("/mode/a", json!({ "mode": "READONLY" })).await, json!({ "mode": "READONLY" }));
    let number = body(&of_type("number"));
    api.assert_error(Method::POST, "/subjects/a/versions", Some(&number), 42205).await;
    api.assert_error(Method::DELETE, "/subjects/a", None, 42205).await;
    api.assert_error(Method::DELETE, "/subjects/a/versions/1", None, 42205).await;
    let level = json!({ "compatibility": "NONE" });
    api.assert_error(Method::PUT, "/config/a", Some(&level), 42205).await;
    api.register("b", &of_type("number")).await;
    assert_eq!(api.delete("/mode/a").await, json!({ "mode": "READONLY" }));
    api.register("a", &of_type("number")).await;
    api.put("/mode", json!({ "mode": "READONLY" })).await;
    api.assert_error(Method::POST, "/subjects/c/versions", Some(&number), 42205).await;
    api.put("/mode/c", json!({ "mode": "READWRITE" })).await;
    api.register("c", &of_type("number")).await;
    for wrong in [json!({ "mode": "IMPORT" }), json!({ "mode": "x" }), json!({})] {
        api.assert_error(Method::PUT, "/mode/a", Some(&wrong), 42204).await;
    }
    api.assert_error(Method::DELETE, "/mode/x", None, 40401).await;
}

#[tokio::test]
async fn every_error_has_the_form_of_the_registry() {
    let (platform, api) = start().await;
    api.register("a", &of_type("integer")).await;
    api.assert_error(Method::GET, "/unknown", None, 404).await;
    api.assert_error(Method::GET, "/subjects/a/unknown", None, 404).await;
    for (method, path) in [
        (Method::PUT, "/subjects"),
        (Method::GET, "/subjects/a"),
        (Method::PATCH, "/config"),
        (Method::POST, "/schemas/ids/1"),
        (Method::GET, "/compatibility/subjects/a/versions"),
    ] {
        api.assert_error(method, path, None, 405).await;
    }
    let huge =
        json!({ "schemaType": "JSON", "schema": format!("{{\"title\":\"{}\"}}", "x".repeat(2 << 20)) });
    api.assert_error(Method::POST, "/subjects/a/versions", Some(&huge), 413).await;
    for (schema, kind) in
        [("{", "JSON"), ("[]", "JSON"), (r#"{"type":"x"}"#, "JSON"), ("{}", "AVRO"), ("{}", "PROTOBUF")]
    {
        let wrong = json!({ "schemaType": kind, "schema": schema });
        for path in ["/subjects/a/versions", "/subjects/a", "/compatibility/subjects/a/versions/latest"] {
            api.assert_error(Method::POST, path, Some(&wrong), 42201).await;
        }
    }
    api.assert_error(Method::POST, "/subjects/a/versions", Some(&json!("x")), 42201).await;
    let with_id = json!({ "schemaType": "JSON", "schema": "{}", "id": 7 });
    api.assert_error(Method::POST, "/subjects/b/versions", Some(&with_id), 42205).await;

    let client = http_client();
    for path in
        ["/", "/subjects", "/schemas/ids/1", "/config", "/mode", "/v1/metadata/id", "/v1/metadata/version"]
    {
        let url = format!("{}{path}", platform.registry());
        let (get, head) = (client.get(&url).send().await.unwrap(), client.head(&url).send().await.unwrap());
        assert_eq!((get.status(), head.status()), (StatusCode::OK, StatusCode::OK), "{path}");
        assert_eq!(get.headers()["content-length"], head.headers()["content-length"], "{path}");
        let refused = client.patch(&url).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert!(refused.headers()["allow"].to_str().unwrap().contains("HEAD"), "{path}");
    }
}
