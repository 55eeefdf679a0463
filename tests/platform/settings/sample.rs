//! Values of variables.

use std::path::Path;

/// Returns a value that differs from the default. Paths are in `directory`.
pub fn sample(variable: &str, directory: &Path) -> String {
    let directory = directory.display();
    match variable {
        port if port.ends_with("PORT") => "4001".to_owned(),
        "ALLOWED_HOST" => "console.example,proxy.example".to_owned(),
        "API_KEY" => "a-key-of-a-client,another/key-01234==".to_owned(),
        "CORS_ORIGIN" => "https://shop.example,http://127.0.0.1:5173".to_owned(),
        "AUTO_REGISTER_SCHEMAS" => "false".to_owned(),
        "DATABASE_URL" | "STOCK_DATABASE_URL" | "ADS_DATABASE_URL" => format!("sqlite:{directory}/sample.db"),
        "ADS_URL" | "ESTIMATE_URL" | "JAEGER_URL" | "STOCK_URL" => "http://127.0.0.1:1/base".to_owned(),
        "DATA_DIR" => format!("{directory}/data"),
        "HOST" => "127.0.0.2".to_owned(),
        "INSTANCE_ID" => "blue".to_owned(),
        "KAFKA_BOOTSTRAP_SERVER" | "KAFKA_BOOTSTRAP_SERVERS" => "one:1,two:2".to_owned(),
        "KAFKA_PREFIX" => "prefix.".to_owned(),
        "KAFKA_PROPERTIES" => "linger.ms=7\nsecurity.protocol=plaintext".to_owned(),
        "LOG" => "debug".to_owned(),
        "LOG_FORMAT" => "json".to_owned(),
        "DLQ_MAX_REPLAYS" | "FAULTS_SEED" | "MAX_OUTSTANDING" => "7".to_owned(),
        "MAX_CONCURRENT_ESTIMATES" | "MAX_CONNECTIONS" | "MAX_IN_FLIGHT" => "7".to_owned(),
        "MAX_IN_FLIGHT_BYTES" => "7MiB".to_owned(),
        "OTEL_EXPORTER_OTLP_ENDPOINT" => "http://127.0.0.1:1".to_owned(),
        "OTEL_EXPORTER_OTLP_HEADERS" => "authorization=Bearer%20x,tenant=y".to_owned(),
        "LOAD_DEADLINE" | "LOAD_SETTLE" | "LOAD_WAIT" | "OUTBOX_RETENTION" | "PROCESSING_TIME"
        | "SHUTDOWN_TIMEOUT" | "TOPIC_RETENTION" => "7m".to_owned(),
        "FAULTS" | "READ_ONLY" => "true".to_owned(),
        "ROLES" => "estimate,ads".to_owned(),
        "SCHEMA_REGISTRY_URL" => "http://127.0.0.1:1,http://127.0.0.1:2".to_owned(),
        "TOPIC_MIN_INSYNC_REPLICAS" | "TOPIC_PARTITIONS" | "TOPIC_REPLICATION_FACTOR" => "7".to_owned(),
        file => {
            let Some(secret) = file.strip_suffix("_FILE") else { panic!("add a sample of {file}") };
            let path = format!("{directory}/{secret}");
            std::fs::write(&path, format!("\u{feff}\r\n{}\r\n\r\n", sample(secret, Path::new("/tmp"))))
                .unwrap();
            path
        }
    }
}
