//! Encodes a partition for a checkpoint.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use bytes::{Buf, BufMut, BytesMut};

use super::{AbortedTxn, Partition};
use crate::entry::codec::{Malformed, Payload, put_all};
use crate::journal::{IndexFile, Used};
use crate::partition_index::{Blocks, IndexWriter, PartitionIndex};
use crate::producer_state::ProducerState;

impl Partition {
    /// Writes where the recent batches are, for [`Partition::seal`].
    pub fn write_recent(&self, writer: &mut IndexWriter) -> io::Result<Blocks> {
        self.index.write_recent(writer)
    }

    /// Forgets where the recent batches are, after they were written.
    pub fn seal(&mut self, written: Blocks) {
        self.index.seal(written);
    }

    pub fn add_used(&self, used: &mut Used) {
        self.index.add_used(used);
    }

    /// Encodes a partition that is sealed.
    pub fn encode(&self, out: &mut BytesMut) {
        // The open transactions are in the states of their producers, and waiters do not outlive the process.
        let Self { index, start_offset, end_offset, producers, open: _, aborted, waiting: _ } = self;
        index.encode(out);
        out.put_i64(*start_offset);
        out.put_i64(*end_offset);
        out.put_u32(producers.len() as u32);
        for (id, producer) in producers {
            out.put_i64(*id);
            producer.encode(out);
        }
        put_all(out, aborted, |out, txn| txn.encode(out));
    }

    pub fn decode(
        from: &mut Payload,
        open_index: &mut impl FnMut(u64) -> io::Result<Arc<IndexFile>>,
    ) -> anyhow::Result<Self> {
        let index = PartitionIndex::decode(from, open_index)?;
        let (start_offset, end_offset) = (from.rest.try_get_i64()?, from.rest.try_get_i64()?);
        let producers = from.all(|from| Ok((from.rest.try_get_i64()?, ProducerState::decode(from)?)))?;
        let producers: HashMap<i64, ProducerState> = producers.into_iter().collect();
        let open = producers.iter().filter_map(|(id, producer)| Some((producer.txn_first_offset?, *id)));
        let open: BTreeMap<i64, i64> = open.collect();
        let aborted = from.all(AbortedTxn::decode)?;
        Ok(Self { index, start_offset, end_offset, producers, open, aborted, waiting: Vec::new() })
    }
}

impl AbortedTxn {
    fn encode(&self, out: &mut BytesMut) {
        let Self { producer_id, first_offset, last_offset, last_stable_offset } = *self;
        for number in [producer_id, first_offset, last_offset, last_stable_offset] {
            out.put_i64(number);
        }
    }

    fn decode(from: &mut Payload) -> Result<Self, Malformed> {
        Ok(Self {
            producer_id: from.rest.try_get_i64()?,
            first_offset: from.rest.try_get_i64()?,
            last_offset: from.rest.try_get_i64()?,
            last_stable_offset: from.rest.try_get_i64()?,
        })
    }
}
