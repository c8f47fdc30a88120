//! What Prometheus needs to watch a stack, in the resources of the Prometheus operator: where to scrape, and what to alert on.

mod dashboard;
mod rules;
mod slo;

use serde_json::{Value, json};

use self::rules::Labels;
use super::account::SERVICE_AUTHORITY_KEY;
use super::labels::{self, Component};
use super::names::Names;
use super::{Monitoring, exporter, meta};
use crate::api::v1alpha1::{PoolerType, ServingTlsType};
use crate::apply::kind::Kind;
use crate::controllers::persesstack::validate::Validated;

pub use self::dashboard::documents as dashboard_documents;
pub use self::rules::alert_names;

/// How often pods are scraped (seed section 6).
const INTERVAL: &str = "15s";

/// Which series belong to a stack: the ones that the ServiceMonitor's targets have, after the Prometheus operator's labels.
#[derive(Clone, Debug)]
pub struct Scope {
    namespace: String,
    stack: String,
    /// Names of the Services.
    job: String,
    pooler: String,
    cache: String,
}

impl Scope {
    /// The series of one stack.
    pub fn new(namespace: &str, stack: &str) -> Self {
        let names = Names::new(stack);
        Self {
            namespace: namespace.to_owned(),
            stack: stack.to_owned(),
            job: names.api(),
            pooler: names.pgbouncer(),
            cache: names.redis(),
        }
    }

    /// A selector of a metric, with more matchers. Recorded series carry the stack's labels instead of the target's.
    fn select(&self, metric: &str, filter: &str) -> String {
        let own = if metric.contains(':') {
            format!(r#"namespace="{}",stack="{}""#, self.namespace, self.stack)
        } else {
            format!(r#"namespace="{}",job="{}""#, self.namespace, self.job)
        };
        let and = if filter.is_empty() { "" } else { "," };
        format!("{metric}{{{own}{and}{filter}}}")
    }

    /// A selector of a metric of the exporters behind one Service.
    fn exported(&self, job: &str, metric: &str) -> String {
        format!(r#"{metric}{{namespace="{}",job="{job}"}}"#, self.namespace)
    }

    /// Labels of every rule.
    fn labels(&self) -> Labels {
        [("namespace", self.namespace.clone()), ("stack", self.stack.clone())].into()
    }
}

/// What the choice asks for.
pub(super) fn build(v: &Validated) -> Monitoring {
    let metadata = |name: String, component: Component| {
        let mut metadata = meta::owned(v, name, component);
        let mut all = v.spec.monitoring.labels.clone();
        // Ours last: watches and clean-up select on them.
        all.extend(metadata.labels.take().unwrap_or_default());
        metadata.labels = Some(all);
        metadata
    };
    let monitors = || {
        let api = meta::custom(Kind::ServiceMonitor, metadata(v.names.api(), Component::Api), &service_monitor(v));
        let beside = exporters(v).into_iter().map(|(name, component)| {
            meta::custom(Kind::ServiceMonitor, metadata(name, component), &exporter_monitor(v, component))
        });
        std::iter::once(api).chain(beside).collect()
    };
    let instances = || meta::custom(Kind::PodMonitor, metadata(v.names.database(), Component::Api), &pod_monitor(v));
    let rules = || {
        let spec = prometheus_rule(&Scope::new(&v.namespace, v.names.stack()));
        meta::custom(Kind::PrometheusRule, metadata(v.names.rules(), Component::Api), &spec)
    };
    Monitoring {
        service_monitors: v.monitoring.service_monitor.map(|made| if made { monitors() } else { Vec::new() }),
        pod_monitor: v.monitoring.pod_monitor.map(|made| made.then(instances)),
        rules: v.monitoring.rules.map(|made| made.then(rules)),
    }
}

/// `spec` of the ServiceMonitor of the API pods.
fn service_monitor(v: &Validated) -> Value {
    let mut endpoint = json!({"port": "http", "path": "/metrics", "interval": INTERVAL});
    if let Some(tls) = &v.serving_tls {
        let openshift = v.spec.api.tls.as_ref().is_some_and(|tls| tls.type_ == ServingTlsType::OpenShift);
        let authority = if openshift {
            Some(json!({"configMap": {"name": v.names.service_ca(), "key": SERVICE_AUTHORITY_KEY}}))
        } else {
            tls.ca.as_ref().map(|_| json!({"secret": {"name": tls.secret, "key": "ca.crt"}}))
        };
        endpoint["scheme"] = json!("https");
        endpoint["tlsConfig"] = match authority {
            Some(ca) => json!({"ca": ca, "serverName": format!("{}.{}.svc", v.names.api(), v.namespace)}),
            // Whose authority is not known. A scrape sends no credentials, and what it reads is no secret.
            None => json!({"insecureSkipVerify": true}),
        };
    }
    json!({
        "selector": {"matchLabels": labels::selector(v.names.stack(), Component::Api)},
        "endpoints": [endpoint],
    })
}

/// The Services in front of exporters.
fn exporters(v: &Validated) -> Vec<(String, Component)> {
    let parts = [
        (v.spec.pooler.type_ == PoolerType::PgBouncer, v.names.pgbouncer(), Component::PgBouncer),
        (v.spec.cache.type_.is_own(), v.names.redis(), Component::Redis),
    ];
    let there = parts.into_iter().filter(|(there, _, _)| *there && exporter::wanted(v));
    there.map(|(_, name, component)| (name, component)).collect()
}

/// `spec` of the ServiceMonitor of an exporter.
fn exporter_monitor(v: &Validated, component: Component) -> Value {
    json!({
        "selector": {"matchLabels": labels::selector(v.names.stack(), component)},
        "endpoints": [{"port": exporter::PORT, "path": "/metrics", "interval": INTERVAL}],
    })
}

/// `spec` of the PodMonitor of the exporters that Crunchy's operator runs beside PostgreSQL.
fn pod_monitor(v: &Validated) -> Value {
    let mut selector = labels::cluster_selector(&v.names.database());
    let exporter = ("postgres-operator.crunchydata.com/crunchy-postgres-exporter".to_owned(), "true".to_owned());
    selector.match_labels.get_or_insert_default().extend([exporter]);
    json!({
        "selector": selector,
        "podMetricsEndpoints": [{"port": "exporter", "path": "/metrics", "interval": INTERVAL}],
    })
}

/// `spec` of the PrometheusRule.
pub fn prometheus_rule(scope: &Scope) -> Value {
    rules::spec(scope)
}
