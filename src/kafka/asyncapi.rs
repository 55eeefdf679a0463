//! Describes the topics of the platform as an AsyncAPI document.

use serde_json::{Value, json};

use super::dead_letter::dead_letter_topic;
use super::dead_letter::header::{DOCUMENTED_BINARY_HEADERS, DOCUMENTED_HEADERS};
use crate::event::{EventType, VEHICLE_CREATED, VEHICLE_PROCESSED};

/// Returns the AsyncAPI 3.0 document (<https://www.asyncapi.com/docs/reference/specification/v3.0.0>) of the topics
/// and their dead letters. A prefix of the topics, if any, is left out.
pub fn document() -> Value {
    let created = ("vehicleCreated", VEHICLE_CREATED);
    let processed = ("vehicleProcessed", VEHICLE_PROCESSED);
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "vehicle-platform",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Values are framed as Confluent's serializers frame them: a zero byte, the schema's id in \
                            four bytes, and JSON. The key is the vin of the vehicle.",
            "license": { "name": "MIT" }
        },
        "defaultContentType": "application/json",
        "channels": {
            created.0: channel(created.1.topic, created.0),
            processed.0: channel(processed.1.topic, processed.0),
            "vehicleCreatedDeadLetters": channel(&dead_letter_topic(created.1.topic), "deadLetter"),
            "vehicleProcessedDeadLetters": channel(&dead_letter_topic(processed.1.topic), "deadLetter"),
        },
        "operations": {
            "stockPublishes": operation("send", created.0, "Stock publishes each vehicle that it accepts."),
            "estimateReads": operation("receive", created.0, "Estimate prices each new vehicle."),
            "estimatePublishes": operation("send", processed.0, "Estimate publishes each priced vehicle."),
            "adsReads": operation("receive", processed.0, "Ads publishes an ad for each priced vehicle."),
            "estimateRefuses": operation(
                "send", "vehicleCreatedDeadLetters", "Estimate sends what it can never process to a topic of its own."
            ),
            "adsRefuses": operation(
                "send", "vehicleProcessedDeadLetters", "Ads sends what it can never process to a topic of its own."
            ),
        },
        "components": {
            "messages": {
                created.0: event(created.1, "A vehicle was taken into stock."),
                processed.0: event(processed.1, "A vehicle in stock was given a price."),
                "deadLetter": dead_letter(),
            }
        }
    })
}

fn channel(topic: &str, message: &str) -> Value {
    json!({
        "address": topic,
        "messages": { message: { "$ref": format!("#/components/messages/{message}") } },
    })
}

fn operation(action: &str, channel: &str, summary: &str) -> Value {
    json!({
        "action": action,
        "channel": { "$ref": format!("#/channels/{channel}") },
        "summary": summary,
    })
}

fn event(event: EventType, summary: &str) -> Value {
    let schema: Value = serde_json::from_str(event.schema).unwrap_or_default();
    json!({
        "summary": summary,
        "headers": {
            "type": "object",
            "properties": {
                "traceparent": { "type": "string", "description": "The W3C trace context." },
                "tracestate": { "type": "string", "description": "What tracing systems add to it." }
            }
        },
        "payload": { "schemaFormat": "application/schema+json;version=draft-07", "schema": schema },
        "bindings": {
            "kafka": {
                "bindingVersion": "0.5.0",
                "key": { "type": "string", "description": "The vin of the vehicle." },
                "schemaIdLocation": "payload",
                "schemaIdPayloadEncoding": "confluent",
            }
        }
    })
}

fn dead_letter() -> Value {
    let text = DOCUMENTED_HEADERS
        .map(|(name, meaning)| (name.to_owned(), json!({ "type": "string", "description": meaning })));
    let binary = DOCUMENTED_BINARY_HEADERS.map(|(name, meaning)| {
        (name.to_owned(), json!({ "type": "string", "format": "binary", "description": meaning }))
    });
    let properties: serde_json::Map<_, _> = text.into_iter().chain(binary).collect();
    json!({
        "summary": "A record that can never be processed, with its bytes unchanged unless the brokers refuse their size.",
        "contentType": "application/octet-stream",
        "headers": { "type": "object", "properties": properties },
    })
}
