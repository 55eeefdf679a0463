//! Resolves dead letters by putting them back on their topics or by discarding them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use anyhow::Context as _;

use super::claim::Claim;
use super::letter_id::LetterId;
use super::selection::Selection;
use crate::kafka::{CommitError, DeadLetter, KafkaArgs, Naming, OutgoingRecord, Refusal, Resolution};

/// Why a dead letter that was unresolved is not resolved.
const RESOLVED_MEANWHILE: &str = "it was resolved or deleted meanwhile";

/// The maximum number of dead letters resolved in one transaction.
const BATCH_LIMIT: usize = 500;
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// What to do with which dead letters.
#[derive(Clone, Debug)]
pub struct Plan {
    pub which: Which,
    pub how: Resolution,
    /// A record that came back this often is not put back again.
    pub max_replays: u32,
    /// Whether to change nothing and only report what would be done.
    pub dry_run: bool,
}

#[derive(Clone, Debug)]
pub enum Which {
    /// These, which must exist and be unresolved.
    These(Vec<LetterId>),
    /// All that are selected and unresolved.
    All(Selection),
}

/// The reasons why no dead letter was resolved: some of those named do not exist or are resolved already.
#[derive(Debug, thiserror::Error)]
#[error("{}; nothing was changed", .0.join(", "))]
pub struct Unresolvable(Vec<String>);

/// What was done with a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Resolved(LetterId),
    /// It was not resolved by this call, for this reason.
    Skipped(LetterId, String),
}

/// The numbers of dead letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub resolved: usize,
    pub skipped: usize,
}

/// Resolves dead letters and calls `report` for each of them. This call blocks, on a thread of an async runtime that may
/// block.
///
/// # Errors
/// Fails with [`Unresolvable`] before anything is changed, and when the brokers do not answer. The dead letters that were reported as resolved remain resolved.
pub fn resolve(kafka: &KafkaArgs, plan: &Plan, report: impl FnMut(Step)) -> anyhow::Result<Outcome> {
    let naming = Naming::new(kafka);
    // The claim is taken before the dead letters are read, so none of them is resolved twice.
    let claim = if plan.dry_run { None } else { Some(Claim::take(kafka)?) };
    let mut resolver =
        Resolver { claim, naming, plan, batch: Vec::new(), bytes: 0, outcome: Outcome::default(), report };
    match &plan.which {
        Which::These(ids) => {
            verify(kafka, ids)?;
            // The dead letters are read again, so that only those of one batch are in memory.
            let mut left: BTreeSet<_> = ids.iter().copied().collect();
            Selection::default().for_each(kafka, |id, letter, waits| {
                if waits && left.remove(&id) {
                    resolver.add(id, &letter)?;
                }
                Ok(if left.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            for id in left {
                resolver.skip(id, RESOLVED_MEANWHILE.to_owned());
            }
        }
        Which::All(selection) => selection.for_each(kafka, |id, letter, waits| {
            if waits {
                if selection.is_exhausted_by(resolver.outcome.resolved + resolver.batch.len()) {
                    return Ok(ControlFlow::Break(()));
                }
                resolver.add(id, &letter)?;
            }
            Ok(ControlFlow::Continue(()))
        })?,
    }
    resolver.flush()?;
    Ok(resolver.outcome)
}

/// Verifies that these dead letters exist and are unresolved.
fn verify(kafka: &KafkaArgs, ids: &[LetterId]) -> anyhow::Result<()> {
    let mut named: BTreeMap<_, _> = ids.iter().map(|id| (*id, None)).collect();
    Selection::default().for_each(kafka, |id, _, waits| {
        if let Some(found) = named.get_mut(&id) {
            *found = Some(waits);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let reason = |(id, found)| match found {
        Some(true) => None,
        Some(false) => Some(format!("{id} is already resolved")),
        None => Some(format!("dead letter {id} does not exist")),
    };
    let wrong: Vec<_> = named.into_iter().filter_map(reason).collect();
    if wrong.is_empty() { Ok(()) } else { Err(Unresolvable(wrong).into()) }
}

/// A dead letter and the records that resolve it.
struct Pending {
    id: LetterId,
    records: Vec<OutgoingRecord>,
}

/// Resolves dead letters, one batch per transaction. Reports a dead letter that cannot be put back and leaves it
/// unresolved.
struct Resolver<'a, R> {
    /// None changes nothing.
    claim: Option<Claim>,
    naming: Naming,
    plan: &'a Plan,
    batch: Vec<Pending>,
    /// The total size of the records in the batch.
    bytes: usize,
    outcome: Outcome,
    report: R,
}

impl<R: FnMut(Step)> Resolver<'_, R> {
    fn add(&mut self, id: LetterId, letter: &DeadLetter) -> anyhow::Result<()> {
        if let Some(reason) = self.obstacle(letter) {
            self.skip(id, reason);
            return Ok(());
        }
        let records = letter.resolve(&self.naming.topic(id.event), self.plan.how);
        self.bytes += records.iter().map(OutgoingRecord::bytes).sum::<usize>();
        self.batch.push(Pending { id, records });
        if self.batch.len() >= BATCH_LIMIT || self.bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    /// Returns why the record is not put back.
    fn obstacle(&self, letter: &DeadLetter) -> Option<String> {
        if self.plan.how != Resolution::Replayed {
            return None;
        }
        if let Some(left_out) = letter.left_out() {
            let origin = letter.origin().map_or_else(String::new, |(partition, offset)| {
                format!("; the record was at partition {partition}, offset {offset}")
            });
            return Some(format!("{left_out} was omitted{origin}"));
        }
        let replays = letter.replays();
        (replays >= self.plan.max_replays)
            .then(|| format!("it was replayed {replays} times and came back (--max-replays)"))
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.skip_resolved()?;
        while let Some(claim) = self.claim.as_mut().filter(|_| !self.batch.is_empty()) {
            match claim.publish(self.batch.iter().flat_map(|pending| &pending.records)) {
                Ok(()) => break,
                Err(CommitError::RefusedSome(_)) => {}
                Err(CommitError::Refused(refusals)) => self.skip_refused(&refusals),
                // The state of the dead letters shows the outcome of such a transaction when the command runs again.
                Err(error) => {
                    let resolved = self.outcome.resolved;
                    return Err(error).with_context(|| {
                        format!(
                            "{resolved} dead letters were resolved; run it again for the others, none is resolved twice"
                        )
                    });
                }
            }
            self.skip_resolved()?;
        }
        self.bytes = 0;
        self.outcome.resolved += self.batch.len();
        for Pending { id, .. } in self.batch.drain(..) {
            (self.report)(Step::Resolved(id));
        }
        Ok(())
    }

    /// Removes the dead letters that another instance has resolved from the batch.
    fn skip_resolved(&mut self) -> anyhow::Result<()> {
        for pending in std::mem::take(&mut self.batch) {
            if self.claim.as_mut().map_or(Ok(false), |claim| claim.is_resolved(pending.id))? {
                self.skip(pending.id, RESOLVED_MEANWHILE.to_owned());
            } else {
                self.batch.push(pending);
            }
        }
        Ok(())
    }

    /// Removes the dead letters with a refused record from the batch.
    fn skip_refused(&mut self, refusals: &[Refusal]) {
        let mut next = 0;
        for Pending { id, records } in std::mem::take(&mut self.batch) {
            let own = next..next + records.len();
            next = own.end;
            match refusals.iter().find(|refusal| own.contains(&refusal.index)) {
                Some(refusal) => self.skip(id, format!("the brokers refuse it: {}", refusal.code)),
                None => self.batch.push(Pending { id, records }),
            }
        }
    }

    fn skip(&mut self, id: LetterId, reason: String) {
        self.outcome.skipped += 1;
        (self.report)(Step::Skipped(id, reason));
    }
}
