//! Why an answer would come from where it would: the decisions of the cache, in words. Pure.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::plan::{Endpoint, Plan, Points, Uncacheable};
use super::points::rules;
use super::range::entry::{Entry, State};
use super::range::grid::{Grid, Span};

/// Everything about one request, as it is sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Explained {
    /// `pure`, `window-bound`, `immutable` or `uncacheable`.
    pub class: &'static str,
    /// Why it is not cached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where the answer would come from now: `l1`, `l2`, `points`, `partial` or `datasource`.
    pub from: &'static str,
    /// For how long a new answer may be served, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub life_seconds: Option<f64>,
    /// Metrics that are written in the request.
    pub metrics: Vec<String>,
    /// Whether it may read others, too.
    pub other_metrics: bool,
    /// Points that are asked for, per series.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub points_per_series: Option<i64>,
    /// Points of the whole answer, as far as its series are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_points: Option<i64>,
    /// The finished answer in the memory of this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l1: Option<Look>,
    /// The finished answer in Redis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l2: Option<Look>,
    /// The points in the memory of this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub points: Option<PointsLook>,
    /// Digests that a flush takes; for administrators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<Keys>,
    /// What could be better about the query.
    pub advice: Vec<String>,
}

/// Digests of the keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Keys {
    /// Of the finished answer.
    pub answer: String,
    /// Of the points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub points: Option<String>,
    /// The finished answer's name in Redis.
    pub redis: String,
}

impl Keys {
    /// Of a plan.
    pub fn of(plan: &Plan) -> Self {
        Self {
            answer: plan.key.hash.to_hex().to_string(),
            points: plan.points.as_ref().map(|points| points.key.hash.to_hex().to_string()),
            redis: plan.key.redis_name(),
        }
    }
}

/// A look for a finished answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Look {
    /// Whether it is there and may be served.
    pub found: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'static str>,
    /// Its age.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<f64>,
    /// How long it may still be served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_seconds: Option<f64>,
    /// Its length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<usize>,
}

impl Look {
    /// It may not be served.
    pub fn missing(why: &'static str) -> Self {
        Self { why: Some(why), ..Self::default() }
    }

    /// It may.
    pub fn found(age: Duration, left: Duration, bytes: usize) -> Self {
        let seconds = |duration: Duration| Some(duration.as_secs_f64());
        Self { found: true, why: None, age_seconds: seconds(age), left_seconds: seconds(left), bytes: Some(bytes) }
    }
}

/// What is known of the points.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PointsLook {
    /// Why none are used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'static str>,
    /// Series with known points in the window.
    pub series: usize,
    /// What is known of the window, in order.
    pub known: Vec<Stretch>,
    /// What the datasource would be asked for.
    pub asked: Vec<Window>,
}

/// Times in seconds since the epoch, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Window {
    /// The first instant.
    pub start: f64,
    /// The last one.
    pub end: f64,
    /// How many instants.
    pub points: i64,
}

/// Known points that were asked for together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Stretch {
    /// Where.
    #[serde(flatten)]
    pub window: Window,
    /// `settled`, `volatile` or `expired`.
    pub state: &'static str,
    /// How long ago they were asked for.
    pub age_seconds: f64,
}

/// What the points of a plan are at.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) entry: Option<Arc<Entry>>,
    /// Whether answers may be put together.
    pub(super) fits: bool,
}

impl Explained {
    /// A request that is passed through.
    pub fn uncacheable(reason: Uncacheable) -> Self {
        let reason = match reason {
            Uncacheable::Params => "the parameters cannot be decoded exactly".to_owned(),
            Uncacheable::Parameter(name) => {
                format!("the parameter {name} is missing, repeated, or not of a form that is understood exactly")
            }
            Uncacheable::Stats => "statistics (stats) belong to one execution".to_owned(),
            Uncacheable::Ttl => "its life by query.ttl is zero".to_owned(),
        };
        Self::passed_through(reason)
    }

    /// As [`Self::uncacheable`], for another reason.
    pub fn passed_through(reason: String) -> Self {
        Self { class: "uncacheable", reason: Some(reason), from: "datasource", other_metrics: true, ..Self::default() }
    }
}

/// Explains a plan.
pub(super) fn explained(plan: &Plan, known: Option<&Known>, l1: Look, l2: Look, now: i64) -> Explained {
    let points = plan.points.as_ref().zip(known).map(|(points, known)| look(plan, points, known, now));
    let is_complete = |look: &PointsLook| look.why.is_none() && look.asked.is_empty();
    let is_partial = |look: &PointsLook| look.why.is_none() && look.known.iter().any(|one| one.state != "expired");
    let from = match &points {
        _ if l1.found => "l1",
        _ if l2.found => "l2",
        Some(points) if is_complete(points) => "points",
        Some(points) if is_partial(points) => "partial",
        _ => "datasource",
    };
    let per_series = plan.points.as_ref().map(|points| points.span.last - points.span.first + 1);
    let series = points.as_ref().map(|points| points.series).filter(|series| *series > 0);
    Explained {
        class: plan.class.as_str(),
        reason: None,
        from,
        life_seconds: Some(plan.ttl.as_secs_f64()),
        metrics: plan.names.written.clone(),
        other_metrics: plan.names.others,
        points_per_series: per_series,
        estimated_points: per_series
            .zip(series)
            .map(|(points, series)| points.saturating_mul(i64::try_from(series).unwrap_or(i64::MAX))),
        l1: Some(l1),
        l2: Some(l2),
        points,
        keys: Some(Keys::of(plan)),
        advice: advice(plan),
    }
}

fn look(plan: &Plan, points: &Points, known: &Known, now: i64) -> PointsLook {
    let rules = rules(points, &plan.policy);
    let why = match &known.entry {
        _ if !known.fits && (plan.policy.settled.is_zero() || plan.policy.ttl.realtime.0.is_zero()) => {
            Some("points have no life (query.settled, query.ttl.realtime)")
        }
        _ if !known.fits => Some("answers of this query could not be put together lately: it is asked for whole"),
        Some(_) => None,
        None => Some("none are known, or they were flushed"),
    };
    let entry = known.entry.as_deref().cloned().unwrap_or_default();
    let stretch = |(span, state, age): (Span, State, Duration)| Stretch {
        window: window(span, points.grid),
        state: state.as_str(),
        age_seconds: age.as_secs_f64(),
    };
    PointsLook {
        why,
        series: entry.series(points.span),
        known: entry.known(points.span, &rules, now).into_iter().map(stretch).collect(),
        asked: entry.missing(points.span, &rules, now).into_iter().map(|span| window(span, points.grid)).collect(),
    }
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds of any year that people ask for fit")]
fn window(span: Span, grid: Grid) -> Window {
    let seconds = |index: i64| grid.time(index) as f64 / 1000.0;
    Window { start: seconds(span.first), end: seconds(span.last), points: span.last - span.first + 1 }
}

/// What the cache has to say about a query.
fn advice(plan: &Plan) -> Vec<String> {
    let mut advice = Vec::new();
    let mut say = |text: &str| advice.push(text.to_owned());
    match plan.endpoint {
        Endpoint::Range if plan.points.is_none() => say(
            "the answer depends on its window (`@ start()`, `@ end()`, a parameter that is not known, too many points, or a query \
             that is not understood): a window that slides is asked for whole each time",
        ),
        Endpoint::Series | Endpoint::Labels | Endpoint::LabelValues
            if plan.names.others && plan.names.written.is_empty() =>
        {
            say("no metric is named: the datasource looks through all of them");
        }
        _ => {}
    }
    advice
}
