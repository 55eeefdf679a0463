//! A second stock that comes and goes, on the database and the topics of the first.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

/// What happens to the second stock from its start to its end.
pub struct Life {
    /// Whether it reaches the engines over the lines of the first, or directly. On the same lines both are cut off; the
    /// other one can take over when the first is.
    pub way: usize,
    pub lasts: Duration,
    /// Whether it is paused at the end of that, for longer than a lease lasts, before it goes on for as long again.
    pub pause: Option<Duration>,
    pub is_killed: bool,
}

/// What [`Life::way`] means.
pub const WAYS: [&str; 2] = ["on the lines of the first", "with lines of its own"];

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
