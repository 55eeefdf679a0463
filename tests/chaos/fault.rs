//! Draws faults from a seed.

use std::fmt;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

use crate::poison::Poison;
use crate::support::cluster::{ADS, ESTIMATES, NAMES, STOCK};
use crate::world::TOPICS;

/// An engine that a role reaches through a separate line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// All brokers.
    Kafka,
    /// One broker, from 1 to 3.
    Broker(usize),
    Registry,
    Database,
}

impl Engine {
    pub fn of(role: usize) -> Vec<Self> {
        let mut engines =
            vec![Self::Kafka, Self::Broker(1), Self::Broker(2), Self::Broker(3), Self::Registry];
        if role == STOCK || role == ADS {
            engines.push(Self::Database);
        }
        engines
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    KillRole(usize),
    TerminateRole(usize),
    /// Lasts longer than the session timeout of the role's group.
    PauseRole(usize),
    KillNode(&'static str),
    StopNode(&'static str),
    PauseNode(&'static str),
    /// Closes the connections between a role and an engine and refuses new ones.
    Sever(usize, Engine),
    /// Blocks all data between a role and an engine.
    Silence(usize, Engine),
    /// Drops packets between a role and an engine, which kills existing connections.
    BlackHole(usize, Engine),
    /// Writes records of another program to one of the two topics.
    Poison(Poison, usize),
    /// Starts a second process with the instance id of a role, and ends it.
    Namesake {
        role: usize,
        is_killed: bool,
    },
    /// Deletes a topic when all of it has been read, and creates it again.
    Recreate(usize),
}

impl Fault {
    /// Returns the fault of a card and its duration.
    fn of(card: usize, nodes: &[&'static str], rng: &mut StdRng) -> (Self, Duration) {
        let role = *[STOCK, ESTIMATES[0], ESTIMATES[1], ADS].choose(rng).unwrap();
        let reader = *[ESTIMATES[0], ESTIMATES[1], ADS].choose(rng).unwrap();
        let node = *nodes.choose(rng).unwrap();
        let engine = *Engine::of(role).choose(rng).unwrap();
        let poison = |poison: Poison, rng: &mut StdRng| (Self::Poison(poison, poison.topic(rng)), 0, 1);
        let (fault, from, to) = match card {
            0..4 => (Self::KillRole(role), 0, 5_000),
            4..6 => (Self::TerminateRole(role), 0, 5_000),
            6..8 => (Self::PauseRole(role), 8_000, 15_000),
            8..11 => (Self::KillNode(node), 0, 15_000),
            11..12 => (Self::StopNode(node), 0, 10_000),
            12..14 => (Self::PauseNode(node), 3_000, 15_000),
            14..16 => (Self::Sever(role, engine), 100, 15_000),
            16..18 => (Self::Silence(role, engine), 1_000, 20_000),
            18..20 => (Self::BlackHole(role, engine), 20_000, 60_000),
            20..22 => (Self::Namesake { role: reader, is_killed: rng.random_bool(0.5) }, 10_000, 40_000),
            22 => (Self::Recreate(0), 0, 1),
            23 => (Self::Recreate(1), 0, 1),
            24..26 => poison(Poison::Text, rng),
            26 => poison(Poison::Bomb, rng),
            27 => poison(Poison::Noise, rng),
            28 => poison(Poison::HeaderName, rng),
            29 => poison(Poison::RefusedAd, rng),
            30 => poison(Poison::LargeVehicle, rng),
            _ => poison(Poison::Burst, rng),
        };
        (fault, Duration::from_millis(rng.random_range(from..to)))
    }

    pub fn kind(self) -> &'static str {
        match self {
            Self::KillRole(_) => "roles killed",
            Self::TerminateRole(_) => "roles terminated",
            Self::PauseRole(_) => "roles paused",
            Self::KillNode(_) => "nodes killed",
            Self::StopNode(_) => "nodes stopped",
            Self::PauseNode(_) => "nodes paused",
            Self::Sever(..) => "lines severed",
            Self::Silence(..) => "lines silenced",
            Self::BlackHole(..) => "black holes",
            Self::Poison(poison, _) => poison.kind(),
            Self::Namesake { .. } => "namesakes started",
            Self::Recreate(_) => "topics created again",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillRole(role) => write!(f, "kill {}", NAMES[*role]),
            Self::TerminateRole(role) => write!(f, "terminate {}", NAMES[*role]),
            Self::PauseRole(role) => write!(f, "pause {}", NAMES[*role]),
            Self::KillNode(node) => write!(f, "kill {node}"),
            Self::StopNode(node) => write!(f, "stop {node}"),
            Self::PauseNode(node) => write!(f, "pause {node}"),
            Self::Sever(role, engine) => write!(f, "sever {} from {engine:?}", NAMES[*role]),
            Self::Silence(role, engine) => write!(f, "silence {} to {engine:?}", NAMES[*role]),
            Self::BlackHole(role, engine) => {
                write!(f, "drop packets between {} and {engine:?}", NAMES[*role])
            }
            Self::Poison(poison, topic) => write!(f, "{} on {}", poison.kind(), TOPICS[*topic]),
            Self::Namesake { role, is_killed } => {
                let end = if *is_killed { "kill" } else { "terminate" };
                write!(f, "start a second {} with the same name and {end} it", NAMES[*role])
            }
            Self::Recreate(topic) => write!(f, "create {} again", TOPICS[*topic]),
        }
    }
}

/// Draws faults of every kind in an order that depends on the seed. Every card is drawn before any is drawn again.
pub struct Deck {
    rng: StdRng,
    cards: Vec<usize>,
    nodes: Vec<&'static str>,
    left_out: Vec<String>,
}

impl Deck {
    /// The number of cards. The share of a kind determines how often it is drawn.
    const SIZE: usize = 32;

    /// Creates a deck that disturbs any of `nodes` and never draws the kinds in `left_out`.
    pub fn new(rng: StdRng, nodes: Vec<&'static str>, left_out: Vec<String>) -> Self {
        Self { rng, cards: Vec::new(), nodes, left_out }
    }

    /// Draws a fault and its duration. A fault that cannot start now is drawn later.
    pub fn draw(&mut self, has_room_for: impl Fn(Fault) -> bool) -> Option<(Fault, Duration)> {
        if self.cards.is_empty() {
            self.cards = (0..Self::SIZE).collect();
            self.cards.shuffle(&mut self.rng);
        }
        let card = self.cards.pop()?;
        let (fault, hold) = Fault::of(card, &self.nodes, &mut self.rng);
        if self.left_out.iter().any(|kind| kind == fault.kind()) {
            return None;
        }
        if has_room_for(fault) {
            return Some((fault, hold));
        }
        self.cards.insert(0, card);
        None
    }
}
