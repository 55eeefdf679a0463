//! Draws a sequence of faults, which the seed determines.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::controls::Controls;
use super::fault::Fault;

/// The durations of drawn faults and of the pauses before them, in seconds. A pause lets the platform recover.
const DURATIONS: std::ops::RangeInclusive<u64> = 5..=20;
const PAUSES: std::ops::RangeInclusive<u64> = 20..=40;

/// A fault that was drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// The time before the fault, from the end of the one before.
    pub pause: Duration,
    pub name: &'static str,
    pub target: Option<String>,
    pub duration: Option<Duration>,
}

/// An endless sequence of the offered faults.
pub struct Draw<'a> {
    random: StdRng,
    offered: &'a [(&'static Fault, Vec<String>)],
}

impl<'a> Draw<'a> {
    pub fn new(seed: u64, offered: &'a [(&'static Fault, Vec<String>)]) -> Self {
        Self { random: StdRng::seed_from_u64(seed), offered }
    }
}

impl Iterator for Draw<'_> {
    type Item = Drawn;

    /// Returns `None` only when no fault is offered.
    fn next(&mut self) -> Option<Drawn> {
        if self.offered.is_empty() {
            return None;
        }
        let pause = Duration::from_secs(self.random.random_range(PAUSES));
        let (fault, targets) = self.offered.get(self.random.random_range(0..self.offered.len()))?;
        let target = match targets.len() {
            0 => None,
            count => targets.get(self.random.random_range(0..count)).cloned(),
        };
        let duration = Duration::from_secs(self.random.random_range(DURATIONS));
        Some(Drawn { pause, name: fault.name, target, duration: fault.lasts.then_some(duration) })
    }
}

/// Injects the sequence of `seed` without end, or nothing without a seed.
pub async fn inject(controls: &Controls, seed: Option<u64>) {
    let Some(seed) = seed else { return std::future::pending().await };
    let mut controls = controls.clone();
    let offered = controls.offered.clone();
    for Drawn { pause, name, target, duration } in Draw::new(seed, &offered) {
        tokio::time::sleep(pause).await;
        // A fault that is not possible now is logged, and one that a user has just injected serves as well.
        let _ = controls.inject(name, target, duration).await;
        controls.ended(name).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::dev::faults::fault::FAULTS;

    #[test]
    fn a_seed_determines_the_sequence_and_every_fault_is_drawn() {
        let offered: Vec<_> =
            FAULTS.iter().map(|fault| (fault, vec!["1".to_owned(), "2".to_owned()])).collect();
        let draw = |seed| Draw::new(seed, &offered).take(200).collect::<Vec<_>>();
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let names: BTreeSet<_> = draw(7).into_iter().map(|drawn| drawn.name).collect();
        assert_eq!(names.len(), FAULTS.len());
    }
}
