//! What an SQS client is told when its call fails: type, code, status and words, as sqs-api.md gives them. The words are part of
//! the interface: clients match on them.

use std::borrow::Cow;

use hyper::StatusCode;

use crate::http::body::BodyFault;

/// Why a call, or an entry of a batch, fails.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum SqsError {
    #[error("The specified queue does not exist.")]
    QueueDoesNotExist,
    #[error("A queue already exists with the same name and a different value for attribute {attribute}")]
    QueueNameExists { attribute: Cow<'static, str> },
    #[error("A topic of the name {name} exists that is no queue")]
    TopicExists { name: String },
    #[error("Only one PurgeQueue operation on {queue} is allowed every 60 seconds.")]
    PurgeQueueInProgress { queue: String },
    #[error("{0}")]
    OverLimit(Cow<'static, str>),
    #[error("Maximum number of entries per request are 10. You have sent {count}.")]
    TooManyEntries { count: usize },
    #[error("There should be at least one {entry} in the request.")]
    EmptyBatch { entry: &'static str },
    #[error("Id {id} repeated.")]
    IdsNotDistinct { id: String },
    #[error(
        "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 letters long."
    )]
    InvalidBatchEntryId,
    #[error("Batch requests cannot be longer than {limit} bytes. You have sent {bytes} bytes.")]
    BatchTooLong { limit: usize, bytes: usize },
    #[error("The input receipt handle \"{handle}\" is not a valid receipt handle.")]
    InvalidReceiptHandle { handle: String },
    #[error(
        "Invalid characters found. Valid unicode characters are \
         #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF"
    )]
    InvalidMessageContents,
    #[error("{0}")]
    InvalidAttributeName(Cow<'static, str>),
    #[error("Invalid value for the parameter {parameter}.{}", because(.reason))]
    InvalidAttributeValue { parameter: Cow<'static, str>, reason: Cow<'static, str> },
    #[error("{0}")]
    ResourceNotFound(Cow<'static, str>),
    #[error("Value {value} for parameter {parameter} is invalid. Reason: {reason}")]
    InvalidValue { value: String, parameter: &'static str, reason: Cow<'static, str> },
    #[error("{0}")]
    InvalidParameter(Cow<'static, str>),
    #[error("The request must contain the parameter {0}.")]
    MissingParameter(&'static str),
    #[error("{0}")]
    Throttled(Cow<'static, str>),
    #[error("The action {0} is not valid for this endpoint.")]
    InvalidAction(String),
    #[error("The request names no action.")]
    UnknownOperation,
    #[error("{0}")]
    Malformed(String),
    #[error("The request is longer than {limit} bytes.")]
    TooLong { limit: usize },
    #[error("The request did not arrive in time.")]
    TooSlow,
    #[error("Request is missing Authentication Token")]
    MissingAuthenticationToken,
    #[error("The security token included in the request is invalid.")]
    InvalidClientTokenId,
    #[error("{0}")]
    IncompleteSignature(&'static str),
    #[error(
        "The request signature we calculated does not match the signature you provided. \
         Check your AWS Secret Access Key and signing method."
    )]
    SignatureDoesNotMatch,
    #[error("Signature expired or not yet valid: {at} is more than {limit_minutes} minutes from {now}")]
    RequestExpired { at: String, now: String, limit_minutes: u32 },
    #[error("{0}")]
    Internal(String),
    #[error("The server is stopping.")]
    Unavailable,
}

impl From<BodyFault> for SqsError {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::TooLarge { max_bytes } => Self::TooLong { limit: max_bytes },
            BodyFault::TooSlow { .. } => Self::TooSlow,
            BodyFault::Broken => Self::Malformed("the body ends before its end".to_owned()),
        }
    }
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" Reason: {reason}") }
}

/// How a kind of error stands in both protocols.
pub(super) struct Form {
    /// `__type` of JSON, its namespace included.
    pub(super) json_type: &'static str,
    /// `Code` of XML, and the header that keeps it alive in JSON.
    pub(super) query_code: &'static str,
    /// HTTP status.
    pub(super) status: StatusCode,
}

macro_rules! forms {
    ($($pattern:pat => $namespace:literal $json:literal, $query:literal, $status:ident;)+) => {
        impl SqsError {
            /// How it stands in both protocols.
            pub(super) fn form(&self) -> &'static Form {
                use SqsError::*;
                match self {
                    $($pattern => &Form {
                        json_type: concat!($namespace, "#", $json),
                        query_code: $query,
                        status: StatusCode::$status,
                    },)+
                }
            }
        }
    };
}

forms! {
    QueueDoesNotExist => "com.amazonaws.sqs" "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", BAD_REQUEST;
    QueueNameExists { .. } | TopicExists { .. } => "com.amazonaws.sqs" "QueueNameExists", "QueueAlreadyExists", BAD_REQUEST;
    PurgeQueueInProgress { .. } =>
        "com.amazonaws.sqs" "PurgeQueueInProgress", "AWS.SimpleQueueService.PurgeQueueInProgress", FORBIDDEN;
    OverLimit(_) => "com.amazonaws.sqs" "OverLimit", "OverLimit", FORBIDDEN;
    TooManyEntries { .. } =>
        "com.amazonaws.sqs" "TooManyEntriesInBatchRequest", "AWS.SimpleQueueService.TooManyEntriesInBatchRequest", BAD_REQUEST;
    EmptyBatch { .. } => "com.amazonaws.sqs" "EmptyBatchRequest", "AWS.SimpleQueueService.EmptyBatchRequest", BAD_REQUEST;
    IdsNotDistinct { .. } =>
        "com.amazonaws.sqs" "BatchEntryIdsNotDistinct", "AWS.SimpleQueueService.BatchEntryIdsNotDistinct", BAD_REQUEST;
    InvalidBatchEntryId =>
        "com.amazonaws.sqs" "InvalidBatchEntryId", "AWS.SimpleQueueService.InvalidBatchEntryId", BAD_REQUEST;
    BatchTooLong { .. } =>
        "com.amazonaws.sqs" "BatchRequestTooLong", "AWS.SimpleQueueService.BatchRequestTooLong", BAD_REQUEST;
    InvalidReceiptHandle { .. } => "com.amazonaws.sqs" "ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid", BAD_REQUEST;
    InvalidMessageContents => "com.amazonaws.sqs" "InvalidMessageContents", "InvalidMessageContents", BAD_REQUEST;
    InvalidAttributeName(_) => "com.amazonaws.sqs" "InvalidAttributeName", "InvalidAttributeName", BAD_REQUEST;
    InvalidAttributeValue { .. } => "com.amazonaws.sqs" "InvalidAttributeValue", "InvalidAttributeValue", BAD_REQUEST;
    ResourceNotFound(_) => "com.amazonaws.sqs" "ResourceNotFoundException", "ResourceNotFoundException", NOT_FOUND;
    InvalidValue { .. } | InvalidParameter(_) =>
        "com.amazon.coral.service" "InvalidParameterValueException", "InvalidParameterValue", BAD_REQUEST;
    MissingParameter(_) =>
        "com.amazon.coral.service" "MissingRequiredParameterException", "MissingParameter", BAD_REQUEST;
    // AWS answers 403; 429 is what every HTTP client takes for "later".
    Throttled(_) => "com.amazonaws.sqs" "RequestThrottled", "RequestThrottled", TOO_MANY_REQUESTS;
    InvalidAction(_) => "com.amazon.coral.service" "InvalidAction", "InvalidAction", BAD_REQUEST;
    UnknownOperation => "com.amazon.coral.service" "UnknownOperationException", "UnknownOperationException", NOT_FOUND;
    Malformed(_) => "com.amazon.coral.service" "SerializationException", "MalformedInput", BAD_REQUEST;
    TooLong { .. } => "com.amazon.coral.service" "RequestEntityTooLargeException", "RequestEntityTooLarge", PAYLOAD_TOO_LARGE;
    TooSlow => "com.amazon.coral.service" "RequestTimeoutException", "RequestTimeout", REQUEST_TIMEOUT;
    MissingAuthenticationToken =>
        "com.amazon.coral.service" "MissingAuthenticationTokenException", "MissingAuthenticationToken", FORBIDDEN;
    InvalidClientTokenId =>
        "com.amazon.coral.service" "UnrecognizedClientException", "InvalidClientTokenId", FORBIDDEN;
    IncompleteSignature(_) =>
        "com.amazon.coral.service" "IncompleteSignatureException", "IncompleteSignature", FORBIDDEN;
    SignatureDoesNotMatch =>
        "com.amazon.coral.service" "InvalidSignatureException", "SignatureDoesNotMatch", FORBIDDEN;
    RequestExpired { .. } => "com.amazon.coral.service" "RequestExpired", "RequestExpired", FORBIDDEN;
    Internal(_) => "com.amazon.coral.service" "InternalFailure", "InternalError", INTERNAL_SERVER_ERROR;
    Unavailable => "com.amazon.coral.service" "ServiceUnavailableException", "ServiceUnavailable", SERVICE_UNAVAILABLE;
}

impl SqsError {
    /// Whether the caller could have known better.
    pub(super) fn is_senders_fault(&self) -> bool {
        self.form().status.is_client_error() && !matches!(self, Self::Throttled(_))
    }

    /// The words in XML, where AWS says more of one.
    pub(super) fn query_message(&self) -> String {
        match self {
            Self::QueueDoesNotExist => "The specified queue does not exist for this wsdl version.".to_owned(),
            other => other.to_string(),
        }
    }

    /// A number outside of its range.
    pub(super) fn number(value: i64, parameter: &'static str, reason: &'static str) -> Self {
        Self::InvalidValue { value: value.to_string(), parameter, reason: reason.into() }
    }

    /// A text that is none of those allowed.
    pub(super) fn value(value: &str, parameter: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::InvalidValue { value: shown(value), parameter, reason: reason.into() }
    }
}

/// A text from outside as an error shows it: not without end.
pub(super) fn shown(text: &str) -> String {
    const SHOWN_CHARACTERS: usize = 1100;
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}
