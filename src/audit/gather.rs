//! Reads all places in an order that yields correct findings while the platform is running.
//!
//! The order is that of the data flow: whatever has left a place before it is read has arrived at the next place when
//! that is read. Only vehicles that exist at the beginning are judged. Newer ones are recorded so that their ads have
//! a vehicle.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::runtime::Handle;

use super::Sources;
use super::report::Found;
use super::scratch::{MAX_VIN_BYTES, Scratch};
use super::trail::Place;
use crate::ads;
use crate::estimate;
use crate::event::{EventType, REANNOUNCED_HEADER, VEHICLE_CREATED, VEHICLE_PROCESSED};
use crate::kafka::{Record, TopicReader, committed_offsets, for_each_dead_letter};
use crate::page::PageRequest;
use crate::registry::unframed;
use crate::vehicle::VehicleId;

/// The number of rows read from a database at a time.
const PAGE: usize = 5_000;
/// The interval between progress messages.
const WORD: Duration = Duration::from_secs(5);

/// The result of reading all places.
pub(super) struct Gathered {
    pub(super) scratch: Scratch,
    /// The number of unresolved dead letters.
    pub(super) dead_letters: u64,
    /// Vehicles and ads that cannot be read, by id.
    pub(super) unreadable: Found,
}

/// Reads every place once. Blocks.
pub(super) fn gather(sources: &Sources, runtime: &Handle) -> anyhow::Result<Gathered> {
    let mut gatherer = Gatherer {
        sources,
        runtime,
        scratch: Scratch::new()?,
        dead_letters: 0,
        unreadable: Found::default(),
    };
    let last = gatherer.vehicles(None, Place::Vehicles)?;
    gatherer.outbox()?;
    let created = gatherer.committed(estimate::GROUP, VEHICLE_CREATED)?;
    let processed = gatherer.committed(ads::GROUP, VEHICLE_PROCESSED)?;
    gatherer.dead_letters(VEHICLE_CREATED, Place::Created, Place::CreatedDead)?;
    gatherer.dead_letters(VEHICLE_PROCESSED, Place::Processed, Place::ProcessedDead)?;
    gatherer.events(VEHICLE_CREATED, Place::Created, &created)?;
    gatherer.events(VEHICLE_PROCESSED, Place::Processed, &processed)?;
    gatherer.ads()?;
    gatherer.vehicles(last, Place::NewVehicles)?;
    let Gatherer { scratch, dead_letters, unreadable, .. } = gatherer;
    Ok(Gathered { scratch, dead_letters, unreadable })
}

struct Gatherer<'a> {
    sources: &'a Sources,
    runtime: &'a Handle,
    scratch: Scratch,
    dead_letters: u64,
    unreadable: Found,
}

impl Gatherer<'_> {
    /// Records the vehicles with ids above `after` and returns the last one.
    fn vehicles(&mut self, mut after: Option<VehicleId>, place: Place) -> anyhow::Result<Option<VehicleId>> {
        let mut progress = Progress::new("vehicles");
        loop {
            let page =
                self.runtime.block_on(self.sources.vehicles.page(&PageRequest::new(PAGE, after)))?.rows;
            progress.advance(page.len());
            let Some(last) = page.last() else { break };
            after = Some(last.as_ref().map_or_else(|unreadable| unreadable.id, |stocked| stocked.id));
            for row in page {
                match row {
                    Ok(stocked) => {
                        let vin: String = stocked.vehicle.vin.into();
                        // Its vin is not stored whole, so the vehicle cannot be announced again. It is known only.
                        let (long, id) = (vin.len() > MAX_VIN_BYTES, stocked.id);
                        if long {
                            self.unreadable.add(|| format!("vehicle {id}: vin of {} bytes", vin.len()));
                        }
                        let place = if long { Place::NewVehicles } else { place };
                        self.scratch.see(vin, place, stocked.created_at.timestamp_millis(), false)?;
                    }
                    Err(row) => self.unreadable.add(|| format!("vehicle {row}")),
                }
            }
        }
        progress.finish();
        Ok(after)
    }

    fn outbox(&mut self) -> anyhow::Result<()> {
        let mut progress = Progress::new("outbox");
        let mut after = 0;
        loop {
            let limit = i64::try_from(PAGE).unwrap_or(i64::MAX);
            let page = self.runtime.block_on(self.sources.vehicles.unpublished(after, limit))?;
            progress.advance(page.len());
            let Some(last) = page.last() else { break };
            after = last.id;
            for event in page {
                let place = if event.failure.is_some() { Place::Unencodable } else { Place::Outbox };
                self.scratch.see(event.vin, place, 0, false)?;
            }
        }
        progress.finish();
        Ok(())
    }

    fn committed(&self, group: &str, event: EventType) -> anyhow::Result<BTreeMap<i32, i64>> {
        let naming = &self.sources.naming;
        committed_offsets(&self.sources.kafka, &naming.group(group), &naming.topic(event))
    }

    fn dead_letters(&mut self, event: EventType, place: Place, dead: Place) -> anyhow::Result<()> {
        let mut progress = Progress::new("dead letters");
        let topic = self.sources.naming.topic(event);
        for_each_dead_letter(&self.sources.kafka, &topic, |letter, waits| {
            progress.advance(1);
            if let Some(origin) = letter.origin() {
                self.scratch.see_dead(place, origin, letter.written())?;
            }
            if waits {
                self.dead_letters += 1;
                if let Some(vin) = vin_of(letter.record()) {
                    self.scratch.see(vin, dead, letter.record().timestamp.unwrap_or(0), false)?;
                }
            }
            Ok(())
        })?;
        progress.finish();
        Ok(())
    }

    fn events(
        &mut self,
        event: EventType,
        place: Place,
        committed: &BTreeMap<i32, i64>,
    ) -> anyhow::Result<()> {
        let mut progress = Progress::new(event.topic);
        let reader = TopicReader::open(&self.sources.kafka, &self.sources.naming.topic(event))?;
        let committed = of_this_log(committed, reader.offsets());
        reader.for_each(|record| {
            progress.advance(1);
            if self.scratch.is_dead(place, (record.partition, record.offset), record.timestamp)? {
                return Ok(());
            }
            let unread = committed.get(&record.partition).is_none_or(|next| record.offset >= *next);
            let place = if record.header(REANNOUNCED_HEADER).is_some() { Place::Reannounced } else { place };
            match vin_of(&record) {
                Some(vin) => self.scratch.see(vin, place, record.timestamp.unwrap_or(0), unread),
                None => Ok(()),
            }
        })?;
        progress.finish();
        Ok(())
    }

    fn ads(&mut self) -> anyhow::Result<()> {
        let mut progress = Progress::new("ads");
        let mut after = None;
        loop {
            let page = self.runtime.block_on(self.sources.ads.page(&PageRequest::new(PAGE, after)))?.rows;
            progress.advance(page.len());
            let Some(last) = page.last() else { break };
            after =
                Some(last.as_ref().map_or_else(|unreadable| unreadable.id.clone(), |ad| ad.id.to_string()));
            for row in page {
                match row {
                    Ok(ad) => {
                        let published_at = ad.published_at.timestamp_millis();
                        self.scratch.see(ad.offer.vehicle.vin, Place::Ads, published_at, false)?;
                    }
                    Err(row) => self.unreadable.add(|| format!("ad {row}")),
                }
            }
        }
        for stray in self.runtime.block_on(self.sources.ads.strays(PAGE))? {
            self.unreadable.add(|| format!("ad {stray}"));
        }
        progress.finish();
        Ok(())
    }
}

/// Omits the offsets that were committed in a log that is no longer there: they may outlive it. Those of the current log
/// were committed before `offsets` were read, so they do not exceed its end.
fn of_this_log(committed: &BTreeMap<i32, i64>, offsets: &BTreeMap<i32, Range<i64>>) -> BTreeMap<i32, i64> {
    let is_there = |partition, next| offsets.get(&partition).is_some_and(|offsets| next <= offsets.end);
    let known = committed.iter().map(|(partition, next)| (*partition, *next));
    known.filter(|(partition, next)| is_there(*partition, *next)).collect()
}

/// Returns the vin in a record's value, since the original services write no key. Falls back to the key when the
/// value is unreadable.
pub(super) fn vin_of(record: &Record) -> Option<String> {
    #[derive(Deserialize)]
    struct Vin {
        vin: String,
    }
    let value = record.value().and_then(unframed);
    let vin = value.and_then(|json| serde_json::from_slice::<Vin>(json).ok()).map(|vin| vin.vin);
    vin.or_else(|| String::from_utf8(record.key()?.to_vec()).ok())
}

/// Logs the progress of reading.
struct Progress {
    what: &'static str,
    count: usize,
    logged_at: Instant,
}

impl Progress {
    fn new(what: &'static str) -> Self {
        Self { what, count: 0, logged_at: Instant::now() }
    }

    fn advance(&mut self, by: usize) {
        self.count += by;
        if self.logged_at.elapsed() > WORD {
            tracing::info!(what = self.what, count = self.count, "reading");
            self.logged_at = Instant::now();
        }
    }

    fn finish(&self) {
        tracing::debug!(what = self.what, count = self.count, "read");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_beyond_the_end_was_committed_in_another_log() {
        let committed = [(0, 3), (1, 4), (2, 0)].into();
        let offsets = [(0, 0..3), (1, 0..3)].into();
        assert_eq!(of_this_log(&committed, &offsets), [(0, 3)].into());
    }
}
