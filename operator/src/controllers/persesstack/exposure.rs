//! PURE: what makes the service reachable from outside, from what the spec asks for and what the cluster has.

use std::net::IpAddr;

use super::observed::{Capabilities, IngressClass};
use super::validate::Invalid;
use crate::api::v1alpha1::{Exposure, ExposureType};
use crate::apply::kind::Kind;

/// What exposes the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exposed {
    /// Nothing: it is reached inside the cluster.
    Nothing,
    /// A Route.
    Route,
    /// An HTTPRoute.
    HttpRoute,
    /// An Ingress of this class; the cluster's default when it has no name.
    Ingress {
        /// Name of the IngressClass.
        class: Option<String>,
    },
}

impl Exposed {
    /// The kind of object that does it.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Nothing => None,
            Self::Route => Some(Kind::Route),
            Self::HttpRoute => Some(Kind::HttpRoute),
            Self::Ingress { .. } => Some(Kind::Ingress),
        }
    }

    /// The same as a word of the spec.
    pub fn type_(&self) -> ExposureType {
        match self {
            Self::Nothing => ExposureType::None,
            Self::Route => ExposureType::Route,
            Self::HttpRoute => ExposureType::HttpRoute,
            Self::Ingress { .. } => ExposureType::Ingress,
        }
    }
}

/// Chooses. `classes` are the cluster's IngressClasses; `None` when the operator may not read them (it watches one
/// namespace): then only a class that is named is used.
///
/// # Errors
/// What is asked for is not there, or it is not known whether it is: not terminal, what exists stays as it is. A proxy that
/// is no network is terminal.
pub(super) fn choose(
    spec: &Exposure,
    capabilities: Capabilities,
    classes: Option<&[IngressClass]>,
) -> Result<Exposed, Invalid> {
    for proxy in spec.trusted_proxies.iter().flatten() {
        network(proxy)?;
    }
    match spec.type_ {
        ExposureType::None => Ok(Exposed::Nothing),
        ExposureType::Route if capabilities.has(Kind::Route)? => Ok(Exposed::Route),
        ExposureType::Route => Err(absent(Kind::Route)),
        ExposureType::HttpRoute if capabilities.has(Kind::HttpRoute)? => Ok(Exposed::HttpRoute),
        ExposureType::HttpRoute => Err(absent(Kind::HttpRoute)),
        ExposureType::Ingress => class(spec, classes).map(|class| Exposed::Ingress { class }),
        ExposureType::Auto => {
            if capabilities.has(Kind::Route)? {
                return Ok(Exposed::Route);
            }
            if spec.http_route.is_some() && capabilities.has(Kind::HttpRoute)? {
                return Ok(Exposed::HttpRoute);
            }
            // Without a host it would take the requests of every host.
            match class(spec, classes) {
                Ok(Some(class)) if spec.host.is_some() => Ok(Exposed::Ingress { class: Some(class) }),
                _ => Ok(Exposed::Nothing),
            }
        }
    }
}

/// The class to use: the one that is named, the default one, the only one; `None` leaves it to the API server.
fn class(spec: &Exposure, classes: Option<&[IngressClass]>) -> Result<Option<String>, Invalid> {
    let named = spec.ingress.as_ref().and_then(|ingress| ingress.class_name.clone());
    let Some(classes) = classes else { return Ok(named) };
    let names = || classes.iter().map(|class| class.name.as_str()).collect::<Vec<_>>().join(", ");
    let wrong = |message: String| Invalid { reason: "IngressClassAbsent", message, waiting_for: None, terminal: false };
    match (named, classes) {
        (Some(named), classes) if classes.iter().any(|class| class.name == named) => Ok(Some(named)),
        (Some(named), classes) => Err(wrong(format!(
            "spec.exposure.ingress.className is {named}, but the cluster has {}: name one of them or install it",
            if classes.is_empty() { "no IngressClass".to_owned() } else { names() }
        ))),
        (None, []) => Err(wrong("the cluster has no IngressClass: install an ingress controller".to_owned())),
        (None, [only]) => Ok(Some(only.name.clone())),
        (None, classes) => match classes.iter().find(|class| class.default) {
            Some(default) => Ok(Some(default.name.clone())),
            None => Err(wrong(format!(
                "none of the IngressClasses {} is the default: set spec.exposure.ingress.className",
                names()
            ))),
        },
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

/// An address, or a network in CIDR form.
fn network(text: &str) -> Result<(), Invalid> {
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let good = address.parse::<IpAddr>().is_ok_and(|address| {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        prefix.is_none_or(|prefix| prefix.parse::<u8>().is_ok_and(|length| length <= longest))
    });
    if good {
        return Ok(());
    }
    Err(Invalid::terminal(
        "ExposureInvalid",
        format!("spec.exposure.trustedProxies: {text} is no address and no network: write it as 10.128.0.0/14"),
    ))
}

/// What the server is configured for: the same as `chosen`, and while that is not known what it was before. So an API
/// that is away for a while does not change the configuration of the pods.
pub(super) fn configured(spec: &Exposure, chosen: Option<&Exposed>, before: Option<ExposureType>) -> ExposureType {
    match (spec.type_, chosen) {
        (ExposureType::Auto, Some(chosen)) => chosen.type_(),
        (ExposureType::Auto, None) => before.unwrap_or(ExposureType::None),
        (type_, _) => type_,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::observed::Availability;
    use super::*;

    fn spec(value: serde_json::Value) -> Exposure {
        serde_json::from_value(value).unwrap()
    }

    fn ingress_class(name: &str, default: bool) -> IngressClass {
        IngressClass { name: name.to_owned(), default }
    }

    #[test]
    fn auto_takes_the_first_that_is_there() {
        let classes = [ingress_class("a", false), ingress_class("b", true)];
        let all = Capabilities::with(&[Kind::Route, Kind::HttpRoute]);
        let gateway = Capabilities::with(&[Kind::HttpRoute]);
        let none = Capabilities::with(&[]);
        let plain = spec(json!({}));
        let named = spec(json!({"host": "a.example", "httpRoute": {"gateway": {"name": "g"}}}));
        let host = spec(json!({"host": "a.example"}));
        let choose = |spec: &Exposure, capabilities| choose(spec, capabilities, Some(&classes)).unwrap();
        assert_eq!(choose(&named, all), Exposed::Route);
        assert_eq!(choose(&named, gateway), Exposed::HttpRoute);
        assert_eq!(choose(&host, gateway), Exposed::Ingress { class: Some("b".to_owned()) }, "no Gateway is named");
        assert_eq!(choose(&named, none), Exposed::Ingress { class: Some("b".to_owned()) });
        assert_eq!(choose(&plain, none), Exposed::Nothing, "an Ingress without a host would take every host");
        assert_eq!(super::choose(&host, none, Some(&[])).unwrap(), Exposed::Nothing);
        assert_eq!(super::choose(&host, none, None).unwrap(), Exposed::Nothing, "the classes may not be read");
    }

    #[test]
    fn what_is_not_known_is_not_chosen_around() {
        let mut unknown = Capabilities::with(&[]);
        unknown.set(Kind::Route, Availability::Unknown);
        let host = spec(json!({"host": "a.example"}));
        let error = choose(&host, unknown, Some(&[ingress_class("a", true)])).unwrap_err();
        assert!(error.reason == "ApiUnavailable" && !error.terminal, "{error}");
        assert_eq!(configured(&host, None, Some(ExposureType::Route)), ExposureType::Route, "as it was before");
        let ingress = spec(json!({"type": "Ingress", "host": "a.example"}));
        let class = Some("a".to_owned());
        assert_eq!(choose(&ingress, unknown, Some(&[ingress_class("a", true)])), Ok(Exposed::Ingress { class }));
    }

    #[test]
    fn a_class_is_named_default_or_alone() {
        let ingress = |class: Option<&str>| {
            spec(json!({"type": "Ingress", "host": "a.example", "ingress": {"className": class}}))
        };
        let two = [ingress_class("a", false), ingress_class("b", false)];
        let error = choose(&ingress(None), Capabilities::with(&[]), Some(&two)).unwrap_err();
        assert!(error.message.contains("a, b") && error.message.contains("className"), "{error}");
        let error = choose(&ingress(Some("c")), Capabilities::with(&[]), Some(&two)).unwrap_err();
        assert!(error.message.contains("a, b"), "{error}");
        let chosen = choose(&ingress(None), Capabilities::with(&[]), Some(&two[..1]));
        assert_eq!(chosen, Ok(Exposed::Ingress { class: Some("a".to_owned()) }));
        let chosen = choose(&ingress(Some("c")), Capabilities::with(&[]), None);
        assert_eq!(chosen, Ok(Exposed::Ingress { class: Some("c".to_owned()) }), "taken at its word");
    }

    #[test]
    fn proxies_are_addresses_or_networks() {
        for good in ["10.0.0.1", "10.0.0.0/8", "fd00::/8", "::1"] {
            assert_eq!(network(good), Ok(()), "{good}");
        }
        for bad in ["10.0.0.0/33", "proxy.example", "10.0.0.0/", "/8"] {
            assert!(network(bad).unwrap_err().terminal, "{bad}");
        }
    }
}
