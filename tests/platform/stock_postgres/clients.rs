//! Tests clients that disconnect and servers that never answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::stock::Answer;
use super::world::World;
use crate::support::{eventually, vehicle};

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_disconnect_leave_nothing_incomplete() {
    let Some(world) = World::shared().await else { return };
    let sql = world.operator().await;
    let stock = world.stock().await;
    stock.await_ready().await;
    let hang_up = join_all((0..200).map(async |number: u32| {
        let body = vehicle(&format!("gone-{number}")).to_string();
        let request = format!(
            "POST /stock HTTP/1.1\r\nHost: stock\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(stock.authority()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        // Half of them reset the connection, the others close it gracefully.
        if number.is_multiple_of(2) {
            stream.set_zero_linger().unwrap();
        }
    }));
    hang_up.await;
    for number in 0..5 {
        world.accept(&stock, &format!("stays-{number}")).await;
    }
    assert_eq!(world.open_transactions(&sql).await, "0");
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    eventually("the locks to be released", async || (sql.ask(waiting).await == "0").then_some(())).await;
    println!("{} of 200 vehicles were written", sql.ask("SELECT count(*) - 5 FROM vehicles").await);
    world.audit().await;
    assert_eq!(world.open_transactions(&sql).await, "0");
    assert_eq!(
        sql.ask("SELECT count(*) FROM vehicles").await,
        sql.ask("SELECT count(*) FROM event_log").await
    );
    stock.await_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_a_server_that_never_answers_do_not_accumulate() {
    let Some(world) = World::shared().await else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let counts = Arc::new(Counts::default());
    tokio::spawn(swallow(listener, Arc::clone(&counts)));
    let stock = world.stock_at(&world.url_at(&authority, "")).await;
    let began = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_millis(500));
    while began.elapsed() < Duration::from_secs(20) {
        pace.tick().await;
        let answers = join_all((0..20).map(|_| stock.post_vin("refused"))).await;
        answers.iter().for_each(Answer::assert_unavailable);
    }
    stock.await_unready("database", &["no answer"]).await;
    let (made, most) = (counts.made.load(Ordering::Relaxed), counts.most.load(Ordering::Relaxed));
    println!("{made} connections in 20 s, at most {most} at a time");
    assert!((2..=20).contains(&made), "{made} connections");
    assert!(most <= 4, "{most} connections at a time");
}

/// Counts connections to a server that never answers.
#[derive(Default)]
struct Counts {
    made: AtomicUsize,
    open: AtomicUsize,
    most: AtomicUsize,
}

async fn swallow(listener: TcpListener, counts: Arc<Counts>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        counts.made.fetch_add(1, Ordering::Relaxed);
        counts.most.fetch_max(counts.open.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        let counts = Arc::clone(&counts);
        tokio::spawn(async move {
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
            counts.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}
