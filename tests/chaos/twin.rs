//! Runs a second stock intermittently on the database and topics of the first.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

/// One run of the second stock.
pub struct Life {
    /// Whether it uses the lines of the first stock or direct ones. On shared lines both are cut off; with direct
    /// ones, it can take over when the first is cut off.
    pub way: usize,
    pub lasts: Duration,
    /// Whether it is paused for longer than a lease lasts, after which it runs for the same time again.
    pub pause: Option<Duration>,
    pub is_killed: bool,
}

/// The descriptions of [`Life::way`].
pub const WAYS: [&str; 2] = ["on the lines of the first", "with direct lines"];

impl Life {
    pub fn draw(rng: &mut StdRng) -> Self {
        let mut millis = |range| Duration::from_millis(rng.random_range(range));
        let (lasts, pause) = (millis(1_000..40_000), millis(6_000..15_000));
        Self {
            way: rng.random_range(0..WAYS.len()),
            lasts,
            pause: rng.random_bool(0.3).then_some(pause),
            is_killed: rng.random_bool(0.5),
        }
    }
}
