use super::*;
use crate::coordinator::Stored;

fn lookup(topics: &[(&'static str, u8, i32)]) -> TopicLookup {
    let topics = topics.to_vec();
    Arc::new(move |name| {
        let found = topics.iter().find(|(topic, ..)| *topic == name)?;
        Some((Uuid([found.1; 16]), found.2))
    })
}

fn beat(member: &str, member_epoch: i32, topics: Option<&[&str]>) -> ShareHeartbeat {
    ShareHeartbeat {
        member_id: member.into(),
        member_epoch,
        rack_id: None,
        topics: topics.map(|topics| topics.iter().map(|topic| (*topic).into()).collect()),
        client_id: "c".into(),
        client_host: "h".into(),
        session_timeout_ms: 100,
        max_size: 3,
        lookup: lookup(&[("t", 1, 2), ("u", 2, 3)]),
    }
}

/// A group, and its log.
struct Kept {
    group: ShareGroup,
    log: Vec<Record>,
}

impl Kept {
    fn new() -> Self {
        Self { group: ShareGroup::new("g".into()), log: Vec::new() }
    }

    fn beat(&mut self, now: TimestampMs, beat: &ShareHeartbeat) -> Result<ShareBeat, GroupError> {
        let mut out = Effects::default();
        let told = self.group.heartbeat(now, beat, &mut out);
        self.log.extend(out.records);
        // What the log says is what the group is, but for what time and topics have told it.
        let mut again = ShareGroup::new("g".into());
        for record in &self.log {
            let (key, value) = record.encode();
            again.apply(&Record::decode(Some(&key), value.as_ref()).unwrap().unwrap());
        }
        assert_eq!(again.records(), self.group.records());
        assert_eq!(again.bytes, self.group.bytes);
        told
    }
}

fn partitions(beat: &ShareBeat) -> Vec<(u8, Vec<i32>)> {
    let assignment = beat.assignment.as_ref().unwrap();
    assignment.iter().map(|(id, partitions)| (id.0[0], partitions.clone())).collect()
}

#[test]
fn the_first_heartbeat_is_answered_with_the_assignment() {
    let mut kept = Kept::new();
    let told = kept.beat(0, &beat("a", 0, Some(&["t", "nothing"]))).unwrap();
    assert_eq!((told.member_epoch, partitions(&told)), (1, vec![(1, vec![0, 1])]));
    let told = kept.beat(1, &beat("a", 1, None)).unwrap();
    assert_eq!(told, ShareBeat { member_epoch: 1, assignment: None });
}

#[test]
fn members_share_partitions_and_hear_of_it_at_their_next_heartbeat() {
    let mut kept = Kept::new();
    kept.beat(0, &beat("a", 0, Some(&["t"]))).unwrap();
    let told = kept.beat(0, &beat("b", 0, Some(&["t"]))).unwrap();
    assert_eq!((told.member_epoch, partitions(&told)), (2, vec![(1, vec![1])]));
    let told = kept.beat(1, &beat("a", 1, None)).unwrap();
    assert_eq!((told.member_epoch, partitions(&told)), (2, vec![(1, vec![0])]));
    // The answer was lost: it is given again.
    assert_eq!(partitions(&kept.beat(2, &beat("a", 1, None)).unwrap()), [(1, vec![0])]);
    assert_eq!(kept.beat(2, &beat("a", 2, None)).unwrap().assignment, None);
    let told = kept.beat(3, &beat("c", 0, Some(&["t"]))).unwrap();
    assert_eq!(partitions(&told), [(1, vec![0])], "more members than partitions: one is shared");
    assert_eq!(kept.beat(4, &beat("d", 0, Some(&["t"]))), Err(GroupError::MaxSize));
}

#[test]
fn epochs_that_were_never_told_are_fenced_and_strangers_unknown() {
    let mut kept = Kept::new();
    kept.beat(0, &beat("a", 0, Some(&["t"]))).unwrap();
    assert_eq!(kept.beat(1, &beat("a", 2, None)), Err(GroupError::FencedMemberEpoch));
    assert_eq!(kept.beat(1, &beat("b", 1, None)), Err(GroupError::UnknownMember));
    assert_eq!(kept.beat(1, &beat("b", -1, None)), Err(GroupError::UnknownMember));
    assert_eq!(kept.beat(1, &beat("a", -1, None)).unwrap().member_epoch, -1);
    assert!(kept.group.is_empty());
    assert_eq!(kept.group.state(), State::Empty);
}

#[test]
fn topics_that_come_and_grow_are_noticed() {
    let mut kept = Kept::new();
    kept.beat(0, &beat("a", 0, Some(&["t", "v"]))).unwrap();
    let grown = ShareHeartbeat { lookup: lookup(&[("t", 1, 3), ("v", 9, 1)]), ..beat("a", 1, None) };
    let told = kept.beat(1, &grown).unwrap();
    assert_eq!((told.member_epoch, partitions(&told)), (2, vec![(1, vec![0, 1, 2]), (9, vec![0])]));
    let told = kept.beat(2, &beat("a", 2, Some(&["u"]))).unwrap();
    assert_eq!(partitions(&told), [(2, vec![0, 1, 2])]);
}

#[test]
fn who_is_silent_is_removed() {
    let mut kept = Kept::new();
    kept.beat(0, &beat("a", 0, Some(&["t"]))).unwrap();
    kept.beat(50, &beat("b", 0, Some(&["t"]))).unwrap();
    assert_eq!(kept.group.deadline(), Some(100));
    let mut out = Effects::default();
    kept.group.tick(100, &mut out);
    kept.log.extend(out.records);
    assert_eq!((kept.group.len(), kept.group.deadline()), (1, Some(150)));
    let told = kept.beat(101, &beat("b", 2, None)).unwrap();
    assert_eq!(partitions(&told), [(1, vec![0, 1])]);
}

#[test]
fn every_partition_has_a_member_and_every_member_a_partition() {
    for (members, partitions) in [(1, 1), (1, 7), (3, 7), (7, 3), (5, 5)] {
        let ids: Vec<Arc<str>> = (0..members).map(|n| format!("m{n}").into()).collect();
        let topic: Vec<Arc<str>> = vec!["t".into()];
        let subscribed: Vec<_> = ids.iter().map(|id| (id, &topic[..])).collect();
        let topics = BTreeMap::from([("t".into(), (Uuid([1; 16]), partitions))]);
        let spread = spread(&subscribed, &topics);
        let mut taken = std::collections::BTreeSet::new();
        for assignment in spread.values() {
            let of_topic = &assignment[&Uuid([1; 16])];
            let fair = (partitions as usize).div_ceil(members);
            assert!((1..=fair).contains(&of_topic.len()), "{members} {partitions} {of_topic:?}");
            taken.extend(of_topic.iter().copied());
        }
        assert_eq!(taken.len(), partitions as usize);
    }
}

#[test]
fn a_compacted_log_makes_the_same_group_in_whatever_order_its_records_are_left() {
    let mut kept = Kept::new();
    kept.beat(0, &beat("a", 0, Some(&["t"]))).unwrap();
    kept.beat(0, &beat("b", 0, Some(&["t", "u"]))).unwrap();
    kept.beat(1, &beat("a", 1, None)).unwrap();
    let mut again = ShareGroup::new("g".into());
    kept.group.records().iter().rev().for_each(|record| again.apply(record));
    assert_eq!(again.records(), kept.group.records());
    assert_eq!(again.bytes, kept.group.bytes);
    let gone = Record::ShareAssignment { group: "g".into(), member: "c".into(), value: None };
    again.apply(&gone);
    assert_eq!(again.len(), 2, "nobody comes of an assignment that is taken back");
}

#[test]
fn memory_is_counted_with_all_texts_and_plans_and_given_back() {
    let mut kept = Kept::new();
    let long = |text: &str| -> Arc<str> { text.repeat(1_000).into() };
    let mut said = ShareHeartbeat { rack_id: Some(long("r")), ..beat("a", 0, Some(&["t", "u"])) };
    (said.client_id, said.member_id) = (long("c"), long("m"));
    let growth = kept.group.growth(&said);
    assert!(growth > 3_000, "{growth}");
    let told = kept.beat(0, &said).unwrap();
    // The five partitions twice: as they are planned, and as they are assigned.
    let planned = 2 * assignment_bytes(told.assignment.as_ref().unwrap()) + TOPIC_BYTES;
    assert_eq!(kept.group.bytes(), growth + planned + 2 * TOPIC_BYTES);
    said.member_epoch = told.member_epoch;
    assert_eq!(kept.group.growth(&said), 0);
    said.rack_id = Some("r".repeat(1_500).into());
    assert_eq!(kept.group.growth(&said), 500);
    said.member_epoch = LEAVE_EPOCH;
    assert_eq!(kept.group.growth(&said), 0);
    kept.beat(1, &said).unwrap();
    assert_eq!((kept.group.bytes, kept.group.target_bytes), (0, 0));
}
