//! Checks what administration tools and UIs ask a cluster for.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_user_scram_credentials_request::UserName;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::EpochEndOffset;
use kafka_protocol::messages::*;

use crate::harness::{eventually, is_kafka_4, producer, send, topic, unique};
use crate::raw::{Raw, text};

const INVALID_REQUEST: i16 = ResponseError::InvalidRequest.code();
const UNKNOWN_TOPIC: i16 = ResponseError::UnknownTopicOrPartition.code();
const SECURITY_DISABLED: i16 = ResponseError::SecurityDisabled.code();

#[test]
fn the_cluster_is_described_at_each_version() {
    let mut raw = Raw::connect();
    let metadata = raw.call(9, &MetadataRequest::default().with_topics(Some(Vec::new())));
    for version in 0..=1 {
        let request = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
        let described = raw.call(version, &request);
        assert_eq!(described.error_code, 0);
        assert_eq!(Some(&described.cluster_id), metadata.cluster_id.as_ref());
        // Clients do not reach the controllers of Kafka 4, so each response names any of the brokers.
        if !is_kafka_4() {
            assert_eq!(described.controller_id, metadata.controller_id);
        }
        assert!(described.brokers.iter().any(|broker| broker.broker_id == described.controller_id));
        assert_eq!(described.brokers.len(), metadata.brokers.len());
        assert_eq!(described.cluster_authorized_operations, 0b1_1111_1010_0000);
    }
    let unasked = raw.call(1, &DescribeClusterRequest::default());
    assert_eq!(unasked.cluster_authorized_operations, i32::MIN);
    for (endpoint, error) in
        [(2, ResponseError::MismatchedEndpointType), (9, ResponseError::UnsupportedEndpointType)]
    {
        let refused = raw.call(1, &DescribeClusterRequest::default().with_endpoint_type(endpoint));
        assert_eq!(refused.error_code, error.code());
    }
}

#[test]
fn log_directories_report_the_size_of_each_partition() {
    let topic = topic(2);
    send(&producer(&[]), &topic, 1, "value").unwrap();
    let mut raw = Raw::to_leader_of(&topic, 1);
    let wanted =
        DescribableLogDirTopic::default().with_topic(text(&topic).into()).with_partitions(vec![1, 9]);
    for version in 1..=4 {
        let all = raw.call(version, &DescribeLogDirsRequest::default().with_topics(None));
        assert!(all.results[0].log_dir.starts_with('/'));
        assert!(all.results[0].topics.iter().any(|found| found.name.as_str() == topic));
        let request = DescribeLogDirsRequest::default().with_topics(Some(vec![wanted.clone()]));
        let named = raw.call(version, &request);
        assert_eq!(named.results[0].error_code, 0);
        let topics = &named.results[0].topics;
        assert_eq!((topics.len(), topics[0].partitions.len()), (1, 1));
        let partition = &topics[0].partitions[0];
        assert_eq!((partition.partition_index, partition.offset_lag), (1, 0));
        assert!((60..200).contains(&partition.partition_size), "{}", partition.partition_size);
    }
}

#[test]
fn a_leader_epoch_ends_at_the_end_of_the_log_at_each_version() {
    let topic = topic(1);
    let mut raw = Raw::to_leader_of(&topic, 0);
    send(&producer(&[]), &topic, 0, "value").unwrap();
    let named = MetadataRequestTopic::default().with_name(Some(text(&topic).into()));
    let metadata = raw.call(9, &MetadataRequest::default().with_topics(Some(vec![named])));
    let epoch = metadata.topics[0].partitions[0].leader_epoch;
    let mut end_of = |version, current: i32, wanted: i32| -> EpochEndOffset {
        let partition =
            OffsetForLeaderPartition::default().with_current_leader_epoch(current).with_leader_epoch(wanted);
        let topic =
            OffsetForLeaderTopic::default().with_topic(text(&topic).into()).with_partitions(vec![partition]);
        let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
        raw.call(version, &request).topics[0].partitions[0].clone()
    };
    for version in 2..=4 {
        let end = end_of(version, -1, epoch);
        assert_eq!((end.error_code, end.leader_epoch, end.end_offset), (0, epoch, 1));
    }
    let future = end_of(4, epoch, epoch + 1);
    assert_eq!((future.error_code, future.leader_epoch, future.end_offset), (0, -1, -1));
    let unknown = end_of(4, epoch + 1, epoch);
    assert_eq!(unknown.error_code, ResponseError::UnknownLeaderEpoch.code());
}

#[test]
fn access_control_is_disabled_at_each_version() {
    let mut raw = Raw::connect();
    let mut controller = Raw::to_controller();
    for version in 1..=3 {
        let filter = DescribeAclsRequest::default()
            .with_resource_type_filter(1)
            .with_pattern_type_filter(1)
            .with_operation(1)
            .with_permission_type(1);
        assert_eq!(raw.call(version, &filter).error_code, SECURITY_DISABLED);
        let creation = AclCreation::default()
            .with_resource_type(2)
            .with_resource_name(text("topic"))
            .with_resource_pattern_type(3)
            .with_principal(text("User:any"))
            .with_host(text("*"))
            .with_operation(3)
            .with_permission_type(3);
        let created =
            controller.call(version, &CreateAclsRequest::default().with_creations(vec![creation; 2]));
        let codes: Vec<_> = created.results.iter().map(|result| result.error_code).collect();
        assert_eq!(codes, [SECURITY_DISABLED; 2]);
        let filter = DeleteAclsFilter::default()
            .with_resource_type_filter(2)
            .with_pattern_type_filter(3)
            .with_operation(3)
            .with_permission_type(3);
        let deleted = controller.call(version, &DeleteAclsRequest::default().with_filters(vec![filter]));
        assert_eq!(deleted.filter_results[0].error_code, SECURITY_DISABLED);
    }
}

#[test]
fn there_are_neither_quotas_nor_users() {
    let mut raw = Raw::connect();
    for version in 0..=1 {
        let quotas = raw.call(version, &DescribeClientQuotasRequest::default());
        assert_eq!((quotas.error_code, quotas.entries), (0, Some(vec![])));
    }
    let all = raw.call(0, &DescribeUserScramCredentialsRequest::default().with_users(None));
    assert_eq!((all.error_code, all.results.len()), (0, 0));
    let users = vec![UserName::default().with_name(text("unknown-user"))];
    let named = raw.call(0, &DescribeUserScramCredentialsRequest::default().with_users(Some(users)));
    assert_eq!(named.results[0].error_code, ResponseError::ResourceNotFound.code());
}

#[test]
fn partitions_that_have_their_leader_need_no_election() {
    let topic = topic(1);
    let mut controller = Raw::to_controller();
    for version in 0..=2 {
        let wanted = TopicPartitions::default().with_topic(text(&topic).into()).with_partitions(vec![0, 9]);
        let request =
            ElectLeadersRequest::default().with_topic_partitions(Some(vec![wanted])).with_timeout_ms(10_000);
        let response = controller.call(version, &request);
        let mut partitions = response.replica_election_results[0].partition_result.clone();
        partitions.sort_by_key(|partition| partition.partition_id);
        let codes: Vec<_> = partitions.iter().map(|partition| partition.error_code).collect();
        assert_eq!(codes, [ResponseError::ElectionNotNeeded.code(), UNKNOWN_TOPIC]);
    }
}

#[test]
fn partitions_keep_their_replicas() {
    let topic = topic(1);
    let mut controller = Raw::to_controller();
    let ongoing = ListPartitionReassignmentsRequest::default().with_topics(None).with_timeout_ms(10_000);
    let listed = controller.call(0, &ongoing);
    assert_eq!((listed.error_code, listed.topics.len()), (0, 0));
    let mut reassign = |topic: &str, replicas: Option<Vec<BrokerId>>| {
        let partition = ReassignablePartition::default().with_replicas(replicas);
        let topic =
            ReassignableTopic::default().with_name(text(topic).into()).with_partitions(vec![partition]);
        let request =
            AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
        controller.call(0, &request).responses[0].partitions[0].error_code
    };
    assert_eq!(reassign(&topic, None), ResponseError::NoReassignmentInProgress.code());
    let elsewhere = reassign(&topic, Some(vec![BrokerId(999)]));
    assert_eq!(elsewhere, ResponseError::InvalidReplicaAssignment.code());
}

#[test]
fn the_software_of_a_client_has_a_valid_name() {
    for (name, version, code) in [
        ("raw", "1", 0),
        ("apache-kafka-java", "3.9.2", 0),
        ("", "1", INVALID_REQUEST),
        ("raw", "", INVALID_REQUEST),
        ("a b", "1", INVALID_REQUEST),
        ("-raw", "1", INVALID_REQUEST),
        ("raw", "1.", INVALID_REQUEST),
        ("r\u{e4}w", "1", INVALID_REQUEST),
    ] {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(text(name))
            .with_client_software_version(text(version));
        let response = Raw::connect().call(3, &request);
        assert_eq!(response.error_code, code, "{name} {version}");
        assert_eq!(response.api_keys.is_empty(), code != 0, "{name} {version}");
    }
}

#[test]
fn a_topic_that_is_named_twice_is_not_created() {
    let topic = unique("twice");
    let mut controller = Raw::to_controller();
    let wanted = CreatableTopic::default()
        .with_name(text(&topic).into())
        .with_num_partitions(1)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![wanted; 2]).with_timeout_ms(10_000);
    let codes: Vec<_> =
        controller.call(6, &request).topics.iter().map(|created| created.error_code).collect();
    assert_eq!(codes, vec![INVALID_REQUEST; once_or_twice()]);
    assert_eq!(partitions_of(&topic), 0);
}

#[test]
fn a_topic_that_is_named_twice_does_not_grow() {
    let topic = topic(1);
    let mut controller = Raw::to_controller();
    let wanted = |count| {
        CreatePartitionsTopic::default()
            .with_name(text(&topic).into())
            .with_count(count)
            .with_assignments(None)
    };
    let request =
        CreatePartitionsRequest::default().with_topics(vec![wanted(2), wanted(3)]).with_timeout_ms(10_000);
    let codes: Vec<_> = controller.call(2, &request).results.iter().map(|grown| grown.error_code).collect();
    assert_eq!(codes, [INVALID_REQUEST]);
    eventually("the topic is known", || match partitions_of(&topic) {
        0 => None,
        partitions => {
            assert_eq!(partitions, 1);
            Some(())
        }
    });
}

#[test]
fn a_topic_that_is_named_twice_is_deleted_once_or_refused() {
    let topic = topic(1);
    let mut controller = Raw::to_controller();
    let request = DeleteTopicsRequest::default()
        .with_topic_names(vec![text(&topic).into(), text(&topic).into()])
        .with_timeout_ms(10_000);
    let codes: Vec<_> =
        controller.call(5, &request).responses.iter().map(|deleted| deleted.error_code).collect();
    if is_kafka_4() {
        assert_eq!(codes, [INVALID_REQUEST]);
        eventually("the topic is known", || (partitions_of(&topic) == 1).then_some(()));
    } else {
        assert_eq!(codes, [0; 2]);
        eventually("the topic is deleted", || (partitions_of(&topic) == 0).then_some(()));
    }
}

/// Returns how often a response names a topic that its request has named twice.
fn once_or_twice() -> usize {
    if is_kafka_4() { 1 } else { 2 }
}

fn partitions_of(topic: &str) -> usize {
    let named = MetadataRequestTopic::default().with_name(Some(text(topic).into()));
    let request =
        MetadataRequest::default().with_topics(Some(vec![named])).with_allow_auto_topic_creation(false);
    Raw::connect().call(9, &request).topics[0].partitions.len()
}
