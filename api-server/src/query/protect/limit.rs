//! Names of limits, and the words of a refusal.

use crate::config::RequestLimits;
use crate::error::ApiError;

/// Which limit; its key in `query.limits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// What cannot be checked.
    Unread,
    /// Characters of the query.
    QueryLength,
    /// How far back it looks.
    Lookback,
    /// Labels that must be restricted.
    LabelFilters,
    /// Points per series.
    PointsPerSeries,
    /// Series of an answer.
    Series,
    /// Points of an answer.
    Points,
    /// Bytes of an answer.
    Bytes,
    /// Queries of a user that reach a datasource.
    UserRate,
    /// Queries of a user.
    UserTotalRate,
    /// Queries at the same time.
    Concurrent,
    /// A datasource that fails.
    Breaker,
}

impl Limit {
    /// The key below `query.limits`, and the metric label.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Unread => "unread",
            Self::QueryLength => "max_query_length",
            Self::Lookback => "max_lookback_window",
            Self::LabelFilters => "required_label_filters",
            Self::PointsPerSeries => "max_points_per_series",
            Self::Series => "max_series",
            Self::Points => "max_points",
            Self::Bytes => "max_bytes",
            Self::UserRate => "user_rate",
            Self::UserTotalRate => "user_total_rate",
            Self::Concurrent => "max_concurrent",
            Self::Breaker => "breaker_failures",
        }
    }

    /// How a text names it.
    fn named(self) -> String {
        match self {
            Self::Unread => "query.limits.mode: enforce".to_owned(),
            limit => format!("query.limits.{}", limit.key()),
        }
    }
}

/// Something that is over a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// Which limit.
    pub limit: Limit,
    /// What was found, and what is allowed.
    pub text: String,
}

impl Breach {
    /// For the header `Warning`.
    pub fn warning(&self) -> String {
        format!("{} ({})", self.text, self.limit.named())
    }

    /// The whole text of a refusal: what was found, which limit, and whom to ask.
    pub fn refusal(&self, limits: &RequestLimits) -> String {
        format!(
            "{} ({}): ask for less, or ask {} to raise the limit for this datasource",
            self.text,
            self.limit.named(),
            limits.contact
        )
    }
}

/// The error of a body that went over a limit while it streamed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Exceeded(pub String);

impl Exceeded {
    /// The refusal, if an error of a body, or one of its causes, is this one.
    pub fn cause_of(error: &(dyn std::error::Error + 'static)) -> Option<ApiError> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(Self(text)) = error.downcast_ref::<Self>() {
                return Some(ApiError::AnswerOverLimit(text.clone()));
            }
            next = error.source();
        }
        None
    }
}
