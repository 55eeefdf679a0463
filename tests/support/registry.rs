//! A client of the schema registry's HTTP API.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::http_client;

pub const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

pub struct Api {
    url: String,
    client: reqwest::Client,
}

impl Api {
    pub fn new(url: &str) -> Self {
        Self { url: url.to_owned(), client: http_client() }
    }

    /// Sends a request and returns the status and the JSON of the response, which must have the registry's type.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        let mut request = self.client.request(method.clone(), format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.header("content-type", CONTENT_TYPE).body(body.to_string());
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], CONTENT_TYPE, "{method} {path}");
        let status = response.status();
        let text = response.text().await.unwrap();
        let json = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
        (status, json)
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.call(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }

    pub async fn put(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(Method::PUT, path, Some(&body)).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }

    pub async fn delete(&self, path: &str) -> Value {
        let (status, answer) = self.call(Method::DELETE, path, None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }

    /// Asserts that a request fails with a code of the API, whose first three digits are the status.
    pub async fn assert_error(&self, method: Method, path: &str, body: Option<&Value>, code: u32) -> String {
        let (status, answer) = self.call(method.clone(), path, body).await;
        assert_eq!(answer["error_code"], code, "{method} {path}: {status} {answer}");
        let expected = if code < 1_000 { code } else { code / 100 };
        assert_eq!(u32::from(status.as_u16()), expected, "{method} {path}");
        answer["message"].as_str().unwrap().to_owned()
    }

    /// Registers a schema, which must be accepted, and returns its id.
    pub async fn register(&self, subject: &str, schema: &Value) -> u64 {
        let path = format!("/subjects/{subject}/versions");
        let (status, answer) = self.call(Method::POST, &path, Some(&body(schema))).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer["id"].as_u64().unwrap()
    }
}

/// Returns the body of a request with a schema.
pub fn body(schema: &Value) -> Value {
    json!({ "schemaType": "JSON", "schema": schema.to_string() })
}
