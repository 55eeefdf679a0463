//! Sorts the gathered places by vin in a temporary database, which bounds memory.
//!
//! Once the data exceeds the cache, SQLite stores it in a private file in the directory for temporary files
//! (`TMPDIR`) and removes the file at the end. A vehicle takes about 100 bytes per place.

use anyhow::Context as _;
use diesel::connection::{DefaultLoadingMode, SimpleConnection as _};
use diesel::dsl::exists;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};
use sha2::{Digest as _, Sha256};

use super::trail::{Place, Trail};
use crate::excerpt::excerpt;
use crate::kafka::Position;

/// The number of rows inserted at a time. With [`MAX_VIN_BYTES`], those that wait take at most 3 MiB.
const BATCH: usize = 5_000;
/// The maximum size of a vin that is stored whole. The vins that stock accepts are shorter: 64 characters take at most
/// 256 bytes. A record of another producer may have one of a megabyte.
pub(super) const MAX_VIN_BYTES: usize = 512;
/// The number of characters that are shown of a longer vin.
const SHOWN_CHARS: usize = 64;

diesel::table! {
    sighting (vin, place) {
        vin -> Text,
        place -> Integer,
        at -> BigInt,
        unread -> Integer,
    }
}

diesel::table! {
    dead_record (place, partition, position, written) {
        place -> Integer,
        partition -> Integer,
        position -> BigInt,
        written -> BigInt,
    }
}

/// Marks a dead letter that does not state when its record was written.
const UNKNOWN: i64 = i64::MIN;

type Row = (String, i32, i64, i32);

/// Aggregates the places of each vin.
const TRAILS: &str = "
    SELECT vin,
        MIN(CASE WHEN place = 0 THEN at END)                        AS created_at,
        SUM(place = 1)                                              AS is_new,
        SUM(place = 2)                                              AS outbox,
        SUM(place = 3)                                              AS created,
        SUM(place = 4)                                              AS reannounced,
        SUM(place = 6)                                              AS processed,
        SUM(unread)                                                 AS unread,
        MAX(CASE WHEN unread = 1 THEN at END)                       AS unread_since,
        SUM(place IN (5, 7))                                        AS dead_letters,
        SUM(place = 8)                                              AS ads,
        SUM(place = 9)                                              AS unencodable
    FROM sighting GROUP BY vin ORDER BY vin";

#[derive(QueryableByName)]
struct TrailRow {
    #[diesel(sql_type = Text)]
    vin: String,
    #[diesel(sql_type = Nullable<BigInt>)]
    created_at: Option<i64>,
    #[diesel(sql_type = BigInt)]
    is_new: i64,
    #[diesel(sql_type = BigInt)]
    outbox: i64,
    #[diesel(sql_type = BigInt)]
    created: i64,
    #[diesel(sql_type = BigInt)]
    reannounced: i64,
    #[diesel(sql_type = BigInt)]
    processed: i64,
    #[diesel(sql_type = BigInt)]
    unread: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    unread_since: Option<i64>,
    #[diesel(sql_type = BigInt)]
    dead_letters: i64,
    #[diesel(sql_type = BigInt)]
    ads: i64,
    #[diesel(sql_type = BigInt)]
    unencodable: i64,
}

impl From<TrailRow> for Trail {
    fn from(row: TrailRow) -> Self {
        Self {
            vin: row.vin,
            created_at: row.created_at,
            is_new: row.is_new > 0,
            outbox: row.outbox,
            created: row.created,
            reannounced: row.reannounced,
            processed: row.processed,
            unread: row.unread,
            unread_since: row.unread_since,
            dead_letters: row.dead_letters,
            ads: row.ads,
            unencodable: row.unencodable,
        }
    }
}

/// The places recorded so far.
pub(super) struct Scratch {
    connection: SqliteConnection,
    waiting: Vec<Row>,
    has_dead_records: bool,
}

impl Scratch {
    /// Creates the temporary database.
    ///
    /// # Errors
    /// Fails when there is no space for temporary files.
    pub(super) fn new() -> anyhow::Result<Self> {
        // A database without a name is private and removed when it is closed
        // (<https://www.sqlite.org/inmemorydb.html#temp_db>).
        let mut connection = SqliteConnection::establish("").context("cannot open a temporary database")?;
        connection
            .batch_execute(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = FILE;
                 PRAGMA cache_size = -32768; PRAGMA locking_mode = EXCLUSIVE;
                 CREATE TABLE sighting (vin TEXT NOT NULL, place INTEGER NOT NULL, at INTEGER NOT NULL,
                     unread INTEGER NOT NULL);
                 CREATE TABLE dead_record (place INTEGER NOT NULL, partition INTEGER NOT NULL,
                     position INTEGER NOT NULL, written INTEGER NOT NULL,
                     PRIMARY KEY (place, partition, position, written)) WITHOUT ROWID;",
            )
            .context("cannot set up a temporary database")?;
        Ok(Self { connection, waiting: Vec::with_capacity(BATCH), has_dead_records: false })
    }

    /// Records that `vin` was found in `place`; `at` is the time of its arrival there in milliseconds since the Unix
    /// epoch.
    pub(super) fn see(&mut self, vin: String, place: Place, at: i64, unread: bool) -> anyhow::Result<()> {
        self.waiting.push((bounded(vin), place as i32, at, i32::from(unread)));
        if self.waiting.len() < BATCH { Ok(()) } else { self.flush() }
    }

    /// Records that the record that was written to this position of a topic at the time `written`, in milliseconds since
    /// the Unix epoch, has a dead letter.
    pub(super) fn see_dead(
        &mut self,
        place: Place,
        (partition, position): Position,
        written: Option<i64>,
    ) -> anyhow::Result<()> {
        self.has_dead_records = true;
        diesel::insert_or_ignore_into(dead_record::table)
            .values((
                dead_record::place.eq(place as i32),
                dead_record::partition.eq(partition),
                dead_record::position.eq(position),
                dead_record::written.eq(written.unwrap_or(UNKNOWN)),
            ))
            .execute(&mut self.connection)?;
        Ok(())
    }

    /// Returns whether the record that was written to this position at the time `written` has a dead letter.
    ///
    /// Dead letters are kept for ever, so there may be some of a log that was replaced, which had other records at the
    /// same positions. Without the time of both, the position alone decides.
    pub(super) fn is_dead(
        &mut self,
        place: Place,
        (partition, position): Position,
        written: Option<i64>,
    ) -> anyhow::Result<bool> {
        if !self.has_dead_records {
            return Ok(false);
        }
        let here = dead_record::table
            .filter(dead_record::place.eq(place as i32))
            .filter(dead_record::partition.eq(partition))
            .filter(dead_record::position.eq(position));
        let found = match written {
            Some(written) => {
                diesel::select(exists(here.filter(dead_record::written.eq_any([written, UNKNOWN]))))
                    .get_result(&mut self.connection)
            }
            None => diesel::select(exists(here)).get_result(&mut self.connection),
        };
        Ok(found?)
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let rows: Vec<_> = self
            .waiting
            .drain(..)
            .map(|(vin, place, at, unread)| {
                (
                    sighting::vin.eq(vin),
                    sighting::place.eq(place),
                    sighting::at.eq(at),
                    sighting::unread.eq(unread),
                )
            })
            .collect();
        diesel::insert_into(sighting::table)
            .values(rows)
            .execute(&mut self.connection)
            .context("cannot write to the temporary database; TMPDIR sets its directory")?;
        Ok(())
    }

    /// Passes the trail of each vin to `each`, in the order of the vins.
    ///
    /// # Errors
    /// Returns the errors of `each`. Fails when the space for temporary files is exhausted.
    pub(super) fn for_each_trail(
        mut self,
        mut each: impl FnMut(Trail) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.flush()?;
        let rows = diesel::sql_query(TRAILS)
            .load_iter::<TrailRow, DefaultLoadingMode>(&mut self.connection)
            .context("cannot sort the temporary database; TMPDIR sets its directory")?;
        for row in rows {
            each(row?.into())?;
        }
        Ok(())
    }
}

/// Replaces a long vin by an excerpt and its hash, which keeps it distinct from similar ones.
fn bounded(vin: String) -> String {
    if vin.len() <= MAX_VIN_BYTES {
        return vin;
    }
    let hash: String = Sha256::digest(&vin).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{} ({} bytes, SHA-256 {hash})", excerpt(&vin, SHOWN_CHARS), vin.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vehicle::Vin;

    #[test]
    fn a_long_vin_is_shortened_and_stays_distinct() {
        let longest = "\u{1f600}".repeat(Vin::MAX_CHARS);
        assert_eq!(bounded(longest.clone()), longest);
        let long = |middle: &str| bounded(["x".repeat(500_000), "x".repeat(500_000)].join(middle));
        assert!(long("a").len() <= MAX_VIN_BYTES && long("a").starts_with("xxx"), "{}", long("a"));
        assert_eq!(long("a"), long("a"));
        assert_ne!(long("a"), long("b"));
    }

    #[test]
    fn the_places_of_a_vin_are_aggregated() {
        let mut scratch = Scratch::new().unwrap();
        scratch.see("b".to_owned(), Place::Ads, 9, false).unwrap();
        for (place, at, unread) in [
            (Place::Vehicles, 1, false),
            (Place::Created, 2, false),
            (Place::Reannounced, 3, false),
            (Place::Processed, 4, true),
            (Place::Processed, 5, true),
            (Place::CreatedDead, 6, false),
        ] {
            scratch.see("a".to_owned(), place, at, unread).unwrap();
        }
        let mut trails = Vec::new();
        scratch
            .for_each_trail(|trail| {
                trails.push(trail);
                Ok(())
            })
            .unwrap();
        let a = Trail {
            vin: "a".to_owned(),
            created_at: Some(1),
            created: 1,
            reannounced: 1,
            processed: 2,
            unread: 2,
            unread_since: Some(5),
            dead_letters: 1,
            ..Trail::default()
        };
        let b = Trail { vin: "b".to_owned(), ads: 1, ..Trail::default() };
        assert_eq!(trails, [a, b]);
    }

    #[test]
    fn a_dead_record_is_identified_by_its_position_and_its_time() {
        let mut scratch = Scratch::new().unwrap();
        assert!(!scratch.is_dead(Place::Created, (0, 1), Some(5)).unwrap());
        for written in [5, 5, 6] {
            scratch.see_dead(Place::Created, (0, 1), Some(written)).unwrap();
        }
        for written in [Some(5), Some(6), None] {
            assert!(scratch.is_dead(Place::Created, (0, 1), written).unwrap(), "{written:?}");
        }
        assert!(!scratch.is_dead(Place::Created, (0, 1), Some(7)).unwrap(), "a record of another log");
        assert!(!scratch.is_dead(Place::Created, (0, 2), None).unwrap());
        assert!(!scratch.is_dead(Place::Processed, (0, 1), Some(5)).unwrap());
    }

    #[test]
    fn a_dead_record_whose_time_is_unknown_is_identified_by_its_position() {
        let mut scratch = Scratch::new().unwrap();
        scratch.see_dead(Place::Created, (0, 1), None).unwrap();
        for written in [Some(5), None] {
            assert!(scratch.is_dead(Place::Created, (0, 1), written).unwrap(), "{written:?}");
        }
    }
}
