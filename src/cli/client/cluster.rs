//! All brokers of a cluster behind one door.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{ClientError, Connection};
use crate::protocol::ErrorCode;
use crate::protocol::api::Api;
use crate::protocol::messages::find_coordinator::{Coordinator, FindCoordinatorRequest};
use crate::protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsTopic,
};
use crate::protocol::messages::metadata::{
    MetadataRequest, MetadataResponse, MetadataTopic, MetadataTopicResponse,
};
use crate::protocol::messages::{FindCoordinator, ListOffsets, Metadata};
use crate::protocol::wire::Str;

/// First and longest pause before something is tried again; each is twice the one before.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How much longer than a call may take at the broker we wait for its answer.
const SLACK: Duration = Duration::from_secs(5);
/// Newest version of ListOffsets that every broker's special timestamps are known in.
const LIST_OFFSETS_VERSION: i16 = 8;
/// FindCoordinator's key type of groups.
const GROUP_KEY: i8 = 0;

/// A partition of a topic. Displays as `topic-partition`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(in crate::cli) struct TopicPartition {
    pub(in crate::cli) topic: Str,
    pub(in crate::cli) partition: i32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

impl TopicPartition {
    pub(in crate::cli) fn new(topic: &Str, partition: i32) -> Self {
        Self { topic: topic.clone(), partition }
    }

    /// An error of a broker about this partition; `None` for code 0.
    pub(in crate::cli) fn refusal(&self, code: i16) -> Option<ClientError> {
        code_of(&self.to_string(), code, None).err()
    }
}

/// Whether a consumer sees records of transactions that are not committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(in crate::cli) enum Isolation {
    /// All records
    ReadUncommitted,
    /// Only records of no transaction or of a committed one
    ReadCommitted,
}

/// Turns an error code into an error that names `what` was refused, with the broker's words.
///
/// # Errors
/// Any code but 0.
pub(in crate::cli) fn code_of(what: &str, code: i16, message: Option<&Str>) -> Result<(), ClientError> {
    if code == i16::from(ErrorCode::None) {
        return Ok(());
    }
    let message = message.map(ToString::to_string);
    Err(ClientError::Refused { what: what.to_owned(), code, message })
}

/// Connections to the brokers that were needed so far.
pub(in crate::cli) struct Cluster {
    bootstrap: Vec<String>,
    timeout: Duration,
    /// host:port by node id, as last learned.
    brokers: BTreeMap<i32, String>,
    controller_id: i32,
    /// By host:port.
    connections: HashMap<String, Connection>,
}

impl Cluster {
    /// Connects to the first of `bootstrap` that answers and learns who else there is.
    ///
    /// # Errors
    /// That of the last one tried.
    pub(super) fn connect(bootstrap: &[String], timeout: Duration) -> Result<Self, ClientError> {
        let mut cluster = Self {
            bootstrap: bootstrap.to_vec(),
            timeout,
            brokers: BTreeMap::new(),
            controller_id: -1,
            connections: HashMap::new(),
        };
        cluster.metadata(Some(&[]), false)?;
        Ok(cluster)
    }

    /// How long things are tried.
    pub(in crate::cli) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The same for requests that carry it, ms.
    pub(in crate::cli) fn timeout_ms(&self) -> i32 {
        i32::try_from(self.timeout.as_millis()).unwrap_or(i32::MAX)
    }

    /// Tries something until it goes well, fails for good, or the timeout is over.
    ///
    /// # Errors
    /// That of the last attempt.
    pub(in crate::cli) fn retrying<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let mut patience = Patience::new(self.timeout);
        loop {
            match attempt(self) {
                Err(error) if error.is_retriable() && patience.pause() => {}
                done => return done,
            }
        }
    }

    /// Node ids of all brokers.
    pub(in crate::cli) fn brokers(&self) -> Vec<i32> {
        self.brokers.keys().copied().collect()
    }

    /// Sends a request to a broker in the newest common version and waits for the answer.
    ///
    /// # Errors
    /// As [`Connection::call`]; no connection.
    pub(in crate::cli) fn call<A: Api>(
        &mut self,
        broker: i32,
        request: &A::Request,
    ) -> Result<A::Response, ClientError> {
        self.call_up_to::<A>(broker, A::MAX_VERSION, request)
    }

    /// The same in a version of `newest` at most.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(in crate::cli) fn call_up_to<A: Api>(
        &mut self,
        broker: i32,
        newest: i16,
        request: &A::Request,
    ) -> Result<A::Response, ClientError> {
        self.using(broker, |connection| {
            let version = connection.version_up_to::<A>(newest)?;
            connection.call_at::<A>(version, request)
        })
    }

    /// Lets `exchange` use the connection to a broker, made if there is none, and drops it if it fails.
    ///
    /// # Errors
    /// No connection; what `exchange` gives.
    pub(in crate::cli) fn using<T>(
        &mut self,
        broker: i32,
        exchange: impl FnOnce(&mut Connection) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let what = || format!("broker {broker}");
        let address =
            self.brokers.get(&broker).ok_or_else(|| ClientError::NoLeader { what: what() })?.clone();
        self.using_address(&address, exchange)
    }

    fn using_address<T>(
        &mut self,
        address: &str,
        exchange: impl FnOnce(&mut Connection) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let mut connection = match self.connections.remove(address) {
            Some(connection) => connection,
            None => Connection::connect_within(address, self.timeout.saturating_add(SLACK))?,
        };
        let done = exchange(&mut connection);
        // Whatever failed may have left half an answer in the socket.
        if done.is_ok() {
            self.connections.insert(address.to_owned(), connection);
        }
        done
    }

    /// Calls any broker that answers.
    ///
    /// # Errors
    /// None does: that of the last.
    pub(in crate::cli) fn call_any<A: Api>(
        &mut self,
        request: &A::Request,
    ) -> Result<A::Response, ClientError> {
        let mut addresses: Vec<String> = self.connections.keys().cloned().collect();
        addresses.extend(self.brokers.values().cloned());
        addresses.extend(self.bootstrap.iter().cloned());
        let mut last = None;
        for address in addresses {
            match self.using_address(&address, |connection| connection.call::<A>(request)) {
                Err(error) if error.is_of_connection() => last = Some(error),
                done => return done,
            }
        }
        Err(last.unwrap_or(ClientError::NoLeader { what: A::NAME.to_owned() }))
    }

    /// Calls the controller: who makes and deletes topics.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(in crate::cli) fn call_controller<A: Api>(
        &mut self,
        request: &A::Request,
    ) -> Result<A::Response, ClientError> {
        // Asked anew at each attempt: it may have moved.
        self.metadata(Some(&[]), false)?;
        match self.controller_id {
            // Since Kafka 2.8 any broker passes on what is the controller's.
            -1 => self.call_any::<A>(request),
            controller_id => self.call::<A>(controller_id, request),
        }
    }

    /// Topics by name (`None`: all) as a broker knows them at this moment, and with them where the brokers are. Faults of
    /// single topics are in the answer.
    ///
    /// # Errors
    /// As [`Self::call_any`].
    pub(in crate::cli) fn metadata(
        &mut self,
        names: Option<&[Str]>,
        create: bool,
    ) -> Result<Vec<MetadataTopicResponse>, ClientError> {
        let topic = |name: &Str| MetadataTopic { name: Some(name.clone()), ..MetadataTopic::default() };
        let answer: MetadataResponse = self.call_any::<Metadata>(&MetadataRequest {
            topics: names.map(|names| names.iter().map(topic).collect()),
            allow_auto_topic_creation: create,
            ..MetadataRequest::default()
        })?;
        code_of(Metadata::NAME, answer.error_code, None)?;
        self.brokers = answer
            .brokers
            .iter()
            .map(|broker| (broker.node_id, address(&broker.host, broker.port)))
            .collect();
        self.controller_id = answer.controller_id;
        let mut topics = answer.topics;
        topics
            .iter_mut()
            .for_each(|topic| topic.partitions.sort_by_key(|partition| partition.partition_index));
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// One topic.
    ///
    /// # Errors
    /// As [`Self::metadata`]; there is no such topic.
    pub(in crate::cli) fn topic(&mut self, name: &Str) -> Result<MetadataTopicResponse, ClientError> {
        let found = self.metadata(Some(std::slice::from_ref(name)), false)?.into_iter().next();
        let topic = found.ok_or(ClientError::Incomplete { api: Metadata::NAME })?;
        code_of(&format!("topic {name:?}"), topic.error_code, None)?;
        Ok(topic)
    }

    /// The broker that leads each of `partitions`, as last asked: those without a leader are left out.
    ///
    /// # Errors
    /// As [`Self::metadata`]; a topic that is not there.
    pub(in crate::cli) fn leaders<'p>(
        &mut self,
        partitions: impl IntoIterator<Item = &'p TopicPartition>,
    ) -> Result<HashMap<TopicPartition, i32>, ClientError> {
        let mut names: Vec<Str> = partitions.into_iter().map(|place| place.topic.clone()).collect();
        names.sort();
        names.dedup();
        let mut leaders = HashMap::new();
        for topic in self.metadata(Some(&names), false)? {
            let name = topic.name.unwrap_or_default();
            code_of(&format!("topic {name:?}"), topic.error_code, None)?;
            for partition in topic.partitions {
                if self.brokers.contains_key(&partition.leader_id) {
                    leaders
                        .insert(TopicPartition::new(&name, partition.partition_index), partition.leader_id);
                }
            }
        }
        Ok(leaders)
    }

    /// For each partition the answer to a ListOffsets timestamp: see its message.
    ///
    /// # Errors
    /// A leader that is not found or refuses until the timeout.
    pub(in crate::cli) fn list_offsets(
        &mut self,
        wanted: &BTreeMap<TopicPartition, i64>,
        isolation: Isolation,
    ) -> Result<BTreeMap<TopicPartition, ListOffsetsPartitionResponse>, ClientError> {
        let mut found = BTreeMap::new();
        self.retrying(|cluster| {
            let left = || wanted.iter().filter(|(place, _)| !found.contains_key(*place));
            let leaders = cluster.leaders(left().map(|(place, _)| place))?;
            let mut by_leader: BTreeMap<i32, Vec<(&TopicPartition, i64)>> = BTreeMap::new();
            for (place, timestamp) in left() {
                let leader =
                    leaders.get(place).ok_or_else(|| ClientError::NoLeader { what: place.to_string() })?;
                by_leader.entry(*leader).or_default().push((place, *timestamp));
            }
            let mut refused = None;
            for (leader, places) in by_leader {
                let request = list_offsets_request(&places, isolation, cluster.timeout_ms());
                let answer = cluster.call_up_to::<ListOffsets>(leader, LIST_OFFSETS_VERSION, &request)?;
                for topic in answer.topics {
                    for partition in topic.partitions {
                        let place = TopicPartition::new(&topic.name, partition.partition_index);
                        match place.refusal(partition.error_code) {
                            None => drop(found.insert(place, partition)),
                            Some(error) => refused = Some(error),
                        }
                    }
                }
            }
            refused.map_or(Ok(()), Err)
        })?;
        match wanted.len() == found.len() {
            true => Ok(found),
            false => Err(ClientError::Incomplete { api: ListOffsets::NAME }),
        }
    }

    /// The broker that coordinates a group, as known at this moment.
    ///
    /// # Errors
    /// As [`Self::call_any`]; there is none yet.
    pub(in crate::cli) fn coordinator(&mut self, group: &Str) -> Result<i32, ClientError> {
        let answer = self.call_any::<FindCoordinator>(&FindCoordinatorRequest {
            key: group.clone(),
            key_type: GROUP_KEY,
            coordinator_keys: vec![group.clone()],
        })?;
        // Versions before 4 have it in the answer itself. KIP-699.
        let alone = Coordinator {
            key: group.clone(),
            node_id: answer.node_id,
            host: answer.host,
            port: answer.port,
            error_code: answer.error_code,
            error_message: answer.error_message,
        };
        let coordinator = answer.coordinators.into_iter().next().unwrap_or(alone);
        let what = format!("coordinator of group {group:?}");
        code_of(&what, coordinator.error_code, coordinator.error_message.as_ref())?;
        self.brokers.insert(coordinator.node_id, address(&coordinator.host, coordinator.port));
        Ok(coordinator.node_id)
    }
}

/// How often and how long something is tried.
pub(in crate::cli) struct Patience {
    deadline: Instant,
    pause: Duration,
}

impl Patience {
    pub(in crate::cli) fn new(timeout: Duration) -> Self {
        Self { deadline: Instant::now() + timeout, pause: PAUSE_MIN }
    }

    /// Waits a little; `false` at once if there is no time left for that.
    pub(in crate::cli) fn pause(&mut self) -> bool {
        if Instant::now() + self.pause > self.deadline {
            return false;
        }
        sleep(self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        true
    }
}

fn address(host: &str, port: i32) -> String {
    // An IPv6 address has colons of its own.
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn list_offsets_request(
    places: &[(&TopicPartition, i64)],
    isolation: Isolation,
    timeout_ms: i32,
) -> ListOffsetsRequest {
    let mut topics: BTreeMap<&Str, Vec<ListOffsetsPartition>> = BTreeMap::new();
    for (place, timestamp) in places {
        topics.entry(&place.topic).or_default().push(ListOffsetsPartition {
            partition_index: place.partition,
            timestamp: *timestamp,
            ..ListOffsetsPartition::default()
        });
    }
    let topic = |(name, partitions): (&Str, _)| ListOffsetsTopic { name: name.clone(), partitions };
    ListOffsetsRequest {
        replica_id: -1,
        isolation_level: isolation as i8,
        topics: topics.into_iter().map(topic).collect(),
        timeout_ms,
    }
}
