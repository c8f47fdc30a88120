//! PURE: what the router, the Gateway or the ingress controller made of the object that exposes the service.

use serde_json::Value;

use super::build::names::Names;
use super::observed::{ExposureState, Listener};
use crate::apply::inventory::Inventory;
use crate::apply::kind::Kind;

/// State of the object that exposes the service, of whichever kind; `None` when there is none. While one replaces the
/// other there are two: then that of the kind that is `wanted`.
pub(super) fn state(
    inventory: &Inventory,
    names: &Names,
    wanted: Option<Kind>,
    listeners: &[Listener],
) -> Option<ExposureState> {
    let kinds = wanted.into_iter().chain([Kind::Route, Kind::HttpRoute, Kind::Ingress]);
    let (kind, object) = kinds.into_iter().find_map(|kind| Some((kind, inventory.get(kind, &names.exposure())?)))?;
    Some(match kind {
        Kind::Route => route(object),
        Kind::HttpRoute => http_route(object, listeners),
        _ => ingress(object),
    })
}

/// Admitted when every router that took it up admits it, and one did.
fn route(route: &Value) -> ExposureState {
    let routers = items(&route["status"]["ingress"]);
    let admission = |router: &'_ Value| condition(&router["conditions"], "Admitted");
    let refused = routers.iter().filter_map(admission).find(|condition| !holds(condition));
    let admitted = routers.iter().find(|router| admission(router).is_some_and(|found| holds(&found)));
    let host = admitted.and_then(|router| text(&router["host"])).or_else(|| text(&route["spec"]["host"]));
    ExposureState {
        kind: Kind::Route,
        address: host.as_ref().map(|host| format!("https://{host}")),
        host,
        admitted: admitted.is_some() && refused.is_none(),
        message: refused.and_then(|condition| text(&condition["message"]).or_else(|| text(&condition["reason"]))),
    }
}

/// Admitted when the Gateway accepts it and finds the Service. The address depends on the listeners that it is attached to.
fn http_route(route: &Value, listeners: &[Listener]) -> ExposureState {
    let parents = items(&route["status"]["parents"]);
    let checks = |parent: &Value| ["Accepted", "ResolvedRefs"].map(|type_| condition(&parent["conditions"], type_));
    let refused = parents.iter().flat_map(checks).flatten().find(|condition| !holds(condition));
    let admitted = parents.iter().any(|parent| checks(parent).iter().all(|found| found.as_ref().is_some_and(holds)));
    let host = items(&route["spec"]["hostnames"]).first().and_then(text);
    let section = text(&route["spec"]["parentRefs"][0]["sectionName"]);
    let (host, address) = listener_address(host, section.as_deref(), listeners);
    let refusal = |condition: Value| text(&condition["message"]).or_else(|| text(&condition["reason"]));
    let message = refused.and_then(refusal);
    ExposureState { kind: Kind::HttpRoute, host, address, admitted: admitted && message.is_none(), message }
}

/// Host name and address at the best listener: HTTPS before HTTP.
fn listener_address(
    host: Option<String>,
    section: Option<&str>,
    listeners: &[Listener],
) -> (Option<String>, Option<String>) {
    let fits = |listener: &&Listener| {
        let named = section.is_none_or(|section| listener.name == section);
        let taken = match (&listener.hostname, &host) {
            (Some(pattern), Some(host)) => {
                pattern == host || pattern.strip_prefix('*').is_some_and(|suffix| host.ends_with(suffix))
            }
            _ => true,
        };
        named && taken && (listener.protocol == "HTTPS" || listener.protocol == "HTTP")
    };
    let best = listeners.iter().filter(fits).max_by_key(|listener| listener.protocol == "HTTPS");
    let own = |listener: &Listener| listener.hostname.clone().filter(|hostname| !hostname.starts_with('*'));
    let host = host.or_else(|| best.and_then(own));
    let address = host.as_ref().zip(best).map(|(host, listener)| {
        let (scheme, usual) = if listener.protocol == "HTTPS" { ("https", 443) } else { ("http", 80) };
        let port = if listener.port == usual { String::new() } else { format!(":{}", listener.port) };
        format!("{scheme}://{host}{port}")
    });
    (host, address)
}

/// Admitted when the controller has published an address.
fn ingress(ingress: &Value) -> ExposureState {
    let host = text(&ingress["spec"]["rules"][0]["host"]);
    let tls = !items(&ingress["spec"]["tls"]).is_empty();
    let published = !items(&ingress["status"]["loadBalancer"]["ingress"]).is_empty();
    let scheme = if tls { "https" } else { "http" };
    let address = host.as_ref().map(|host| format!("{scheme}://{host}"));
    ExposureState { kind: Kind::Ingress, host, address, admitted: published, message: None }
}

fn condition(conditions: &Value, type_: &str) -> Option<Value> {
    items(conditions).iter().find(|condition| condition["type"] == type_).cloned()
}

fn holds(condition: &Value) -> bool {
    condition["status"] == "True"
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_route_is_admitted_when_no_router_refuses_it() {
        let of = |ingress: Value| route(&json!({"spec": {"host": "a.example"}, "status": {"ingress": ingress}}));
        let router = |status: &str, message: &str| json!({"host": "a.example", "conditions": [{"type": "Admitted", "status": status, "message": message}]});
        let state = of(json!([]));
        assert!(!state.admitted && state.message.is_none(), "{state:?}");
        let state = of(json!([router("True", "")]));
        assert!(state.admitted && state.address.as_deref() == Some("https://a.example"), "{state:?}");
        let state = of(json!([router("True", ""), router("False", "host taken")]));
        assert!(!state.admitted && state.message.as_deref() == Some("host taken"), "{state:?}");
    }

    #[test]
    fn an_http_route_needs_a_gateway_that_accepts_and_resolves_it() {
        let of = |conditions: Value| {
            let route = json!({"spec": {"hostnames": ["a.example"], "parentRefs": [{"name": "g"}]},
                               "status": {"parents": [{"conditions": conditions}]}});
            http_route(&route, &[])
        };
        let condition = |type_: &str, status: &str| json!({"type": type_, "status": status, "reason": "NotAllowed"});
        assert!(!of(json!([])).admitted);
        assert!(!of(json!([condition("Accepted", "True")])).admitted);
        assert!(of(json!([condition("Accepted", "True"), condition("ResolvedRefs", "True")])).admitted);
        let state = of(json!([condition("Accepted", "False"), condition("ResolvedRefs", "True")]));
        assert!(!state.admitted && state.message.as_deref() == Some("NotAllowed"), "{state:?}");
    }

    #[test]
    fn the_address_at_a_gateway_is_that_of_its_listener() {
        let listener = |name: &str, protocol: &str, port, hostname: Option<&str>| Listener {
            name: name.to_owned(),
            protocol: protocol.to_owned(),
            port,
            hostname: hostname.map(str::to_owned),
        };
        let address = |host: Option<&str>, section, listeners: &[Listener]| {
            listener_address(host.map(str::to_owned), section, listeners).1.unwrap_or_default()
        };
        let listeners = [
            listener("plain", "HTTP", 80, None),
            listener("tls", "HTTPS", 8443, Some("*.example")),
            listener("other", "HTTPS", 443, Some("other.test")),
        ];
        assert_eq!(address(Some("a.example"), None, &listeners), "https://a.example:8443");
        assert_eq!(address(Some("a.example"), Some("plain"), &listeners), "http://a.example");
        assert_eq!(address(None, Some("other"), &listeners), "https://other.test");
        assert_eq!(address(None, Some("tls"), &listeners), "", "any host of a domain is none");
        assert_eq!(address(Some("a.example"), None, &[]), "", "the Gateway cannot be read");
    }

    #[test]
    fn an_ingress_is_admitted_when_it_has_an_address() {
        let object = |status: Value| json!({"spec": {"rules": [{"host": "a.example"}], "tls": [{"secretName": "t"}]}, "status": status});
        assert!(!ingress(&object(json!({"loadBalancer": {}}))).admitted);
        let state = ingress(&object(json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}})));
        assert!(state.admitted && state.address.as_deref() == Some("https://a.example"), "{state:?}");
    }
}
