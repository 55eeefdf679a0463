//! Tests that roles recover after a broker that has just started named no brokers, after which a client of librdkafka may
//! know none for ever (<https://github.com/confluentinc/librdkafka/issues/5301>).

use reqwest::StatusCode;

use crate::support::empty_metadata::MetadataProxy;
use crate::support::proxy::{Line, Proxy};
use crate::support::role::Role;
use crate::support::{Platform, assert_same, eventually, free_port, http_client, vehicle};

/// The number of responses without brokers, which is enough for most clients of the roles to receive one.
const HIDDEN: usize = 10;

/// Hides the brokers from stock and an estimator that worked before, and expects them to work again.
async fn roles_recover(outage: bool) {
    let platform = Platform::start(&["--roles", "ads"]).await;
    let broker = platform.kafka().parse().unwrap();
    let (line, through) = Proxy::start(0, broker).await;
    let metadata = MetadataProxy::start(broker, through).await;
    let kafka = metadata.address();
    let engines = ["--kafka-bootstrap-servers", &kafka, "--schema-registry-url", platform.registry()];
    let database = format!("sqlite:{}", platform.data_dir().join("stock.db").display());
    let port = free_port().to_string();
    let settings = ["--port", &port, "--database-url", &database];
    let stock = Role::start("stock", &[&engines[..], &settings].concat(), &[]);
    let estimate = Role::start("estimate", &[&engines[..], &["--processing-time", "1s"]].concat(), &[]);
    let client = http_client();
    let accept = async |vin: &str| {
        let post = client.post(format!("http://127.0.0.1:{port}/stock")).json(&vehicle(vin));
        assert_eq!(post.send().await.unwrap().status(), StatusCode::CREATED);
        vin.to_owned()
    };
    stock.await_ready().await;
    estimate.await_ready().await;
    let mut accepted = vec![accept("before").await];
    platform.await_ads(accepted.len()).await;
    if outage {
        line.set(Line::Severed);
        eventually("the estimator to lose its partitions", async || {
            (estimate.metric("estimate_partitions_assigned ").await? == 0).then_some(())
        })
        .await;
    }
    accepted.push(accept("during").await);
    metadata.hide_brokers(true);
    line.set(Line::Open);
    eventually("the brokers to be hidden", async || (metadata.hidden() >= HIDDEN).then_some(())).await;
    metadata.hide_brokers(false);
    accepted.push(accept("after").await);
    let ads = platform.await_ads(accepted.len()).await;
    assert_same(ads.iter().map(|ad| ad["vin"].as_str().unwrap().to_owned()).collect(), accepted);
    stock.await_ready().await;
    estimate.await_ready().await;
    platform.finish().await;
}

#[tokio::test]
async fn roles_recover_after_brokers_named_no_brokers() {
    roles_recover(false).await;
}

#[tokio::test]
async fn roles_recover_after_brokers_returned_from_an_outage_and_named_no_brokers() {
    roles_recover(true).await;
}
