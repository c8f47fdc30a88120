//! Whether an ID token is good (OpenID Connect Core 1.0, section 3.1.3.7). Pure, apart from the clock.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value};

/// Tolerated difference between the provider's clock and ours, in seconds.
const LEEWAY: u64 = 30;

/// What the token must say.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The provider.
    pub issuer: &'a str,
    /// Our client there.
    pub client_id: &'a str,
    /// What we sent with the authorization request; `None` for flows without one.
    pub nonce: Option<&'a str>,
}

/// Why a token is not taken. Never holds it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdTokenError {
    /// Not a JWT, or of a kind that cannot be checked.
    #[error("the ID token is malformed")]
    Malformed,
    /// An algorithm that proves nothing (none, or a key that the client knows too).
    #[error(
        "the ID token is signed with {0:?}, which is not taken: let the provider sign with RS256, PS256, ES256 or EdDSA"
    )]
    Algorithm(Algorithm),
    /// No key of the provider fits: perhaps it has a new one.
    #[error("the ID token is signed with a key that the provider does not publish")]
    UnknownKey,
    /// A claim is missing or wrong.
    #[error("the ID token is not for us: {0}")]
    Claim(&'static str),
    /// Its time is over.
    #[error("the ID token is expired: do the clocks of the provider and of this server agree?")]
    Expired,
}

/// Checks signature and claims; returns the claims.
pub fn verify(token: &str, keys: &JwkSet, expected: Expected<'_>) -> Result<Map<String, Value>, IdTokenError> {
    let header = jsonwebtoken::decode_header(token).map_err(|_| IdTokenError::Malformed)?;
    if matches!(header.alg, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) {
        return Err(IdTokenError::Algorithm(header.alg));
    }
    let mut validation = Validation::new(header.alg);
    validation.leeway = LEEWAY;
    validation.validate_nbf = true;
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.set_issuer(&[expected.issuer]);
    validation.set_audience(&[expected.client_id]);
    let mut failure = IdTokenError::UnknownKey;
    for key in keys.keys.iter().filter(|key| may_sign(key, header.alg, header.kid.as_deref())) {
        let Ok(key) = DecodingKey::from_jwk(key) else { continue };
        match jsonwebtoken::decode::<Map<String, Value>>(token, &key, &validation) {
            Ok(decoded) => return claims(decoded.claims, expected),
            // Without a key id every key is tried.
            Err(error) => match error.kind() {
                ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => {}
                ErrorKind::ExpiredSignature => failure = IdTokenError::Expired,
                ErrorKind::InvalidIssuer => failure = IdTokenError::Claim("iss is another provider"),
                ErrorKind::InvalidAudience => failure = IdTokenError::Claim("aud is another client"),
                ErrorKind::MissingRequiredClaim(_) => {
                    failure = IdTokenError::Claim("one of exp, iss, aud and sub is missing");
                }
                ErrorKind::ImmatureSignature => failure = IdTokenError::Claim("nbf is in the future"),
                _ => failure = IdTokenError::Malformed,
            },
        }
    }
    Err(failure)
}

/// Whether a published key may have signed.
fn may_sign(key: &Jwk, algorithm: Algorithm, kid: Option<&str>) -> bool {
    let common = &key.common;
    let id = kid.is_none() || common.key_id.is_none() || common.key_id.as_deref() == kid;
    let purpose = !matches!(common.public_key_use, Some(PublicKeyUse::Encryption));
    let same =
        common.key_algorithm.is_none_or(|one| one.to_string().parse::<Algorithm>().is_ok_and(|one| one == algorithm));
    // A symmetric key in a public list is no key.
    id && purpose && same && !matches!(key.algorithm, AlgorithmParameters::OctetKey(_))
}

/// The rules that the JWT library does not know.
fn claims(claims: Map<String, Value>, expected: Expected<'_>) -> Result<Map<String, Value>, IdTokenError> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let several = claims.get("aud").and_then(Value::as_array).is_some_and(|all| all.len() > 1);
    match text("azp") {
        Some(party) if party != expected.client_id => return Err(IdTokenError::Claim("azp is another client")),
        None if several => return Err(IdTokenError::Claim("aud names several clients and azp none")),
        _ => {}
    }
    if expected.nonce.is_some() && text("nonce") != expected.nonce {
        return Err(IdTokenError::Claim("nonce is that of another login"));
    }
    if text("sub").is_none_or(str::is_empty) {
        return Err(IdTokenError::Claim("sub is empty"));
    }
    Ok(claims)
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::json;

    use super::*;

    const EXPECTED: Expected<'static> = Expected { issuer: "https://idp", client_id: "perses", nonce: Some("n") };

    /// An EC key pair: PKCS#8 for signing and the published half.
    fn pair(kid: &str) -> (EncodingKey, Jwk) {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some(kid.to_owned());
        (key, jwk)
    }

    fn now() -> u64 {
        jsonwebtoken::get_current_timestamp()
    }

    fn good() -> Value {
        json!({"iss": "https://idp", "aud": "perses", "sub": "1", "nonce": "n", "exp": now() + 60, "groups": ["a"]})
    }

    fn sign(key: &EncodingKey, kid: Option<&str>, claims: &Value) -> String {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, key).unwrap()
    }

    #[test]
    fn takes_what_a_published_key_signed_for_us() {
        let ((key, public), (_, other)) = (pair("one"), pair("two"));
        let keys = JwkSet { keys: vec![other, public] };
        let token = sign(&key, Some("one"), &good());
        assert_eq!(verify(&token, &keys, EXPECTED).unwrap()["groups"], json!(["a"]));
        assert!(verify(&sign(&key, None, &good()), &keys, EXPECTED).is_ok(), "without a key id every key is tried");
        assert_eq!(verify(&sign(&key, Some("three"), &good()), &keys, EXPECTED), Err(IdTokenError::UnknownKey));
        assert_eq!(verify(&sign(&key, Some("two"), &good()), &keys, EXPECTED), Err(IdTokenError::UnknownKey));
        assert_eq!(verify("a.b.c", &keys, EXPECTED), Err(IdTokenError::Malformed));
    }

    #[test]
    fn refuses_every_wrong_claim() {
        let (key, public) = pair("one");
        let keys = JwkSet { keys: vec![public] };
        for (name, value) in [
            ("iss", json!("https://evil")),
            ("aud", json!("another")),
            ("aud", json!(["perses", "another"])),
            ("azp", json!("another")),
            ("nonce", json!("another")),
            ("nonce", Value::Null),
            ("sub", json!("")),
            ("sub", Value::Null),
            ("exp", json!(now() - 120)),
            ("exp", Value::Null),
            ("nbf", json!(now() + 600)),
        ] {
            let mut claims = good();
            claims[name] = value.clone();
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            }
            let refused = verify(&sign(&key, Some("one"), &claims), &keys, EXPECTED);
            assert!(refused.is_err(), "{name} = {value}");
        }
        let mut claims = good();
        claims["aud"] = json!(["perses", "another"]);
        claims["azp"] = json!("perses");
        assert!(verify(&sign(&key, Some("one"), &claims), &keys, EXPECTED).is_ok());
    }

    #[test]
    fn a_shared_or_missing_key_proves_nothing() {
        let (_, public) = pair("one");
        let keys = JwkSet { keys: vec![public] };
        let shared = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &good(), &EncodingKey::from_secret(b"x"));
        assert_eq!(verify(&shared.unwrap(), &keys, EXPECTED), Err(IdTokenError::Algorithm(Algorithm::HS256)));
        // {"alg":"none"}
        assert!(verify("eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.", &keys, EXPECTED).is_err());
    }
}
