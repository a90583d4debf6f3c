//! Errors as answers: one place that maps what went wrong to status, slug, and what to do next.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use potluck_common::net::problem::{not_found, problem};
use potluck_common::protocol::Problem;

use crate::admission::Refusal;
use crate::folder::{FolderError, MAX_FOLDER_FILES};
use crate::store::WriteError;
use crate::swarm::AnnounceError;

/// How long a peer waits before it offers again what went over a quota: until others have left, at best.
const QUOTA_WAIT: Duration = Duration::from_secs(60);
/// How long before it tries the store again.
const STORE_WAIT: Duration = Duration::from_secs(5);

/// A problem and when to try again.
#[derive(Debug)]
pub(crate) struct Failure {
    problem: Problem,
    retry_after: Option<Duration>,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, slug: &str, title: &str, detail: impl Into<String>) -> Self {
        problem(status, slug, title, detail).into()
    }

    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    pub(crate) fn too_many_requests(wait: Duration) -> Self {
        let title = "Too many requests from your address";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", title, "Wait as long as Retry-After says.")
            .retry_after(wait)
    }

    pub(crate) fn busy() -> Self {
        let title = "The tracker takes no more at once";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", title, "Try again in a moment.")
            .retry_after(Duration::from_secs(1))
    }

    /// Everything that is wrong with a query string.
    pub(crate) fn bad_query(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-query", "The query cannot be read", detail)
    }

    pub(crate) fn bad_name(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-name", "A name is not one that can be shared", detail)
    }

    pub(crate) fn bad_address(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-address", "The address cannot be handed to others", detail)
    }

    pub(crate) fn other_protocol(version: u64) -> Self {
        let detail = format!(
            "This tracker speaks version {} and the message says {version}. Run the same version of potluck on both.",
            potluck_common::protocol::PROTOCOL_VERSION
        );
        Self::new(StatusCode::UPGRADE_REQUIRED, "other-protocol", "Another protocol version", detail)
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self { problem, retry_after: None }
    }
}

impl From<FolderError> for Failure {
    fn from(error: FolderError) -> Self {
        match error {
            FolderError::Unknown => {
                not_found("Nobody shares anything in a folder of this name. GET /v1/files lists what is shared.").into()
            }
            FolderError::TooLarge => {
                let detail =
                    format!("A folder of at most {MAX_FOLDER_FILES} files can be given as one. Ask for one in it.");
                Self::new(StatusCode::CONFLICT, "too-many-files", "The folder has too many files", detail)
            }
            FolderError::Ambiguous(path) => {
                let detail = format!("{path} is one of them: GET /v1/files/{path} lists its contents.");
                Self::new(
                    StatusCode::CONFLICT,
                    "ambiguous",
                    "A name in this folder stands for several contents",
                    detail,
                )
            }
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::Protocol(version) => Self::other_protocol(version.into()),
            Refusal::ForeignKey | Refusal::Superseded { .. } => Self::new(
                StatusCode::CONFLICT,
                "identity-conflict",
                "This identity is another's",
                format!("{detail}. If the folder was copied, this copy needs an identity of its own."),
            ),
            Refusal::PeerName => Self::bad_name(format!("{detail}. Start the peer with another --name.")),
            Refusal::TooLong { .. } => Self::bad_name(format!("{detail}. Leave it out.")),
            Refusal::Revision { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-revision", "The revision does not grow", detail)
            }
            Refusal::TooManyEntries(_) => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-many-entries",
                "Too many entries in one message",
                format!("{detail}. Send the catalogue in smaller pages."),
            ),
            Refusal::Address(_) => Self::bad_address(format!(
                "{detail}. Start the peer with --advertise HOST:PORT and an address at which others reach it."
            )),
            Refusal::Quota(_) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "quota", "More than the tracker takes", detail)
                    .retry_after(QUOTA_WAIT)
            }
        }
    }
}

impl From<AnnounceError> for Failure {
    fn from(error: AnnounceError) -> Self {
        match error {
            AnnounceError::Refused(refusal) => refusal.into(),
            // The cause was logged where it happened; it is nothing a stranger needs to know.
            AnnounceError::Store(error) => {
                let detail = match error {
                    WriteError::Misfit => "The catalogue will be asked for anew with the next message.",
                    WriteError::Disk(_) => "It cannot write its store. Its log has the cause. Try again later.",
                    WriteError::Closed => "It is shutting down.",
                };
                let title = "The tracker could not keep that";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "not-kept", title, detail).retry_after(STORE_WAIT)
            }
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.problem.into_response();
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if response.status() == StatusCode::UPGRADE_REQUIRED {
            // RFC 9110 wants the answer to name what to upgrade to.
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("potluck/1"));
        }
        response
    }
}
