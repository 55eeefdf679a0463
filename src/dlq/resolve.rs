//! Resolves dead letters by putting them back on their topics or by discarding them.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use tokio::runtime::Handle;

use super::letter_id::LetterId;
use super::{ResolveArgs, for_each_letter};
use crate::kafka::{
    CommitError, DeadLetter, KafkaArgs, Naming, OutgoingRecord, Refusal, Resolution, TransactionalProducer,
};
use crate::output::{self, Output};

/// The transactional id of the tool. A second instance fences the first, whose transactions then fail.
const TRANSACTIONAL_ID: &str = "vehicle-platform-dlq";

/// The maximum number of dead letters resolved in one transaction.
const BATCH_LIMIT: usize = 500;
const BATCH_BYTES: usize = 16 * 1024 * 1024;

/// What happened to a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Resolved(LetterId),
    /// It is still unresolved, for this reason.
    Skipped(LetterId, String),
}

/// The reasons why no dead letter was resolved: some of those named do not exist or are resolved already.
#[derive(Debug, thiserror::Error)]
#[error("{}; nothing was changed", .0.join(", "))]
pub struct Unresolvable(Vec<String>);

/// Resolves dead letters and prints the outcome of each.
pub(super) fn run(args: &ResolveArgs, how: Resolution) -> anyhow::Result<()> {
    let mut output = Output::stdout();
    let (mut resolved, mut skipped) = (0, 0);
    resolve(&args.kafka, &args.letters, how, &mut |outcome| match outcome {
        Outcome::Resolved(id) => {
            resolved += 1;
            output.line(format_args!("{} {id}", how.as_str()));
        }
        Outcome::Skipped(id, reason) => {
            skipped += 1;
            output::report(format_args!("skipped {id}: {reason}"));
        }
    })?;
    if skipped > 0 {
        bail!(
            "{} {resolved} dead letters; {skipped} were skipped for the reasons above and are still waiting: raise \
             max.message.bytes where the brokers refuse a record, or resolve it with `dlq discard`",
            how.as_str()
        );
    }
    if resolved == 0 {
        output.line(format_args!("no dead letters are waiting"));
    }
    Ok(output.finish()?)
}

/// Resolves the dead letters with these ids, or all unresolved ones when there are none, and reports the outcome of
/// each. This call blocks, on a thread of the async runtime's pool for blocking work.
///
/// # Errors
/// Fails with [`Unresolvable`] before anything is changed, and when the brokers do not respond.
pub fn resolve(
    kafka: &KafkaArgs,
    letters: &[LetterId],
    how: Resolution,
    report: &mut dyn FnMut(Outcome),
) -> anyhow::Result<()> {
    let naming = Naming::new(kafka);
    // Initializing the producer fences other instances before the dead letters are read, so none of them is resolved
    // twice.
    let id = naming.group(TRANSACTIONAL_ID);
    let producer = Handle::current().block_on(TransactionalProducer::of_tool(kafka, &id))?;
    let mut resolver = Resolver { producer, naming, how, batch: Vec::new(), bytes: 0, resolved: 0, report };
    // The requested dead letters: each with its record and whether it is unresolved, once it has been found.
    let mut named: BTreeMap<_, _> = letters.iter().map(|id| (*id, None)).collect();
    for_each_letter(kafka, |id, letter, waits| {
        if let Some(found) = named.get_mut(&id) {
            *found = Some((letter, waits));
        } else if letters.is_empty() && waits {
            resolver.add(id, &letter)?;
        }
        Ok(())
    })?;
    let mut wrong = Vec::new();
    for (id, found) in &named {
        match found {
            Some((_, true)) => {}
            Some((_, false)) => wrong.push(format!("{id} is already resolved")),
            None => wrong.push(format!("dead letter {id} does not exist")),
        }
    }
    if !wrong.is_empty() {
        return Err(Unresolvable(wrong).into());
    }
    for (id, found) in named {
        if let Some((letter, _)) = found {
            resolver.add(id, &letter)?;
        }
    }
    resolver.flush()
}

/// A dead letter and the records that resolve it.
struct Pending {
    id: LetterId,
    records: Vec<OutgoingRecord>,
}

/// Resolves dead letters, one batch per transaction. Reports a dead letter that cannot be put back and leaves it
/// unresolved.
struct Resolver<'a> {
    producer: TransactionalProducer,
    naming: Naming,
    how: Resolution,
    batch: Vec<Pending>,
    /// The total size of the values in the batch.
    bytes: usize,
    resolved: usize,
    report: &'a mut dyn FnMut(Outcome),
}

impl Resolver<'_> {
    fn add(&mut self, id: LetterId, letter: &DeadLetter) -> anyhow::Result<()> {
        if let Some(left_out) = letter.left_out().filter(|_| self.how == Resolution::Replayed) {
            let origin = letter.origin().map_or_else(String::new, |(partition, offset)| {
                format!("; the record was at partition {partition}, offset {offset}")
            });
            self.skip(id, &format!("{left_out} was omitted{origin}"));
            return Ok(());
        }
        let records = letter.resolve(&self.naming.topic(id.event), self.how);
        self.bytes += records.iter().map(|record| record.value.as_ref().map_or(0, Vec::len)).sum::<usize>();
        self.batch.push(Pending { id, records });
        if self.batch.len() >= BATCH_LIMIT || self.bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        while !self.batch.is_empty() {
            let records = self.batch.iter().flat_map(|pending| &pending.records);
            match Handle::current().block_on(self.producer.publish(records)) {
                Ok(()) => break,
                Err(CommitError::Refused(refusals)) => self.skip_refused(&refusals),
                // The state of the dead letters shows the outcome of such a transaction when the command runs again.
                Err(error) => {
                    let resolved = self.resolved;
                    return Err(error).with_context(|| {
                        format!(
                            "{resolved} dead letters were resolved; run it again for the others, none is resolved twice"
                        )
                    });
                }
            }
        }
        self.bytes = 0;
        self.resolved += self.batch.len();
        for Pending { id, .. } in self.batch.drain(..) {
            (self.report)(Outcome::Resolved(id));
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
                Some(refusal) => self.skip(id, &format!("the brokers refuse it: {}", refusal.code)),
                None => self.batch.push(Pending { id, records }),
            }
        }
    }

    fn skip(&mut self, id: LetterId, reason: &str) {
        (self.report)(Outcome::Skipped(id, reason.to_owned()));
    }
}
