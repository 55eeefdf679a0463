//! Proxies the broker of `dev` and falsifies responses to the end of a transaction.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::frames::{read_frame, rename_port, write_frame};

/// The API key of EndTxn (<https://kafka.apache.org/protocol#protocol_api_keys>).
const END_TXN: [u8; 2] = [0, 26];

/// The treatment of an EndTxn request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request is performed, but the response reports a failure.
    DeniedThoughDone,
    /// The request is not performed, and the response reports the failure.
    Denied,
    /// The request is performed, but the response is lost.
    Unanswered,
}

pub struct EndTxnProxy {
    faults: Arc<AtomicUsize>,
    port: u16,
}

impl EndTxnProxy {
    /// Forwards to `broker` and applies `fault` to the first `count` commits.
    pub async fn start(broker: SocketAddr, fault: Fault, count: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let faults = Arc::new(AtomicUsize::new(count));
        let left = Arc::clone(&faults);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(broker).await else { continue };
                let ((requests, answers), (from, to)) = (client.into_split(), server.into_split());
                let answers = Arc::new(tokio::sync::Mutex::new(answers));
                let falsified = Arc::new(Mutex::new(HashSet::new()));
                let forwarded = forward_requests(
                    requests,
                    to,
                    Arc::clone(&answers),
                    fault,
                    Arc::clone(&left),
                    Arc::clone(&falsified),
                );
                tokio::spawn(forwarded);
                tokio::spawn(forward_answers(from, answers, fault, falsified, (broker.port(), port)));
            }
        });
        Self { faults, port }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns whether all faults have occurred.
    pub fn is_exhausted(&self) -> bool {
        self.faults.load(Ordering::SeqCst) == 0
    }
}

async fn forward_requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    answers: Arc<tokio::sync::Mutex<OwnedWriteHalf>>,
    fault: Fault,
    left: Arc<AtomicUsize>,
    falsified: Arc<Mutex<HashSet<Vec<u8>>>>,
) -> Option<()> {
    loop {
        let frame = read_frame(&mut from).await?;
        // The last byte shows whether the request is a commit.
        let is_commit = frame[..2] == END_TXN && frame.last() == Some(&1);
        let fails = is_commit
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        let correlation_id = frame[4..8].to_vec();
        if fails && fault == Fault::Denied {
            write_frame(&mut *answers.lock().await, &denied(&correlation_id)).await?;
            continue;
        }
        if fails {
            falsified.lock().unwrap().insert(correlation_id);
        }
        write_frame(&mut to, &frame).await?;
    }
}

/// Returns UNKNOWN_SERVER_ERROR, which does not reveal whether the request was performed.
fn denied(correlation_id: &[u8]) -> Vec<u8> {
    [correlation_id, &0_i32.to_be_bytes(), &(-1_i16).to_be_bytes()].concat()
}

async fn forward_answers(
    mut from: OwnedReadHalf,
    answers: Arc<tokio::sync::Mutex<OwnedWriteHalf>>,
    fault: Fault,
    falsified: Arc<Mutex<HashSet<Vec<u8>>>>,
    (broker, proxy): (u16, u16),
) -> Option<()> {
    loop {
        let mut frame = read_frame(&mut from).await?;
        if falsified.lock().unwrap().remove(&frame[..4]) {
            if fault == Fault::Unanswered {
                continue;
            }
            frame = denied(&frame[..4]);
        }
        rename_port(&mut frame, broker, proxy);
        write_frame(&mut *answers.lock().await, &frame).await?;
    }
}
