//! PURE: the address of the service, and whether it is reached from outside.

use super::condition;
use crate::conditions::{Finding, Status};
use crate::controllers::persesstack::observed::ExposureState;
use crate::controllers::persesstack::validate::Validated;
use crate::controllers::persesstack::waits::Part;

/// Where people reach the service: outside only once it is admitted there, inside when nothing exposes it.
pub(super) fn url(
    validated: &Validated,
    exposure: Option<&ExposureState>,
    old: Option<String>,
    host: &impl Fn(String) -> String,
) -> Option<String> {
    let prefix = validated.spec.api.config.as_ref().and_then(|config| config.get("api_prefix")?.as_str());
    let with_prefix = |address: String| format!("{address}{}", prefix.unwrap_or_default().trim_end_matches('/'));
    // While it is not known what became of it the address stays.
    let Some(chosen) = &validated.exposure else { return old };
    match chosen.kind() {
        None => {
            let scheme = if validated.spec.api.tls.is_some() { "https" } else { "http" };
            Some(with_prefix(format!("{scheme}://{}:8080", host(validated.names.api()))))
        }
        Some(kind) => {
            let state = exposure.filter(|state| state.kind == kind && state.admitted)?;
            state.address.clone().map(with_prefix)
        }
    }
}

/// Whether it is reached from outside; `None` when nothing should expose it.
pub(super) fn finding(validated: &Validated, state: Option<&ExposureState>) -> Option<Finding> {
    let type_ = condition::EXPOSURE;
    if let Some((reason, message)) = validated.waits.of(Part::Exposure) {
        let status = if reason == "ApiUnavailable" { Status::Unknown } else { Status::False };
        return Some(Finding::new(type_, status, reason, message));
    }
    let kind = validated.exposure.as_ref()?.kind()?;
    let name = format!("{} {}", kind.name(), validated.names.exposure());
    Some(match state.filter(|state| state.kind == kind) {
        Some(ExposureState { admitted: true, address: Some(address), .. }) => {
            Finding::new(type_, true, "Admitted", format!("{name} is admitted at {address}"))
        }
        Some(ExposureState { admitted: true, .. }) => {
            let message = format!(
                "{name} is admitted; its address cannot be told: set spec.exposure.host, and let the Gateway be read"
            );
            Finding::new(type_, true, "Admitted", message)
        }
        Some(ExposureState { message: Some(message), .. }) => {
            Finding::new(type_, false, "NotAdmitted", format!("{name} is not admitted: {message}"))
        }
        Some(_) => Finding::new(type_, false, "WaitingForAdmission", format!("nobody has admitted {name} yet")),
        None => Finding::new(type_, false, "NotCreated", format!("{name} has not been created yet")),
    })
}
