//! What Prometheus needs to watch a stack, in the resources of the Prometheus operator: where to scrape, and what to alert on.

mod dashboard;
mod rules;
mod slo;

use serde_json::{Value, json};

use self::rules::Labels;
use super::account::SERVICE_AUTHORITY_KEY;
use super::labels::{self, Component};
use super::names::Names;
use super::{Monitoring, meta};
use crate::api::v1alpha1::ServingTlsType;
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
    /// Name of the Service.
    job: String,
}

impl Scope {
    /// The series of one stack.
    pub fn new(namespace: &str, stack: &str) -> Self {
        let job = Names::new(stack).api();
        Self { namespace: namespace.to_owned(), stack: stack.to_owned(), job }
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

    /// Labels of every rule.
    fn labels(&self) -> Labels {
        [("namespace", self.namespace.clone()), ("stack", self.stack.clone())].into()
    }
}

/// What the choice asks for.
pub(super) fn build(v: &Validated) -> Monitoring {
    let metadata = |name: String| {
        let mut metadata = meta::owned(v, name, Component::Api);
        let mut all = v.spec.monitoring.labels.clone();
        // Ours last: watches and clean-up select on them.
        all.extend(metadata.labels.take().unwrap_or_default());
        metadata.labels = Some(all);
        metadata
    };
    let monitor = || meta::custom(Kind::ServiceMonitor, metadata(v.names.api()), &service_monitor(v));
    let exporters = || meta::custom(Kind::PodMonitor, metadata(v.names.database()), &pod_monitor(v));
    let rules = || {
        let spec = prometheus_rule(&Scope::new(&v.namespace, v.names.stack()));
        meta::custom(Kind::PrometheusRule, metadata(v.names.rules()), &spec)
    };
    Monitoring {
        service_monitor: v.monitoring.service_monitor.map(|made| made.then(monitor)),
        pod_monitor: v.monitoring.pod_monitor.map(|made| made.then(exporters)),
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
