//! Holds what a restart finds of a consumer group.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::codec::{Malformed, Payload, put_all, put_bytes};

/// Holds a group as it is between two rebalances (`GroupMetadataValue`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredGroup {
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    pub members: Vec<StoredMember>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMember {
    pub id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    /// Names and metadata, the preferred protocol first.
    pub protocols: Vec<(String, Bytes)>,
    pub assignment: Bytes,
}

impl StoredGroup {
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_i32(self.generation);
        for text in [&self.protocol_type, &self.protocol, &self.leader] {
            put_option(out, text.as_ref());
        }
        put_all(out, &self.members, |out, member| member.encode(out));
    }

    pub fn decode(from: &mut Payload) -> Result<Self, Malformed> {
        Ok(Self {
            generation: from.rest.try_get_i32()?,
            protocol_type: option(from)?,
            protocol: option(from)?,
            leader: option(from)?,
            members: from.all(StoredMember::decode)?,
        })
    }
}

impl StoredMember {
    fn encode(&self, out: &mut BytesMut) {
        put_bytes(out, self.id.as_bytes());
        put_option(out, self.instance_id.as_ref());
        put_bytes(out, self.client_id.as_bytes());
        put_bytes(out, self.client_host.as_bytes());
        out.put_i32(self.session_timeout_ms);
        out.put_i32(self.rebalance_timeout_ms);
        put_all(out, &self.protocols, |out, (name, metadata)| {
            put_bytes(out, name.as_bytes());
            put_bytes(out, metadata);
        });
        put_bytes(out, &self.assignment);
    }

    fn decode(from: &mut Payload) -> Result<Self, Malformed> {
        Ok(Self {
            id: text(from)?,
            instance_id: option(from)?,
            client_id: text(from)?,
            client_host: text(from)?,
            session_timeout_ms: from.rest.try_get_i32()?,
            rebalance_timeout_ms: from.rest.try_get_i32()?,
            protocols: from.all(|from| Ok((text(from)?, copied(from)?)))?,
            assignment: copied(from)?,
        })
    }
}

fn put_option(out: &mut BytesMut, text: Option<&String>) {
    put_all(out, text.as_slice(), |out, text| put_bytes(out, text.as_bytes()));
}

fn option(from: &mut Payload) -> Result<Option<String>, Malformed> {
    Ok(from.all(text)?.pop())
}

fn text(from: &mut Payload) -> Result<String, Malformed> {
    Ok(from.str()?.to_string())
}

/// Returns bytes that do not keep the rest of the payload in memory.
fn copied(from: &mut Payload) -> Result<Bytes, Malformed> {
    Ok(Bytes::copy_from_slice(&from.bytes()?))
}
