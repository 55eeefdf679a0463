//! Determines when the platform has finished all that it had at some time.
//!
//! The console does not know where the records of a vehicle are when it has not read them. But stock publishes in the
//! order of the ids: once a later vehicle is published, the event is before the end of its topic, or destroyed.

use std::collections::BTreeMap;

use super::ledger::SETTLED;
use super::traces::{Passed, Spot};

/// The ends of a topic: by partition, the offset after the last record.
type Ends = BTreeMap<i32, i64>;

/// The ends of both topics, as far as they were read.
#[derive(Debug, Default)]
pub struct Sweeper {
    created: Ends,
    processed: Ends,
    sweep: Option<Sweep>,
    /// When the last sweep that is over began, in milliseconds since the Unix epoch.
    swept: Option<i64>,
}

#[derive(Debug)]
struct Sweep {
    began: i64,
    /// Whether the estimators are past all created vehicles.
    is_estimated: bool,
    /// The offsets that have to be committed.
    ends: Ends,
    /// Since when the estimators are past them. What they have written becomes visible meanwhile.
    reached: Option<i64>,
}

impl Sweeper {
    pub fn created(&mut self, spot: Spot) {
        extend(&mut self.created, spot);
    }

    pub fn processed(&mut self, spot: Spot) {
        extend(&mut self.processed, spot);
    }

    /// Forgets the ends of one topic, because it was created again.
    pub fn forget(&mut self, created: bool) {
        let ends = if created { &mut self.created } else { &mut self.processed };
        ends.clear();
        self.sweep = None;
    }

    /// Goes on with the sweep.
    pub fn advance(&mut self, now: i64, passed: &Passed) {
        let Some(sweep) = &mut self.sweep else { return };
        let committed = if sweep.is_estimated { &passed.advertised } else { &passed.estimated };
        let is_reached =
            |(partition, end): (&i32, &i64)| committed.get(partition).is_some_and(|at| at >= end);
        if !sweep.ends.iter().all(is_reached) {
            sweep.reached = None;
            return;
        }
        if sweep.is_estimated {
            self.swept = Some(sweep.began);
            self.sweep = None;
        } else if now - *sweep.reached.get_or_insert(now) >= SETTLED {
            sweep.is_estimated = true;
            sweep.ends.clone_from(&self.processed);
        }
    }

    /// Returns whether everything that existed at `since` is finished. If it is not known, a sweep begins.
    pub fn is_past(&mut self, since: i64, now: i64) -> bool {
        // A record may be read some time after a later one.
        let since = since + SETTLED;
        if self.swept.is_some_and(|swept| swept >= since) {
            return true;
        }
        if self.sweep.is_none() && now >= since {
            let ends = self.created.clone();
            self.sweep = Some(Sweep { began: now, is_estimated: false, ends, reached: None });
        }
        false
    }
}

fn extend(ends: &mut Ends, (partition, offset): Spot) {
    let end = ends.entry(partition).or_default();
    *end = (*end).max(offset.saturating_add(1));
}
