//! Checks that every API responds at each of its versions, in the format of that version.

use bytes::Bytes;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Request, StrBytes};

use crate::harness::{eventually, is_kafka_4, topic, unique};
use crate::raw::{Raw, batch, text, topic_id};

/// Returns the responses to a request for each version.
fn at_each<R: Request>(
    raw: &mut Raw,
    versions: std::ops::RangeInclusive<i16>,
    request: impl Fn(i16) -> R,
) -> Vec<R::Response> {
    versions.map(|version| raw.call(version, &request(version))).collect()
}

#[test]
fn records_and_offsets_are_served_at_each_version() {
    let topic = topic(1);
    let name = || TopicName(text(&topic));
    let mut raw = Raw::to_leader_of(&topic, 0);

    let produced = at_each(&mut raw, 3..=11, |_| {
        let records = Some(batch(-1, -1, -1, &["x"]));
        let data = PartitionProduceData::default().with_records(records);
        let data = TopicProduceData::default().with_name(name()).with_partition_data(vec![data]);
        ProduceRequest::default()
            .with_transactional_id(None)
            .with_acks(-1)
            .with_timeout_ms(1000)
            .with_topic_data(vec![data])
    });
    for (offset, response) in (0..).zip(produced) {
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, offset));
    }

    let id = topic_id(&topic);
    let fetched = at_each(&mut raw, 4..=17, |_| {
        let partition = FetchPartition::default().with_partition_max_bytes(100_000);
        let wanted =
            FetchTopic::default().with_topic(name()).with_topic_id(id).with_partitions(vec![partition]);
        FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(10_000)
            .with_min_bytes(1)
            .with_max_bytes(i32::MAX)
            .with_isolation_level(1)
            .with_session_epoch(-1)
            .with_topics(vec![wanted])
    });
    for (version, response) in (4..).zip(fetched) {
        let fetched = &response.responses[0];
        match version {
            13.. => assert_eq!(fetched.topic_id, id),
            _ => assert_eq!(fetched.topic, name()),
        }
        let partition = &fetched.partitions[0];
        assert_eq!((partition.error_code, partition.high_watermark), (0, 9));
        assert!(partition.records.as_ref().is_some_and(|records| !records.is_empty()));
    }

    let listed = at_each(&mut raw, 1..=6, |_| {
        let latest = ListOffsetsPartition::default().with_timestamp(-1);
        let wanted = ListOffsetsTopic::default().with_name(name()).with_partitions(vec![latest]);
        ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![wanted])
    });
    for response in listed {
        let partition = &response.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.offset), (0, 9));
    }
}

#[test]
fn metadata_and_coordinators_are_served_at_each_version() {
    let topic = topic(2);
    let mut raw = Raw::connect();
    let id = topic_id(&topic);
    let found = at_each(&mut raw, 0..=12, |_| {
        let wanted = MetadataRequestTopic::default().with_name(Some(text(&topic).into()));
        MetadataRequest::default().with_topics(Some(vec![wanted]))
    });
    for (version, response) in (0..).zip(found) {
        assert_eq!(response.topics[0].partitions.len(), 2);
        assert_eq!(response.topics[0].topic_id == id, version >= 10, "version {version}");
    }
    for version in 8..=12 {
        let wanted = MetadataRequestTopic::default().with_name(Some(text(&topic).into()));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![wanted]))
            .with_include_topic_authorized_operations(true)
            .with_include_cluster_authorized_operations(version <= 10);
        let found = raw.call(version, &request);
        assert_eq!(found.topics[0].topic_authorized_operations, 0b1101_1111_1000);
        let cluster = if version <= 10 { 0b1_1111_1010_0000 } else { i32::MIN };
        assert_eq!(found.cluster_authorized_operations, cluster);
    }
    // Version 0 means all topics by an empty list, later versions by null.
    for (version, topics) in [(0, Some(vec![])), (1, None), (9, None), (12, None)] {
        let all = raw.call(version, &MetadataRequest::default().with_topics(topics));
        let name = Some(TopicName(text(&topic)));
        assert!(all.topics.iter().any(|listed| listed.name == name), "version {version}");
    }
    let none = raw.call(1, &MetadataRequest::default().with_topics(Some(vec![])));
    assert_eq!(none.topics, []);
    for response in at_each(&mut raw, 0..=4, |version| match version {
        3.. => ApiVersionsRequest::default()
            .with_client_software_name(text("raw"))
            .with_client_software_version(text("1")),
        _ => ApiVersionsRequest::default(),
    }) {
        assert_eq!(response.error_code, 0);
    }
    for version in 0..=5 {
        // A cluster that has just started creates the offsets topic first.
        let port = eventually("the coordinator is available", || {
            let request = FindCoordinatorRequest::default();
            let (code, port) = if version < 4 {
                let found = raw.call(version, &request.with_key(text("any")));
                (found.error_code, found.port)
            } else {
                let found = raw.call(version, &request.with_coordinator_keys(vec![text("any")]));
                (found.coordinators[0].error_code, found.coordinators[0].port)
            };
            (code == 0).then_some(port)
        });
        assert!(port > 0, "version {version}");
    }
}

#[test]
fn topics_and_configs_are_served_at_each_version() {
    let topic = topic(1);
    let mut raw = Raw::connect();
    let created = at_each(&mut raw, 2..=7, |_| {
        let config = CreatableTopicConfig::default()
            .with_name(text("cleanup.policy"))
            .with_value(Some(text("compact")));
        let wanted = CreatableTopic::default()
            .with_name(text(&unique("topic")).into())
            .with_num_partitions(1)
            .with_replication_factor(1)
            .with_configs(vec![config]);
        CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(10_000)
    });
    // Only the controller creates topics, which may be another broker (NOT_CONTROLLER).
    for response in created {
        assert!([0, 41].contains(&response.topics[0].error_code));
    }
    let grown = at_each(&mut raw, 0..=3, |_| {
        let wanted = CreatePartitionsTopic::default()
            .with_name(text(&topic).into())
            .with_count(2)
            .with_assignments(None);
        CreatePartitionsRequest::default()
            .with_topics(vec![wanted])
            .with_timeout_ms(10_000)
            .with_validate_only(true)
    });
    for response in grown {
        assert!([0, 41].contains(&response.results[0].error_code));
    }
    let described = at_each(&mut raw, 1..=4, |_| {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text(&topic))
            .with_configuration_keys(None);
        DescribeConfigsRequest::default().with_resources(vec![resource]).with_include_synonyms(true)
    });
    for response in described {
        assert_eq!(response.results[0].error_code, 0);
        assert!(!response.results[0].configs.is_empty());
    }
    let deleted = at_each(&mut raw, 1..=6, |version| {
        let name = TopicName(text(&unique("unknown")));
        let request = DeleteTopicsRequest::default().with_timeout_ms(10_000);
        match version {
            6.. => request.with_topics(vec![DeleteTopicState::default().with_name(Some(name))]),
            _ => request.with_topic_names(vec![name]),
        }
    });
    for response in deleted {
        assert!([3, 41].contains(&response.responses[0].error_code));
    }
}

#[test]
fn groups_and_their_offsets_are_served_at_each_version() {
    let topic = topic(1);
    let name = || TopicName(text(&topic));
    let group = unique("group");
    let id = || GroupId(text(&group));
    let mut raw = Raw::to_group_coordinator(&group);
    eventually("the coordinator is available", || {
        let request = HeartbeatRequest::default().with_group_id(id());
        (raw.call(3, &request).error_code == 25).then_some(())
    });

    let committed = at_each(&mut raw, 2..=9, |_| {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(7);
        let offsets = OffsetCommitRequestTopic::default().with_name(name()).with_partitions(vec![partition]);
        OffsetCommitRequest::default()
            .with_group_id(id())
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![offsets])
    });
    for response in committed {
        assert_eq!(response.topics[0].partitions[0].error_code, 0);
    }
    let fetched = at_each(&mut raw, 1..=7, |_| {
        let wanted = OffsetFetchRequestTopic::default().with_name(name()).with_partition_indexes(vec![0]);
        OffsetFetchRequest::default().with_group_id(id()).with_topics(Some(vec![wanted]))
    });
    for response in fetched {
        assert_eq!(response.topics[0].partitions[0].committed_offset, 7);
    }
    let fetched = at_each(&mut raw, 8..=9, |_| {
        let wanted = OffsetFetchRequestTopics::default().with_name(name()).with_partition_indexes(vec![0]);
        let group = OffsetFetchRequestGroup::default().with_group_id(id()).with_topics(Some(vec![wanted]));
        OffsetFetchRequest::default().with_groups(vec![group])
    });
    for response in fetched {
        let group = &response.groups[0];
        assert_eq!((group.error_code, &group.group_id), (0, &id()));
        assert_eq!(group.topics[0].partitions[0].committed_offset, 7);
    }

    // A static member joins at version 5, and requests of all versions see it.
    let join = |member: StrBytes, instance: Option<&str>| {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("any"))
            .with_metadata(Bytes::from_static(b"m"));
        JoinGroupRequest::default()
            .with_group_id(id())
            .with_session_timeout_ms(30_000)
            .with_rebalance_timeout_ms(30_000)
            .with_member_id(member)
            .with_group_instance_id(instance.map(text))
            .with_protocol_type(text("test"))
            .with_protocols(vec![protocol])
    };
    let joined = raw.call(5, &join(StrBytes::new(), Some("instance")));
    assert_eq!(joined.error_code, 0);
    let sync = |version: i16| {
        SyncGroupRequest::default()
            .with_group_id(id())
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id.clone())
            .with_group_instance_id((version >= 3).then(|| text("instance")))
            .with_protocol_type((version >= 5).then(|| text("test")))
            .with_protocol_name((version >= 5).then(|| text("any")))
    };
    for response in at_each(&mut raw, 0..=5, sync) {
        assert_eq!(response.error_code, 0);
    }
    for response in at_each(&mut raw, 0..=4, |version| {
        HeartbeatRequest::default()
            .with_group_id(id())
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id.clone())
            .with_group_instance_id((version >= 3).then(|| text("instance")))
    }) {
        assert_eq!(response.error_code, 0);
    }
    for (version, response) in (0..).zip(at_each(&mut raw, 0..=5, |version| {
        let request = DescribeGroupsRequest::default().with_groups(vec![id()]);
        request.with_include_authorized_operations(version >= 3)
    })) {
        assert_eq!(response.groups[0].members.len(), 1);
        let operations = match version {
            ..3 => i32::MIN,
            // Groups of Kafka 4 have configs.
            _ if is_kafka_4() => 0b1101_0100_1000,
            _ => 0b1_0100_1000,
        };
        assert_eq!(response.groups[0].authorized_operations, operations);
    }
    for response in at_each(&mut raw, 0..=4, |_| ListGroupsRequest::default()) {
        assert!(response.groups.iter().any(|listed| listed.group_id == id()));
    }
    for (version, response) in (0..).zip(at_each(&mut raw, 0..=9, |_| join(text("stranger"), None))) {
        assert_eq!((response.error_code, response.members.len()), (25, 0));
        assert_eq!(response.protocol_name.is_none(), version >= 7, "version {version}");
    }
    for (version, response) in (0..).zip(at_each(&mut raw, 0..=5, |version| {
        let member = MemberIdentity::default().with_member_id(text("stranger"));
        let request = LeaveGroupRequest::default().with_group_id(id());
        match version {
            3.. => request.with_members(vec![member]),
            _ => request.with_member_id(text("stranger")),
        }
    })) {
        let code = match version {
            3.. => response.members[0].error_code,
            _ => response.error_code,
        };
        assert_eq!(code, 25);
    }
}

#[test]
fn transactions_are_served_at_each_version() {
    let topic = topic(1);
    let name = || TopicName(text(&topic));
    let id = unique("txn");
    let txn = || TransactionalId(text(&id));
    let mut raw = Raw::to_transaction_coordinator(&id);
    let initialized = at_each(&mut raw, 0..=5, |_| {
        InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(1000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    });
    for response in initialized {
        assert_eq!((response.error_code, response.producer_epoch), (0, 0));
    }
    // The transactional id is unknown: INVALID_PRODUCER_ID_MAPPING.
    for response in at_each(&mut raw, 0..=3, |_| {
        let wanted = AddPartitionsToTxnTopic::default().with_name(name()).with_partitions(vec![0]);
        AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(txn())
            .with_v3_and_below_topics(vec![wanted])
    }) {
        let topic = &response.results_by_topic_v3_and_below[0];
        assert_eq!(topic.results_by_partition[0].partition_error_code, 49);
    }
    for response in at_each(&mut raw, 0..=4, |_| {
        AddOffsetsToTxnRequest::default().with_transactional_id(txn()).with_group_id(text("group").into())
    }) {
        assert_eq!(response.error_code, 49);
    }
    for response in at_each(&mut raw, 0..=4, |_| {
        EndTxnRequest::default().with_transactional_id(txn()).with_committed(true)
    }) {
        assert_eq!(response.error_code, 49);
    }
    let group = unique("group");
    let mut raw = Raw::to_group_coordinator(&group);
    for response in at_each(&mut raw, 0..=4, |version| {
        let partition = TxnOffsetCommitRequestPartition::default().with_committed_offset(1);
        let offsets =
            TxnOffsetCommitRequestTopic::default().with_name(name()).with_partitions(vec![partition]);
        TxnOffsetCommitRequest::default()
            .with_transactional_id(txn())
            .with_group_id(text(&group).into())
            .with_generation_id(if version >= 3 { 1 } else { -1 })
            .with_topics(vec![offsets])
    }) {
        assert_ne!(response.topics[0].partitions[0].error_code, 0);
    }
}
