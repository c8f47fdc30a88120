//! Every reason that conditions and events carry: words on which alerts and scripts may rely. PURE.
//!
//! `docs/reference/events.md` is generated from it; a test finds the reasons in the code that are missing here.

use std::fmt::Write as _;

use super::status::TOLD;

/// Reason, what is the case, and what to do.
pub const REASONS: &[(&str, &str, &str)] = &[
    (
        "AddressUnknown",
        "A way to sign in needs the address that browsers use, which is not known yet",
        "wait until the address is admitted, or set it in `spec.auth`",
    ),
    ("Admitted", "What stands in front of the cluster serves the address", "nothing"),
    ("ApiAbsent", "The API that `spec.exposure` asks for is not there", "install it, or choose another type"),
    (
        "ApiUnavailable",
        "An optional API does not answer, so its objects are neither read nor changed",
        "look at `kubectl get apiservices` and the server behind it",
    ),
    ("Applied", "Objects for monitoring are in place", "nothing"),
    (
        "BackupsEnd",
        "The spec would end the backups",
        "confirm it with the annotation that the message names, or take the change back",
    ),
    ("BackupsNotReady", "The host of the backup repository is not ready", "look at its pod and its volume"),
    (
        "BackupsRequired",
        "The installed version of Crunchy's operator needs backups",
        "declare them, or update that operator",
    ),
    (
        "BindingForbidden",
        "The operator may not see or make ClusterRoleBindings that the spec needs",
        "grant it, or have an administrator make the bindings that the message names",
    ),
    (
        "CertificateFailed",
        "A certificate for the pooler could not be made",
        "nothing, it is tried again; name a Secret of your own if it stays",
    ),
    (
        "ClusterBlocked",
        "Crunchy's operator has stopped work on the cluster",
        "read its message and the cluster's events",
    ),
    ("ClusterBootstrapping", "The PostgreSQL cluster is being initialised", "nothing; look at its pods if it stays"),
    ("ClusterNotCreated", "The PostgresCluster does not exist yet", "nothing; look at `Reconciling` if it stays"),
    (
        "ClusterNotObserved",
        "Crunchy's operator has not looked at the newest spec",
        "look whether it runs and watches this namespace",
    ),
    (
        "ConfigInvalid",
        "`spec.api.config` cannot be made into a configuration of the server",
        "correct the key that the message names",
    ),
    (
        "ConfigKeyOwned",
        "`spec.api.config` has a key that the operator owns",
        "remove it and use the field that the message names",
    ),
    (
        "ConfigMapInvalid",
        "A ConfigMap that the spec names does not hold what it should",
        "correct the key that the message names",
    ),
    ("ConfigMapNotFound", "A ConfigMap that the spec names does not exist", "create it"),
    ("Configured", "All declared ways to sign in are handed to the server", "nothing"),
    (
        "CredentialsNotPublished",
        "The Secret of the database's user is not complete yet",
        "nothing; look at Crunchy's operator if it stays",
    ),
    (
        "CrunchyMissing",
        "`spec.database.type` is Crunchy and the cluster has no PostgresCluster",
        "install Crunchy's operator, or choose another type",
    ),
    (
        "DatabaseHoldsData",
        "The data is in another store than the spec asks for",
        "set the type back, or move the data first as the message says",
    ),
    ("DatabaseIncomplete", "`spec.database` lacks the member of its type", "add it"),
    ("DatabaseInvalid", "What `spec.database` says cannot be used", "correct the field that the message names"),
    ("DatabaseNotChosen", "No store is chosen by itself for so many users", "set `spec.database.type`"),
    (
        "DatabaseNotCreated",
        "The database in the cluster does not exist yet",
        "nothing; look at Crunchy's operator if it stays",
    ),
    ("DatasourceInvalid", "A datasource cannot be handed to the server", "correct the field that the message names"),
    (
        "EncryptionKeyLost",
        "Secrets were stored under a key that is gone",
        "put the Secret back from a backup; it is never made anew",
    ),
    ("ExposureInvalid", "`spec.exposure` has a value that cannot be used", "correct the field that the message names"),
    ("Fits", "The numbers agree and fit the namespace and the cluster", "nothing"),
    (
        "ForeignObject",
        "An object of somebody else has one of our names and is left alone",
        "delete or rename it, or name the stack otherwise",
    ),
    (
        "GeneratedSecretDamaged",
        "A generated Secret has lost a value",
        "put the value back; or delete the Secret while the operator runs, which restores it",
    ),
    ("Holds", "The connections of all layers fit into each other", "nothing"),
    (
        "IngressClassAbsent",
        "There is no class that would serve the Ingress",
        "name one in `spec.exposure`, or install a controller",
    ),
    ("InstancesNotReady", "Instances of the PostgreSQL cluster are not ready", "look at their pods"),
    (
        "LimitRangeRefuses",
        "A LimitRange of the namespace refuses a pod or a volume",
        "change the LimitRange or the resources",
    ),
    (
        "MaxConnectionsUnknown",
        "It is not known how many connections the database takes",
        "set `spec.database.external.maxConnections`",
    ),
    ("Migrating", "A Job makes or updates the schema", "nothing"),
    ("MigrationFailed", "That Job failed; it is started again after a minute", "read the log of its pod"),
    ("NameConflict", "An object of somebody else is in the way", "see `ForeignObject`"),
    ("NodeTooSmall", "No node has room for a pod", "lower its resources, or add a node"),
    ("NotAdmitted", "What stands in front of the cluster refuses the address", "do what its message says"),
    (
        "NotAllSeen",
        "Something that decides whether the stack fits could not be read",
        "grant the right that the message names",
    ),
    ("NotCreated", "The object has not been made yet", "nothing; look at `Reconciling` if it stays"),
    (
        "NotOpenShift",
        "The spec asks for something of OpenShift, and this cluster is none",
        "use the general type that the message names",
    ),
    ("NumbersAgree", "The numbers agree with each other", "nothing"),
    ("NumbersContradict", "Overrides in the spec contradict each other", "change the fields that the message names"),
    (
        "OAuthServerUnknown",
        "The cluster names no OAuth server",
        "use `spec.auth.oidc` with the provider that the cluster itself uses",
    ),
    ("ParameterRefused", "A parameter of PostgreSQL cannot be set this way", "remove it"),
    ("PodTemplateInvalid", "`spec.api.podTemplate` cannot be merged", "correct the field that the message names"),
    ("PodsNotReady", "Fewer pods answer than are needed", "look at the pods; the message says how many"),
    ("PodsReady", "Enough pods answer", "nothing"),
    ("PoolerInvalid", "`spec.pooler` does not go with the database", "change one of the two"),
    ("Proceeding", "Nothing is in the way", "nothing"),
    ("ProxyAvailable", "Crunchy's PgBouncer answers", "nothing"),
    ("ProxyNotAvailable", "Crunchy's PgBouncer does not answer yet", "look at its pods"),
    (
        "ProxyNotInstalled",
        "Crunchy's PgBouncer cannot look passwords up yet",
        "nothing; look at Crunchy's operator if it stays",
    ),
    (
        "ProxyNotPublished",
        "The address of Crunchy's PgBouncer is not in the user's Secret yet",
        "nothing; look at Crunchy's operator if it stays",
    ),
    ("QuantityInvalid", "An amount cannot be read, or is not above zero", "correct the field that the message names"),
    (
        "QuotaNeedsResources",
        "A ResourceQuota counts something that a pod does not declare",
        "declare it, or change the quota",
    ),
    ("QuotaTooSmall", "A ResourceQuota has no room for the stack", "raise it by the amount in the message"),
    (
        "QuotaTooSmallForFullLoad",
        "A ResourceQuota has no room for the autoscaler's largest number of pods",
        "raise it by the amount in the message",
    ),
    ("ReplicasInvalid", "`minReplicas` and `maxReplicas` contradict the derived numbers", "change them"),
    (
        "RequestFailed",
        "The API server refused or failed a request; it is tried again with a growing pause",
        "do what the message says",
    ),
    ("ResizeFailed", "A volume of the database could not grow", "read the events of its claim"),
    ("Resolved", "All declared datasources are handed to the server", "nothing"),
    ("ResourcesInvalid", "A request is greater than its limit", "lower the request or raise the limit"),
    ("RollingOut", "Pods are being replaced", "nothing"),
    (
        "RolloutStuck",
        "Pods are not replaced within the deadline",
        "look at the newest pod; the message is the controller's",
    ),
    ("RotationCompleted", "Of every credential that was rotated only the new value counts", "nothing"),
    ("RotationFailed", "The Job of a rotation failed; old and new value both count", "read the log of its pod"),
    ("RotationRefused", "A rotation was asked for that is not the operator's", "do what the message says"),
    ("RotationStarted", "A credential is being replaced; the message says how far it is", "nothing"),
    ("RotationWaits", "A rotation goes on when the stack is awake", "set `spec.suspend` to false"),
    ("SchemaReady", "The database answers and has the schema of this image", "nothing"),
    (
        "SchemaTooNew",
        "The image is older than the schema of the database allows; pods of the later image go on",
        "set `spec.images.apiServer` to the later release again, or restore a backup from before it",
    ),
    ("SecretInvalid", "A Secret has a value that cannot be used", "correct the key that the message names"),
    ("SecretNotFound", "A Secret or a key in it is missing; only what needs it waits", "create it"),
    ("Settled", "The spec is in place", "nothing"),
    ("SpecInvalid", "A field of the spec contradicts another one", "correct what the message names"),
    ("Stalled", "The operator waits for a changed spec", "see condition `Stalled`"),
    ("StorageClassMissing", "The storage class does not exist, or there is no default one", "name one, or create it"),
    ("StorageInvalid", "Sizes of `spec.database` contradict each other", "correct the field that the message names"),
    ("StorageTooSmall", "A volume would shrink", "ask for at least its present size"),
    ("Suspended", "No pod runs, because `spec.suspend` is true; data is kept", "set it to false to wake the stack"),
    ("Suspending", "The parts stop one after the other", "nothing"),
    ("Terminating", "Objects are being deleted and made again afterwards", "look for finalizers if it stays"),
    (
        "UsersNotCreated",
        "The users of the PostgreSQL cluster do not exist yet",
        "nothing; look at Crunchy's operator if it stays",
    ),
    (
        "Violated",
        "The layers would open more connections than the next one takes",
        "change the numbers that the message names",
    ),
    ("VolumeCannotGrow", "The storage class does not let a volume grow", "choose a class that does, or keep the size"),
    ("WaitingForAdmission", "Nobody has admitted the address yet", "look whether a router or gateway serves it"),
    ("WaitingForCrunchy", "Crunchy's operator has not published what is needed", "nothing; look at it if it stays"),
    ("WaitingForSchema", "The API pods start when the schema is there", "nothing; see `DatabaseReady`"),
    (
        "WaitingForTurn",
        "The operator has newer pods for this stack and replaces those of others first",
        "nothing; `--max-rolling` is the limit",
    ),
    ("Waking", "The parts start one after the other", "nothing"),
    ("WorkloadInvalid", "`spec.workload` has a value that cannot be used", "correct the field that the message names"),
];

/// The reference as Markdown.
pub fn markdown() -> String {
    let mut text = "<!-- Generated by `UPDATE=1 cargo test`; do not edit. -->\n# Events and reasons\n\n\
        A condition of a PersesStack carries one of these reasons. When the status or the reason of a condition changes, the\n\
        operator also writes an event (`events.k8s.io/v1`) on the PersesStack with the same reason, once: `Normal` when it is\n\
        good or was asked for, else `Warning`. Repeated ones are counted in a series. Reasons are stable: a release that removes or\n\
        renames one says so in the changelog. Messages are for people and may change.\n\n\
        Conditions whose changes become events: ".to_owned();
    let told: Vec<String> = TOLD.iter().map(|type_| format!("`{type_}`")).collect();
    text += &told.join(", ");
    text += ".\n\n| reason | what is the case | what to do |\n|---|---|---|\n";
    for (reason, case, help) in REASONS {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| `{reason}` | {case} | {help} |");
    }
    text
}
