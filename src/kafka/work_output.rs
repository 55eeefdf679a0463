//! Defines the output that is written for a record, and its replacement when the brokers refuse it permanently.

use rdkafka::error::RDKafkaErrorCode;

use super::dead_letter::DeadLetter;
use super::record::{OutgoingRecord, Record};

/// The output of a processed record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WorkOutput {
    record: OutgoingRecord,
    form: Form,
}

/// The form of an output, from the event to a dead letter that always fits.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// The event that resulted from this record.
    Event(Record),
    Letter,
    LetterWithoutValue,
    /// A dead letter of at most a few kilobytes.
    LetterWithoutPayload,
}

impl WorkOutput {
    /// Returns the output for `input`, if any: the record that the handler returned, or a dead letter with the reason
    /// why the input cannot be processed.
    pub(super) fn of(
        input: Record,
        handled: Result<Option<OutgoingRecord>, String>,
        group: &str,
    ) -> Option<Self> {
        match handled {
            Ok(event) => event.map(|record| Self { record, form: Form::Event(input) }),
            Err(reason) => Some(Self { record: DeadLetter::of(&input, group, &reason), form: Form::Letter }),
        }
    }

    pub(super) fn record(&self) -> &OutgoingRecord {
        &self.record
    }

    /// Returns the size in bytes of the output, and of the input while it may still be needed.
    pub(super) fn bytes(&self) -> usize {
        let input = match &self.form {
            Form::Event(input) => input.bytes(),
            _ => 0,
        };
        self.record.bytes() + input
    }

    /// Returns the replacement of an output that the brokers refused: first a dead letter of the input, then the dead
    /// letter without its value, then also without its headers and a large key. Returns `None` when there is no smaller
    /// replacement. The cause is then the dead-letter topic and not the record.
    pub(super) fn instead(&self, code: RDKafkaErrorCode, group: &str) -> Option<Self> {
        let (record, form) = match &self.form {
            Form::Event(input) => {
                let reason = format!("the brokers refuse its output for {}: {code}", self.record.topic);
                (DeadLetter::of(input, group, &reason), Form::Letter)
            }
            Form::Letter => (DeadLetter::without_value(self.record.clone()), Form::LetterWithoutValue),
            Form::LetterWithoutValue => {
                (DeadLetter::without_payload(self.record.clone()), Form::LetterWithoutPayload)
            }
            Form::LetterWithoutPayload => return None,
        };
        Some(Self { record, form })
    }

    /// Returns whether the output is a dead letter.
    pub(super) fn is_letter(&self) -> bool {
        !matches!(self.form, Form::Event(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOO_LARGE: RDKafkaErrorCode = RDKafkaErrorCode::MessageSizeTooLarge;

    fn input() -> Record {
        let written = OutgoingRecord {
            topic: "t".to_owned(),
            key: Some(vec![b'k'; 5_000]),
            value: Some(vec![b'v'; 10]),
            headers: vec![("own".to_owned(), Some(vec![b'h'; 100_000]))],
        };
        Record::of(&written, 2, 41, None)
    }

    #[test]
    fn a_refused_event_becomes_a_dead_letter_of_its_input() {
        let event = OutgoingRecord { topic: "next".to_owned(), key: None, value: None, headers: Vec::new() };
        let output = WorkOutput::of(input(), Ok(Some(event)), "group").unwrap();
        assert!(!output.is_letter());
        let letter = output.instead(TOO_LARGE, "group").unwrap();
        assert!(letter.is_letter());
        assert_eq!(letter.record().topic, "t.dlq");
        assert_eq!(letter.record().value.as_deref(), input().value());
    }

    #[test]
    fn the_last_replacement_is_a_dead_letter_of_bounded_size() {
        let event = OutgoingRecord { topic: "next".to_owned(), key: None, value: None, headers: Vec::new() };
        let mut output = WorkOutput::of(input(), Ok(Some(event)), "group").unwrap();
        let mut steps = 0;
        while let Some(instead) = output.instead(TOO_LARGE, "group") {
            output = instead;
            steps += 1;
            assert!(steps < 10);
        }
        let OutgoingRecord { key, value, headers, .. } = output.record();
        assert_eq!((key, value), (&None, &None));
        let bytes: usize =
            headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len)).sum();
        assert!(bytes < 4_096, "{bytes}");
    }

    #[test]
    fn a_record_may_have_no_output() {
        assert_eq!(WorkOutput::of(input(), Ok(None), "group"), None);
    }
}
