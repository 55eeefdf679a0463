//! Lists the faults. The page, the API, the log and the random sequence all use this list.

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    KillEstimator,
    PauseEstimator,
    SlowEstimates,
    RegistryUnavailable,
    BrokerStalled,
    DatabaseUnavailable,
    Poison,
    Duplicates,
}

/// A fault that can be injected.
#[derive(Debug)]
pub struct Fault {
    pub kind: Kind,
    /// The last segment of its path.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub description: &'static str,
    /// The part of the platform that it affects.
    pub part: &'static str,
    /// Whether the fault has a duration. The others happen in a moment.
    pub lasts: bool,
}

pub const FAULTS: [Fault; 8] = [
    Fault {
        kind: Kind::KillEstimator,
        name: "kill-estimator",
        description: "Kills the process of an estimator (SIGKILL), and starts it again at the end",
        part: "estimate",
        lasts: true,
    },
    Fault {
        kind: Kind::PauseEstimator,
        name: "pause-estimator",
        description: "Stops the process of an estimator (SIGSTOP), and continues it at the end (SIGCONT)",
        part: "estimate",
        lasts: true,
    },
    Fault {
        kind: Kind::SlowEstimates,
        name: "slow-estimates",
        description: "Makes each estimate take 5 s longer, in all estimators",
        part: "estimate",
        lasts: true,
    },
    Fault {
        kind: Kind::RegistryUnavailable,
        name: "registry-unavailable",
        description: "Closes all connections to the schema registry, and every new one",
        part: "registry",
        lasts: true,
    },
    Fault {
        kind: Kind::BrokerStalled,
        name: "broker-stalled",
        description: "Delivers no data to and from the Kafka broker, while connections stay open",
        part: "kafka",
        lasts: true,
    },
    Fault {
        kind: Kind::DatabaseUnavailable,
        name: "database-unavailable",
        description: "Locks the database of a role, so that it cannot write",
        part: "database",
        lasts: true,
    },
    Fault {
        kind: Kind::Poison,
        name: "poison",
        description: "Appends records to a topic that no schema can read; they become dead letters",
        part: "kafka",
        lasts: false,
    },
    Fault {
        kind: Kind::Duplicates,
        name: "duplicates",
        description: "Appends the newest records of a topic again, byte for byte",
        part: "kafka",
        lasts: false,
    },
];
