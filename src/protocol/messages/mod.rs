//! One file per API, request and response together, fields in wire order.

pub mod alter_configs;
pub mod api_versions;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_topic_partitions;
pub mod fetch;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod list_offsets;
pub mod metadata;
pub mod offset_for_leader_epoch;
pub mod produce;

pub use alter_configs::AlterConfigs;
pub use api_versions::ApiVersions;
pub use create_partitions::CreatePartitions;
pub use create_topics::CreateTopics;
pub use delete_records::DeleteRecords;
pub use delete_topics::DeleteTopics;
pub use describe_cluster::DescribeCluster;
pub use describe_configs::DescribeConfigs;
pub use describe_topic_partitions::DescribeTopicPartitions;
pub use fetch::Fetch;
pub use incremental_alter_configs::IncrementalAlterConfigs;
pub use init_producer_id::InitProducerId;
pub use list_offsets::ListOffsets;
pub use metadata::Metadata;
pub use offset_for_leader_epoch::OffsetForLeaderEpoch;
pub use produce::Produce;
