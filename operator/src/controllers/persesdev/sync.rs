//! One resource and one server (I/O): read, compare, write only what differs.

use super::condition::Outcome;
use super::credentials::fingerprint;
use super::document::{Document, Place, Verdict, is_marked, judge};
use super::server::{Fault, Look, Server, Stored};
use crate::metrics::Metrics;

/// Attempts when somebody else writes in between.
const ATTEMPTS: usize = 3;

/// What a resource should be in a server.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Its document.
    pub(super) document: Document,
    /// The place of its credentials and the spec of the secret; no spec means that there must be none of ours.
    pub(super) secret: Option<(Place, Option<serde_json::Value>)>,
}

/// Brings a server to what is wanted. Credentials come before the datasource that names them.
pub(super) async fn bring(server: &Server<'_>, wanted: &Wanted, metrics: &Metrics) -> Outcome {
    match everything(server, wanted, metrics).await {
        Ok(outcome) => outcome,
        Err(fault) => failed(fault),
    }
}

async fn everything(server: &Server<'_>, wanted: &Wanted, metrics: &Metrics) -> Result<Outcome, Fault> {
    if let Some((place, spec)) = &wanted.secret {
        let outcome = match spec {
            Some(spec) => {
                let secret = Document {
                    place: place.clone(),
                    tags: [].into(),
                    spec: spec.clone(),
                    adopt: wanted.document.adopt,
                    fingerprint: Some(fingerprint(spec, &server.seal().await?)),
                };
                write(server, &secret, metrics).await?
            }
            None => Outcome::Synced,
        };
        if outcome != Outcome::Synced {
            return Ok(outcome);
        }
    }
    let outcome = write(server, &wanted.document, metrics).await?;
    // Credentials that are not wanted any more go after the datasource that named them.
    if let (Outcome::Synced, Some((place, None))) = (&outcome, &wanted.secret) {
        remove(server, place, metrics).await?;
    }
    Ok(outcome)
}

/// Writes one document when it differs.
async fn write(server: &Server<'_>, wanted: &Document, metrics: &Metrics) -> Result<Outcome, Fault> {
    let (place, digest) = (&wanted.place, wanted.digest());
    for _ in 0..ATTEMPTS {
        let result = match server.look(place, &digest).await? {
            Look::Unchanged => return Ok(Outcome::Synced),
            Look::Absent => create(server, wanted, metrics).await,
            Look::Stored(stored) => match judge(wanted, &stored.value) {
                Verdict::Same => Ok(stored.etag),
                Verdict::Foreign => return Ok(taken(place)),
                Verdict::Update(version) => {
                    counted(metrics, place, "update", server.update(place, &stored.etag, &wanted.body(version)).await)
                }
            },
        };
        match result {
            Ok(etag) => {
                server.in_place(place, etag, digest);
                return Ok(Outcome::Synced);
            }
            Err(Fault::Changed) => {}
            Err(fault) => return Err(fault),
        }
    }
    Err(Fault::Unreachable(format!("{} is written by somebody else all the time", place.describe())))
}

async fn create(server: &Server<'_>, wanted: &Document, metrics: &Metrics) -> Result<String, Fault> {
    if let Some(project) = &wanted.place.project {
        let project = Document::project(project);
        if let Look::Absent = server.look(&project.place, "").await? {
            match counted(metrics, &project.place, "create", server.create(&project.place, &project.body(0)).await) {
                Ok(_) | Err(Fault::Changed) => {}
                Err(fault) => return Err(fault),
            }
        }
    }
    counted(metrics, &wanted.place, "create", server.create(&wanted.place, &wanted.body(0)).await)
}

/// Removes the copies of a resource: the document, then its credentials.
pub(super) async fn clear(server: &Server<'_>, places: &[Place], metrics: &Metrics) -> Result<(), Fault> {
    for place in places {
        remove(server, place, metrics).await?;
    }
    Ok(())
}

/// Removes a document when it is a copy; what has no mark of ours stays.
pub(super) async fn remove(server: &Server<'_>, place: &Place, metrics: &Metrics) -> Result<(), Fault> {
    for _ in 0..ATTEMPTS {
        let Look::Stored(Stored { value, etag }) = server.look(place, "").await? else { return Ok(()) };
        if !is_marked(place, &value) {
            return Ok(());
        }
        match counted(metrics, place, "delete", server.delete(place, &etag).await) {
            Err(Fault::Changed) => {}
            result => return result,
        }
    }
    Err(Fault::Unreachable(format!("{} is written by somebody else all the time", place.describe())))
}

fn counted<T>(metrics: &Metrics, place: &Place, verb: &'static str, result: Result<T, Fault>) -> Result<T, Fault> {
    metrics.synced(place.kind.name(), verb, if result.is_ok() { "changed" } else { "error" });
    match &result {
        Ok(_) => tracing::info!(document = place.describe(), verb, "synced"),
        Err(fault) => tracing::debug!(document = place.describe(), verb, ?fault, "not synced"),
    }
    result
}

fn taken(place: &Place) -> Outcome {
    Outcome::NameTaken(format!(
        "{} exists and is no copy of this resource: delete or rename it there, or let this resource take it over with the \
         annotation persesstack.io/adopt: \"true\"",
        place.describe()
    ))
}

/// A fault as people see it. PURE.
fn failed(fault: Fault) -> Outcome {
    match fault {
        Fault::Unreachable(text) => Outcome::Unreachable(text),
        Fault::SignIn(text) => Outcome::SignInFailed(text),
        Fault::Refused(text) => Outcome::Refused(text),
        Fault::NotFound => Outcome::Refused("404: the server has no such route".to_owned()),
        Fault::Changed => Outcome::Unreachable("somebody else wrote at the same time".to_owned()),
    }
}
