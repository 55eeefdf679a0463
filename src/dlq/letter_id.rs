//! Identifies a dead letter on the command line.

use std::fmt;
use std::str::FromStr;

use crate::event::EventType;
use crate::kafka::Position;

/// The position of a dead letter: `TOPIC/PARTITION/OFFSET`. The topic is the one that the record was read from;
/// partition and offset are those in its dead-letter topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterId {
    pub event: EventType,
    pub position: Position,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (partition, offset) = self.position;
        f.pad(&format!("{}/{partition}/{offset}", self.event.topic))
    }
}

impl FromStr for LetterId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            let topics = EventType::ALL.map(|event| event.topic).join(" or ");
            format!("must be TOPIC/PARTITION/OFFSET, the topic {topics}")
        };
        let mut parts = text.split('/');
        let (Some(topic), Some(partition), Some(offset), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        let event = EventType::ALL.into_iter().find(|event| event.topic == topic);
        match (event, partition.parse(), offset.parse()) {
            (Some(event), Ok(partition @ 0..), Ok(offset @ 0..)) => {
                Ok(Self { event, position: (partition, offset) })
            }
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::VEHICLE_CREATED;

    #[test]
    fn a_dead_letter_is_identified_as_it_is_listed() {
        let id: LetterId = "stock.vehicle-created/2/41".parse().unwrap();
        assert_eq!((id.event, id.position), (VEHICLE_CREATED, (2, 41)));
        assert_eq!(id.to_string(), "stock.vehicle-created/2/41");
        for wrong in ["", "2/41", "other/2/41", "stock.vehicle-created/-1/0", "stock.vehicle-created/0/x/1"] {
            assert!(wrong.parse::<LetterId>().is_err(), "{wrong}");
        }
    }
}
