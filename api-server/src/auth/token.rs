//! Tokens of a sign-in: JWT with HS512, claims and keys as Perses v0.54 has them. Stateless: a token counts until it ends.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use moka::sync::Cache;
use serde::{Deserialize, Serialize};

use super::crypto::SecretBox;
use super::kubernetes::ClusterUser;

/// Tolerated difference between the clocks of two pods, in seconds: a token made by one counts at once on the other.
const CLOCK_SKEW: i64 = 5;
/// Verified tokens that are remembered; each costs about 300 bytes.
const REMEMBERED: u64 = 20_000;
/// `pkd` of users with a password in this server.
pub const NATIVE: &str = "native";

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The user: `metadata.name`.
    pub sub: String,
    /// End, in seconds since 1970.
    pub exp: i64,
    /// Start, in seconds since 1970.
    #[serde(default)]
    pub nbf: i64,
    /// Kind of the provider that signed the user in: `native`, `oidc` or `oauth`.
    #[serde(default)]
    pub pkd: String,
    /// Which provider of that kind; empty for `native`.
    #[serde(default)]
    pub pid: String,
    /// Groups that the provider named, as many as fit into a cookie: what role mappings look at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

/// Who sends a request; in its extensions once the sign-in was checked.
#[derive(Debug, Clone)]
pub struct Principal(pub Arc<Claims>, Option<Arc<ClusterUser>>);

impl Principal {
    /// A user with a token of this server.
    pub fn new(claims: Arc<Claims>) -> Self {
        Self(claims, None)
    }

    /// A user of the cluster.
    pub(super) fn of_cluster(claims: Claims, user: Arc<ClusterUser>) -> Self {
        Self(Arc::new(claims), Some(user))
    }

    /// The user as the cluster knows it, when the cluster is who signs users in.
    pub fn cluster_user(&self) -> Option<&ClusterUser> {
        self.1.as_deref()
    }

    /// The user's `metadata.name`.
    pub fn login(&self) -> &str {
        &self.0.sub
    }

    /// Groups of the user, as far as they are known here: all that the cluster says, or those that the token carries.
    pub fn groups(&self) -> &[String] {
        self.cluster_user().map_or(self.0.groups.as_slice(), ClusterUser::groups)
    }
}

/// Why a token does not count; the texts are those of Perses' JWT library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a JWT.
    #[error("token is malformed")]
    Malformed,
    /// Signed with another key or another algorithm.
    #[error("token signature is invalid: signature is invalid")]
    Signature,
    /// Its time is over.
    #[error("token has invalid claims: token is expired")]
    Expired,
    /// Its time has not come.
    #[error("token has invalid claims: token is not valid yet")]
    NotYet,
    /// It could not be made.
    #[error("the token cannot be signed")]
    Sign,
}

/// Makes and checks tokens. Tokens that were checked once are remembered, so that a request costs a hash and a look-up.
pub struct Tokens {
    secrets: SecretBox,
    validation: Validation,
    verified: Cache<[u8; 32], Arc<Claims>>,
    /// Life of an access token.
    pub access_ttl: Duration,
    /// Life of a refresh token.
    pub refresh_ttl: Duration,
}

struct Keys {
    /// The current key.
    sign: EncodingKey,
    /// The current key and those before it.
    verify: Vec<DecodingKey>,
}

/// What the keys of refresh tokens end with, as upstream has it; those of access tokens end with nothing.
const REFRESH: &[u8] = b"-refresh";

impl Keys {
    fn new(secrets: &SecretBox, suffix: &[u8]) -> Self {
        let keys: Vec<Vec<u8>> = secrets.keys().iter().map(|key| [key.as_slice(), suffix].concat()).collect();
        let current = keys.first().map_or(&[][..], Vec::as_slice);
        Self {
            sign: EncodingKey::from_secret(current),
            verify: keys.iter().map(|key| DecodingKey::from_secret(key)).collect(),
        }
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("access_ttl", &self.access_ttl)
            .field("refresh_ttl", &self.refresh_ttl)
            .finish_non_exhaustive()
    }
}

impl Tokens {
    /// Keys are derived from the encryption key as upstream does: the key itself for access, with `-refresh` appended for
    /// refresh tokens. Other keys of `secrets` count here at once.
    pub fn new(secrets: &SecretBox, access_ttl: Duration, refresh_ttl: Duration) -> Self {
        let mut validation = Validation::new(Algorithm::HS512);
        // Times are checked here, against the caller's clock.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        Self {
            secrets: secrets.clone(),
            validation,
            verified: Cache::builder().max_capacity(REMEMBERED).time_to_live(access_ttl).build(),
            access_ttl,
            refresh_ttl,
        }
    }

    /// An access token for a user with a password in this server.
    pub fn access(&self, claims: &Claims, now: Timestamp) -> Result<String, TokenError> {
        sign(claims, now, self.access_ttl, &Keys::new(&self.secrets, b"").sign)
    }

    /// A refresh token.
    pub fn refresh(&self, claims: &Claims, now: Timestamp) -> Result<String, TokenError> {
        sign(claims, now, self.refresh_ttl, &Keys::new(&self.secrets, REFRESH).sign)
    }

    /// Checks an access token, given in up to two pieces that a dot joins (cookies split it).
    pub fn verify_access(&self, head: &str, signature: Option<&str>, now: Timestamp) -> Result<Principal, TokenError> {
        let mut hasher = blake3::Hasher::new();
        // A token of a key that is gone is not remembered any more.
        hasher.update(&self.secrets.generation().to_le_bytes()).update(head.as_bytes());
        if let Some(signature) = signature {
            hasher.update(b".").update(signature.as_bytes());
        }
        let id = *hasher.finalize().as_bytes();
        if let Some(claims) = self.verified.get(&id) {
            in_time(&claims, now)?;
            return Ok(Principal::new(claims));
        }
        let keys = Keys::new(&self.secrets, b"").verify;
        let claims = match signature {
            Some(signature) => self.verify(&format!("{head}.{signature}"), &keys, now)?,
            None => self.verify(head, &keys, now)?,
        };
        let claims = Arc::new(claims);
        self.verified.insert(id, claims.clone());
        Ok(Principal::new(claims))
    }

    /// Checks a refresh token.
    pub fn verify_refresh(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        self.verify(token, &Keys::new(&self.secrets, REFRESH).verify, now)
    }

    fn verify(&self, token: &str, keys: &[DecodingKey], now: Timestamp) -> Result<Claims, TokenError> {
        let mut failure = TokenError::Signature;
        for key in keys {
            match jsonwebtoken::decode::<Claims>(token, key, &self.validation) {
                Ok(decoded) => {
                    in_time(&decoded.claims, now)?;
                    return Ok(decoded.claims);
                }
                Err(error) => {
                    failure = match error.kind() {
                        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => TokenError::Signature,
                        _ => TokenError::Malformed,
                    };
                }
            }
        }
        Err(failure)
    }
}

impl Claims {
    /// Claims of a user that a provider vouches for (`pkd`, `pid`); the times are set when a token is made of them.
    pub fn external(login: &str, kind: &str, provider: &str, groups: Vec<String>) -> Self {
        Self { sub: login.to_owned(), exp: 0, nbf: 0, pkd: kind.to_owned(), pid: provider.to_owned(), groups }
    }

    /// Claims of a user with a password; the times are set when a token is made of them.
    pub fn native(login: &str) -> Self {
        Self { sub: login.to_owned(), exp: 0, nbf: 0, pkd: NATIVE.to_owned(), pid: String::new(), groups: Vec::new() }
    }
}

fn sign(claims: &Claims, now: Timestamp, ttl: Duration, key: &EncodingKey) -> Result<String, TokenError> {
    let nbf = now.as_second();
    let exp = nbf.saturating_add(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX));
    let claims = Claims { exp, nbf, ..claims.clone() };
    jsonwebtoken::encode(&Header::new(Algorithm::HS512), &claims, key).map_err(|_| TokenError::Sign)
}

fn in_time(claims: &Claims, now: Timestamp) -> Result<(), TokenError> {
    let now = now.as_second();
    if now >= claims.exp {
        return Err(TokenError::Expired);
    }
    if now + CLOCK_SKEW < claims.nbf {
        return Err(TokenError::NotYet);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(key: u8) -> Tokens {
        let secrets = SecretBox::new(&[key; 32]).unwrap();
        Tokens::new(&secrets, Duration::from_secs(900), Duration::from_secs(86_400))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_token_counts_from_now_until_its_end_whole_or_in_two_pieces() {
        let tokens = tokens(1);
        let token = tokens.access(&Claims::native("alice"), at(1000)).unwrap();
        let (head, signature) = token.rsplit_once('.').unwrap();
        for _ in 0..2 {
            // The second round is answered from memory.
            for (head, signature) in [(token.as_str(), None), (head, Some(signature))] {
                assert_eq!(tokens.verify_access(head, signature, at(1899)).unwrap().login(), "alice");
                assert_eq!(tokens.verify_access(head, signature, at(1900)).unwrap_err(), TokenError::Expired);
                assert_eq!(tokens.verify_access(head, signature, at(994)).unwrap_err(), TokenError::NotYet);
                assert!(tokens.verify_access(head, signature, at(996)).is_ok(), "clocks may differ a little");
            }
        }
        let claims = tokens.verify_access(&token, None, at(1000)).unwrap().0;
        assert_eq!(*claims, Claims { exp: 1900, nbf: 1000, ..Claims::native("alice") });
    }

    #[test]
    fn tokens_of_another_key_kind_or_algorithm_do_not_count() {
        let (ours, other) = (tokens(1), tokens(2));
        let claims = Claims::native("alice");
        let foreign = other.access(&claims, at(0)).unwrap();
        assert_eq!(ours.verify_access(&foreign, None, at(1)).unwrap_err(), TokenError::Signature);
        let refresh = ours.refresh(&claims, at(0)).unwrap();
        assert_eq!(ours.verify_access(&refresh, None, at(1)).unwrap_err(), TokenError::Signature);
        assert_eq!(ours.verify_refresh(&refresh, at(86_399)).unwrap().sub, "alice");
        assert_eq!(ours.verify_refresh(&refresh, at(86_400)).unwrap_err(), TokenError::Expired);
        let access = ours.access(&claims, at(0)).unwrap();
        assert_eq!(ours.verify_refresh(&access, at(1)).unwrap_err(), TokenError::Signature);

        let weaker = jsonwebtoken::encode(
            &Header::new(Algorithm::HS256),
            &Claims { exp: 100, ..claims.clone() },
            &EncodingKey::from_secret(&[1; 32]),
        );
        assert_eq!(ours.verify_access(&weaker.unwrap(), None, at(1)).unwrap_err(), TokenError::Signature);
        // {"alg":"none"}
        let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OX0.";
        assert!(ours.verify_access(none, None, at(1)).is_err());
        for bad in ["", ".", "..", "a.b.c", "x"] {
            assert_eq!(ours.verify_access(bad, None, at(1)).unwrap_err(), TokenError::Malformed, "{bad}");
        }
    }

    #[test]
    fn tokens_of_an_earlier_key_count_until_they_end() {
        let old = tokens(1);
        let both = SecretBox::with_previous(&[2; 32], &[[1; 32]]).unwrap();
        let rotated = Tokens::new(&both, Duration::from_secs(900), Duration::from_secs(86_400));
        let claims = Claims::native("alice");
        let access = old.access(&claims, at(0)).unwrap();
        assert_eq!(rotated.verify_access(&access, None, at(1)).unwrap().login(), "alice");
        assert_eq!(rotated.verify_access(&access, None, at(901)).unwrap_err(), TokenError::Expired);
        let refresh = old.refresh(&claims, at(0)).unwrap();
        assert_eq!(rotated.verify_refresh(&refresh, at(1)).unwrap().sub, "alice");
        let access = rotated.access(&claims, at(0)).unwrap();
        assert_eq!(old.verify_access(&access, None, at(1)).unwrap_err(), TokenError::Signature);
    }

    #[test]
    fn other_keys_count_at_once_and_those_that_are_gone_do_not() {
        let secrets = SecretBox::new(&[1; 32]).unwrap();
        let tokens = Tokens::new(&secrets, Duration::from_secs(900), Duration::from_secs(86_400));
        let claims = Claims::native("alice");
        let old = tokens.access(&claims, at(0)).unwrap();
        assert!(tokens.verify_access(&old, None, at(1)).is_ok());
        assert!(secrets.replace(&[2; 31], &[[1; 32]]).is_err());
        secrets.replace(&[2; 32], &[[1; 32]]).unwrap();
        let new = tokens.access(&claims, at(0)).unwrap();
        assert_ne!(old, new);
        for token in [&old, &new] {
            assert!(tokens.verify_access(token, None, at(1)).is_ok());
        }
        // The old one was remembered.
        secrets.replace::<&[u8]>(&[2; 32], &[]).unwrap();
        assert_eq!(tokens.verify_access(&old, None, at(1)).unwrap_err(), TokenError::Signature);
        assert!(tokens.verify_access(&new, None, at(1)).is_ok());
    }

    #[test]
    fn reads_a_token_of_perses() {
        // Made by golang-jwt v5 as Perses v0.54 calls it: key of 32 'k', login "bob", 2000 to 2900.
        let token = "eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJib2IiLCJleHAiOjI5MDAsIm5iZiI6MjAwMCwicGtkIjoibmF0aXZlIiwicGlkIjoiIn0.UlRUe0_TxocVsIrrTP0F6F9MmvHS97Ryq1c_Ird-Z4Z6BIY4G_Odsec-kKwaZYfVmsHHeyEtzkSzhYAmkLmuKQ";
        let secrets = SecretBox::new(&[b'k'; 32]).unwrap();
        let tokens = Tokens::new(&secrets, Duration::from_secs(900), Duration::from_secs(900));
        assert_eq!(tokens.verify_access(token, None, at(2100)).unwrap().login(), "bob");
    }
}
