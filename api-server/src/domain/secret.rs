//! Which fields of `Secret`, `GlobalSecret` and `User` are secret: what is sealed in the store and masked in answers
//! (Perses v0.54). Pure; the cipher is an argument.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::kind::Kind;

/// What answers show in place of a secret value, and what an update may send back to keep the stored one.
pub const MASK: &str = "<secret>";

/// Fields that are encrypted in the store.
const SEALED: [[&str; 2]; 5] = [
    ["basicAuth", "password"],
    ["authorization", "credentials"],
    ["oauth", "clientID"],
    ["oauth", "clientSecret"],
    ["tlsConfig", "key"],
];
/// Fields that are masked only: they are not secret, but upstream hides them too.
const MASKED: [[&str; 2]; 2] = [["tlsConfig", "ca"], ["tlsConfig", "cert"]];
/// Where a user's password is (bcrypt in the store).
const PASSWORD: [&str; 2] = ["nativeProvider", "password"];

/// Why a spec cannot be sealed. Holds no value of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not a JSON object.
    #[error("spec: must be an object")]
    NotAnObject,
    /// The mask was sent where nothing is stored.
    #[error("spec.{0}: \"{MASK}\" stands for the stored value, but there is none")]
    NothingStored(String),
    /// A stored field is not a string.
    #[error("spec.{0}: must be a string")]
    NotAString(String),
    /// A new user without a password.
    #[error("spec.nativeProvider.password: password cannot be empty")]
    NoPassword,
    /// The cipher or the hash refused.
    #[error("spec.{field}: {reason}")]
    Cipher {
        /// The field.
        field: String,
        /// The cipher's own text.
        reason: String,
    },
}

/// Encrypts the secret fields of a `Secret` or `GlobalSecret`; a value that is the mask keeps what is stored.
pub fn seal_secret<E: std::fmt::Display>(
    spec: &RawValue,
    stored: Option<&RawValue>,
    encrypt: impl Fn(&str) -> Result<String, E>,
) -> Result<Box<RawValue>, SealError> {
    let mut spec = object(spec)?;
    let stored = stored.map(object).transpose()?.unwrap_or_default();
    for [group, field] in MASKED {
        keep_masked(&mut spec, &stored, group, field)?;
    }
    for [group, field] in SEALED {
        if keep_masked(&mut spec, &stored, group, field)? {
            continue;
        }
        if let Some(text) = text_at(&spec, group, field)?.filter(|text| !text.is_empty()).map(str::to_owned) {
            let sealed = encrypt(&text)
                .map_err(|error| SealError::Cipher { field: format!("{group}.{field}"), reason: error.to_string() })?;
            set(&mut spec, group, field, sealed);
        }
    }
    // Upstream's default, so that a stored secret says how it is sent.
    if let Some(authorization) = spec.get_mut("authorization").and_then(Value::as_object_mut) {
        let kind = authorization.get("type").and_then(Value::as_str).unwrap_or_default().trim().to_owned();
        let kind = if kind.is_empty() { "Bearer".to_owned() } else { kind };
        authorization.insert("type".to_owned(), Value::String(kind));
    }
    raw(spec)
}

/// Decrypts the secret fields of a stored spec, to compare it with a new one. A value that cannot be decrypted is left as it
/// is (and so differs).
pub fn open_secret(stored: &RawValue, decrypt: impl Fn(&str) -> Option<String>) -> Result<Box<RawValue>, SealError> {
    let mut spec = object(stored)?;
    for [group, field] in SEALED {
        if let Some(plain) = text_at(&spec, group, field)?.and_then(&decrypt) {
            set(&mut spec, group, field, plain);
        }
    }
    raw(spec)
}

/// Encrypts anew what another key encrypted; an error of `change` is that of the first field that it refuses.
pub fn reseal<E: std::fmt::Display>(
    kind: Kind,
    spec: &RawValue,
    change: impl Fn(&str) -> Result<String, E>,
) -> Result<Box<RawValue>, SealError> {
    if !matches!(kind, Kind::Secret | Kind::GlobalSecret) {
        return Ok(spec.to_owned());
    }
    let mut changed = object(spec)?;
    for [group, field] in SEALED {
        if let Some(sealed) = text_at(&changed, group, field)?.filter(|text| !text.is_empty()).map(str::to_owned) {
            let sealed = change(&sealed)
                .map_err(|error| SealError::Cipher { field: format!("{group}.{field}"), reason: error.to_string() })?;
            set(&mut changed, group, field, sealed);
        }
    }
    // The text stays as it is where nothing changes.
    if Value::Object(changed.clone()) == serde_json::from_str::<Value>(spec.get()).unwrap_or_default() {
        return Ok(spec.to_owned());
    }
    raw(changed)
}

/// Puts stored values where a masked copy of a document has the mask. Where nothing is stored the field is left out; these
/// come back as paths, for somebody to enter again.
pub fn unmask(
    kind: Kind,
    spec: &RawValue,
    stored: Option<&RawValue>,
) -> Result<(Box<RawValue>, Vec<String>), SealError> {
    if !kind.holds_secrets() {
        return Ok((spec.to_owned(), Vec::new()));
    }
    let mut spec = object(spec)?;
    let stored = stored.map(object).transpose()?.unwrap_or_default();
    let mut missing = Vec::new();
    for [group, field] in SEALED.into_iter().chain(MASKED).chain([PASSWORD]) {
        match keep_masked(&mut spec, &stored, group, field) {
            Ok(_) => {}
            Err(SealError::NothingStored(path)) => {
                if let Some(group) = spec.get_mut(group).and_then(Value::as_object_mut) {
                    group.remove(field);
                }
                missing.push(format!("spec.{path}"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok((raw(spec)?, missing))
}

/// What to do with the password of a user that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Password {
    /// Hash this one.
    New(String),
    /// The spec already holds what is to be stored.
    Stored,
}

/// Merges a user's new spec with the stored one: an empty password, first or last name keeps the old one (Perses v0.54), and
/// so does the mask. A new user needs a password or a provider.
pub fn merge_user(spec: &RawValue, stored: Option<&RawValue>) -> Result<(Map<String, Value>, Password), SealError> {
    let mut spec = object(spec)?;
    let is_new = stored.is_none();
    let stored = stored.map(object).transpose()?.unwrap_or_default();
    for name in ["firstName", "lastName"] {
        if spec.get(name).and_then(Value::as_str).unwrap_or_default().is_empty() {
            match stored.get(name) {
                Some(old) => drop(spec.insert(name.to_owned(), old.clone())),
                None => drop(spec.remove(name)),
            }
        }
    }
    let [group, field] = PASSWORD;
    let sent = text_at(&spec, group, field)?.unwrap_or_default().to_owned();
    if !sent.is_empty() && sent != MASK {
        return Ok((spec, Password::New(sent)));
    }
    let old = text_at(&stored, group, field)?.unwrap_or_default().to_owned();
    if !old.is_empty() {
        set(&mut spec, group, field, old);
    } else if sent == MASK {
        return Err(SealError::NothingStored(format!("{group}.{field}")));
    } else if is_new && spec.get("oauthProviders").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        return Err(SealError::NoPassword);
    }
    Ok((spec, Password::Stored))
}

/// Puts the hash into a merged spec.
pub fn with_password_hash(mut spec: Map<String, Value>, hash: String) -> Result<Box<RawValue>, SealError> {
    set(&mut spec, PASSWORD[0], PASSWORD[1], hash);
    raw(spec)
}

/// The text of a merged spec.
pub fn raw(spec: Map<String, Value>) -> Result<Box<RawValue>, SealError> {
    serde_json::value::to_raw_value(&Value::Object(spec)).map_err(|_| SealError::NotAnObject)
}

/// The bcrypt hash in a stored user's spec.
pub fn password_hash(stored: &RawValue) -> Option<String> {
    let spec = object(stored).ok()?;
    text_at(&spec, PASSWORD[0], PASSWORD[1]).ok()?.filter(|hash| !hash.is_empty()).map(str::to_owned)
}

/// The spec as answers show it: every secret that is not empty becomes [`MASK`]. Other kinds come back unchanged. What
/// cannot be read is not shown at all.
pub fn mask(kind: Kind, spec: &RawValue) -> Box<RawValue> {
    if !kind.holds_secrets() {
        return spec.to_owned();
    }
    let Ok(mut spec) = object(spec) else { return RawValue::NULL.to_owned() };
    let fields: &[[&str; 2]] = if kind == Kind::User { &[PASSWORD] } else { &[SEALED.as_slice(), &MASKED].concat() };
    for [group, field] in fields {
        if let Some(value) = spec.get_mut(*group).and_then(|group| group.get_mut(*field))
            && value.as_str().is_none_or(|text| !text.is_empty())
            && !value.is_null()
        {
            *value = Value::String(MASK.to_owned());
        }
    }
    if kind == Kind::User {
        spec.entry(PASSWORD[0]).or_insert_with(|| Value::Object(Map::new()));
    }
    raw(spec).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn object(spec: &RawValue) -> Result<Map<String, Value>, SealError> {
    serde_json::from_str(spec.get()).map_err(|_| SealError::NotAnObject)
}

fn text_at<'a>(spec: &'a Map<String, Value>, group: &str, field: &str) -> Result<Option<&'a str>, SealError> {
    match spec.get(group).and_then(|group| group.get(field)) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(SealError::NotAString(format!("{group}.{field}"))),
    }
}

fn set(spec: &mut Map<String, Value>, group: &str, field: &str, text: String) {
    let group = spec.entry(group).or_insert_with(|| Value::Object(Map::new()));
    if !group.is_object() {
        *group = Value::Object(Map::new());
    }
    if let Some(group) = group.as_object_mut() {
        group.insert(field.to_owned(), Value::String(text));
    }
}

/// Takes the stored value over where the mask was sent; whether it was.
fn keep_masked(
    spec: &mut Map<String, Value>,
    stored: &Map<String, Value>,
    group: &str,
    field: &str,
) -> Result<bool, SealError> {
    if text_at(spec, group, field)? != Some(MASK) {
        return Ok(false);
    }
    let old = text_at(stored, group, field)?
        .filter(|old| !old.is_empty())
        .ok_or_else(|| SealError::NothingStored(format!("{group}.{field}")))?
        .to_owned();
    set(spec, group, field, old);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(value: &Value) -> Box<RawValue> {
        serde_json::value::to_raw_value(value).unwrap()
    }

    fn value(raw: &RawValue) -> Value {
        serde_json::from_str(raw.get()).unwrap()
    }

    #[expect(clippy::unnecessary_wraps, reason = "the shape of a cipher")]
    fn cipher(plain: &str) -> Result<String, String> {
        Ok(format!("sealed({plain})"))
    }

    #[test]
    fn seals_masks_and_opens_the_same_fields() {
        let plain = json!({
            "basicAuth": {"username": "u", "password": "p1"}, "authorization": {"credentials": "p2"},
            "oauth": {"clientID": "p3", "clientSecret": "p4", "tokenURL": "t"},
            "tlsConfig": {"ca": "ca", "cert": "cert", "key": "p5", "serverName": "s"}, "extra": [1]
        });
        let sealed = seal_secret(&text(&plain), None, cipher).unwrap();
        let stored = value(&sealed);
        assert_eq!(stored["basicAuth"], json!({"username": "u", "password": "sealed(p1)"}));
        assert_eq!(stored["authorization"], json!({"credentials": "sealed(p2)", "type": "Bearer"}));
        assert_eq!(stored["oauth"], json!({"clientID": "sealed(p3)", "clientSecret": "sealed(p4)", "tokenURL": "t"}));
        assert_eq!(stored["tlsConfig"], json!({"ca": "ca", "cert": "cert", "key": "sealed(p5)", "serverName": "s"}));
        assert_eq!(stored["extra"], json!([1]));

        let masked = mask(Kind::Secret, &sealed);
        for gone in ["p1", "p2", "p3", "p4", "p5", "\"ca\":\"ca\"", "\"cert\":\"cert\""] {
            assert!(!masked.get().contains(gone), "{gone} in {masked}");
        }
        assert_eq!(value(&masked)["basicAuth"], json!({"username": "u", "password": MASK}));

        let opened = open_secret(&sealed, |text| text.strip_prefix("sealed(")?.strip_suffix(')').map(str::to_owned));
        let mut expected = plain;
        expected["authorization"]["type"] = json!("Bearer");
        assert_eq!(value(&opened.unwrap()), expected);
    }

    #[test]
    fn the_mask_keeps_what_is_stored() {
        let stored = text(&json!({"basicAuth": {"username": "u", "password": "old"}, "tlsConfig": {"ca": "pem"}}));
        let sent = text(&json!({"basicAuth": {"username": "v", "password": MASK}, "tlsConfig": {"ca": MASK}}));
        let sealed = value(&seal_secret(&sent, Some(&stored), cipher).unwrap());
        assert_eq!(sealed["basicAuth"], json!({"username": "v", "password": "old"}));
        assert_eq!(sealed["tlsConfig"]["ca"], "pem");
        let error = seal_secret(&sent, None, cipher).unwrap_err();
        assert_eq!(error, SealError::NothingStored("tlsConfig.ca".to_owned()));
        let other = text(&json!({"authorization": {"credentials": "x"}}));
        assert!(seal_secret(&text(&json!({"basicAuth": {"password": MASK}})), Some(&other), cipher).is_err());
    }

    #[test]
    fn an_empty_password_or_name_keeps_the_old_one() {
        let stored = text(&json!({"firstName": "A", "lastName": "B", "nativeProvider": {"password": "$2b$hash"}}));
        for sent in [
            json!({}),
            json!({"firstName": "", "nativeProvider": {"password": ""}}),
            json!({"nativeProvider": {"password": MASK}}),
        ] {
            let (merged, password) = merge_user(&text(&sent), Some(&stored)).unwrap();
            assert_eq!(password, Password::Stored);
            assert_eq!(value(&raw(merged).unwrap()), value(&stored), "{sent}");
        }
        let sent = text(&json!({"firstName": "C", "nativeProvider": {"password": "new"}}));
        let (merged, password) = merge_user(&sent, Some(&stored)).unwrap();
        assert_eq!(password, Password::New("new".to_owned()));
        let user = with_password_hash(merged, "$2b$other".to_owned()).unwrap();
        assert_eq!(
            value(&user),
            json!({"firstName": "C", "lastName": "B", "nativeProvider": {"password": "$2b$other"}})
        );
        assert_eq!(password_hash(&user).as_deref(), Some("$2b$other"));
        assert_eq!(value(&mask(Kind::User, &user))["nativeProvider"]["password"], MASK);
        assert_eq!(merge_user(&text(&json!({})), None), Err(SealError::NoPassword));
        assert!(merge_user(&text(&json!({"oauthProviders": [{"issuer": "i"}]})), None).is_ok());
    }

    #[test]
    fn a_spec_that_cannot_be_read_is_not_shown() {
        let odd = RawValue::from_string("[\"p\"]".to_owned()).unwrap();
        assert_eq!(mask(Kind::Secret, &odd).get(), "null");
        assert_eq!(mask(Kind::Dashboard, &odd).get(), "[\"p\"]");
        assert_eq!(
            value(&mask(Kind::Secret, &text(&json!({"basicAuth": {"password": ["x"]}}))))["basicAuth"]["password"],
            MASK
        );
    }
}
