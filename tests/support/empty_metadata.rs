//! Proxies the broker of `dev`, and hides the brokers from clients for a time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use kafka_protocol::messages::{BrokerId, MetadataResponse, ResponseHeader};
use kafka_protocol::protocol::{Decodable as _, Encodable as _, HeaderVersion as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::frames::{read_frame, rename_port, write_frame};

/// The API key of Metadata (<https://kafka.apache.org/protocol#protocol_api_keys>).
const METADATA: [u8; 2] = [0, 3];

/// The version of each request for metadata that is not answered yet, by its correlation id.
type Requests = Arc<Mutex<HashMap<Vec<u8>, i16>>>;

/// A proxy, which ends with its runtime.
pub struct MetadataProxy {
    state: Arc<State>,
    port: u16,
}

#[derive(Default)]
struct State {
    hides: AtomicBool,
    /// The number of responses without brokers.
    hidden: AtomicUsize,
}

impl MetadataProxy {
    /// Forwards to `broker` through a proxy on the port `through`.
    pub async fn start(broker: SocketAddr, through: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", through)).await else { continue };
                let ((requests, answers), (from, to)) = (client.into_split(), server.into_split());
                let asked = Requests::default();
                tokio::spawn(forward_requests(requests, to, Arc::clone(&asked)));
                tokio::spawn(forward_answers(
                    from,
                    answers,
                    asked,
                    (broker.port(), port),
                    Arc::clone(&shared),
                ));
            }
        });
        Self { state, port }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Answers requests for metadata without any broker from now on, as a broker does that has just started and has
    /// not heard of the others yet, or answers them correctly again.
    pub fn hide_brokers(&self, hides: bool) {
        self.state.hides.store(hides, Ordering::SeqCst);
    }

    /// Returns the number of responses without brokers so far.
    pub fn hidden(&self) -> usize {
        self.state.hidden.load(Ordering::SeqCst)
    }
}

async fn forward_requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, asked: Requests) -> Option<()> {
    loop {
        let frame = read_frame(&mut from).await?;
        if frame[..2] == METADATA {
            let version = i16::from_be_bytes([frame[2], frame[3]]);
            asked.lock().unwrap().insert(frame[4..8].to_vec(), version);
        }
        write_frame(&mut to, &frame).await?;
    }
}

async fn forward_answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    asked: Requests,
    (broker, proxy): (u16, u16),
    state: Arc<State>,
) -> Option<()> {
    loop {
        let mut frame = read_frame(&mut from).await?;
        let version = asked.lock().unwrap().remove(&frame[..4]);
        if let Some(version) = version
            && state.hides.load(Ordering::SeqCst)
        {
            frame = without_brokers(frame, version);
            state.hidden.fetch_add(1, Ordering::SeqCst);
        }
        rename_port(&mut frame, broker, proxy);
        write_frame(&mut to, &frame).await?;
    }
}

fn without_brokers(frame: Vec<u8>, version: i16) -> Vec<u8> {
    let mut frame = Bytes::from(frame);
    let header = ResponseHeader::decode(&mut frame, MetadataResponse::header_version(version)).unwrap();
    let mut response = MetadataResponse::decode(&mut frame, version).unwrap();
    response.brokers.clear();
    response.controller_id = BrokerId(-1);
    let mut changed = Vec::new();
    header.encode(&mut changed, MetadataResponse::header_version(version)).unwrap();
    response.encode(&mut changed, version).unwrap();
    changed
}
