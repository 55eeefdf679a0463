//! Defines the APIs that the broker serves, in one table of key, versions and handler.
//!
//! A handler decodes its request, checks it against the state, commits a journal entry when something changes, and
//! encodes the response.

mod admin;
mod configs;
mod fetch;
mod groups;
mod metadata;
mod offsets;
mod produce;
mod transactions;
mod wire;

use std::ops::RangeInclusive;
use std::pin::Pin;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsResponse};

use crate::call::{Call, HandlerResult};
use crate::shared::Shared;
use Handler::{Immediate, Waiting};
use admin::{handle_create_partitions, handle_create_topics, handle_delete_topics};
use configs::handle_describe_configs;
use fetch::handle_fetch;
use groups::{
    handle_describe_groups, handle_heartbeat, handle_join_group, handle_leave_group, handle_list_groups,
    handle_sync_group,
};
use metadata::{handle_find_coordinator, handle_metadata};
use offsets::{handle_list_offsets, handle_offset_commit, handle_offset_fetch};
use produce::handle_produce;
use transactions::{
    handle_add_offsets_to_txn, handle_add_partitions_to_txn, handle_end_txn, handle_init_producer_id,
    handle_txn_offset_commit,
};

static APIS: [Api; 23] = [
    api(ApiKey::Produce, 3..=8, Waiting(|shared, call| Box::pin(handle_produce(shared, call)))),
    api(ApiKey::Fetch, 4..=11, Waiting(|shared, call| Box::pin(handle_fetch(shared, call)))),
    api(ApiKey::ListOffsets, 1..=6, Waiting(|shared, call| Box::pin(handle_list_offsets(shared, call)))),
    api(ApiKey::Metadata, 0..=9, Immediate(handle_metadata)),
    api(ApiKey::OffsetCommit, 2..=7, Immediate(handle_offset_commit)),
    api(ApiKey::OffsetFetch, 1..=7, Immediate(handle_offset_fetch)),
    api(ApiKey::FindCoordinator, 0..=3, Immediate(handle_find_coordinator)),
    api(ApiKey::JoinGroup, 0..=5, Waiting(|shared, call| Box::pin(handle_join_group(shared, call)))),
    api(ApiKey::Heartbeat, 0..=3, Immediate(handle_heartbeat)),
    api(ApiKey::LeaveGroup, 0..=3, Immediate(handle_leave_group)),
    api(ApiKey::SyncGroup, 0..=3, Waiting(|shared, call| Box::pin(handle_sync_group(shared, call)))),
    api(ApiKey::DescribeGroups, 0..=4, Immediate(handle_describe_groups)),
    api(ApiKey::ListGroups, 0..=4, Immediate(handle_list_groups)),
    api(ApiKey::ApiVersions, 0..=3, Immediate(handle_api_versions)),
    api(ApiKey::CreateTopics, 2..=6, Immediate(handle_create_topics)),
    api(ApiKey::DeleteTopics, 1..=5, Immediate(handle_delete_topics)),
    api(ApiKey::InitProducerId, 0..=4, Immediate(handle_init_producer_id)),
    api(ApiKey::AddPartitionsToTxn, 0..=2, Immediate(handle_add_partitions_to_txn)),
    api(ApiKey::AddOffsetsToTxn, 0..=2, Immediate(handle_add_offsets_to_txn)),
    api(ApiKey::EndTxn, 0..=2, Immediate(handle_end_txn)),
    api(ApiKey::TxnOffsetCommit, 0..=3, Immediate(handle_txn_offset_commit)),
    api(ApiKey::DescribeConfigs, 1..=3, Immediate(handle_describe_configs)),
    api(ApiKey::CreatePartitions, 0..=2, Immediate(handle_create_partitions)),
];

/// Describes one API: its key, the versions that are served, and the function that serves them.
pub struct Api {
    key: ApiKey,
    versions: RangeInclusive<i16>,
    handler: Handler,
}

enum Handler {
    /// Responds immediately.
    Immediate(fn(&Shared, &Call) -> HandlerResult),
    /// Waits for records, for other members of a group or for the disk.
    Waiting(for<'a> fn(&'a Shared, &'a Call) -> HandlerFuture<'a>),
}

type HandlerFuture<'a> = Pin<Box<dyn Future<Output = HandlerResult> + Send + 'a>>;

const fn api(key: ApiKey, versions: RangeInclusive<i16>, handler: Handler) -> Api {
    Api { key, versions, handler }
}

impl Api {
    /// Returns the API with this key, if it is served.
    pub fn find(key: ApiKey) -> Option<&'static Self> {
        APIS.iter().find(|api| api.key == key)
    }

    /// Returns whether requests of this version are served.
    pub fn serves(&self, version: i16) -> bool {
        self.versions.contains(&version)
    }

    /// Runs the handler of this API.
    pub async fn handle(&self, shared: &Shared, call: &Call) -> HandlerResult {
        match self.handler {
            Immediate(handler) => handler(shared, call),
            Waiting(handler) => handler(shared, call).await,
        }
    }

    fn version_range(&self) -> ApiVersion {
        ApiVersion::default()
            .with_api_key(self.key as i16)
            .with_min_version(*self.versions.start())
            .with_max_version(*self.versions.end())
    }
}

fn handle_api_versions(_: &Shared, call: &Call) -> HandlerResult {
    let versions = APIS.iter().map(Api::version_range).collect();
    call.respond(&ApiVersionsResponse::default().with_api_keys(versions))
}

/// Returns the response to an ApiVersions request of an unknown version, with the versions to retry with (KIP-511). It
/// must be encoded at version 0, which every client can read.
pub fn unsupported_version() -> ApiVersionsResponse {
    let own = Api::find(ApiKey::ApiVersions).map(Api::version_range);
    ApiVersionsResponse::default()
        .with_error_code(ResponseError::UnsupportedVersion.code())
        .with_api_keys(own.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_lists_the_apis_and_versions_that_are_served() {
        let rows: String = APIS
            .iter()
            .map(|api| format!("| {:?} | {} to {} |\n", api.key, api.versions.start(), api.versions.end()))
            .collect();
        assert!(include_str!("../../README.md").contains(&format!("\n|---|---|\n{rows}\n")), "{rows}");
    }

    #[test]
    fn the_corpus_has_a_request_of_each_api_and_version() {
        let corpus = include_str!("../../corpus/requests.hex");
        for api in &APIS {
            for version in api.versions.clone() {
                let start = format!("{:04x}{version:04x}", api.key as i16);
                let found = corpus.lines().any(|line| line.starts_with(&start));
                assert!(found, "{:?} version {version}: run corpus/record", api.key);
            }
        }
    }
}
