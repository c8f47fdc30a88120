//! Metrics of the operator, in the Prometheus text format. Labels are bounded: kinds, verbs and categories, never messages.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    kind: &'static str,
    verb: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StackLabels {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReplicaLabels {
    namespace: String,
    name: String,
    state: &'static str,
}

/// All metrics; clones share the values.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    reconciles: Family<ResultLabel, Counter>,
    reconcile_seconds: Histogram,
    writes: Family<WriteLabels, Counter>,
    synced: Family<WriteLabels, Counter>,
    leader: Gauge,
    time_to_ready: Histogram,
    ready: Family<StackLabels, Gauge>,
    replicas: Family<ReplicaLabels, Gauge>,
    watch_errors: Counter,
    sizing_users: Family<StackLabels, Gauge<f64, AtomicU64>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics with a registry of their own.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("persesstack");
        let mut inner = Inner {
            reconciles: Family::default(),
            reconcile_seconds: Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]),
            writes: Family::default(),
            synced: Family::default(),
            leader: Gauge::default(),
            time_to_ready: Histogram::new([5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0]),
            ready: Family::default(),
            replicas: Family::default(),
            watch_errors: Counter::default(),
            sizing_users: Family::default(),
            registry: Registry::default(),
        };
        registry.register("reconciles", "Reconciles by result", inner.reconciles.clone());
        registry.register_with_unit(
            "reconcile_duration",
            "Duration of one reconcile",
            Unit::Seconds,
            inner.reconcile_seconds.clone(),
        );
        registry.register(
            "writes",
            "Write requests to the Kubernetes API by kind, verb and result",
            inner.writes.clone(),
        );
        registry.register(
            "synced_writes",
            "Write requests to the servers of stacks for resources of perses.dev by kind, verb and result",
            inner.synced.clone(),
        );
        registry.register("leader", "1 while this process holds the lease", inner.leader.clone());
        registry.register_with_unit(
            "time_to_ready",
            "Time from the creation of a stack to its first Ready=True",
            Unit::Seconds,
            inner.time_to_ready.clone(),
        );
        registry.register("ready", "1 while the stack is Ready", inner.ready.clone());
        registry.register("api_replicas", "API pods as the autoscaler sees them", inner.replicas.clone());
        registry.register("watch_errors", "Watches that ended with an error", inner.watch_errors.clone());
        registry.register("users", "Declared users of the stack", inner.sizing_users.clone());
        inner.registry = registry;
        Self(Arc::new(inner))
    }

    /// A reconcile ended; `result` is a bounded word such as `ok`, `waiting`, `invalid`, `error`.
    pub fn reconciled(&self, result: &'static str, took: Duration) {
        self.0.reconciles.get_or_create(&ResultLabel { result }).inc();
        self.0.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// A write request was answered; `result` is `changed`, `noop` or `error`.
    pub fn wrote(&self, kind: &'static str, verb: &'static str, result: &'static str) {
        self.0.writes.get_or_create(&WriteLabels { kind, verb, result }).inc();
    }

    /// Write requests so far, whatever their result.
    pub fn writes_total(&self, kind: &'static str, verb: &'static str, result: &'static str) -> u64 {
        self.0.writes.get_or_create(&WriteLabels { kind, verb, result }).get()
    }

    /// A write request to the server of a stack was answered; `result` is `changed` or `error`.
    pub fn synced(&self, kind: &'static str, verb: &'static str, result: &'static str) {
        self.0.synced.get_or_create(&WriteLabels { kind, verb, result }).inc();
    }

    /// Whether this process leads.
    pub fn leads(&self, leads: bool) {
        self.0.leader.set(i64::from(leads));
    }

    /// A stack became Ready for the first time.
    pub fn became_ready(&self, after: Duration) {
        self.0.time_to_ready.observe(after.as_secs_f64());
    }

    /// State of one stack.
    pub fn stack(&self, namespace: &str, name: &str, users: i32, ready: bool, current: i32, desired: i32) {
        let labels = StackLabels { namespace: namespace.to_owned(), name: name.to_owned() };
        self.0.ready.get_or_create(&labels).set(i64::from(ready));
        self.0.sizing_users.get_or_create(&labels).set(f64::from(users));
        for (state, value) in [("current", current), ("desired", desired)] {
            let labels = ReplicaLabels { namespace: namespace.to_owned(), name: name.to_owned(), state };
            self.0.replicas.get_or_create(&labels).set(i64::from(value));
        }
    }

    /// A stack is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        let labels = StackLabels { namespace: namespace.to_owned(), name: name.to_owned() };
        self.0.ready.remove(&labels);
        self.0.sizing_users.remove(&labels);
        for state in ["current", "desired"] {
            self.0.replicas.remove(&ReplicaLabels { namespace: namespace.to_owned(), name: name.to_owned(), state });
        }
    }

    /// A watch ended with an error and is started again.
    pub fn watch_failed(&self) {
        self.0.watch_errors.inc();
    }

    /// The text of `/metrics`.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.0.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_documented_ones() {
        let metrics = Metrics::new();
        metrics.reconciled("ok", Duration::from_millis(20));
        metrics.wrote("Deployment", "apply", "changed");
        metrics.stack("a", "b", 500, true, 3, 4);
        let text = metrics.text();
        for line in [
            r#"persesstack_reconciles_total{result="ok"} 1"#,
            r#"persesstack_writes_total{kind="Deployment",verb="apply",result="changed"} 1"#,
            r#"persesstack_ready{namespace="a",name="b"} 1"#,
            r#"persesstack_api_replicas{namespace="a",name="b",state="desired"} 4"#,
            "persesstack_reconcile_duration_seconds_count 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        metrics.forget("a", "b");
        assert!(!metrics.text().contains(r#"name="b""#));
    }
}
