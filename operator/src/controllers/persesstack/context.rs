//! What every reconcile shares: connection, settings, and small memories between reconciles.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use kube::runtime::events::{Recorder, Reporter};
use parking_lot::Mutex;

use super::build::labels::MANAGED_BY;
use super::capabilities::CapabilityCache;
use super::crunchy_schema::CrunchySchemaCache;
use super::observed::SecretData;
use super::survey::ClusterFacts;
use super::turns::Turns;
use crate::apply::owner::StackId;
use crate::backoff::Backoff;
use crate::metrics::Metrics;
use crate::settings::Settings;

/// Namespace and name of a stack.
pub type StackKey = (String, String);

/// Shared by all reconciles of one process.
pub struct Context {
    /// Connection.
    pub client: kube::Client,
    /// Settings of the operator.
    pub settings: Settings,
    /// Counters.
    pub metrics: Metrics,
    /// Publishes events.
    pub recorder: Recorder,
    /// Failed attempts by stack.
    pub backoff: Backoff<StackKey>,
    /// Which stacks refer to which Secrets.
    pub references: References,
    /// Which stacks refer to which ConfigMaps.
    pub config_maps: References,
    /// Content of generated Secrets.
    pub vault: Vault,
    /// Which stacks replace their pods now because of a newer operator.
    pub turns: Turns,
    /// Optional APIs.
    pub capabilities: CapabilityCache,
    /// Nodes and storage classes.
    pub cluster: ClusterFacts,
    /// What Crunchy's CRD can express.
    pub crunchy_schema: CrunchySchemaCache,
    /// UIDs of the stacks that this process has seen become Ready.
    pub became_ready: Mutex<HashSet<String>>,
}

impl Context {
    /// A context with empty memories.
    pub fn new(client: kube::Client, settings: Settings, metrics: Metrics, identity: &str) -> Self {
        let reporter = Reporter { controller: MANAGED_BY.to_owned(), instance: Some(identity.to_owned()) };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            settings,
            metrics,
            backoff: Backoff::default(),
            references: References::default(),
            config_maps: References::default(),
            vault: Vault::default(),
            turns: Turns::default(),
            capabilities: CapabilityCache::default(),
            cluster: ClusterFacts::default(),
            crunchy_schema: CrunchySchemaCache::default(),
            became_ready: Mutex::default(),
        }
    }

    /// Whether this is the first time that this process sees this stack Ready.
    pub fn first_ready(&self, uid: &str) -> bool {
        self.became_ready.lock().insert(uid.to_owned())
    }

    /// Forgets a stack that is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        self.backoff.succeeded(&key);
        self.references.forget(&key);
        self.config_maps.forget(&key);
        self.vault.forget(&key);
        self.turns.done(&key);
        self.metrics.forget(namespace, name);
    }
}

/// Secrets or ConfigMaps that people wrote into specs, by the stack that names them: an event of one wakes the stack.
#[derive(Debug, Default)]
pub struct References(Mutex<HashMap<StackKey, BTreeSet<String>>>);

impl References {
    /// Replaces what a stack refers to.
    pub fn set(&self, stack: &StackId, names: BTreeSet<String>) {
        self.0.lock().insert((stack.namespace.clone(), stack.name.clone()), names);
    }

    /// Names of the stacks of `namespace` that refer to `name`.
    pub fn to(&self, namespace: &str, name: &str) -> Vec<String> {
        let references = self.0.lock();
        let mut stacks: Vec<String> = references
            .iter()
            .filter(|((found, _), names)| found == namespace && names.contains(name))
            .map(|((_, stack), _)| stack.clone())
            .collect();
        stacks.sort();
        stacks
    }

    fn forget(&self, stack: &StackKey) {
        self.0.lock().remove(stack);
    }
}

/// Content of the generated Secrets as last seen, so that one that is deleted while the operator runs comes back with the
/// same content: a new encryption key would make stored secrets unreadable, a new password would lock the pods out.
#[derive(Default)]
pub struct Vault(Mutex<HashMap<StackKey, Kept>>);

/// UID of the stack, and its Secrets by name.
type Kept = (String, BTreeMap<String, SecretData>);

impl Vault {
    /// Remembers the `generated` Secrets that exist in `secrets`, and adds those that only we remember.
    pub fn restore(&self, stack: &StackId, generated: &[String], secrets: &mut BTreeMap<String, SecretData>) {
        let mut vault = self.0.lock();
        let key = (stack.namespace.clone(), stack.name.clone());
        let (uid, kept) = vault.entry(key).or_default();
        if *uid != stack.uid {
            // Another incarnation of the stack: what it finds in the cluster counts, not what its predecessor had.
            (*uid, *kept) = (stack.uid.clone(), BTreeMap::new());
        }
        for name in generated {
            match secrets.get(name) {
                // One that has lost a value is not worth remembering: deleting it brings the whole one back.
                Some(secret) if secret.ours && !kept.get(name).is_some_and(|whole| lacks(secret, whole)) => {
                    kept.insert(name.clone(), secret.clone());
                }
                Some(_) => {}
                None => {
                    if let Some(secret) = kept.get(name) {
                        secrets.insert(name.clone(), secret.clone());
                    }
                }
            }
        }
    }

    fn forget(&self, stack: &StackKey) {
        self.0.lock().remove(stack);
    }
}

/// Whether `secret` has no value where `whole` has one, at the same state of its rotation.
fn lacks(secret: &SecretData, whole: &SecretData) -> bool {
    let missing = |key: &String| secret.data.get(key).is_none_or(Vec::is_empty);
    secret.rotation == whole.rotation && whole.data.iter().any(|(key, value)| !value.is_empty() && missing(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(name: &str, uid: &str) -> StackId {
        StackId { namespace: "n".to_owned(), name: name.to_owned(), uid: uid.to_owned() }
    }

    fn secret(value: &str) -> SecretData {
        SecretData { data: [("k".to_owned(), value.as_bytes().to_vec())].into(), ours: true, rotation: None }
    }

    #[test]
    fn references_follow_the_spec() {
        let references = References::default();
        references.set(&stack("a", "1"), ["db".to_owned(), "token".to_owned()].into());
        references.set(&stack("b", "2"), ["db".to_owned()].into());
        assert_eq!(references.to("n", "db"), ["a", "b"]);
        assert!(references.to("other", "db").is_empty());
        references.set(&stack("a", "1"), BTreeSet::new());
        assert_eq!(references.to("n", "db"), ["b"]);
    }

    #[test]
    fn a_deleted_generated_secret_keeps_its_content() {
        let vault = Vault::default();
        let generated = ["s-keys".to_owned()];
        let mut first = BTreeMap::from([("s-keys".to_owned(), secret("v1"))]);
        vault.restore(&stack("s", "1"), &generated, &mut first);
        let mut deleted = BTreeMap::new();
        vault.restore(&stack("s", "1"), &generated, &mut deleted);
        assert_eq!(deleted.get("s-keys"), Some(&secret("v1")));
        let damaged = SecretData { ours: true, ..SecretData::default() };
        vault.restore(&stack("s", "1"), &generated, &mut BTreeMap::from([("s-keys".to_owned(), damaged)]));
        let mut deleted = BTreeMap::new();
        vault.restore(&stack("s", "1"), &generated, &mut deleted);
        assert_eq!(deleted.get("s-keys"), Some(&secret("v1")), "the whole one comes back");
        let mut reborn = BTreeMap::new();
        vault.restore(&stack("s", "2"), &generated, &mut reborn);
        assert!(reborn.is_empty(), "another incarnation starts without memories");
    }

    #[test]
    fn somebody_elses_secret_is_not_remembered() {
        let vault = Vault::default();
        let generated = ["s-keys".to_owned()];
        let foreign = SecretData { ours: false, ..secret("x") };
        vault.restore(&stack("s", "1"), &generated, &mut BTreeMap::from([("s-keys".to_owned(), foreign)]));
        let mut gone = BTreeMap::new();
        vault.restore(&stack("s", "1"), &generated, &mut gone);
        assert!(gone.is_empty());
    }
}
