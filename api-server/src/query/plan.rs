//! From a request to a cache key and a life, or to the reason why it is not cached. Pure: parsed once, i64 milliseconds.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::floors::Floor;
use super::params::Params;
use super::policy::Policy;
use super::promql::{Analysis, Names, Reach};
use super::range::grid::{Grid, Span};
use super::ttl::ttl;
use crate::domain::duration;

/// Instant queries without a time share an answer for this long; the key family carries the bucket too.
pub(super) const BUCKET_MS: i64 = 15_000;

/// The endpoints that are cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `/api/v1/query`.
    Instant,
    /// `/api/v1/query_range`.
    Range,
    /// `/api/v1/query_exemplars`.
    Exemplars,
    /// `/api/v1/series`.
    Series,
    /// `/api/v1/labels`.
    Labels,
    /// `/api/v1/label/{name}/values`.
    LabelValues,
    /// `/api/v1/metadata`.
    Metadata,
}

impl Endpoint {
    /// From the path below the datasource.
    pub fn from_path(path: &str) -> Option<Self> {
        Some(match path {
            "/api/v1/query" => Self::Instant,
            "/api/v1/query_range" => Self::Range,
            "/api/v1/query_exemplars" => Self::Exemplars,
            "/api/v1/series" => Self::Series,
            "/api/v1/labels" => Self::Labels,
            "/api/v1/metadata" => Self::Metadata,
            _ => label_in(path).map(|_| Self::LabelValues)?,
        })
    }

    /// From the word that [`Self::as_str`] gives.
    pub fn parse(word: &str) -> Option<Self> {
        let all = [
            Self::Instant,
            Self::Range,
            Self::Exemplars,
            Self::Series,
            Self::Labels,
            Self::LabelValues,
            Self::Metadata,
        ];
        all.into_iter().find(|endpoint| endpoint.as_str() == word)
    }

    /// The word in keys and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Instant => "query",
            Self::Range => "query_range",
            Self::Exemplars => "query_exemplars",
            Self::Series => "series",
            Self::Labels => "labels",
            Self::LabelValues => "label_values",
            Self::Metadata => "metadata",
        }
    }

    /// Whether Prometheus takes the parameters as a form, too.
    pub const fn takes_forms(self) -> bool {
        !matches!(self, Self::LabelValues | Self::Metadata)
    }
}

/// The label in the path of [`Endpoint::LabelValues`]; one whose spelling is not plain is none.
pub fn label_in(path: &str) -> Option<&str> {
    let name = path.strip_prefix("/api/v1/label/")?.strip_suffix("/values")?;
    (!name.is_empty() && !name.contains(['/', '%'])).then_some(name)
}

/// How an answer may be used (`docs/queries.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The value at an instant does not depend on the window.
    Pure,
    /// The answer belongs to exactly this window.
    WindowBound,
    /// All that it reads is older than `query.settled`.
    Immutable,
}

impl Class {
    /// The word in metric labels and in what is explained.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pure => "pure",
            Self::WindowBound => "window-bound",
            Self::Immutable => "immutable",
        }
    }
}

/// Why a request is passed through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Uncacheable {
    /// The parameters are not exactly decodable.
    #[error("params")]
    Params,
    /// A parameter that may stand once stands twice, or one is missing.
    #[error("{0}")]
    Parameter(&'static str),
    /// Timings belong to one execution.
    #[error("stats")]
    Stats,
    /// The configured life is zero.
    #[error("ttl")]
    Ttl,
}

/// What identifies an answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QueryKey {
    /// Everything that decides about the answer, written unambiguously.
    pub text: String,
    /// Digest of the text.
    pub hash: blake3::Hash,
    /// Start of the bucket of the newest asked instant, in seconds.
    pub bucket: i64,
}

impl QueryKey {
    /// The name in Redis: the seed's family `query:result:{hash}:{bucket}` under a version.
    pub fn redis_name(&self) -> String {
        format!("v1:query:result:{}:{}", self.hash.to_hex(), self.bucket)
    }

    /// The name of the lease under which one pod asks for it.
    pub fn lease_name(&self) -> String {
        format!("v1:query:lease:{}", self.hash.to_hex())
    }
}

/// A range query whose windows share points: at an instant it has the same value in each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Points {
    /// What identifies the points: everything but the window.
    pub key: QueryKey,
    /// Where the points lie.
    pub grid: Grid,
    /// Those that are asked for.
    pub span: Span,
    /// Up to which instant a point may read.
    pub reach: Reach,
}

/// A cacheable request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// What identifies the answer.
    pub key: QueryKey,
    /// How long the answer may be served.
    pub ttl: Duration,
    /// `timeout` as sent: it does not change an answer, but requests with different ones do not wait for each other.
    pub timeout: Option<String>,
    /// Of what the answer can be put together; `None`: it is kept whole.
    pub points: Option<Points>,
    /// Of an instant query: what identifies it whatever its time.
    pub anytime: Option<QueryKey>,
    /// What holds for the datasource.
    pub policy: Arc<Policy>,
    /// How the answer may be used.
    pub class: Class,
    /// The metrics that are read.
    pub names: Arc<Names>,
    /// Where the answer comes from, as [`Source::reference`].
    pub source: Arc<str>,
    /// Answers from before it are of no use: somebody flushed them. Set when the plan is used.
    pub floor: Floor,
}

/// A datasource.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Digest of everything that decides about answers: where it points, with which credentials.
    pub digest: &'a blake3::Hash,
    /// Its place and name: `global/{name}`, `project/{project}/{name}` or `dashboard/{project}/{dashboard}/{name}`.
    pub reference: &'a Arc<str>,
}

impl Plan {
    /// The query whatever its window, as far as that is known.
    pub fn query(&self) -> blake3::Hash {
        self.points.as_ref().map_or(self.key.hash, |points| points.key.hash)
    }
}

/// Parameters that change points, but not with the window.
const OF_POINTS: [&str; 1] = ["lookback_delta"];

/// What a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// The datasource.
    pub source: Source<'a>,
    /// The label whose values are asked for ([`label_in`]).
    pub label: Option<&'a str>,
    /// Parameters of the request.
    pub params: &'a Params,
    /// Headers that may change the answer (tenant, ...), ordered by name.
    pub headers: &'a [(String, String)],
    /// Milliseconds since the epoch.
    pub now_ms: i64,
    /// What holds for the datasource.
    pub policy: &'a Arc<Policy>,
}

impl<'a> Input<'a> {
    fn single(&self, name: &'static str) -> Result<Option<&'a str>, Uncacheable> {
        self.params.single(name).map_err(|_| Uncacheable::Parameter(name))
    }

    /// A time; an empty one is none, as for Prometheus.
    fn time(&self, name: &'static str) -> Result<Option<i64>, Uncacheable> {
        let text = self.single(name)?.filter(|text| !text.is_empty());
        text.map(|text| parse_time(text).ok_or(Uncacheable::Parameter(name))).transpose()
    }

    /// A text that must not be empty.
    fn query(&self) -> Result<&'a str, Uncacheable> {
        self.single("query")?.filter(|query| !query.is_empty()).ok_or(Uncacheable::Parameter("query"))
    }

    /// Adds what is not known to be neutral, as it was sent.
    fn others_into(&self, key: &mut KeyText, known: &[&str]) {
        for (name, value) in self.params.others(known) {
            key.part(name, value);
        }
        for (name, value) in self.headers {
            // By digest: it may be an API key.
            key.part(&format!("header {name}"), blake3::hash(value.as_bytes()).to_hex().as_str());
        }
    }
}

/// Makes the plan; `analyse` is [`super::promql::analyse`], maybe remembered.
pub fn plan<A: AsRef<Analysis>>(input: &Input<'_>, analyse: impl FnOnce(&str) -> A) -> Result<Plan, Uncacheable> {
    match input.endpoint {
        Endpoint::Instant | Endpoint::Range => plan_query(input, analyse),
        _ => metadata::plan(input, analyse),
    }
}

fn plan_query<A: AsRef<Analysis>>(input: &Input<'_>, analyse: impl FnOnce(&str) -> A) -> Result<Plan, Uncacheable> {
    let single = |name: &'static str| input.single(name);
    let required = |name: &'static str| single(name)?.ok_or(Uncacheable::Parameter(name));
    let time = |name: &'static str| input.time(name);
    let must = |name: &'static str, value: Option<i64>| value.ok_or(Uncacheable::Parameter(name));
    if single("stats")?.is_some() {
        return Err(Uncacheable::Stats);
    }
    let analysis = analyse(input.query()?);
    let analysis = analysis.as_ref();

    let mut key = KeyText::new(input.endpoint, input.source);
    key.part("query", &analysis.text);
    let known: &[&str] = match input.endpoint {
        Endpoint::Range => &["query", "start", "end", "step", "timeout"],
        _ => &["query", "time", "timeout"],
    };
    input.others_into(&mut key, known);
    let anytime = (input.endpoint == Endpoint::Instant).then(|| key.clone().finish(0));
    let (newest, points) = if input.endpoint == Endpoint::Range {
        let (start, mut end) = (must("start", time("start")?)?, must("end", time("end")?)?);
        let step = must("step", parse_step(required("step")?))?;
        if start > end {
            return Err(Uncacheable::Parameter("end"));
        }
        key.part("step", &step.to_string());
        let others = input.params.others(known);
        let has_points = !analysis.is_window_bound && others.iter().all(|(name, _)| OF_POINTS.contains(name));
        let points = Grid::of(start, end, step).filter(|_| has_points).map(|(grid, span)| {
            let mut key = key.clone();
            key.part("phase", &grid.phase().to_string());
            end = grid.time(span.last);
            Points { key: key.finish(0), grid, span, reach: analysis.reach }
        });
        key.part("start", &start.to_string());
        key.part("end", &end.to_string());
        (analysis.reach.newest(end), points)
    } else {
        let newest = if let Some(time) = time("time")? {
            key.part("time", &time.to_string());
            analysis.reach.newest(time)
        } else {
            // The seed's 15-second bucket: one answer for all who ask for "now" within it.
            key.part("now", &input.now_ms.div_euclid(BUCKET_MS).to_string());
            None
        };
        (newest, None)
    };
    let ttl = ttl(&input.policy.ttl, newest, input.now_ms);
    if ttl.is_zero() {
        return Err(Uncacheable::Ttl);
    }
    let class = if is_settled(input, newest) {
        Class::Immutable
    } else if points.is_some() || input.endpoint == Endpoint::Instant && !analysis.is_window_bound {
        Class::Pure
    } else {
        Class::WindowBound
    };
    Ok(Plan {
        endpoint: input.endpoint,
        key: key.finish(bucket_of(input, newest)),
        ttl,
        timeout: single("timeout")?.map(str::to_owned),
        points,
        anytime,
        policy: input.policy.clone(),
        class,
        names: analysis.names.clone(),
        source: input.source.reference.clone(),
        floor: Floor::default(),
    })
}

/// Whether the newest instant that is read is older than `query.settled`.
fn is_settled(input: &Input<'_>, newest: Option<i64>) -> bool {
    let settled = i64::try_from(input.policy.settled.as_millis()).unwrap_or(i64::MAX);
    newest.is_some_and(|newest| newest < input.now_ms.saturating_sub(settled))
}

fn bucket_of(input: &Input<'_>, newest: Option<i64>) -> i64 {
    newest.unwrap_or(input.now_ms).div_euclid(BUCKET_MS) * (BUCKET_MS / 1000)
}

/// Parts with their lengths, so that no two lists of parts give one text.
#[derive(Clone)]
struct KeyText(String);

impl KeyText {
    fn new(endpoint: Endpoint, source: Source<'_>) -> Self {
        Self(format!("{} {} {}", endpoint.as_str(), source.digest.to_hex(), source.reference))
    }

    fn part(&mut self, name: &str, value: &str) {
        let _ = write!(self.0, "\n{} {} {name}={value}", name.len(), value.len());
    }

    fn finish(self, bucket: i64) -> QueryKey {
        let hash = blake3::hash(self.0.as_bytes());
        QueryKey { text: self.0, hash, bucket }
    }
}

/// What a key is about, read back from its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About<'a> {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The datasource, as [`Source::reference`].
    pub source: &'a str,
    /// The parts, in their order.
    pub parts: Vec<(&'a str, &'a str)>,
}

impl<'a> About<'a> {
    /// Reads [`QueryKey::text`]; `None` for anything else.
    pub fn read(text: &'a str) -> Option<Self> {
        let (head, mut rest) = text.split_once('\n').unwrap_or((text, ""));
        let mut words = head.splitn(3, ' ');
        let (endpoint, _, source) = (Endpoint::parse(words.next()?)?, words.next()?, words.next()?);
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let (name, after) = rest.split_once(' ')?;
            let (value, after) = after.split_once(' ')?;
            let (name, value) = (name.parse::<usize>().ok()?, value.parse::<usize>().ok()?);
            let (name, after) = after.split_at_checked(name)?;
            let (value, after) = after.strip_prefix('=')?.split_at_checked(value)?;
            parts.push((name, value));
            rest = after.strip_prefix('\n').unwrap_or(after);
        }
        Some(Self { endpoint, source, parts })
    }

    /// The metrics that were read.
    pub fn names<A: AsRef<Analysis>>(&self, analyse: impl FnOnce(&str) -> A) -> Arc<Names> {
        let part = |wanted: &str| self.parts.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
        match part("query") {
            Some(query) => analyse(query).as_ref().names.clone(),
            None => Arc::new(metadata::names_in(&self.parts)),
        }
    }
}

/// A time as Prometheus reads it: seconds since the epoch, rounded to milliseconds, or RFC 3339.
pub(super) fn parse_time(text: &str) -> Option<i64> {
    if let Some(seconds) = parse_float(text) {
        // As Prometheus: whole seconds, and the fraction rounded to milliseconds.
        let (whole, fraction) = (seconds.trunc(), seconds.fract());
        return to_i64(whole)?.checked_mul(1000)?.checked_add(to_i64((fraction * 1000.0).round())?);
    }
    let is_rfc3339 = text.len() >= 20 && text.as_bytes()[10] == b'T' && !text.contains(['[', ' ', ',']);
    if !is_rfc3339 {
        return None;
    }
    let time: Timestamp = text.parse().ok()?;
    // Prometheus cuts nanoseconds off; towards the past for times before the epoch.
    i64::try_from(time.as_nanosecond().div_euclid(1_000_000)).ok()
}

/// A step in milliseconds: seconds, or a Prometheus duration. Fractions of a millisecond are not cached.
pub(super) fn parse_step(text: &str) -> Option<i64> {
    let millis = match parse_float(text) {
        Some(seconds) => {
            let millis = seconds * 1000.0;
            // Exactly a whole number of milliseconds as the nanoseconds that Prometheus computes.
            let nanos = to_i64((seconds * 1e9).trunc())?;
            (nanos % 1_000_000 == 0).then_some(to_i64(millis.round())?)?
        }
        None => i64::try_from(duration::parse(text).ok()?.as_millis()).ok()?,
    };
    (millis > 0).then_some(millis)
}

/// Plain decimal numbers only: both Go and Rust know more forms, and not the same.
fn parse_float(text: &str) -> Option<f64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let plain = !digits.is_empty()
        && digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    if !plain {
        return None;
    }
    text.parse().ok()
}

#[allow(clippy::cast_possible_truncation, reason = "the range is checked")]
fn to_i64(value: f64) -> Option<i64> {
    // 2^53: above it a double no longer counts by ones.
    (value.abs() <= 9_007_199_254_740_992.0).then_some(value as i64)
}

mod metadata;

#[cfg(test)]
mod tests;
