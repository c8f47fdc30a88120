//! PURE: what a stack waits for, and which of its parts stand still meanwhile. The others are built and repaired.

use super::validate::Invalid;

/// A part of a stack that can be held back alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The standalone database.
    Database,
    /// The shared cache.
    Cache,
    /// The connection pooler.
    Pooler,
    /// The schema migration.
    Migration,
    /// The API pods.
    Api,
    /// The way in from outside.
    Exposure,
    /// The autoscaler's metrics of pods.
    PodMetrics,
    /// What Prometheus needs to watch the stack.
    Monitoring,
    /// One datasource; the others and every object go on.
    Datasource,
    /// One provider of sign-in; the others and every object go on.
    Auth,
}

impl Part {
    /// What mounts the encryption key or the first administrator.
    pub(super) const WITH_KEYS: &[Self] = &[Self::Api];
    /// What mounts the password of Redis.
    pub(super) const WITH_CACHE: &[Self] = &[Self::Cache, Self::Api];
    /// What the Redis and their sentinels sign in to each other with.
    pub(super) const WITH_PEERS: &[Self] = &[Self::Cache];
    /// What signs in to the standalone database.
    pub(super) const WITH_DATABASE: &[Self] = &[Self::Database, Self::Pooler, Self::Migration, Self::Api];
    /// What signs in to an external database.
    pub(super) const WITH_EXTERNAL: &[Self] = &[Self::Pooler, Self::Migration, Self::Api];
    /// What serves with a certificate, and what checks it.
    pub(super) const WITH_TLS: &[Self] = &[Self::Api, Self::Exposure];
    /// What needs the custom metrics API.
    pub(super) const WITH_POD_METRICS: &[Self] = &[Self::PodMetrics];
    /// What needs an API that exposes the service.
    pub(super) const WITH_EXPOSURE: &[Self] = &[Self::Exposure];
    /// The cluster of Crunchy's operator itself; what uses it goes on.
    pub(super) const WITH_CLUSTER: &[Self] = &[Self::Database];
    /// What signs in to the pooler, or speaks TLS with it.
    pub(super) const WITH_POOLER: &[Self] = &[Self::Pooler, Self::Api];
    /// What needs an API of the Prometheus operator.
    pub(super) const WITH_MONITORING: &[Self] = &[Self::Monitoring];
    /// A datasource with credentials.
    pub(super) const WITH_DATASOURCE: &[Self] = &[Self::Datasource];
    /// A provider of sign-in that the pods do not have yet.
    pub(super) const WITH_AUTH: &[Self] = &[Self::Auth];
    /// A provider of sign-in that the pods have: it is not taken from them.
    pub(super) const WITH_RUNNING_AUTH: &[Self] = &[Self::Auth, Self::Api];
}

/// Something that is missing, unusable or somebody else's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// What, and what to do; never terminal.
    pub why: Invalid,
    /// What needs it.
    pub holds: &'static [Part],
}

/// Everything that a stack waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waits(Vec<Wait>);

impl Waits {
    /// The value; or `None` and a note of what it waits for, which holds back `holds`.
    ///
    /// # Errors
    /// What waiting does not cure: only a changed spec does.
    pub(super) fn hold<T>(&mut self, result: Result<T, Invalid>, holds: &'static [Part]) -> Result<Option<T>, Invalid> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(invalid) if invalid.terminal => Err(invalid),
            Err(why) => {
                self.0.push(Wait { why, holds });
                Ok(None)
            }
        }
    }

    /// Why a part is held back: the first reason, and the texts of all; `None` when it is not.
    pub fn of(&self, part: Part) -> Option<(&'static str, String)> {
        summary(self.0.iter().filter(|wait| wait.holds.contains(&part)))
    }

    /// The first reason, and the texts of everything that is waited for; `None` when nothing is.
    pub fn all(&self) -> Option<(&'static str, String)> {
        let (reason, text) = summary(self.0.iter())?;
        Some((reason, format!("{text}. What needs it is left as it is; the rest goes on")))
    }

    /// The first thing that is waited for.
    pub fn first(&self) -> Option<&Invalid> {
        self.0.first().map(|wait| &wait.why)
    }
}

fn summary<'a>(waits: impl Iterator<Item = &'a Wait>) -> Option<(&'static str, String)> {
    let waits: Vec<_> = waits.map(|wait| &wait.why).collect();
    let texts: Vec<_> = waits.iter().map(|why| why.message.as_str()).collect();
    Some((waits.first()?.reason, texts.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_waited_for_holds_its_parts_and_nothing_else() {
        let mut waits = Waits::default();
        assert_eq!(waits.hold(Ok(1), Part::WITH_KEYS), Ok(Some(1)));
        assert_eq!((waits.all(), waits.first()), (None, None));
        let missing = Invalid::waiting("token", None, "credentials of datasource a");
        assert_eq!(waits.hold::<()>(Err(missing.clone()), Part::WITH_DATASOURCE), Ok(None));
        let lost = Invalid { reason: "EncryptionKeyLost", ..Invalid::waiting("keys", None, "encryption key") };
        assert_eq!(waits.hold::<()>(Err(lost), Part::WITH_KEYS), Ok(None));
        assert_eq!(waits.of(Part::Cache), None);
        assert_eq!(waits.of(Part::Datasource), Some(("SecretNotFound", missing.message.clone())));
        assert_eq!(waits.of(Part::Api).map(|(reason, _)| reason), Some("EncryptionKeyLost"));
        let (reason, text) = waits.all().unwrap();
        assert!(reason == "SecretNotFound" && text.contains("Secret token") && text.contains("Secret keys"), "{text}");
    }

    #[test]
    fn what_only_a_changed_spec_cures_is_passed_on() {
        let mut waits = Waits::default();
        let wrong = Invalid::terminal("DatasourceInvalid", "wrong");
        assert_eq!(waits.hold::<()>(Err(wrong.clone()), Part::WITH_DATASOURCE), Err(wrong));
        assert_eq!(waits, Waits::default());
    }
}
