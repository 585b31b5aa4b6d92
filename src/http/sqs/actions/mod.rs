//! THE TABLE: action -> what performs it. An action is a function from its typed request to its typed answer, the same for both
//! protocols.

mod attributes;
mod move_tasks;
mod permissions;
mod queues;
mod receive;
mod send;
mod settle;
mod tags;

use bytes::Bytes;
use serde::Deserialize;

use super::Site;
use super::answer::{Answer, Writer, success};
use super::error::{SqsError, shown};
use super::names::name_of_url;
use super::request::{Call, List, Pairs, Text};
use crate::operations::{Queue, QueueRefusal, SendRefusal};

/// Entries that a batch may have.
const BATCH_MAX: usize = 10;

/// About how many bytes an answer has of each of them.
const ENTRY_BYTES: usize = 160;

/// What an action may touch.
pub(super) struct Context<'c> {
    pub(super) site: &'c std::sync::Arc<Site>,
    /// Host and port as the client has them: what the URLs of queues begin with.
    pub(super) host: &'c str,
    /// The path of the request: the queue of a Query call that names no other.
    pub(super) path: &'c str,
    /// The whole request.
    pub(super) body: &'c Bytes,
    /// What the client calls itself.
    pub(super) agent: &'c str,
    /// Where it is.
    pub(super) peer: std::net::IpAddr,
}

/// Rows `Action => function;`.
macro_rules! actions {
    ($($action:ident => $perform:path;)+) => {
        /// Performs the action that is called, and gives the body of its answer.
        pub(super) async fn perform(
            cx: &Context<'_>,
            call: &Call,
            request_id: &str,
        ) -> Result<Vec<u8>, SqsError> {
            match call.action() {
                $(stringify!($action) => {
                    let answer = $perform(cx, call.decode()?).await?;
                    Ok(success(call.protocol, stringify!($action), request_id, &answer))
                })+
                unknown => Err(SqsError::InvalidAction(shown(unknown))),
            }
        }

        #[cfg(test)]
        pub(super) const NAMES: &[&str] = &[$(stringify!($action)),+];
    };
}

actions! {
    AddPermission => permissions::add;
    CancelMessageMoveTask => move_tasks::cancel;
    ChangeMessageVisibility => settle::change_visibility;
    ChangeMessageVisibilityBatch => settle::change_visibility_batch;
    CreateQueue => queues::create;
    DeleteMessage => settle::delete;
    DeleteMessageBatch => settle::delete_batch;
    DeleteQueue => queues::delete;
    GetQueueAttributes => attributes::get;
    GetQueueUrl => queues::url;
    ListDeadLetterSourceQueues => queues::list_dead_letter_sources;
    ListMessageMoveTasks => move_tasks::list;
    ListQueueTags => tags::list;
    ListQueues => queues::list;
    PurgeQueue => queues::purge;
    ReceiveMessage => receive::receive;
    RemovePermission => permissions::remove;
    SendMessage => send::send;
    SendMessageBatch => send::send_batch;
    SetQueueAttributes => attributes::set;
    StartMessageMoveTask => move_tasks::start;
    TagQueue => tags::tag;
    UntagQueue => tags::untag;
}

impl Context<'_> {
    /// The name of the queue that is meant.
    fn queue_name<'q>(&'q self, url: &'q Option<Text<'_>>) -> Result<&'q str, SqsError> {
        let name = name_of_url(url.as_deref().unwrap_or(self.path));
        if name.is_empty() { Err(SqsError::MissingParameter("QueueUrl")) } else { Ok(name) }
    }

    /// The queue that is meant.
    fn queue(&self, url: &Option<Text<'_>>) -> Result<Queue, SqsError> {
        self.named(self.queue_name(url)?)
    }

    /// The queue of that name.
    fn named(&self, name: &str) -> Result<Queue, SqsError> {
        self.site.door.queue(name).ok_or(SqsError::QueueDoesNotExist)
    }

    /// The URL of a queue, for this client.
    fn url(&self, name: &str) -> String {
        self.site.place.url(self.host, name)
    }
}

impl From<QueueRefusal> for SqsError {
    fn from(refusal: QueueRefusal) -> Self {
        match refusal {
            QueueRefusal::Unknown(_) => Self::QueueDoesNotExist,
            QueueRefusal::Exists(name) => Self::TopicExists { name },
            QueueRefusal::InvalidName(message) | QueueRefusal::InvalidConfig(message) => {
                Self::InvalidParameter(message.into())
            }
            QueueRefusal::Full => {
                Self::OverLimit("The maximum number of in flight messages is reached.".into())
            }
            QueueRefusal::NotNow(_) => Self::Unavailable,
            QueueRefusal::Storage(error) => Self::Internal(error.to_string()),
            QueueRefusal::NotStored(error) => Self::Internal(error.to_string()),
            QueueRefusal::Catalog(error) => Self::Internal(error.to_string()),
        }
    }
}

impl From<SendRefusal> for SqsError {
    fn from(refusal: SendRefusal) -> Self {
        match refusal {
            SendRefusal::TooLarge { max, .. } => Self::too_large(max),
            SendRefusal::Invalid(what) => Self::InvalidParameter(what.into()),
            SendRefusal::Overflow => Self::Throttled("The queue is full.".into()),
            SendRefusal::Storage(error) => Self::Internal(error.to_string()),
        }
    }
}

impl SqsError {
    fn too_large(max: usize) -> Self {
        Self::InvalidParameter(
            format!("One or more parameters are invalid. Reason: Message must be shorter than {max} bytes.")
                .into(),
        )
    }
}

/// What every action on a queue names, and some nothing else.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct QueueRequest<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
}

/// Checks what is the matter with a batch as a whole.
fn check_batch<'e>(
    kind: &'static str,
    ids: impl ExactSizeIterator<Item = &'e Option<Text<'e>>> + Clone,
) -> Result<(), SqsError> {
    let count = ids.len();
    if count == 0 {
        return Err(SqsError::EmptyBatch { entry: kind });
    }
    if count > BATCH_MAX {
        return Err(SqsError::TooManyEntries { count });
    }
    for (place, given) in ids.clone().enumerate() {
        let id = given.as_deref().unwrap_or_default();
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if id.is_empty() || id.len() > 80 || !id.bytes().all(is_legal) {
            return Err(SqsError::InvalidBatchEntryId);
        }
        if ids.clone().take(place).any(|before| before == given) {
            return Err(SqsError::IdsNotDistinct { id: id.to_owned() });
        }
    }
    Ok(())
}

/// The answer of a batch: each entry on its own.
struct BatchAnswer<'r, T> {
    /// What stands for a success in XML.
    element: &'static str,
    /// By the id of the entry.
    entries: Vec<(Option<Text<'r>>, Result<T, SqsError>)>,
}

/// What a batch says of an entry that went well, besides its id.
trait Entry {
    fn write(&self, out: &mut Writer);
}

impl Entry for () {
    fn write(&self, _: &mut Writer) {}
}

impl<T: Entry> Answer for BatchAnswer<'_, T> {
    fn bytes(&self) -> usize {
        self.entries.len() * ENTRY_BYTES
    }

    fn write(&self, out: &mut Writer) {
        let good = self.entries.iter().filter_map(|(id, entry)| Some((id, entry.as_ref().ok()?)));
        out.list("Successful", self.element, good, |out, (id, entry)| {
            out.text_if("Id", id.as_deref());
            entry.write(out);
        });
        let bad = self.entries.iter().filter_map(|(id, entry)| Some((id, entry.as_ref().err()?)));
        out.list("Failed", "BatchResultErrorEntry", bad, |out, (id, error)| {
            out.text_if("Id", id.as_deref());
            out.flag("SenderFault", error.is_senders_fault());
            out.text("Code", error.form().query_code);
            out.text("Message", &error.to_string());
        });
    }
}

/// A number that must be in a range if it is given.
fn bounded(
    value: Option<i64>,
    parameter: &'static str,
    range: std::ops::RangeInclusive<i64>,
    reason: &'static str,
) -> Result<Option<i64>, SqsError> {
    match value.filter(|value| !range.contains(value)) {
        Some(value) => Err(SqsError::number(value, parameter, reason)),
        None => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn ids(ids: &[&'static str]) -> Vec<Option<Text<'static>>> {
        ids.iter().map(|id| Some(Text(Cow::Borrowed(*id)))).collect()
    }

    #[test]
    fn there_are_twenty_three_actions() {
        assert_eq!(NAMES.len(), 23);
        assert!(NAMES.is_sorted());
    }

    #[test]
    fn a_batch_has_one_to_ten_entries_with_ids_of_their_own() {
        let check = |list: &[&'static str]| check_batch("X", ids(list).iter());
        assert_eq!(check(&[]), Err(SqsError::EmptyBatch { entry: "X" }));
        assert_eq!(check(&["a"; 11]), Err(SqsError::TooManyEntries { count: 11 }));
        assert_eq!(check(&["a", "b", "a"]), Err(SqsError::IdsNotDistinct { id: "a".to_owned() }));
        for bad in ["", "a b", "ü", "a.b"] {
            assert_eq!(check(&[bad]), Err(SqsError::InvalidBatchEntryId), "{bad}");
        }
        assert_eq!(check(&["a", "B-1", "_"]), Ok(()));
        assert_eq!(check_batch("X", [None].iter()), Err(SqsError::InvalidBatchEntryId));
    }
}
