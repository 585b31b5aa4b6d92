//! The records of the catalog's log: key = the kind's name, value = kind, version, body.

use crate::protocol::api::message;
use crate::protocol::wire::Str;
use crate::uuid::Uuid;

message! {
    /// A topic was made.
    TopicCreated {
        name: Str,
        topic_id: Uuid,
        partitions: i32,
        configs: Vec<ConfigValue>,
    }
}

message! {
    /// One config of a topic or broker.
    ConfigValue {
        name: Str,
        value: Str,
    }
}

message! {
    /// A topic was deleted.
    TopicDeleted {
        topic_id: Uuid,
    }
}

message! {
    /// A topic has more partitions.
    PartitionsAdded {
        topic_id: Uuid,
        /// Partitions in all.
        partitions: i32,
    }
}

message! {
    /// All overrides that a topic has now.
    TopicConfigs {
        topic_id: Uuid,
        configs: Vec<ConfigValue>,
    }
}

message! {
    /// All dynamic configs that a broker has now.
    BrokerConfigs {
        /// The node's id; empty for the default of all nodes.
        broker: Str,
        configs: Vec<ConfigValue>,
    }
}

message! {
    /// All configs that a group has now.
    GroupConfigs {
        group: Str,
        configs: Vec<ConfigValue>,
    }
}

message! {
    /// Producer ids below `next` have been given.
    ProducerIds {
        next: i64,
    }
}

message! {
    /// Recovery has cut something off a partition's log.
    LeaderEpoch {
        topic_id: Uuid,
        partition: i32,
        leader_epoch: i32,
    }
}

message! {
    /// Which log directories the partitions of a topic are in; written by a broker that has several.
    PartitionDirectories {
        topic_id: Uuid,
        /// Ids of directories, by partition; none is said of partitions beyond the last.
        directories: Vec<Uuid>,
    }
}

message! {
    /// What stands before this record counts no more: the whole state follows in the same batch.
    Snapshot {}
}
