//! PURE: values of the Secrets that are generated once. What exists is kept; only what is absent is made from entropy.

mod peers;

use std::collections::BTreeMap;

use super::build::labels::{INSTANCE_KEY, MANAGED_BY, MANAGED_BY_KEY};
use super::build::names::Names;
use super::inputs;
use super::observed::{Observed, SecretData};
use super::references::{CERTIFICATE_KEYS, fingerprint};
use super::rotation::{self, State, Step, View, What};
use super::validate::{Endpoint, Generated, Invalid, Login, PoolerCertificate, Redacted, SecretRef};
use super::waits::{Part, Waits};
use crate::api::v1alpha1::{CacheType, DatabaseType, PersesStack, PersesStackSpec, PoolerType};
use crate::certificate;
use crate::settings::Entropy;

pub(super) use self::peers::PEER;

type Data = BTreeMap<String, Vec<u8>>;

/// Who signs in to the pooler.
const POOLER_USER: &str = "perses";

/// Key of the 32 bytes in `<stack>-keys`.
pub(super) const ENCRYPTION_KEY: &str = "encryption-key";

/// Values of every generated Secret that this stack needs, without those that cannot be used: they are noted in `waits`.
pub(super) fn resolve(
    stack: &PersesStack,
    database_type: DatabaseType,
    names: &Names,
    observed: &Observed,
    entropy: &Entropy,
    waits: &mut Waits,
) -> Result<Generated, Invalid> {
    let spec = &stack.spec;
    let mut secrets = BTreeMap::new();
    let mut add = |name: String, keys: &[&str], fresh: Data, holds| -> Result<(), Invalid> {
        let data = match observed.secrets.get(&name) {
            None => Ok(fresh),
            Some(existing) if name == names.redis_peers() => {
                adopt(&name, existing, keys).and_then(|data| peers::plain(&name, data))
            }
            Some(existing) => adopt(&name, existing, keys),
        };
        if let Some(data) = waits.hold(data, holds)? {
            secrets.insert(name, data);
        }
        Ok(())
    };
    let fresh = data([("username", "admin".to_owned()), ("password", word(&entropy.admin_password))]);
    add(names.admin(), &["username", "password"], fresh, Part::WITH_KEYS)?;
    if spec.cache.type_.is_own() {
        let password = word(&entropy.redis_password);
        let acl = redis_acl(b"perses", &[password.as_bytes()]);
        let mut fresh = data([("username", "perses".to_owned()), ("password", password)]);
        fresh.insert("users.acl".to_owned(), acl);
        add(names.redis(), &["username", "password", "users.acl"], fresh, Part::WITH_CACHE)?;
    }
    if spec.cache.type_ == CacheType::Sentinel {
        let fresh = peers::fresh(word(&entropy.redis_peer_password));
        add(names.redis_peers(), &[peers::PASSWORD, peers::OTHER], fresh, Part::WITH_PEERS)?;
    }
    if database_type == DatabaseType::Standalone {
        let fresh = data([
            ("host", names.database()),
            ("port", "5432".to_owned()),
            ("dbname", "perses".to_owned()),
            ("user", "perses".to_owned()),
            ("password", word(&entropy.database_password)),
        ]);
        add(names.database(), &["dbname", "user", "password"], fresh, Part::WITH_DATABASE)?;
    }
    if spec.pooler.type_ == PoolerType::PgBouncer {
        let fresh = data([("username", POOLER_USER.to_owned()), ("password", word(&entropy.pooler_password))]);
        add(names.pgbouncer_client(), &["username", "password"], fresh, Part::WITH_POOLER)?;
    }
    let mut certificate = None;
    if own_certificate(spec) {
        let (name, fresh) = (names.pgbouncer_tls(), &entropy.pooler_certificate);
        add(name.clone(), &CERTIFICATE_KEYS, fresh.data.clone(), Part::WITH_POOLER)?;
        certificate = match observed.secrets.get(&name) {
            None => Some(fresh.state.clone()),
            Some(existing) => existing.rotation.as_deref().and_then(certificate::State::of),
        };
        if let (Some(data), Some(renewed)) = (secrets.get_mut(&name), &entropy.pooler_renewal) {
            data.clone_from(&renewed.data);
            certificate = Some(renewed.state.clone());
        }
    }
    if let Some(data) = waits.hold(encryption_key(names, observed, entropy), Part::WITH_KEYS)? {
        secrets.insert(names.keys(), data);
    }
    let rotations = rotate(stack, names, observed, entropy, &mut secrets);
    Ok(Generated { secrets, rotations, certificate })
}

/// Whether the operator makes the pooler's certificate.
pub(super) fn own_certificate(spec: &PersesStackSpec) -> bool {
    spec.pooler.tls.as_ref().is_some_and(|tls| tls.secret_ref.is_none())
}

/// Takes rotations one step further, where they are asked for or under way.
fn rotate(
    stack: &PersesStack,
    names: &Names,
    observed: &Observed,
    entropy: &Entropy,
    secrets: &mut BTreeMap<String, Data>,
) -> rotation::States {
    let pooler = stack.spec.pooler.type_ == PoolerType::PgBouncer;
    let found = |what| State::of(observed.secrets.get(&what_secret(what, names))?);
    let before = What::ALL.into_iter().filter_map(|what| Some((what, found(what)?))).collect();
    let view = View {
        evidence: &observed.rotation,
        expected: &rotation::Seen::at(&before, pooler),
        pooler,
        tokens_live: inputs::sign_in_seconds(&stack.spec),
        awake: rotation::awake(&stack.spec, &observed.workloads),
    };
    let mut states = rotation::States::new();
    for what in What::ALL {
        let name = what_secret(what, names);
        let Some(data) = secrets.get_mut(&name) else { continue };
        let request = rotation::request(stack, what);
        let fresh = match what {
            What::Admin => word(&entropy.admin_password).into_bytes(),
            What::Database => word(&entropy.database_password).into_bytes(),
            What::Keys => entropy.encryption_key.to_vec(),
            What::Redis => word(&entropy.redis_password).into_bytes(),
        };
        let found = observed.secrets.get(&name).map(State::of);
        let mut state = match &found {
            None => State::made(request, observed.rotation.now),
            Some(found) => rotation::advance(what, found.clone(), request, data, fresh, &view),
        };
        if what == What::Redis && stack.spec.cache.type_ == CacheType::Sentinel {
            // Those that sign in to each other are pods of Redis: they too must start anew with the new value.
            let issued =
                |state: &&mut State| state.step == Step::Issue && found.flatten().is_none_or(|f| f.step != Step::Issue);
            if let Some(state) = state.as_mut().filter(issued) {
                state.own += 1;
            }
        }
        states.extend(state.map(|state| (what, state)));
    }
    let peers = names.redis_peers();
    let found = observed.secrets.get(&peers);
    if let (Some(data), Some(found), Some(now)) = (secrets.get_mut(&peers), found, states.get(&What::Redis)) {
        let fresh = word(&entropy.redis_peer_password).into_bytes();
        peers::follow(State::of(found).as_ref(), now, data, fresh);
    }
    states
}

/// The Secret that holds it.
fn what_secret(what: What, names: &Names) -> String {
    match what {
        What::Admin => names.admin(),
        What::Database => names.database(),
        What::Keys => names.keys(),
        What::Redis => names.redis(),
    }
}

/// The 32 bytes that protect stored secrets. Where there is data they are not made anew.
fn encryption_key(names: &Names, observed: &Observed, entropy: &Entropy) -> Result<Data, Invalid> {
    let name = names.keys();
    let has_data = observed.api_replicas.is_some() || observed.database.is_some();
    let data = match observed.secrets.get(&name) {
        Some(existing) => adopt(&name, existing, &[ENCRYPTION_KEY])?,
        None if has_data => return Err(key_lost(&name, names.stack())),
        None => Data::from([(ENCRYPTION_KEY.to_owned(), entropy.encryption_key.to_vec())]),
    };
    match data.get(ENCRYPTION_KEY) {
        Some(key) if key.len() == 32 => Ok(data),
        _ => Err(damaged(&name, ENCRYPTION_KEY, "does not have 32 bytes")),
    }
}

impl Generated {
    /// A value as text.
    pub fn text(&self, secret: &str, key: &str) -> Option<&str> {
        self.secrets.get(secret)?.get(key).and_then(|v| std::str::from_utf8(v).ok()).map(str::trim)
    }

    /// User name and password of the pooler's clients; `None` while they are waited for.
    pub fn pooler_client(&self, names: &Names) -> Option<(&str, &str)> {
        let secret = names.pgbouncer_client();
        self.text(&secret, "username").zip(self.text(&secret, "password"))
    }

    /// Stands for the password with which the pod of the standalone database is started.
    pub(super) fn database_seed(&self, names: &Names) -> String {
        self.secrets.get(&names.database()).map(rotation::seed).unwrap_or_default()
    }

    /// Whether a generated Secret has this key.
    pub(super) fn has(&self, secret: &str, key: &str) -> bool {
        self.secrets.get(secret).is_some_and(|data| data.contains_key(key))
    }

    /// What the annotation of a Secret says: how far its rotation is, if there ever was one, or how old its certificate is.
    pub(super) fn state(&self, secret: &str, names: &Names) -> Option<String> {
        if secret == names.pgbouncer_tls() {
            return self.certificate.as_ref().map(certificate::State::text);
        }
        // That of the peers follows.
        let secret = if secret == names.redis_peers() { names.redis() } else { secret.to_owned() };
        let what = What::ALL.into_iter().find(|what| what_secret(*what, names) == secret)?;
        self.rotations.get(&what).map(State::text)
    }

    /// The certificate that was made for the pooler; `None` while it is waited for.
    pub(super) fn pooler_certificate(&self, names: &Names) -> Option<PoolerCertificate> {
        let secret = names.pgbouncer_tls();
        // An authority that is put beside the present one is no reason to start the pooler anew.
        let fingerprint = fingerprint(self.secrets.get(&secret)?, &["tls.crt", "tls.key"]);
        Some(PoolerCertificate { secret, fingerprint })
    }

    /// Where the standalone database of this stack is.
    pub(super) fn database_endpoint(&self, names: &Names) -> Result<Endpoint, Invalid> {
        let name = names.database();
        let word = |key: &str| {
            let value = self.text(&name, key).unwrap_or_default();
            if value.is_empty() || !value.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '\'' | '"' | '\\')) {
                return Err(damaged(&name, key, "is not a plain word"));
            }
            Ok(value.to_owned())
        };
        Ok(Endpoint {
            // Not the Secret's `host`: a restored Secret may come from another place.
            host: names.database(),
            port: 5432,
            dbname: word("dbname")?,
            login: Login { user: word("user")?, password: Redacted(word("password")?) },
            // Inside one namespace; the pod has no certificate.
            sslmode: "prefer",
            direct: (names.database(), 5432),
            secret: name.clone(),
            secret_keys: ("user".to_owned(), "password".to_owned()),
            read: None,
            ca: None,
        })
    }
}

/// The data of an existing Secret, when it is ours and whole. A key that is lost is never made anew: what it protects
/// would be lost with it.
fn adopt(name: &str, existing: &SecretData, keys: &[&str]) -> Result<Data, Invalid> {
    if !existing.ours {
        return Err(Invalid {
            reason: "NameConflict",
            message: format!(
                "Secret {name} exists and does not belong to this stack: rename or delete it, or, to let the stack use it, \
                 give it the stack's labels"
            ),
            waiting_for: Some(SecretRef { name: name.to_owned(), key: None }),
            terminal: false,
        });
    }
    match keys.iter().find(|key| existing.data.get(**key).is_none_or(Vec::is_empty)) {
        Some(key) => Err(damaged(name, key, "is absent or empty")),
        None => Ok(existing.data.clone()),
    }
}

/// The key is older than everything that it protects: where there is data and no key, it was lost.
fn key_lost(name: &str, stack: &str) -> Invalid {
    Invalid {
        reason: "EncryptionKeyLost",
        message: format!(
            "Secret {name} is gone, and this stack has data that was encrypted with its key: restore it from a backup, with \
             the labels {MANAGED_BY_KEY}={MANAGED_BY} and {INSTANCE_KEY}={stack}; or create it so with 32 random bytes under \
             {ENCRYPTION_KEY}: then the stored secrets of datasources cannot be read any more"
        ),
        waiting_for: Some(SecretRef { name: name.to_owned(), key: None }),
        terminal: false,
    }
}

fn damaged(name: &str, key: &str, what: &str) -> Invalid {
    Invalid {
        reason: "GeneratedSecretDamaged",
        message: format!(
            "key {key} of the generated Secret {name} {what}: restore it from a backup, or delete the Secret to have new \
             values made (what the old value protects is then lost)"
        ),
        waiting_for: Some(SecretRef { name: name.to_owned(), key: Some(key.to_owned()) }),
        terminal: false,
    }
}

/// Redis ACL: one user for the server, nothing for anybody else. `info` and `flushdb` are for metrics and cache flushes.
pub(super) fn redis_acl(user: &[u8], passwords: &[&[u8]]) -> Vec<u8> {
    let passwords: Vec<_> =
        passwords.iter().map(|password| format!(">{}", String::from_utf8_lossy(password))).collect();
    let (user, passwords) = (String::from_utf8_lossy(user), passwords.join(" "));
    format!("user default off\nuser {user} on {passwords} ~* &* +@all -@admin -@dangerous +info +flushdb\n")
        .into_bytes()
}

/// A password of letters and digits: safe in URLs, configuration files and SQL. 24 bytes give about 140 bits.
fn word(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    bytes.iter().map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()])).collect()
}

fn data<const N: usize>(pairs: [(&str, String); N]) -> Data {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.into_bytes())).collect()
}
