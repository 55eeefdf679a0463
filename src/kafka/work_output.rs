//! What is written for a record, and what is written instead when the brokers refuse that for ever.

use rdkafka::error::RDKafkaErrorCode;

use super::dead_letter::DeadLetter;
use super::record::{OutgoingRecord, Record};

/// What is written for a record that was worked on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WorkOutput {
    record: OutgoingRecord,
    form: Form,
}

/// What an output is, from what the work makes of a record down to what always fits.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// What the work made of this record.
    Event(Record),
    Letter,
    LetterWithoutValue,
    /// A dead letter of a few kilobytes, whatever the record was.
    LetterWithoutPayload,
}

impl WorkOutput {
    /// What is written for `input`, if anything: what the work made of it, or a dead letter that gives the reason why it
    /// cannot be worked on.
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

    /// The bytes of the output, and of the input while it may still be needed.
    pub(super) fn bytes(&self) -> usize {
        let input = match &self.form {
            Form::Event(input) => input.bytes(),
            _ => 0,
        };
        self.record.bytes() + input
    }

    /// Returns what is written instead, after the brokers refused it: a dead letter of the input, and then that letter
    /// without its value, its key and its headers. `None` when there is nothing smaller: then no record is at fault but
    /// the topic of the dead letters.
    pub(super) fn instead(&self, code: RDKafkaErrorCode, group: &str) -> Option<Self> {
        let (record, form) = match &self.form {
            Form::Event(input) => {
                let reason = format!("the brokers refuse what it became for {}: {code}", self.record.topic);
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

    /// Whether it is written because the record cannot be worked on.
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
    fn what_is_written_instead_ends_with_a_letter_of_bounded_size() {
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
    fn a_record_without_an_output_leaves_nothing_to_be_refused() {
        assert_eq!(WorkOutput::of(input(), Ok(None), "group"), None);
    }
}
