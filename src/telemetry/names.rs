//! The one list of metrics. A name ends in its unit (bytes, seconds; offsets and counts have none), a counter in `_total`.

use std::fmt;

/// A metric as a scrape describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metric {
    /// Name.
    pub name: &'static str,
    /// What its numbers do.
    pub kind: Kind,
    /// What it says, in one sentence or two.
    pub help: &'static str,
}

/// What the numbers of a metric do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// They rise from 0 at the start of the process.
    Counter,
    /// They rise and fall.
    Gauge,
    /// How often something took up to so many seconds.
    Histogram,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

/// Rows `/// help, NAME: kind "name";`.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $metric:ident: $kind:ident $name:literal;)+) => {
        $($(#[doc = $help])+ pub const $metric: Metric =
            Metric { name: $name, kind: Kind::$kind, help: concat!($($help),+).trim_ascii() };)+

        /// Every metric.
        pub const ALL: &[Metric] = &[$($metric),+];
    };
}

metrics! {
    /// Requests that have begun, by API.
    REQUESTS: Counter "ottla_requests_total";
    /// Error codes in answers, by API and error; an answer has as many as partitions, topics or groups failed in it.
    REQUEST_ERRORS: Counter "ottla_request_errors_total";
    /// Bytes of requests, by API.
    REQUEST_BYTES: Counter "ottla_request_bytes_total";
    /// Bytes of answers, by API.
    RESPONSE_BYTES: Counter "ottla_response_bytes_total";
    /// Time from a request's turn on its connection to its encoded answer, by API. Fetch includes its waiting for records.
    REQUEST_SECONDS: Histogram "ottla_request_seconds";

    /// Connections open, by protocol.
    CONNECTIONS: Gauge "ottla_connections";
    /// Connections accepted, by protocol.
    CONNECTIONS_ACCEPTED: Counter "ottla_connections_accepted_total";
    /// Connections closed at once because max.connections.per.ip was reached, by protocol.
    CONNECTIONS_REFUSED: Counter "ottla_connections_refused_total";
    /// Accepted connections that are closed, by protocol and reason.
    CONNECTIONS_CLOSED: Counter "ottla_connections_closed_total";
    /// Attempts to accept a connection that failed, usually for want of file descriptors, by protocol.
    ACCEPT_FAILURES: Counter "ottla_accept_failures_total";

    /// Bytes of requests in hand that count against queued.max.request.bytes: all but the first 64 KiB of a connection.
    QUEUED_REQUEST_BYTES: Gauge "ottla_queued_request_bytes";
    /// The limit of that: queued.max.request.bytes.
    QUEUED_REQUEST_BYTES_LIMIT: Gauge "ottla_queued_request_limit_bytes";
    /// Incremental fetch sessions kept.
    FETCH_SESSIONS: Gauge "ottla_fetch_sessions";
    /// The limit of that: max.incremental.fetch.session.cache.slots.
    FETCH_SESSIONS_LIMIT: Gauge "ottla_fetch_sessions_limit";
    /// Batches that are being decompressed to be checked, of those that take a thread of their own.
    DECOMPRESSIONS: Gauge "ottla_decompressions";
    /// The limit of that; more wait.
    DECOMPRESSIONS_LIMIT: Gauge "ottla_decompressions_limit";

    /// Topics.
    TOPICS: Gauge "ottla_topics";
    /// Partitions of all topics.
    PARTITIONS: Gauge "ottla_partitions";
    /// Partitions that have been used since the start: the others have no file open.
    PARTITIONS_OPENED: Gauge "ottla_partitions_opened";
    /// Idempotent producers that the partitions remember; one is counted in each partition that it writes to.
    PRODUCERS: Gauge "ottla_producers";

    /// Records appended to all partitions.
    APPENDED_RECORDS: Counter "ottla_log_appended_records_total";
    /// Bytes of the batches appended to all partitions.
    APPENDED_BYTES: Counter "ottla_log_appended_bytes_total";
    /// Bytes of all logs that have been used since the start.
    LOG_BYTES: Gauge "ottla_log_bytes";
    /// Segments of all logs that have been used since the start.
    SEGMENTS: Gauge "ottla_log_segments";
    /// Segments that retention and DeleteRecords have taken out of their logs.
    RETIRED_SEGMENTS: Counter "ottla_log_retired_segments_total";
    /// Bytes of these segments.
    RETIRED_BYTES: Counter "ottla_log_retired_bytes_total";
    /// Syncs of a partition's files, and how long each took.
    SYNC_SECONDS: Histogram "ottla_log_sync_seconds";
    /// Syncs that failed; the first takes its log directory offline.
    FAILED_SYNCS: Counter "ottla_log_failed_syncs_total";
    /// Partitions that wait for a syncing thread.
    SYNC_QUEUE: Gauge "ottla_log_sync_queue_partitions";
    /// Bytes appended and not yet synced.
    UNSYNCED_BYTES: Gauge "ottla_log_unsynced_bytes";
    /// Unsynced bytes at which appends in os mode wait.
    UNSYNCED_BYTES_LIMIT: Gauge "ottla_log_unsynced_limit_bytes";
    /// Files of logs that are open.
    OPEN_FILES: Gauge "ottla_log_open_files";
    /// The limit of that: ottla.log.max.open.files.
    OPEN_FILES_LIMIT: Gauge "ottla_log_open_files_limit";
    /// Appends refused for want of space.
    REFUSED_APPENDS: Counter "ottla_log_refused_appends_total";
    /// 1 for a log directory whose disk has failed: its partitions are offline until the broker starts again.
    DIRECTORY_OFFLINE: Gauge "ottla_log_directory_offline";
    /// 1 for a log directory that has refused its last append for want of space.
    DIRECTORY_FULL: Gauge "ottla_log_directory_full";

    /// Compactions of a log, and how long each took.
    COMPACTION_SECONDS: Histogram "ottla_log_compaction_seconds";
    /// Bytes that compactions have read.
    COMPACTION_READ_BYTES: Counter "ottla_log_compaction_read_bytes_total";
    /// Bytes that compactions have written.
    COMPACTION_WRITTEN_BYTES: Counter "ottla_log_compaction_written_bytes_total";
    /// Records that compactions have removed.
    COMPACTION_REMOVED_RECORDS: Counter "ottla_log_compaction_removed_records_total";
    /// Largest share of bytes of a compacted topic's log that was not compacted yet, when the cleaner last looked.
    MAX_DIRTY_RATIO: Gauge "ottla_log_max_dirty_ratio";
    /// Logs that could not be compacted and are left alone until the next start; an error line names each.
    UNCLEANABLE_PARTITIONS: Gauge "ottla_log_uncleanable_partitions";

    /// First offset of a partition.
    LOG_START_OFFSET: Gauge "ottla_partition_log_start_offset";
    /// End (exclusive) of what consumers may read of a partition.
    HIGH_WATERMARK: Gauge "ottla_partition_high_watermark";
    /// Offset that the next record of a partition gets.
    LOG_END_OFFSET: Gauge "ottla_partition_log_end_offset";
    /// Leader epoch of a partition.
    LEADER_EPOCH: Gauge "ottla_partition_leader_epoch";
    /// Bytes of a partition's log. Missing until it is used for the first time since the start.
    PARTITION_BYTES: Gauge "ottla_partition_bytes";

    /// Share sessions.
    SHARE_SESSIONS: Gauge "ottla_share_sessions";
    /// The limit of that: group.share.max.share.sessions.
    SHARE_SESSIONS_LIMIT: Gauge "ottla_share_sessions_limit";
    /// Dead letters written for share groups that are no queue's.
    SHARE_DEAD_LETTERS: Counter "ottla_share_dead_letters_total";
    /// Consumer groups, by state.
    GROUPS: Gauge "ottla_groups";
    /// Members of a group.
    GROUP_MEMBERS: Gauge "ottla_group_members";
    /// Offset that a group has committed for a partition: the next one it will consume.
    GROUP_COMMITTED_OFFSET: Gauge "ottla_group_committed_offset";
    /// Records of a partition between a group's committed offset and the high watermark.
    GROUP_LAG: Gauge "ottla_group_lag_records";
    /// Memory that members and offsets of groups take, about.
    GROUP_BYTES: Gauge "ottla_group_coordinator_bytes";
    /// The limit of that: ottla.group.coordinator.max.bytes.
    GROUP_BYTES_LIMIT: Gauge "ottla_group_coordinator_limit_bytes";

    /// Messages of a queue, by queue and state: ready, in_flight, delayed, or dead, which are not moved yet.
    QUEUE_MESSAGES: Gauge "ottla_queue_messages";
    /// Age of the oldest message of a queue that is not done; none if all are.
    QUEUE_OLDEST_AGE: Gauge "ottla_queue_oldest_age_seconds";
    /// Messages in the dead letter queue of a queue, wherever they come from; none if it has no such queue.
    QUEUE_DEAD_LETTERS: Gauge "ottla_queue_dead_letters";
    /// Receivers that wait for a message of a queue, over HTTP.
    QUEUE_RECEIVERS: Gauge "ottla_queue_waiting_receivers";
    /// Messages sent to a queue over HTTP; Kafka's producers append to its topic.
    QUEUE_SENT: Counter "ottla_queue_sent_total";
    /// Messages that were not stored since they repeat one of the deduplication window.
    QUEUE_DUPLICATES: Counter "ottla_queue_duplicates_total";
    /// Messages of a queue that were handed out, to its share group too.
    QUEUE_RECEIVED: Counter "ottla_queue_received_total";
    /// Those of them that had been handed out before.
    QUEUE_REDELIVERED: Counter "ottla_queue_redeliveries_total";
    /// Receives over HTTP that came to nothing.
    QUEUE_EMPTY_RECEIVES: Counter "ottla_queue_empty_receives_total";
    /// Messages that their receivers were done with.
    QUEUE_ACKNOWLEDGED: Counter "ottla_queue_acknowledged_total";
    /// Messages that their receivers gave back.
    QUEUE_RELEASED: Counter "ottla_queue_released_total";
    /// Messages that their receivers refused.
    QUEUE_REJECTED: Counter "ottla_queue_rejected_total";
    /// Messages moved to the dead letter queue.
    QUEUE_DEAD_LETTERED: Counter "ottla_queue_dead_lettered_total";
    /// Dead letters that were sent on, of a dead letter queue.
    QUEUE_REDRIVEN: Counter "ottla_queue_redriven_total";
    /// Messages that gave way to others in a full queue, or were purged by what they are.
    QUEUE_DROPPED: Counter "ottla_queue_dropped_total";
    /// From when a message was sent, or due, to its first delivery over HTTP.
    QUEUE_WAIT: Histogram "ottla_queue_wait_seconds";
    /// From the first delivery of a message over HTTP to its end.
    QUEUE_PROCESSING: Histogram "ottla_queue_processing_seconds";

    /// 1, with the version of the broker.
    BUILD_INFO: Gauge "ottla_build_info";
    /// CPU time that the process has used, user and system.
    PROCESS_CPU_SECONDS: Counter "process_cpu_seconds_total";
    /// Virtual memory of the process.
    PROCESS_VIRTUAL_BYTES: Gauge "process_virtual_memory_bytes";
    /// Resident memory of the process.
    PROCESS_RESIDENT_BYTES: Gauge "process_resident_memory_bytes";
    /// File descriptors that the process has open.
    PROCESS_OPEN_FILES: Gauge "process_open_fds";
    /// File descriptors that the process may have open.
    PROCESS_OPEN_FILES_LIMIT: Gauge "process_max_fds";
    /// When the process started, seconds since the Unix epoch.
    PROCESS_START_SECONDS: Gauge "process_start_time_seconds";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_differ_and_tell_counters_from_gauges() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        for Metric { name, kind, help } in ALL {
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(name.starts_with("ottla_") || name.starts_with("process_"), "{name}");
            assert!(help.ends_with('.') && !help.is_empty(), "{name}");
        }
    }
}
