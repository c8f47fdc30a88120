//! Which of several operator processes acts: a Lease in the operator's own namespace.
//!
//! Rules: every write carries the resource version that was read, so of two candidates one wins. The clock of the other
//! process is never believed: a foreign lease counts as expired when it has not changed for its duration on *our* clock.
//! The holder counts its own time from *before* each renewal was sent, and stops acting after the renew deadline, which
//! is shorter than the duration: by the time another may take over, it has been idle for the difference.
//!
//! Own code because the crate for kube 5 (kube-lease-manager 0.13) goes on leading while renewals fail and frees an
//! expired lease with an unconditional patch.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use tokio::time::{Instant, sleep, timeout_at};

/// Periods of the election.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// After this time without a renewal another process may take over.
    pub duration: Duration,
    /// After this time without a confirmed renewal the holder stops acting. Less than `duration`.
    pub renew_deadline: Duration,
    /// Pause between two attempts to acquire or renew.
    pub retry: Duration,
}

/// When a holder dies, another acts after 12 s at most: the duration, one pause until the holder's last renewal was seen,
/// and one until the next look.
impl Default for Timing {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(10),
            renew_deadline: Duration::from_secs(7),
            retry: Duration::from_secs(1),
        }
    }
}

/// A candidate.
#[derive(Clone)]
pub struct Elector {
    leases: Api<Lease>,
    name: String,
    identity: String,
    timing: Timing,
}

/// Proof of leadership: the lease as we wrote it last, and until when we may act.
#[derive(Debug)]
pub struct Term {
    lease: Lease,
    until: Instant,
}

/// What another holder wrote, and since when on our clock.
struct Sighting {
    version: Option<String>,
    since: Instant,
}

impl Elector {
    /// A candidate called `identity` (unique among the processes) for the lease `name` in `namespace`.
    pub fn new(client: kube::Client, namespace: &str, name: &str, identity: &str, timing: Timing) -> Self {
        let leases = Api::namespaced(client, namespace);
        Self { leases, name: name.to_owned(), identity: identity.to_owned(), timing }
    }

    /// Waits until this process leads. Failed requests are logged and repeated.
    pub async fn acquire(&self) -> Term {
        let mut sighting = None;
        loop {
            match self.try_acquire(&mut sighting).await {
                Ok(Some(term)) => return term,
                Ok(None) => {}
                Err(error) if is_lost_race(&error) => tracing::debug!("another process took the lease"),
                Err(error) => tracing::warn!(error = %Chain(&error), lease = self.name, "cannot acquire the lease"),
            }
            sleep(self.timing.retry).await;
        }
    }

    async fn try_acquire(&self, sighting: &mut Option<Sighting>) -> kube::Result<Option<Term>> {
        let sent = Instant::now();
        let Some(lease) = self.leases.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(None)) };
            let lease = self.leases.create(&PostParams::default(), &lease).await?;
            return Ok(Some(self.term(lease, sent)));
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if !holder.is_empty() && holder != self.identity && !self.expired(&lease, &spec, sighting) {
            return Ok(None);
        }
        let lease = self.write(&lease, self.spec(Some(&spec))).await?;
        Ok(Some(self.term(lease, sent)))
    }

    /// Whether a foreign lease has stood still for its duration.
    fn expired(&self, lease: &Lease, spec: &LeaseSpec, sighting: &mut Option<Sighting>) -> bool {
        let version = lease.metadata.resource_version.clone();
        match sighting {
            Some(seen) if seen.version == version => {
                let declared = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
                let duration = declared.map_or(self.timing.duration, Duration::from_secs);
                seen.since.elapsed() > duration
            }
            _ => {
                *sighting = Some(Sighting { version, since: Instant::now() });
                false
            }
        }
    }

    /// Renews until that fails for too long or another process holds the lease; then this process must not act any more.
    pub async fn hold(&self, mut term: Term) {
        loop {
            sleep(self.timing.retry).await;
            let sent = Instant::now();
            let spec = self.spec(term.lease.spec.as_ref());
            match timeout_at(term.until, self.write(&term.lease, spec)).await {
                Ok(Ok(lease)) => term = self.term(lease, sent),
                Ok(Err(error)) if is_lost_race(&error) => match timeout_at(term.until, self.reread()).await {
                    // An earlier renewal was committed and its answer lost, or somebody edited the lease: still ours.
                    Ok(Ok(Some(lease))) => term.lease = lease,
                    Ok(Ok(None)) => {
                        tracing::warn!(lease = self.name, "another process holds the lease");
                        return;
                    }
                    Ok(Err(_)) | Err(_) => {}
                },
                Ok(Err(error)) => tracing::warn!(error = %Chain(&error), lease = self.name, "cannot renew the lease"),
                Err(_) => {}
            }
            if Instant::now() >= term.until {
                tracing::error!(lease = self.name, "the lease could not be renewed in time");
                return;
            }
        }
    }

    /// The lease if it is still ours.
    async fn reread(&self) -> kube::Result<Option<Lease>> {
        let lease = self.leases.get_opt(&self.name).await?;
        let ours = |lease: &Lease| {
            lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) == Some(self.identity.as_str())
        };
        Ok(lease.filter(ours))
    }

    /// Gives the lease up, so that a successor need not wait for it to expire.
    pub async fn release(&self) -> kube::Result<()> {
        let Some(lease) = self.reread().await? else { return Ok(()) };
        let mut spec = lease.spec.clone().unwrap_or_default();
        spec.holder_identity = None;
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        self.write(&lease, spec).await.map(drop)
    }

    async fn write(&self, read: &Lease, spec: LeaseSpec) -> kube::Result<Lease> {
        let mut lease = read.clone();
        lease.metadata.managed_fields = None;
        lease.spec = Some(spec);
        // A replace with the resource version that was read: refused with 409 if the lease has changed since.
        self.leases.replace(&self.name, &PostParams::default(), &lease).await
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let renewed = before.filter(|spec| spec.holder_identity.as_deref() == Some(self.identity.as_str()));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.timing.duration.as_secs().max(1)).ok(),
            acquire_time: renewed.map_or_else(|| Some(now.clone()), |spec| spec.acquire_time.clone()),
            lease_transitions: Some(if renewed.is_some() || before.is_none() { transitions } else { transitions + 1 }),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }
    }

    fn term(&self, lease: Lease, sent: Instant) -> Term {
        Term { lease, until: sent + self.timing.renew_deadline }
    }
}

/// 409: somebody else wrote first.
fn is_lost_race(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict() || status.is_already_exists())
}

/// An error with its causes, for logs.
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = self.0.to_string();
        f.write_str(&text)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let next = error.to_string();
            // Many errors repeat their cause in their own text.
            if !text.contains(&next) {
                write!(f, ": {next}")?;
            }
            text = next;
            cause = error.source();
        }
        Ok(())
    }
}
