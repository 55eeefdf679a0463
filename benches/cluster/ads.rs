//! Measures ads on a backlog and compares it with bare inserts.

use std::time::Instant;

use mongodb::bson::{self, RawDocumentBuf, doc, rawdoc};
use mongodb::options::{ClientOptions, IndexOptions, WriteConcern};
use mongodb::{Client, Collection, IndexModel};
use uuid::Uuid;
use vehicle_platform::event::{VEHICLE_PROCESSED, VehicleCreated, VehicleProcessed};

use crate::drain::{Backlog, Drained};
use crate::machine::sample_runnable;
use crate::records::{self, processed};
use crate::report::{CpuTable, Goal, Report, Row};
use crate::role::Role;
use crate::stats::{say, show};
use crate::workspace::{Site, Workspace};

/// Documents per insert in the measurement of the limit.
const BATCH: usize = 500;

pub async fn ads(workspace: &Workspace, report: &mut Report) {
    let count = workspace.settings.records;
    let (mut rates, mut limits, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=workspace.settings.rounds {
        say(&format!("ads, round {round}"));
        let site = workspace.site().await;
        records::write(workspace, &site, VEHICLE_PROCESSED, count, processed).await;
        sample_runnable();
        let limit = insert(&site, count).await;
        say(&format!("  insert_many alone: {}/s", show(limit)));
        limits.push(limit);
        sample_runnable();
        let drained = drain(workspace, report, &site).await;
        rates.push(drained.as_ref().map_or(0.0, |drained| drained.per_second));
        cpu.extend(drained.map(|drained| drained.cpu));
        workspace.remove(site).await;
    }
    let work = format!("Ads, a backlog of {} vehicles", show(count as f64));
    report.rows.push(
        Row::new(&work, "/s", rates)
            .limit(&format!("insert_many of {BATCH}, w: majority, journaled"), limits)
            .goal(Goal::RatioAtLeast(0.5)),
    );
    report.add_cpu(CpuTable { work, rounds: cpu });
}

/// Inserts the documents of all ads into a separate collection, one batch after the other. Returns the documents per
/// second, not counting the time to build them.
async fn insert(site: &Site, count: u64) -> f64 {
    let collection = collection(site, "limit").await;
    let unique = IndexOptions::builder().unique(true).build();
    let index = IndexModel::builder().keys(doc! { "vin": 1 }).options(unique).build();
    collection.create_index(index).await.unwrap();
    let documents: Vec<_> = (0..count).map(|number| document(processed(number))).collect();
    let started = Instant::now();
    for batch in documents.chunks(BATCH) {
        collection.insert_many(batch).ordered(false).await.unwrap();
    }
    let elapsed = started.elapsed().as_secs_f64();
    // The next checkpoint of the collection would compete with ads.
    collection.drop().await.unwrap();
    count as f64 / elapsed
}

/// Opens a collection with the write concern of ads.
async fn collection(site: &Site, name: &str) -> Collection<RawDocumentBuf> {
    let mut options = ClientOptions::parse(site.ads_url()).await.unwrap();
    options.write_concern = Some(WriteConcern::builder().w(Some("majority".into())).journal(true).build());
    let client = Client::with_options(options).unwrap();
    client.default_database().unwrap().collection(name)
}

/// Returns the document that ads writes for a vehicle.
fn document(processed: VehicleProcessed) -> RawDocumentBuf {
    let VehicleCreated { id, vehicle } = processed.created;
    rawdoc! {
        "_id": Uuid::now_v7().to_string(),
        "publishedAt": bson::DateTime::now(),
        "vehicleId": id.unwrap(),
        "vin": vehicle.vin,
        "model": vehicle.model,
        "manufacturer": vehicle.manufacturer,
        "year": vehicle.year,
        "odometer": vehicle.odometer,
        "odometerUnit": vehicle.odometer_unit,
        "price": processed.price,
        "priceUnit": processed.price_unit,
    }
}

async fn drain(workspace: &Workspace, report: &mut Report, site: &Site) -> Option<Drained> {
    let count = workspace.settings.records;
    let mut ads = Role::start(workspace, site, "ads", &["--database-url", site.ads_url()]);
    let backlog =
        Backlog { what: "ads", begun: "ads_records_read_total", done: "ads_records_committed_total", count };
    let drained = backlog.drain(workspace, report, &mut ads).await;
    if drained.is_some() {
        let stored = collection(site, "ads").await.count_documents(doc! {}).await.unwrap();
        assert_eq!(stored, count, "ads committed all offsets, but MongoDB has another number of ads");
    }
    ads.stop().await;
    drained
}
