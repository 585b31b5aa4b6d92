//! What is refused, as those see it who asked: a status, and `{"error": {"code", "message"}}`.

use hyper::StatusCode;
use serde::Serialize;

use super::super::body::BodyFault;
use crate::operations::{QueueRefusal, SendRefusal, SettleRefusal};

/// Why a request, or one of the things that it asks for, is not done.
#[derive(PartialEq, Eq, Debug, Serialize)]
pub(super) struct Refusal {
    /// For programs; the document lists all of them.
    pub(super) code: &'static str,
    /// For people.
    pub(super) message: String,
    #[serde(skip)]
    pub(super) status: StatusCode,
    /// Of [`StatusCode::METHOD_NOT_ALLOWED`]: the methods that are.
    #[serde(skip)]
    pub(super) allow: &'static str,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), status, allow: "" }
    }

    /// It asks for what cannot be meant.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    /// No such place.
    pub(super) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "there is nothing here; /queues/openapi.json tells what there is",
        )
    }

    /// Asked again, it may be done.
    pub(super) fn not_now(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// A receipt that this queue has not given.
    pub(super) fn receipt() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_receipt", "the receipt is none of this queue's")
    }

    /// The methods of a place, when another was used.
    pub(super) fn method(allow: &'static str) -> Self {
        let message = format!("this takes {allow}");
        Self { allow, ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message) }
    }
}

impl From<BodyFault> for Refusal {
    fn from(fault: BodyFault) -> Self {
        let code = match fault {
            BodyFault::TooLarge { .. } => "too_large",
            BodyFault::TooSlow { .. } => "too_slow",
            BodyFault::Broken => "invalid_request",
        };
        Self::new(fault.status(), code, fault.to_string())
    }
}

impl From<QueueRefusal> for Refusal {
    fn from(refusal: QueueRefusal) -> Self {
        let (status, code) = match &refusal {
            QueueRefusal::Unknown(_) => (StatusCode::NOT_FOUND, "unknown_queue"),
            QueueRefusal::Exists(_) => (StatusCode::CONFLICT, "exists"),
            QueueRefusal::InvalidName(_) => (StatusCode::BAD_REQUEST, "invalid_name"),
            QueueRefusal::InvalidConfig(_) => (StatusCode::BAD_REQUEST, "invalid_settings"),
            QueueRefusal::Full => (StatusCode::TOO_MANY_REQUESTS, "too_many_in_flight"),
            QueueRefusal::NotNow(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            QueueRefusal::Storage(_) | QueueRefusal::NotStored(_) | QueueRefusal::Catalog(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "storage")
            }
        };
        Self::new(status, code, refusal.to_string())
    }
}

impl From<SendRefusal> for Refusal {
    fn from(refusal: SendRefusal) -> Self {
        let (status, code) = match &refusal {
            SendRefusal::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            SendRefusal::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
            SendRefusal::Overflow => (StatusCode::TOO_MANY_REQUESTS, "queue_full"),
            SendRefusal::Storage(_) => (StatusCode::INTERNAL_SERVER_ERROR, "storage"),
        };
        Self::new(status, code, refusal.to_string())
    }
}

impl From<SettleRefusal> for Refusal {
    fn from(refusal: SettleRefusal) -> Self {
        let code = match refusal {
            SettleRefusal::Gone => "gone",
            SettleRefusal::TakenAgain => "taken_again",
            SettleRefusal::OtherQueue => return Self::receipt(),
        };
        Self::new(StatusCode::CONFLICT, code, refusal.to_string())
    }
}
