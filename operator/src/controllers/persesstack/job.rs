//! PURE: what a Job says about its work: that of a migration about the schema, that of a rotation about its step.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::Timestamp;

use super::rotation::JOB as STEP;
use crate::apply::inventory::Inventory;
use crate::apply::kind::Kind;

/// A failed Job is started again after this time.
const RETRY: Duration = Duration::from_mins(1);

/// What follows for those who need the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is done.
    Ready,
    /// The Job is not there, runs, or is on its way out.
    Wait,
    /// It failed; so long until it is started again.
    RetryIn(Duration),
    /// It is to be deleted, so that it is started again.
    Again,
}

/// Judges the Job of this name.
pub(super) fn judge(inventory: &Inventory, name: &str, now: Timestamp) -> Verdict {
    let Some(job) = inventory.typed::<Job>(Kind::Job, name) else { return Verdict::Wait };
    if job.metadata.deletion_timestamp.is_some() {
        return Verdict::Wait;
    }
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is = |type_: &str| conditions.clone().find(|found| found.type_ == type_ && found.status == "True");
    if is("Complete").is_some() {
        // What it found is no longer sure when another image has worked on the schema since.
        return if outlived(inventory, name, &job) { Verdict::Again } else { Verdict::Ready };
    }
    let Some(failed) = is("Failed") else { return Verdict::Wait };
    let since = failed.last_transition_time.as_ref().map_or(now, |time| time.0);
    let age = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    RETRY.checked_sub(age).map_or(Verdict::Again, |left| Verdict::RetryIn(left.max(Duration::from_secs(1))))
}

/// Whether a Job of another migration was made later. Times have seconds: of two in one, the later name counts as later, so
/// that never both are outlived.
fn outlived(inventory: &Inventory, name: &str, job: &Job) -> bool {
    let migrates = |job: &Job| !job.metadata.annotations.as_ref().is_some_and(|found| found.contains_key(STEP));
    if !migrates(job) {
        return false;
    }
    let made = |job: &Job| job.metadata.creation_timestamp.as_ref().map(|time| time.0);
    inventory.of_kind(Kind::Job).any(|(other, _)| {
        let later = inventory.typed::<Job>(Kind::Job, other).filter(migrates);
        let later = later.map(|found| (made(&found), other.to_owned()));
        later.is_some_and(|later| later > (made(job), name.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(made: &str, condition: &str) -> Value {
        json!({"metadata": {"creationTimestamp": made}, "spec": {"template": {}}, "status": {"conditions": [
            {"type": condition, "status": "True", "lastTransitionTime": "2026-01-01T00:01:00Z"}]}})
    }

    fn judged(jobs: &[(&str, Value)], name: &str) -> Verdict {
        let mut inventory = Inventory::default();
        for (name, job) in jobs {
            inventory.insert(Kind::Job, name, job.clone());
        }
        judge(&inventory, name, "2026-01-01T00:01:20Z".parse().unwrap())
    }

    #[test]
    fn only_a_job_that_completed_and_stays_lets_pods_start() {
        let complete = job("2026-01-01T00:00:00Z", "Complete");
        assert_eq!(judged(&[("a", complete.clone())], "a"), Verdict::Ready);
        assert_eq!(judged(&[], "a"), Verdict::Wait);
        assert_eq!(judged(&[("a", job("2026-01-01T00:00:00Z", "Suspended"))], "a"), Verdict::Wait);
        let mut leaving = complete;
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:01:00Z");
        assert_eq!(judged(&[("a", leaving)], "a"), Verdict::Wait);
    }

    #[test]
    fn a_failed_one_is_started_again_after_a_minute() {
        let mut failed = job("2026-01-01T00:00:00Z", "Failed");
        assert_eq!(judged(&[("a", failed.clone())], "a"), Verdict::RetryIn(Duration::from_secs(40)));
        failed["status"]["conditions"][0]["lastTransitionTime"] = json!("2026-01-01T00:00:10Z");
        assert_eq!(judged(&[("a", failed)], "a"), Verdict::Again);
    }

    #[test]
    fn the_job_of_an_earlier_image_is_asked_again_when_a_later_one_has_been_at_work() {
        let (old, new) = (job("2026-01-01T00:00:00Z", "Complete"), job("2026-01-01T00:00:30Z", "Complete"));
        let both = [("b", old.clone()), ("a", new)];
        assert_eq!((judged(&both, "b"), judged(&both, "a")), (Verdict::Again, Verdict::Ready));
        let same = [("a", old.clone()), ("b", old.clone())];
        assert_eq!((judged(&same, "a"), judged(&same, "b")), (Verdict::Again, Verdict::Ready));
        // The Job of a rotation says nothing about the schema.
        let mut step = job("2026-01-01T00:00:40Z", "Complete");
        step["metadata"]["annotations"] = json!({STEP: "keys/1"});
        let with_step = [("a", old), ("c", step)];
        assert_eq!((judged(&with_step, "a"), judged(&with_step, "c")), (Verdict::Ready, Verdict::Ready));
    }
}
