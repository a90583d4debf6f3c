//! Errors as responses: `application/problem+json` (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::protocol::{PROBLEM_PREFIX, Problem};

/// A problem with a stable slug. `detail` says what happened here and what to do next.
pub fn problem(status: StatusCode, slug: &str, title: &str, detail: impl Into<String>) -> Problem {
    Problem {
        kind: format!("{PROBLEM_PREFIX}{slug}"),
        title: title.into(),
        status: status.as_u16(),
        detail: detail.into(),
    }
}

/// For a route that does not exist.
pub fn not_found(detail: impl Into<String>) -> Problem {
    problem(StatusCode::NOT_FOUND, "not-found", "There is nothing under this address", detail)
}

/// For a method that a route does not have.
pub fn method_not_allowed() -> Problem {
    problem(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "This address does not take that method", "")
}

/// Says nothing of the cause, which belongs in the log.
pub fn internal() -> Problem {
    problem(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something failed on our side", "The log has the cause.")
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).expect("a problem is plain text and a number");
        let mut response = (status, body).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}
