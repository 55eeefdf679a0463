//! Puts letters back on their topics, or gives them up.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use tokio::runtime::Handle;

use super::letter_id::LetterId;
use super::{SettleArgs, for_each_letter};
use crate::kafka::{
    CommitError, DeadLetter, Naming, OutgoingRecord, Refusal, Settlement, TransactionalProducer,
};
use crate::output::{self, Output};

/// One at a time: a second fences the first, whose transactions then fail.
const TRANSACTIONAL_ID: &str = "vehicle-platform-dlq";

/// Letters settled in one transaction at most.
const BATCH_LIMIT: usize = 500;
const BATCH_BYTES: usize = 16 * 1024 * 1024;

pub(super) fn settle(args: &SettleArgs, how: Settlement) -> anyhow::Result<()> {
    let naming = Naming::new(&args.kafka);
    // Before the letters are read: from here on no other process settles any.
    let id = naming.group(TRANSACTIONAL_ID);
    let producer = Handle::current().block_on(TransactionalProducer::of_tool(&args.kafka, &id))?;
    let mut settler = Settler {
        producer,
        naming,
        how,
        batch: Vec::new(),
        bytes: 0,
        settled: 0,
        skipped: 0,
        output: Output::stdout(),
    };
    // The letters that were named, as far as they were found, and whether they wait.
    let mut named: BTreeMap<_, _> = args.letters.iter().map(|id| (*id, None)).collect();
    for_each_letter(&args.kafka, |id, letter, waits| {
        if let Some(found) = named.get_mut(&id) {
            *found = Some((letter, waits));
        } else if args.all && waits {
            settler.add(id, &letter)?;
        }
        Ok(())
    })?;
    let mut wrong = Vec::new();
    for (id, found) in &named {
        match found {
            Some((_, true)) => {}
            Some((_, false)) => wrong.push(format!("{id} was settled before")),
            None => wrong.push(format!("there is no letter {id}")),
        }
    }
    if !wrong.is_empty() {
        bail!("{}; nothing was changed", wrong.join(", "));
    }
    for (id, found) in named {
        if let Some((letter, _)) = found {
            settler.add(id, &letter)?;
        }
    }
    settler.finish()
}

/// A letter and what settles it.
struct Pending {
    id: LetterId,
    records: Vec<OutgoingRecord>,
}

/// Settles letters, a batch in a transaction. A letter that cannot be put back is named and stays as it is.
struct Settler {
    producer: TransactionalProducer,
    naming: Naming,
    how: Settlement,
    batch: Vec<Pending>,
    /// Of the values in the batch.
    bytes: usize,
    settled: usize,
    skipped: usize,
    output: Output,
}

impl Settler {
    fn add(&mut self, id: LetterId, letter: &DeadLetter) -> anyhow::Result<()> {
        if let Some(left_out) = letter.left_out().filter(|_| self.how == Settlement::Replayed) {
            let origin = letter.origin().map_or_else(String::new, |(partition, offset)| {
                format!("; the record was at partition {partition}, offset {offset}")
            });
            self.skip(id, &format!("{left_out} was left out{origin}"));
            return Ok(());
        }
        let records = letter.settle(&self.naming.topic(id.event), self.how);
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
                // A transaction whose outcome is unknown shows in the letters when the command runs again.
                Err(error) => {
                    let settled = self.settled;
                    return Err(error).with_context(|| {
                        format!(
                            "{settled} letters were settled; run it again for the others, none is settled twice"
                        )
                    });
                }
            }
        }
        self.bytes = 0;
        self.settled += self.batch.len();
        for Pending { id, .. } in self.batch.drain(..) {
            self.output.line(format_args!("{} {id}", self.how.as_str()));
        }
        Ok(())
    }

    /// Takes the letters out of the batch of which a record was refused.
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
        self.skipped += 1;
        output::report(format_args!("skipped {id}: {reason}"));
    }

    fn finish(mut self) -> anyhow::Result<()> {
        self.flush()?;
        let Self { how, settled, skipped, mut output, .. } = self;
        if skipped > 0 {
            bail!(
                "{} {settled} letters; {skipped} were skipped for the reasons above and still wait: raise \
                 max.message.bytes where the brokers refuse one, or give it up by `dlq discard`",
                how.as_str()
            );
        }
        if settled == 0 {
            output.line(format_args!("no letter waits"));
        }
        Ok(output.finish()?)
    }
}
