//! PURE: how the service is reached from outside, from what the spec asks for and what the cluster has; and what became
//! of it.

use serde_json::Value;

use super::build::names::Names;
use super::observed::{Capabilities, ExposureState};
use super::validate::Invalid;
use crate::api::v1alpha1::{ExposureType, PersesStackSpec};
use crate::apply::inventory::Inventory;
use crate::apply::kind::Kind;

/// The kind of object that exposes the service; `None` when nothing does.
///
/// # Errors
/// What is asked for is not there, or it is not known whether it is: never terminal. What exists stays as it is.
pub(super) fn kind(spec: &PersesStackSpec, capabilities: Capabilities) -> Result<Option<Kind>, Invalid> {
    match spec.exposure.type_ {
        ExposureType::None => Ok(None),
        ExposureType::Route if capabilities.has(Kind::Route)? => Ok(Some(Kind::Route)),
        ExposureType::Route => Err(absent(Kind::Route)),
        ExposureType::Auto => Ok(capabilities.has(Kind::Route)?.then_some(Kind::Route)),
    }
}

fn absent(kind: Kind) -> Invalid {
    Invalid {
        reason: "ApiAbsent",
        message: format!(
            "spec.exposure.type is {}, but this cluster does not have {}: choose another type, or Auto",
            kind.name(),
            kind.resource().api_version
        ),
        waiting_for: None,
        terminal: false,
    }
}

/// What the router says about the object of this kind; `None` when there is no such object.
pub(super) fn state(inventory: &Inventory, names: &Names) -> Option<ExposureState> {
    inventory.get(Kind::Route, &names.exposure()).map(route_state)
}

/// Admitted by every router that took it up, and by one at least.
fn route_state(route: &Value) -> ExposureState {
    let routers = route["status"]["ingress"].as_array().map(Vec::as_slice).unwrap_or_default();
    let admission = |router: &Value| {
        let conditions = router["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == "Admitted")
    };
    let refused = routers.iter().filter_map(admission).find(|condition| condition["status"] != "True");
    let admitted = routers.iter().find(|router| admission(router).is_some_and(|found| found["status"] == "True"));
    let text = |value: &Value| value.as_str().map(str::to_owned).filter(|text| !text.is_empty());
    ExposureState {
        kind: Kind::Route,
        host: admitted.and_then(|router| text(&router["host"])).or_else(|| text(&route["spec"]["host"])),
        tls: route["spec"]["tls"].is_object(),
        admitted: admitted.is_some() && refused.is_none(),
        message: refused.and_then(|condition| text(&condition["message"]).or_else(|| text(&condition["reason"]))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_route_is_admitted_when_no_router_refuses_it() {
        let route = |ingress: Value| json!({"spec": {"host": "a.example", "tls": {}}, "status": {"ingress": ingress}});
        let router = |status: &str, message: &str| json!({"host": "a.example", "conditions": [{"type": "Admitted", "status": status, "message": message}]});
        let state = route_state(&route(json!([])));
        assert!(!state.admitted && state.message.is_none() && state.tls, "{state:?}");
        let state = route_state(&route(json!([router("True", "")])));
        assert!(state.admitted && state.host.as_deref() == Some("a.example"), "{state:?}");
        let state = route_state(&route(json!([router("True", ""), router("False", "host taken")])));
        assert!(!state.admitted && state.message.as_deref() == Some("host taken"), "{state:?}");
    }
}
