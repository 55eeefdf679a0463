//! Defines the APIs that the broker serves, in one table of key, versions and handler.
//!
//! A handler decodes its request, checks it against the state, commits a journal entry when something changes, and
//! encodes the response.

mod admin;
mod alter_configs;
mod config_resource;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_transactions;
mod fetch;
mod groups;
mod leader_epochs;
mod list_offsets;
mod metadata;
mod offset_fetch;
mod offsets;
mod produce;
mod refused;
mod replicas;
#[cfg(test)]
mod round_trips;
mod security;
mod transactions;
mod wire;
mod write_txn_markers;

use std::ops::RangeInclusive;
use std::pin::Pin;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};

use crate::call::{Call, HandlerResult};
use crate::shared::Shared;
use Handler::{Immediate, Waiting};
use admin::{handle_create_partitions, handle_create_topics};
use alter_configs::{handle_alter_configs, handle_incremental_alter_configs};
use delete_groups::{handle_delete_groups, handle_offset_delete};
use delete_records::handle_delete_records;
use delete_topics::handle_delete_topics;
use describe_cluster::{handle_describe_cluster, handle_describe_log_dirs};
use describe_configs::handle_describe_configs;
use describe_transactions::{
    handle_describe_producers, handle_describe_transactions, handle_list_transactions,
};
use fetch::handle_fetch;
use groups::{
    handle_describe_groups, handle_heartbeat, handle_join_group, handle_leave_group, handle_list_groups,
    handle_sync_group,
};
use leader_epochs::handle_offset_for_leader_epoch;
use list_offsets::handle_list_offsets;
use metadata::{handle_find_coordinator, handle_metadata};
use offset_fetch::handle_offset_fetch;
use offsets::handle_offset_commit;
use produce::handle_produce;
use replicas::{
    handle_alter_partition_reassignments, handle_elect_leaders, handle_list_partition_reassignments,
};
use security::{
    handle_create_acls, handle_delete_acls, handle_describe_acls, handle_describe_client_quotas,
    handle_describe_user_scram_credentials,
};
use transactions::{
    handle_add_offsets_to_txn, handle_add_partitions_to_txn, handle_end_txn, handle_init_producer_id,
    handle_txn_offset_commit,
};
use write_txn_markers::handle_write_txn_markers;

static APIS: [Api; 43] = [
    api(ApiKey::Produce, 3..=11, Waiting(|shared, call| Box::pin(handle_produce(shared, call)))),
    api(ApiKey::Fetch, 4..=17, Waiting(|shared, call| Box::pin(handle_fetch(shared, call)))),
    api(ApiKey::ListOffsets, 1..=9, Waiting(|shared, call| Box::pin(handle_list_offsets(shared, call)))),
    api(ApiKey::Metadata, 0..=12, Immediate(handle_metadata)),
    api(ApiKey::OffsetCommit, 2..=9, Immediate(handle_offset_commit)),
    api(ApiKey::OffsetFetch, 1..=9, Immediate(handle_offset_fetch)),
    api(ApiKey::FindCoordinator, 0..=5, Immediate(handle_find_coordinator)),
    api(ApiKey::JoinGroup, 0..=9, Waiting(|shared, call| Box::pin(handle_join_group(shared, call)))),
    api(ApiKey::Heartbeat, 0..=4, Immediate(handle_heartbeat)),
    api(ApiKey::LeaveGroup, 0..=5, Immediate(handle_leave_group)),
    api(ApiKey::SyncGroup, 0..=5, Waiting(|shared, call| Box::pin(handle_sync_group(shared, call)))),
    api(ApiKey::DescribeGroups, 0..=5, Immediate(handle_describe_groups)),
    api(ApiKey::ListGroups, 0..=5, Immediate(handle_list_groups)),
    api(ApiKey::ApiVersions, 0..=4, Immediate(handle_api_versions)),
    api(ApiKey::CreateTopics, 2..=7, Immediate(handle_create_topics)),
    api(ApiKey::DeleteTopics, 1..=6, Immediate(handle_delete_topics)),
    api(ApiKey::DeleteRecords, 0..=2, Immediate(handle_delete_records)),
    api(ApiKey::InitProducerId, 0..=5, Immediate(handle_init_producer_id)),
    api(ApiKey::OffsetForLeaderEpoch, 2..=4, Immediate(handle_offset_for_leader_epoch)),
    api(ApiKey::AddPartitionsToTxn, 0..=3, Immediate(handle_add_partitions_to_txn)),
    api(ApiKey::AddOffsetsToTxn, 0..=4, Immediate(handle_add_offsets_to_txn)),
    api(ApiKey::EndTxn, 0..=4, Immediate(handle_end_txn)),
    api(ApiKey::WriteTxnMarkers, 1..=1, Immediate(handle_write_txn_markers)),
    api(ApiKey::TxnOffsetCommit, 0..=4, Immediate(handle_txn_offset_commit)),
    api(ApiKey::DescribeAcls, 1..=3, Immediate(handle_describe_acls)),
    api(ApiKey::CreateAcls, 1..=3, Immediate(handle_create_acls)),
    api(ApiKey::DeleteAcls, 1..=3, Immediate(handle_delete_acls)),
    api(ApiKey::DescribeConfigs, 1..=4, Immediate(handle_describe_configs)),
    api(ApiKey::AlterConfigs, 0..=2, Immediate(handle_alter_configs)),
    api(ApiKey::DescribeLogDirs, 1..=4, Immediate(handle_describe_log_dirs)),
    api(ApiKey::CreatePartitions, 0..=3, Immediate(handle_create_partitions)),
    api(ApiKey::DeleteGroups, 0..=2, Immediate(handle_delete_groups)),
    api(ApiKey::ElectLeaders, 0..=2, Immediate(handle_elect_leaders)),
    api(ApiKey::IncrementalAlterConfigs, 0..=1, Immediate(handle_incremental_alter_configs)),
    api(ApiKey::AlterPartitionReassignments, 0..=0, Immediate(handle_alter_partition_reassignments)),
    api(ApiKey::ListPartitionReassignments, 0..=0, Immediate(handle_list_partition_reassignments)),
    api(ApiKey::OffsetDelete, 0..=0, Immediate(handle_offset_delete)),
    api(ApiKey::DescribeClientQuotas, 0..=1, Immediate(handle_describe_client_quotas)),
    api(ApiKey::DescribeUserScramCredentials, 0..=0, Immediate(handle_describe_user_scram_credentials)),
    api(ApiKey::DescribeCluster, 0..=1, Immediate(handle_describe_cluster)),
    api(ApiKey::DescribeProducers, 0..=0, Immediate(handle_describe_producers)),
    api(ApiKey::DescribeTransactions, 0..=0, Immediate(handle_describe_transactions)),
    api(ApiKey::ListTransactions, 0..=1, Immediate(handle_list_transactions)),
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

    pub fn key(&self) -> ApiKey {
        self.key
    }

    pub fn versions(&self) -> &RangeInclusive<i16> {
        &self.versions
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
    if call.version >= 3 {
        let request: ApiVersionsRequest = call.request()?;
        let (name, version) = (&request.client_software_name, &request.client_software_version);
        if !is_software_name(name) || !is_software_name(version) {
            let error = ResponseError::InvalidRequest;
            return call.respond(&ApiVersionsResponse::default().with_error_code(error.code()));
        }
        call.client.introduce(name, version);
    }
    let versions = APIS.iter().map(Api::version_range).collect();
    call.respond(&ApiVersionsResponse::default().with_api_keys(versions))
}

/// Checks the name or the version of a client's software (KIP-511).
fn is_software_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    edge(name.bytes().next()) && edge(name.bytes().last()) && name.bytes().all(inner)
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
            .map(|api| match (api.versions.start(), api.versions.end()) {
                (first, last) if first == last => format!("| {:?} | {first} |\n", api.key),
                (first, last) => format!("| {:?} | {first} to {last} |\n", api.key),
            })
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
