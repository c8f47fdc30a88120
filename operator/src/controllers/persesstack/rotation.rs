//! PURE: generated credentials are replaced while the old ones still count, so that no request fails.
//!
//! The annotation `persesstack.io/rotate-<what>` on the stack asks for it with any new value. How far it is stands in an
//! annotation of the generated Secret itself, which is written in one request with the values of that step: so an operator
//! that dies goes on where the Secret stands. A step ends when the cluster shows that everybody is ready for the next one:
//!
//! | what | steps |
//! |---|---|
//! | redis | Redis takes both passwords; the servers (and of three Redis each other) get the new one; Redis takes that only |
//! | keys | every pod reads with both keys; every pod writes with the new one; a Job re-encrypts; old tokens end |
//! | admin | every pod takes both passwords; a Job stores the new one |
//! | database | a Job gives a second role the new password; pooler or pods sign in with it; a Job locks the first role |
//!
//! That every pod has a value is known from pods that were started after it was written ([`SEEN`] in their template).

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::generated::{ENCRYPTION_KEY, redis_acl};
use super::observed::{JobState, Observed, SecretData, Workloads};
use super::suspension::{Pods, running};
use crate::api::v1alpha1::{DatabaseType, PersesStack, PersesStackSpec};

/// Annotation of a PersesStack, before the word of [`What`]: asks for a rotation by a value that it has not had yet.
pub const REQUEST: &str = "persesstack.io/rotate-";
/// Annotation of a generated Secret: how far its rotation is, in JSON.
pub const STATE: &str = "persesstack.io/rotation";
/// Annotation of a pod template: which state of the Secrets its pods were started after.
pub const SEEN: &str = "persesstack.io/credentials";
/// Annotation of a Job: of which step it is.
pub const JOB: &str = "persesstack.io/rotation-step";

type Data = BTreeMap<String, Vec<u8>>;

/// What can be rotated: one generated Secret each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Password of the first administrator.
    Admin,
    /// Login role of the standalone database.
    Database,
    /// Key of stored secrets and of sign-in tokens.
    Keys,
    /// Password of the stack's own Redis; what its peers sign in to each other with goes along.
    Redis,
}

impl What {
    /// Everything.
    pub const ALL: [Self; 4] = [Self::Admin, Self::Database, Self::Keys, Self::Redis];

    /// The word in the annotation and in messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Database => "database",
            Self::Keys => "keys",
            Self::Redis => "redis",
        }
    }

    /// The steps, in order.
    fn steps(self) -> &'static [Step] {
        match self {
            Self::Admin => &[Step::Accept, Step::Apply, Step::Done],
            Self::Database => &[Step::Apply, Step::Issue, Step::Retire, Step::Done],
            Self::Keys => &[Step::Accept, Step::Issue, Step::Apply, Step::Expire, Step::Done],
            Self::Redis => &[Step::Accept, Step::Issue, Step::Done],
        }
    }
}

/// A step of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Who checks learns the new value beside the old one.
    Accept,
    /// Who signs in, or writes, gets the new value.
    Issue,
    /// A Job brings what is stored to the new value.
    Apply,
    /// What was made with the old value comes to its end.
    Expire,
    /// A Job ends the old value.
    Retire,
    /// Only the new value counts.
    Done,
}

impl Step {
    fn meaning(self) -> &'static str {
        match self {
            Self::Accept => "both the old and the new value are about to count",
            Self::Issue => "the new value goes to those who use it",
            Self::Apply => "a Job brings what is stored to the new value",
            Self::Expire => "sign-ins that were made with the old value come to their end",
            Self::Retire => "a Job ends the old value",
            Self::Done => "only the new value counts",
        }
    }
}

/// How far the rotation of one Secret is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The request that is carried out, or was last.
    pub value: String,
    /// Where it is.
    pub step: Step,
    /// Second since 1970 at which the step began.
    pub since: i64,
    /// Rises when API pods must be started anew to be sure that all have the Secret's values.
    pub api: u32,
    /// Rises likewise for the pods of Redis, or for those that sign in to the database.
    pub own: u32,
}

impl State {
    /// The state that a Secret's annotation tells; `None` when it was never rotated.
    pub fn of(secret: &SecretData) -> Option<Self> {
        secret.rotation.as_deref().and_then(|text| serde_json::from_str(text).ok())
    }

    /// A Secret that is made now has what was asked for until now.
    pub(super) fn made(request: Option<&str>, now: Timestamp) -> Option<Self> {
        request.map(|value| Self { step: Step::Done, ..Self::begun(value, None, now) })
    }

    fn begun(value: &str, before: Option<&Self>, now: Timestamp) -> Self {
        Self {
            value: value.to_owned(),
            step: Step::Done,
            since: now.as_second(),
            api: before.map_or(0, |before| before.api),
            own: before.map_or(0, |before| before.own),
        }
    }

    /// The annotation.
    pub fn text(&self) -> String {
        // Strings and numbers only: this cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Of which Job this step waits; `None` when of none.
    pub fn job(&self, what: What) -> Option<String> {
        let word = match self.step {
            Step::Apply => "apply",
            Step::Retire => "retire",
            Step::Accept | Step::Issue | Step::Expire | Step::Done => return None,
        };
        Some(format!("{} {word} {}", what.word(), self.value))
    }
}

/// The states of all Secrets that were ever rotated, or made with a request.
pub type States = BTreeMap<What, State>;

/// What the templates of pods say of the Secrets that they mount; empty where nothing was ever rotated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// API pods.
    pub api: String,
    /// Redis.
    pub redis: String,
    /// PgBouncer.
    pub pooler: String,
}

impl Seen {
    /// What templates say at these states.
    pub fn at(states: &States, pooler: bool) -> Self {
        let say = |what: What, count: fn(&State) -> u32| {
            let count = states.get(&what).map(count).filter(|count| *count > 0);
            count.map(|count| format!("{}={count}", what.word()))
        };
        let own = |what| say(what, |state| state.own);
        let api = What::ALL.into_iter().filter_map(|what| match what {
            // Behind the pooler the pods have credentials of their own.
            What::Database => own(what).filter(|_| !pooler),
            What::Admin | What::Keys | What::Redis => say(what, |state| state.api),
        });
        Self {
            api: api.collect::<Vec<_>>().join(","),
            redis: own(What::Redis).unwrap_or_default(),
            pooler: own(What::Database).filter(|_| pooler).unwrap_or_default(),
        }
    }
}

/// What the cluster shows of rotations.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// What the template of the API pods says, when those that it wants are ready and all others have ended.
    pub api: Option<String>,
    /// Redis.
    pub redis: Option<String>,
    /// PgBouncer.
    pub pooler: Option<String>,
    /// Jobs by [`JOB`].
    pub jobs: BTreeMap<String, JobState>,
    /// The time of the look.
    pub now: Timestamp,
}

/// What decides how rotations go on.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What the cluster shows.
    pub evidence: &'a Evidence,
    /// What templates would say at the states that were found.
    pub expected: &'a Seen,
    /// PgBouncer stands between the API pods and the database.
    pub pooler: bool,
    /// Seconds after which no sign-in counts any more that was made before.
    pub tokens_live: i64,
    /// Nothing goes on while the stack sleeps.
    pub awake: bool,
}

impl View<'_> {
    fn is_over(&self, what: What, state: &State) -> bool {
        let Self { evidence, expected, .. } = self;
        let api = || evidence.api.as_ref() == Some(&expected.api);
        let redis = || evidence.redis.as_ref() == Some(&expected.redis);
        match (what, state.step) {
            (_, Step::Done) => false,
            (What::Redis, Step::Accept) => redis(),
            (What::Redis, Step::Issue) => api() && redis(),
            (What::Database, Step::Issue) if self.pooler => evidence.pooler.as_ref() == Some(&expected.pooler),
            (_, Step::Accept | Step::Issue) => api(),
            (_, Step::Expire) => state.since.saturating_add(self.tokens_live) <= evidence.now.as_second(),
            (_, Step::Apply | Step::Retire) => {
                let job = state.job(what).and_then(|job| evidence.jobs.get(&job));
                job.is_some_and(|job| job.complete)
            }
        }
    }
}

/// One step further where that is asked for and the step before is over: the new state, and with it the new values.
pub(super) fn advance(
    what: What,
    found: Option<State>,
    request: Option<&str>,
    data: &mut Data,
    fresh: Vec<u8>,
    view: &View<'_>,
) -> Option<State> {
    let at_rest = found.as_ref().is_none_or(|state| state.step == Step::Done);
    let (mut state, next) = if at_rest {
        let asked = request.filter(|value| found.as_ref().is_none_or(|state| state.value != *value));
        match (asked, what.steps().first()) {
            (Some(value), Some(first)) if view.awake => {
                (State::begun(value, found.as_ref(), view.evidence.now), *first)
            }
            _ => return found,
        }
    } else {
        let state = found?;
        let mut rest = what.steps().iter().skip_while(|step| **step != state.step).skip(1);
        match rest.next() {
            Some(next) if view.awake && view.is_over(what, &state) => (state, *next),
            _ => return Some(state),
        }
    };
    state.since = view.evidence.now.as_second();
    state.step = next;
    enter(what, &mut state, data, fresh);
    Some(state)
}

/// What a Secret holds from this step on. Keys that pods name in their configuration stay when a rotation is done, so that
/// it costs no further start of pods: they then hold the one value that counts.
fn enter(what: What, state: &mut State, data: &mut Data, fresh: Vec<u8>) {
    let text = |data: &Data, key: &str| data.get(key).cloned().unwrap_or_default();
    let set = |data: &mut Data, key: &str, value: Vec<u8>| drop(data.insert(key.to_owned(), value));
    match (what, state.step) {
        (What::Redis, Step::Accept) => {
            let acl = redis_acl(&text(data, "username"), &[&fresh, &text(data, "password")]);
            set(data, "users.acl", acl);
            set(data, NEXT_PASSWORD, fresh);
            state.own += 1;
        }
        (What::Redis, Step::Issue) => {
            set(data, "password", text(data, NEXT_PASSWORD));
            state.api += 1;
        }
        (What::Redis, Step::Done) => {
            let acl = redis_acl(&text(data, "username"), &[&text(data, "password")]);
            set(data, "users.acl", acl);
            state.own += 1;
        }
        // The two that may be read with stay as they are while the one that is written with changes: whoever reads the
        // files one after the other, in the middle of that, has both keys all the same.
        (What::Keys, Step::Accept) => {
            set(data, PREVIOUS_KEY, text(data, ENCRYPTION_KEY));
            set(data, NEXT_KEY, fresh);
            state.api += 1;
        }
        (What::Keys, Step::Issue) => {
            set(data, ENCRYPTION_KEY, text(data, NEXT_KEY));
            state.api += 1;
        }
        (What::Keys, Step::Done) => set(data, PREVIOUS_KEY, text(data, ENCRYPTION_KEY)),
        (What::Admin, Step::Accept) => {
            set(data, PREVIOUS_PASSWORD, text(data, "password"));
            set(data, NEXT_PASSWORD, fresh);
            state.api += 1;
        }
        (What::Admin, Step::Apply) => set(data, "password", text(data, NEXT_PASSWORD)),
        (What::Admin, Step::Done) => set(data, PREVIOUS_PASSWORD, text(data, "password")),
        // The role that rests changes its own password, and so does the one that goes to rest: that needs no right.
        (What::Database, Step::Apply) => {
            let other = other_role(&String::from_utf8_lossy(&text(data, "user")));
            set(data, OTHER_USER, other.into_bytes());
            set(data, KNOWN_PASSWORD, text(data, OTHER_PASSWORD));
            set(data, OTHER_PASSWORD, fresh);
        }
        (What::Database, Step::Issue) => {
            let (user, password) = (text(data, "user"), text(data, "password"));
            let started = format!("{} {}", digest(&text(data, OTHER_PASSWORD)), seed(data));
            set(data, SEED, started.into_bytes());
            set(data, "user", text(data, OTHER_USER));
            set(data, "password", text(data, OTHER_PASSWORD));
            set(data, OTHER_USER, user);
            set(data, KNOWN_PASSWORD, password);
            set(data, OTHER_PASSWORD, fresh);
            state.own += 1;
        }
        (What::Database, Step::Done) => set(data, KNOWN_PASSWORD, text(data, OTHER_PASSWORD)),
        (_, Step::Accept | Step::Issue | Step::Apply | Step::Expire | Step::Retire) => {}
    }
}

/// Key of the value that comes, of Redis and of the administrator.
pub const NEXT_PASSWORD: &str = "next-password";
/// Key of the value that was before, of the administrator.
pub const PREVIOUS_PASSWORD: &str = "previous-password";
/// Keys with which may be read, beside the one that is written with.
pub const NEXT_KEY: &str = "next-encryption-key";
/// The one before.
pub const PREVIOUS_KEY: &str = "previous-encryption-key";
/// The login role that nobody uses now.
pub const OTHER_USER: &str = "other-user";
/// Its password, or the one that it is about to get.
pub const OTHER_PASSWORD: &str = "other-password";
/// The one that it has had until now; empty when there is no such role yet.
pub const KNOWN_PASSWORD: &str = "other-password-until-now";
/// For which password the pod of the database was started, and that the present one was set without a start.
const SEED: &str = "started-for";

/// The two login roles take turns.
fn other_role(user: &str) -> String {
    user.strip_suffix("_b").map_or_else(|| format!("{user}_b"), str::to_owned)
}

/// Stands for the password with which the database's pod was started: a rotation changes the password without a start, an
/// edit by hand takes effect by one.
pub(super) fn seed(data: &Data) -> String {
    let present = digest(data.get("password").map(Vec::as_slice).unwrap_or_default());
    let noted = data.get(SEED).and_then(|text| std::str::from_utf8(text).ok()?.split_once(' '));
    match noted {
        Some((of, started)) if of == present => started.to_owned(),
        _ => present,
    }
}

fn digest(value: &[u8]) -> String {
    blake3::hash(value).to_hex()[..16].to_owned()
}

/// In how many seconds it is worth looking again: of a pod that ends nobody tells the operator, and of the time neither.
/// `None` while no rotation is under way.
pub(super) fn look_again(states: &States, tokens_live: i64, now: Timestamp) -> Option<u64> {
    const SOON: i64 = 5;
    let wait = |state: &State| match state.step {
        Step::Done => None,
        Step::Expire => Some(state.since.saturating_add(tokens_live).saturating_sub(now.as_second()).max(1)),
        Step::Accept | Step::Apply | Step::Issue | Step::Retire => Some(SOON),
    };
    states.values().filter_map(wait).min().and_then(|seconds| u64::try_from(seconds).ok())
}

/// What is asked for.
pub(super) fn request(stack: &PersesStack, what: What) -> Option<&str> {
    let value = stack.metadata.annotations.as_ref()?.get(&format!("{REQUEST}{}", what.word()))?;
    Some(value.as_str()).filter(|value| !value.is_empty())
}

/// Whether rotations go on: nothing changes for pods that sleep or are on their way.
pub(super) fn awake(spec: &PersesStackSpec, workloads: &Workloads) -> bool {
    let running = running(spec.suspend, workloads);
    running.api == Pods::Run && !running.wakes_api && !running.holds_migration
}

/// What is said of all rotations: a reason and a text; `None` where none was ever asked for.
pub(super) fn summary(
    stack: &PersesStack,
    database_type: DatabaseType,
    states: &States,
    observed: &Observed,
) -> Option<(&'static str, String)> {
    let jobs = &observed.rotation.jobs;
    let refused = refused(stack, database_type);
    let going: Vec<_> = states.iter().filter(|(_, state)| state.step != Step::Done).collect();
    let failed = going.iter().find_map(|(what, state)| jobs.get(&state.job(**what)?)?.failed.as_ref());
    let lines = states
        .iter()
        .map(|(what, state)| format!("{} (\"{}\"): {}", what.word(), state.value, state.step.meaning()))
        .chain(refused.iter().cloned());
    let text = lines.collect::<Vec<_>>().join("; ");
    Some(match (failed, going.is_empty(), refused.is_empty()) {
        (Some(message), ..) => {
            let text = format!("a Job failed: {message}; look at its pod's log. It is tried again. {text}");
            ("RotationFailed", text)
        }
        (None, false, _) if !awake(&stack.spec, &observed.workloads) => {
            ("RotationWaits", format!("goes on when the stack is awake. {text}"))
        }
        (None, false, _) => ("RotationStarted", text),
        (None, true, false) => ("RotationRefused", text),
        (None, true, true) if states.is_empty() => return None,
        (None, true, true) => ("RotationCompleted", text),
    })
}

/// Requests that are not the operator's to carry out.
fn refused(stack: &PersesStack, database_type: DatabaseType) -> Vec<String> {
    let annotations = stack.metadata.annotations.iter().flatten();
    let asked = annotations.filter(|(_, value)| !value.is_empty()).filter_map(|(key, _)| key.strip_prefix(REQUEST));
    let why = |word: &str| match What::ALL.into_iter().find(|what| what.word() == word) {
        None => Some("there is no such credential: admin, database, keys and redis can be rotated"),
        Some(What::Database) if database_type != DatabaseType::Standalone => {
            Some("its credentials are made by somebody else; the stack follows their Secret (docs/rotation.md)")
        }
        Some(What::Redis) if !stack.spec.cache.type_.is_own() => {
            Some("there is no Redis of this stack; a changed Secret of an external one is followed")
        }
        Some(_) => None,
    };
    asked.filter_map(|word| why(word).map(|why| format!("{word}: not rotated, {why}"))).collect()
}

#[cfg(test)]
mod tests;
