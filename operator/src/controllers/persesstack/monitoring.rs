//! PURE: which resources of the Prometheus operator are made, from what the spec asks for and what the cluster has.

use super::build::names::Names;
use super::observed::Capabilities;
use super::status::condition;
use super::validate::{Invalid, Validated};
use super::waits::Part;
use crate::api::v1alpha1::{DatabaseType, Exporter, PersesStackSpec, Switch};
use crate::apply::inventory::Inventory;
use crate::apply::kind::Kind;
use crate::conditions::{Finding, Status};

/// What is made; `None` while it cannot be told, or what is asked for is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The ServiceMonitor.
    pub service_monitor: Option<bool>,
    /// The PodMonitor of the database's exporters.
    pub pod_monitor: Option<bool>,
    /// The PrometheusRule.
    pub rules: Option<bool>,
}

impl Choice {
    /// The kinds of the objects that are made.
    pub fn kinds(self) -> impl Iterator<Item = Kind> {
        let choices = [
            (self.service_monitor, Kind::ServiceMonitor),
            (self.pod_monitor, Kind::PodMonitor),
            (self.rules, Kind::PrometheusRule),
        ];
        choices.into_iter().filter(|(made, _)| *made == Some(true)).map(|(_, kind)| kind)
    }
}

/// Whether an object of this kind is made.
///
/// # Errors
/// It is asked for and not there, or it is not known whether it is: never terminal. What exists stays as it is.
pub(super) fn made(switch: Switch, field: &str, kind: Kind, capabilities: Capabilities) -> Result<bool, Invalid> {
    match switch {
        Switch::Disabled => Ok(false),
        Switch::Auto => capabilities.has(kind),
        Switch::Enabled if capabilities.has(kind)? => Ok(true),
        Switch::Enabled => Err(Invalid {
            reason: "ApiAbsent",
            message: format!(
                "{field} is Enabled, but this cluster does not have {} of {}: install the Prometheus operator, or choose \
                 Auto",
                kind.name(),
                kind.resource().api_version
            ),
            waiting_for: None,
            terminal: false,
        }),
    }
}

/// Whether an exporter runs beside each instance of the database.
pub(super) fn has_exporter(spec: &PersesStackSpec, database: DatabaseType) -> bool {
    let exporter = spec.database.crunchy.as_ref().map_or_else(Exporter::default, |crunchy| crunchy.exporter);
    database == DatabaseType::Crunchy && exporter == Exporter::Enabled
}

/// Whether the dashboard about the stack is provisioned: it needs a datasource, and something that scrapes.
pub(super) fn wants_dashboard(spec: &PersesStackSpec) -> bool {
    spec.monitoring.service_monitor != Switch::Disabled && spec.datasources.iter().any(|datasource| datasource.default)
}

/// The kinds of which the stack's object exists.
pub(super) fn present(inventory: &Inventory, names: &Names) -> Vec<Kind> {
    let objects = [
        (Kind::ServiceMonitor, names.api()),
        (Kind::PodMonitor, names.database()),
        (Kind::PrometheusRule, names.rules()),
    ];
    objects.into_iter().filter(|(kind, name)| inventory.get(*kind, name).is_some()).map(|(kind, _)| kind).collect()
}

/// Whether what is to be made is there; nothing to say when nothing is made.
pub(super) fn finding(validated: &Validated, present: &[Kind]) -> Option<Finding> {
    let type_ = condition::MONITORING;
    if let Some((reason, message)) = validated.waits.of(Part::Monitoring) {
        let status = if reason == "ApiUnavailable" { Status::Unknown } else { Status::False };
        return Some(Finding::new(type_, status, reason, message));
    }
    let wanted: Vec<_> = validated.monitoring.kinds().collect();
    let names = |kinds: &[Kind]| kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(" and ");
    let missing: Vec<_> = wanted.iter().filter(|kind| !present.contains(kind)).copied().collect();
    (!wanted.is_empty()).then(|| {
        if missing.is_empty() {
            Finding::new(
                type_,
                true,
                "Applied",
                format!("{} in place for a Prometheus that selects them", names(&wanted)),
            )
        } else {
            Finding::new(type_, false, "NotCreated", format!("{} not created yet", names(&missing)))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_follows_the_switch_and_the_cluster() {
        let kind = Kind::PrometheusRule;
        let made = |switch, capabilities| made(switch, "spec.monitoring.rules", kind, capabilities);
        let (with, without) = (Capabilities::with(&[kind]), Capabilities::with(&[]));
        assert_eq!(made(Switch::Auto, with), Ok(true));
        assert_eq!(made(Switch::Auto, without), Ok(false));
        assert_eq!(made(Switch::Disabled, with), Ok(false));
        assert_eq!(made(Switch::Enabled, with), Ok(true));
        let absent = made(Switch::Enabled, without).unwrap_err();
        assert!(absent.reason == "ApiAbsent" && !absent.terminal && absent.message.contains("spec.monitoring.rules"));
        for switch in [Switch::Auto, Switch::Enabled] {
            assert_eq!(made(switch, Capabilities::default()).unwrap_err().reason, "ApiUnavailable");
        }
        assert_eq!(made(Switch::Disabled, Capabilities::default()), Ok(false));
    }
}
