//! Handles DeleteTopics.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::refused::{Refused, code_and_message, refused};
use crate::call::{Call, HandlerResult};
use crate::core::Core;
use crate::entry::Entry;
use crate::shared::Shared;
use crate::state::State;

/// Deletes topics, which are identified by name, or from version 6 on by name or id. A topic that is named twice is deleted
/// once (`KafkaApis.handleDeleteTopicsRequest`).
pub fn handle_delete_topics(shared: &Shared, call: &Call) -> HandlerResult {
    let request: DeleteTopicsRequest = call.request()?;
    let names = request.topic_names.into_iter();
    let named = names.map(|name| DeleteTopicState::default().with_name(Some(name)));
    let wanted: Vec<DeleteTopicState> = request.topics.into_iter().chain(named).collect();
    let mut core = shared.lock();
    let found: Vec<_> = wanted.iter().map(|topic| find_topic(core.state(), topic)).collect();
    let responses = wanted.into_iter().zip(found).map(|(topic, found)| {
        let deleted = found.and_then(|(name, id)| {
            delete_topic(&mut core, &name, id)?;
            Ok((name, id))
        });
        let (error_code, message) = code_and_message(&deleted);
        let (name, id) = match deleted {
            Ok((name, id)) => (Some(name.into()), id),
            Err(_) => (topic.name, topic.topic_id),
        };
        DeletableTopicResult::default()
            .with_name(name)
            .with_topic_id(id)
            .with_error_code(error_code)
            .with_error_message(message)
    });
    call.respond(&DeleteTopicsResponse::default().with_responses(responses.collect()))
}

/// Finds a topic, and returns its name and its id.
fn find_topic(state: &State, wanted: &DeleteTopicState) -> Result<(StrBytes, Uuid), Refused> {
    let name = match (&wanted.name, wanted.topic_id) {
        (Some(name), id) if id.is_nil() => name.0.clone(),
        (Some(_), _) => {
            let message = "You may not specify both topic name and topic id.";
            return refused(ResponseError::InvalidRequest, message);
        }
        (None, id) if id.is_nil() => {
            return refused(ResponseError::InvalidRequest, "Neither topic name nor id were specified.");
        }
        (None, id) => {
            let name = state.topic_name(id).ok_or(ResponseError::UnknownTopicId)?;
            StrBytes::from_string(name.to_owned())
        }
    };
    let topic = state.topics.get(name.as_str()).ok_or(ResponseError::UnknownTopicOrPartition)?;
    Ok((name, topic.id))
}

/// Deletes a topic, unless this request did so already.
fn delete_topic(core: &mut Core, name: &StrBytes, id: Uuid) -> Result<(), ResponseError> {
    match core.state().topic_name(id) {
        Some(_) => core.commit(&Entry::TopicDeleted { topic: name.clone() }),
        None => Ok(()),
    }
}
