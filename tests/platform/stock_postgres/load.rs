//! Runs clients that post continuously.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::StatusCode;

use super::stock::Stock;
use super::world::World;
use crate::support::eventually;

/// Lets `clients` post one vehicle after another while `work` runs. Each client repeats a request until it is
/// accepted. Every answer must be a 201, a valid 503, or a 409 for a vehicle whose first answer was a 503. Returns
/// the count of each status.
pub async fn during(
    world: &World,
    stock: &Stock,
    clients: usize,
    work: impl Future<Output = ()>,
) -> BTreeMap<u16, u32> {
    let done = AtomicBool::new(false);
    let client = async |client: usize| {
        let mut answers = BTreeMap::<u16, u32>::new();
        let mut number = 0;
        while !done.load(Ordering::Relaxed) {
            number += 1;
            let vin = format!("client-{client}-{number}");
            let mut repeated = false;
            eventually(&format!("{vin} to be accepted"), async || {
                let answer = stock.post_vin(&vin).await;
                *answers.entry(answer.status.as_u16()).or_default() += 1;
                match answer.status {
                    StatusCode::CREATED => return Some(()),
                    StatusCode::CONFLICT if repeated => return Some(()),
                    _ => answer.assert_unavailable(),
                }
                repeated = true;
                None
            })
            .await;
            world.note(&vin);
        }
        answers
    };
    let work = async {
        work.await;
        done.store(true, Ordering::Relaxed);
    };
    let (answers, ()) = tokio::join!(futures::future::join_all((0..clients).map(client)), work);
    let mut total = BTreeMap::new();
    for (status, count) in answers.into_iter().flatten() {
        *total.entry(status).or_default() += count;
    }
    total
}
