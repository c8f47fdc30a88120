//! Resources of one container: the model's numbers and the overrides of the spec put together.

use super::{Bytes, Compute, ComputeOverrides, Cpu, Derived};

/// Resources of one container; a derived request follows an explicit limit down, a derived limit an explicit request up.
pub(super) fn compute(
    overrides: &ComputeOverrides,
    field: &'static str,
    cpu_request: Derived<Cpu>,
    (cpu_limit, cpu_limit_formula): (Cpu, &'static str),
    memory_request: Derived<Bytes>,
    (memory_limit, memory_limit_formula): (Bytes, &'static str),
) -> Compute {
    let cpu_limit = Derived::new(cpu_limit, cpu_limit_formula, "request").with("request", cpu_request.value);
    let memory_limit =
        Derived::new(memory_limit, memory_limit_formula, "request").with("request", memory_request.value);
    let (cpu_request, cpu_limit) = pair(cpu_request, cpu_limit, overrides.cpu_request, overrides.cpu_limit, field);
    let (memory_request, memory_limit) =
        pair(memory_request, memory_limit, overrides.memory_request, overrides.memory_limit, field);
    Compute { cpu_request, cpu_limit, memory_request, memory_limit }
}

fn pair<T: Copy + Ord + std::fmt::Display>(
    request: Derived<T>,
    limit: Derived<T>,
    request_override: Option<T>,
    limit_override: Option<T>,
    field: &str,
) -> (Derived<T>, Derived<T>) {
    let mut request = request.or_override(request_override, &format!("spec.{field}.requests"));
    let mut limit = limit.or_override(limit_override, &format!("spec.{field}.limits"));
    if request.value > limit.value {
        if limit_override.is_some() && request_override.is_none() {
            request = request.or_override(Some(limit.value), &format!("spec.{field}.limits"));
        } else if limit_override.is_none() {
            limit = limit.or_override(Some(request.value), &format!("spec.{field}.requests"));
        }
    }
    (request, limit)
}
