//! From desired objects to the cluster (I/O): server-side apply, fenced deletes, nothing sent when nothing changed.
//!
//! - [`kind`]: which kinds there are; [`inventory`]: what exists.
//! - [`owner`]: whose is it (pure); [`compare`]: does it already say what we want (pure).
//! - [`cluster`]: what is outside the namespace.
//! - [`ssa`]: one object; [`order`]: all objects of a stack, in order; [`mounts`]: what pods need; [`prune`]: what is no
//!   longer wanted.

pub mod cluster;
pub mod compare;
pub mod dry_run;
pub mod footprint;
pub mod inventory;
pub mod kind;
pub mod mounts;
pub mod order;
pub mod owner;
pub mod prune;
pub mod ssa;

/// Field manager of all children.
pub const FIELD_MANAGER: &str = "persesstack-operator";
/// Field manager of the status of a PersesStack.
pub const STATUS_MANAGER: &str = "persesstack-operator/status";
/// Field manager that holds `spec.replicas` between us and the autoscaler; see [`ssa`].
pub const REPLICAS_MANAGER: &str = "persesstack-operator/replicas";

/// Field manager of lists that were replaced because an apply was refused; see [`compare::lists_with_strangers`].
pub const REPAIR_MANAGER: &str = "persesstack-operator/repair";

/// What was attempted; a bounded metric label.
pub mod verb {
    /// Server-side apply.
    pub const APPLY: &str = "apply";
    /// Create.
    pub const CREATE: &str = "create";
    /// Delete.
    pub const DELETE: &str = "delete";
    /// Read one.
    pub const GET: &str = "get";
    /// Read many.
    pub const LIST: &str = "list";
}

/// A request that failed.
#[derive(Debug, thiserror::Error)]
#[error("{verb} {kind} {name}")]
pub struct ApplyError {
    /// Kind of the object.
    pub kind: String,
    /// Its name; empty for a list.
    pub name: String,
    /// What was attempted.
    pub verb: &'static str,
    /// The API server's answer.
    pub source: Box<kube::Error>,
}

impl ApplyError {
    /// From its parts.
    pub fn new(kind: &str, name: &str, verb: &'static str, source: kube::Error) -> Self {
        Self { kind: kind.to_owned(), name: name.to_owned(), verb, source: Box::new(source) }
    }

    /// HTTP status of the API server's answer, if there was one.
    pub fn code(&self) -> Option<u16> {
        match &*self.source {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        }
    }

    /// Whether the server understood and refused this one object, so that the others can go on.
    pub fn is_refusal(&self) -> bool {
        matches!(self.code(), Some(400 | 403 | 404 | 409 | 422))
    }

    /// For people: what was attempted and what the server said, without the object's content.
    pub fn describe(&self) -> String {
        let reason = match &*self.source {
            // A validation message may quote the value it refuses.
            kube::Error::Api(status) if self.kind == "Secret" => status.reason.clone(),
            kube::Error::Api(status) => status.message.clone(),
            kube::Error::Service(error) => error.to_string(),
            other => other.to_string(),
        };
        format!("{self}: {reason}").replace("  ", " ")
    }
}
