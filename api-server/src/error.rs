//! The one place that knows HTTP statuses and the bodies of errors (`{"message": "..."}`, texts of Perses v0.54).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::store::StoreError;

/// What a handler answers instead of a result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ApiError {
    /// 400: the request is wrong; the text says what and where.
    #[error("bad request: {0}")]
    BadRequest(String),
    /// 400 in the form of OAuth (RFC 6749 section 5.2), from the endpoints of the sign-in providers.
    #[error("{code}: {description}")]
    OAuth {
        /// Code of the RFC, such as `invalid_request`.
        code: String,
        /// What was wrong.
        description: String,
    },
    /// 400: a Prometheus query is over a limit of `query.limits`, or cannot be checked.
    #[error("{0}")]
    QueryOverLimit(String),
    /// 400 or 403: refused on behalf of a Prometheus, in its form: `{"status":"error","errorType":...,"error":...}`.
    #[error("{text}")]
    Prometheus {
        /// The HTTP status.
        status: StatusCode,
        /// `errorType`.
        kind: &'static str,
        /// `error`.
        text: String,
    },
    /// 401: no sign-in, or one that does not count.
    #[error("unauthorized: {0}")]
    Unauthorized(String),
    /// 401: nothing in the request says who sends it (text of Perses' JWT layer).
    #[error("missing or malformed jwt")]
    MissingToken,
    /// 401: the token is expired, or not ours.
    #[error("invalid or expired jwt")]
    InvalidToken,
    /// 403: signed in, but not allowed.
    #[error("forbidden access: {0}")]
    Forbidden(String),
    /// 404: no such document.
    #[error("document not found")]
    NotFound,
    /// 404 of a path that is not part of the API (echo's own text).
    #[error("Not Found")]
    NoRoute,
    /// 405: the path exists, the method does not.
    #[error("Method Not Allowed")]
    MethodNotAllowed,
    /// 408: the body of the request came too slowly.
    #[error("request timeout: the request body came too slowly (server.body_timeout)")]
    SlowBody,
    /// 409: create of what exists.
    #[error("document already exists")]
    AlreadyExists,
    /// 412: `If-Match` names another version than the stored one.
    #[error("precondition failed: {0}")]
    PreconditionFailed(String),
    /// 413: the body is larger than the limit in bytes.
    #[error("request entity too large: the limit is {0} bytes (server.max_body_bytes)")]
    TooLarge(u64),
    /// 415: not `application/json`.
    #[error("unsupported media type")]
    UnsupportedMediaType,
    /// 422: the answer to a Prometheus query is over a limit of `query.limits`.
    #[error("{0}")]
    AnswerOverLimit(String),
    /// 429: too many failed sign-ins; the same request may be sent after so many seconds.
    #[error("too many failed sign-ins: try again in {0} seconds")]
    TooManySignIns(u64),
    /// 429: a user sends more Prometheus queries than `query.limits` allows.
    #[error("{text}")]
    TooManyQueries {
        /// Which limit, and whom to ask.
        text: String,
        /// Seconds after which the next one will be taken.
        wait: u64,
    },
    /// 501: a part of Perses that this server does not have.
    #[error("not implemented: {0}")]
    NotImplemented(String),
    /// 502: what the proxy was to reach did not answer as it should.
    #[error("bad gateway: {0}")]
    BadGateway(String),
    /// 503: the store is away; the same request may work later.
    #[error("service unavailable: the database cannot be reached, try again later")]
    Unavailable(String),
    /// 503: the datasource computes as many queries as `query.limits` allows, and more wait than may.
    #[error("{text}")]
    DatasourceBusy {
        /// Which limit, and whom to ask.
        text: String,
        /// Seconds after which to try again.
        wait: u64,
    },
    /// 503: the datasource failed several times in a row and is left alone for a moment (`query.limits.breaker_failures`).
    #[error("{text}")]
    DatasourceAway {
        /// Which limit, and whom to ask.
        text: String,
        /// Seconds after which it is tried again.
        wait: u64,
    },
    /// 503: a Prometheus query took longer than its own `timeout`.
    #[error("{0}")]
    QueryTimeout(String),
    /// 504: what the proxy was to reach took too long.
    #[error("gateway timeout: {0}")]
    GatewayTimeout(String),
    /// 500: the text goes to the log, never to the client.
    #[error("internal server error")]
    Internal(String),
}

impl ApiError {
    /// The HTTP status.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::OAuth { .. } | Self::QueryOverLimit(_) => StatusCode::BAD_REQUEST,
            Self::Prometheus { status, .. } => *status,
            Self::Unauthorized(_) | Self::MissingToken | Self::InvalidToken => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound | Self::NoRoute => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::AlreadyExists => StatusCode::CONFLICT,
            Self::PreconditionFailed(_) => StatusCode::PRECONDITION_FAILED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::AnswerOverLimit(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManySignIns(_) | Self::TooManyQueries { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::NotImplemented(_) => StatusCode::NOT_IMPLEMENTED,
            Self::BadGateway(_) => StatusCode::BAD_GATEWAY,
            Self::Unavailable(_)
            | Self::DatasourceBusy { .. }
            | Self::DatasourceAway { .. }
            | Self::QueryTimeout(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::GatewayTimeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The word for it in the form of Prometheus, where a Prometheus would have answered.
    const fn error_type(&self) -> Option<&'static str> {
        match self {
            Self::Prometheus { kind, .. } => Some(kind),
            Self::QueryOverLimit(_) => Some("bad_data"),
            Self::AnswerOverLimit(_) => Some("execution"),
            Self::TooManyQueries { .. } => Some("too_many_requests"),
            Self::DatasourceBusy { .. } | Self::DatasourceAway { .. } => Some("unavailable"),
            Self::QueryTimeout(_) | Self::GatewayTimeout(_) => Some("timeout"),
            _ => None,
        }
    }

    /// What the log should say beyond the answer's text.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Unavailable(detail) | Self::Internal(detail) => Some(detail),
            _ => None,
        }
    }
}

/// Detail of a failed request, in the response's extensions: the log middleware writes it once.
#[derive(Debug, Clone)]
pub struct ErrorDetail(pub String);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = match &self {
            Self::OAuth { code, description } => serde_json::json!({ "error": code, "error_description": description }),
            error => match error.error_type() {
                // Clients of Prometheus read the one, clients of Perses the other.
                Some(kind) => serde_json::json!({
                    "status": "error", "errorType": kind, "error": error.to_string(), "message": error.to_string(),
                }),
                None => serde_json::json!({ "message": error.to_string() }),
            },
        };
        let body = body.to_string() + "\n";
        let mut response =
            (self.status(), [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body)
                .into_response();
        match &self {
            Self::Unavailable(_) => {
                drop(response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5")));
            }
            Self::TooManySignIns(seconds)
            | Self::TooManyQueries { wait: seconds, .. }
            | Self::DatasourceBusy { wait: seconds, .. }
            | Self::DatasourceAway { wait: seconds, .. } => {
                drop(response.headers_mut().insert(header::RETRY_AFTER, (*seconds).into()));
            }
            _ => {}
        }
        if let Some(detail) = self.detail() {
            response.extensions_mut().insert(ErrorDetail(detail.to_owned()));
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::AlreadyExists => Self::AlreadyExists,
            StoreError::NotFound => Self::NotFound,
            StoreError::ProjectMissing(_) => Self::BadRequest(error.to_string()),
            StoreError::VersionConflict { .. } => Self::PreconditionFailed(error.to_string()),
            StoreError::Unavailable(detail) => Self::Unavailable(detail),
            StoreError::Failed(detail) => Self::Internal(detail),
        }
    }
}
