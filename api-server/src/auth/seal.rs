//! Makes a spec fit for the store: encrypts the fields of secrets, hashes the passwords of users.

use serde_json::value::RawValue;

use super::crypto::SecretBox;
use super::password::Passwords;
use crate::domain::kind::Kind;
use crate::domain::secret::{self, Password, SealError};

/// What seals.
#[derive(Debug)]
pub struct Sealer {
    secrets: SecretBox,
    passwords: Passwords,
}

impl Sealer {
    /// With the server's key.
    pub fn new(secrets: SecretBox) -> Self {
        Self { secrets, passwords: Passwords::default() }
    }

    /// The key.
    pub fn secrets(&self) -> &SecretBox {
        &self.secrets
    }

    /// The hasher.
    pub fn passwords(&self) -> &Passwords {
        &self.passwords
    }

    /// Seals the spec of a `Secret`, `GlobalSecret` or `User` that replaces `stored`; other kinds come back as they are.
    pub async fn seal(
        &self,
        kind: Kind,
        spec: &RawValue,
        stored: Option<&RawValue>,
    ) -> Result<Box<RawValue>, SealError> {
        match kind {
            Kind::Secret | Kind::GlobalSecret => {
                secret::seal_secret(spec, stored, |plain| self.secrets.encrypt(plain.as_bytes()))
            }
            Kind::User => match secret::merge_user(spec, stored)? {
                (spec, Password::Stored) => secret::raw(spec),
                (spec, Password::New(password)) => {
                    let hash = self.passwords.hash(password).await.map_err(|error| SealError::Cipher {
                        field: "nativeProvider.password".to_owned(),
                        reason: error.to_string(),
                    })?;
                    secret::with_password_hash(spec, hash)
                }
            },
            _ => Ok(spec.to_owned()),
        }
    }

    /// Whether a new spec says the same as the stored, sealed one: secrets are compared in the clear, passwords by their
    /// hash.
    pub async fn same(&self, kind: Kind, spec: &RawValue, stored: &RawValue) -> bool {
        let value = |raw: &RawValue| serde_json::from_str::<serde_json::Value>(raw.get()).ok();
        match kind {
            Kind::Secret | Kind::GlobalSecret => {
                let open = |sealed: &str| String::from_utf8(self.secrets.decrypt(sealed).ok()?).ok();
                // Sealing with the identity fills upstream's defaults in.
                let wanted = secret::seal_secret(spec, Some(stored), |plain| Ok::<_, SealError>(plain.to_owned()));
                let (Ok(wanted), Ok(stored)) = (wanted, secret::open_secret(stored, open)) else { return false };
                value(&wanted) == value(&stored)
            }
            Kind::User => match secret::merge_user(spec, Some(stored)) {
                Ok((merged, Password::Stored)) => Some(serde_json::Value::Object(merged)) == value(stored),
                Ok((merged, Password::New(password))) => {
                    let Some(hash) = secret::password_hash(stored) else { return false };
                    let Ok(merged) = secret::with_password_hash(merged, hash.clone()) else { return false };
                    value(&merged) == value(stored)
                        && self.passwords.verify(password, Some(hash)).await.unwrap_or(false)
                }
                Err(_) => false,
            },
            _ => value(spec) == value(stored),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn raw(value: &serde_json::Value) -> Box<RawValue> {
        serde_json::value::to_raw_value(value).unwrap()
    }

    #[tokio::test]
    async fn what_was_sealed_is_the_same_until_a_secret_or_another_field_changes() {
        let sealer = Sealer::new(SecretBox::new(&[3; 32]).unwrap());
        let spec = raw(&json!({"basicAuth": {"username": "u", "password": "p"}}));
        let stored = sealer.seal(Kind::Secret, &spec, None).await.unwrap();
        assert!(!stored.get().contains("\"p\""));
        assert!(sealer.same(Kind::Secret, &spec, &stored).await);
        for other in [
            json!({"basicAuth": {"username": "u", "password": "q"}}),
            json!({"basicAuth": {"username": "v", "password": "p"}}),
        ] {
            assert!(!sealer.same(Kind::Secret, &raw(&other), &stored).await, "{other}");
        }
        let bearer = raw(&json!({"authorization": {"credentials": "c"}}));
        let stored = sealer.seal(Kind::GlobalSecret, &bearer, None).await.unwrap();
        assert!(sealer.same(Kind::GlobalSecret, &bearer, &stored).await, "the default type is no difference");

        let user = raw(&json!({"firstName": "A", "nativeProvider": {"password": "p"}}));
        let stored = sealer.seal(Kind::User, &user, None).await.unwrap();
        assert!(sealer.same(Kind::User, &user, &stored).await);
        assert!(!sealer.same(Kind::User, &raw(&json!({"nativeProvider": {"password": "q"}})), &stored).await);
        assert!(!sealer.same(Kind::User, &raw(&json!({"firstName": "B"})), &stored).await);
    }
}
