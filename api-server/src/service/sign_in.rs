//! The user behind an identity of a provider: created at the first sign-in, kept up to date later (Perses v0.54).

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::auth::provider::identity::Identity;
use crate::domain::document::{Envelope, EnvelopeMetadata, Key, Spec};
use crate::domain::kind::Kind;
use crate::domain::{name, secret};
use crate::error::ApiError;
use crate::service::resources::Resources;
use crate::store::Precondition;

/// How often it is looked again when another sign-in of the same user was quicker.
const ATTEMPTS: usize = 3;

/// Where a user comes from; one of `spec.oauthProviders`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Origin {
    #[serde(default)]
    issuer: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    subject: String,
}

/// Makes the identity's user, or brings it up to date; returns its `metadata.name`. A user with a password here, or from
/// somewhere else, is another person with the same name: 400 in the form of OAuth.
pub async fn sync_user(resources: &Resources, identity: &Identity) -> Result<String, ApiError> {
    let login = resources.fold(&identity.login);
    if login.is_empty() {
        return Err(refused("the user login cannot be empty"));
    }
    name::validate(&login)
        .map_err(|error| refused(&format!("the provider's login {login:?} cannot be a user name here: {error}")))?;
    let key = Key::global(Kind::User, login.as_str());
    let mut last = ApiError::AlreadyExists;
    for _ in 0..ATTEMPTS {
        let (stored, version) = match resources.load(&key).await {
            Ok(document) => (Some(document.spec), document.version),
            Err(ApiError::NotFound) => (None, 0),
            Err(error) => return Err(error),
        };
        let Some(spec) = merge(stored.as_ref().map(Spec::raw), identity)? else { return Ok(login) };
        let envelope = Envelope {
            kind: Kind::User.as_str().to_owned(),
            metadata: EnvelopeMetadata { name: login.clone(), ..EnvelopeMetadata::default() },
            spec: Some(spec),
        };
        let written = match stored {
            None => resources.create(Kind::User, None, envelope).await,
            Some(_) => resources.update(&key, envelope, Precondition::Version(version)).await,
        };
        match written {
            Ok(_) => return Ok(login),
            Err(error @ (ApiError::AlreadyExists | ApiError::NotFound | ApiError::PreconditionFailed(_))) => {
                last = error;
            }
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// The user's new spec; `None` when the stored one says all of it already. Pure.
fn merge(stored: Option<&RawValue>, identity: &Identity) -> Result<Option<Box<RawValue>>, ApiError> {
    if stored.is_some_and(|stored| secret::password_hash(stored).is_some()) {
        return Err(refused("this user is already registered with the native provider"));
    }
    let old: Value = match stored {
        Some(stored) => serde_json::from_str(stored.get()).map_err(|error| ApiError::Internal(error.to_string()))?,
        None => json!({}),
    };
    let known: Vec<Origin> = old.get("oauthProviders").filter(|known| !known.is_null()).map_or_else(
        || Ok(Vec::new()),
        |known| serde_json::from_value(known.clone()).map_err(|error| ApiError::Internal(error.to_string())),
    )?;
    // The e-mail address of a person may change, the rest says who it is.
    if let Some(other) = known.iter().find(|one| one.issuer != identity.issuer || one.subject != identity.subject) {
        return Err(refused(&format!(
            "this user is already registered with a different oauth provider context ({})",
            other.issuer
        )));
    }
    let mut new = old.clone();
    for (field, value) in [("firstName", &identity.first_name), ("lastName", &identity.last_name)] {
        if !value.is_empty() {
            new[field] = json!(value);
        }
    }
    let origin =
        Origin { issuer: identity.issuer.clone(), email: identity.email.clone(), subject: identity.subject.clone() };
    if known != [origin] {
        new["oauthProviders"] =
            json!([{"issuer": identity.issuer, "email": identity.email, "subject": identity.subject}]);
    }
    if stored.is_some() && new == old {
        return Ok(None);
    }
    serde_json::value::to_raw_value(&new).map(Some).map_err(|error| ApiError::Internal(error.to_string()))
}

fn refused(description: &str) -> ApiError {
    ApiError::OAuth { code: "invalid_request".to_owned(), description: description.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ann() -> Identity {
        Identity {
            login: "ann".into(),
            issuer: "https://idp".into(),
            subject: "42".into(),
            email: "ann@a.example".into(),
            first_name: "Ann".into(),
            ..Identity::default()
        }
    }

    fn merged(stored: Option<Value>, identity: &Identity) -> Result<Option<Value>, String> {
        let stored = stored.map(|stored| serde_json::value::to_raw_value(&stored).unwrap());
        match merge(stored.as_deref(), identity) {
            Ok(spec) => Ok(spec.map(|spec| serde_json::from_str(spec.get()).unwrap())),
            Err(ApiError::OAuth { code, description }) => {
                assert_eq!(code, "invalid_request");
                Err(description)
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    #[test]
    fn a_new_user_says_where_they_come_from_and_then_nothing_changes() {
        let origin = json!({"issuer": "https://idp", "email": "ann@a.example", "subject": "42"});
        let spec = merged(None, &ann()).unwrap().unwrap();
        assert_eq!(spec, json!({"firstName": "Ann", "oauthProviders": [origin]}));
        assert_eq!(merged(Some(spec.clone()), &ann()), Ok(None));
        let mut with_more = spec;
        with_more["lastName"] = json!("Kept");
        assert_eq!(merged(Some(with_more.clone()), &ann()), Ok(None), "what the provider does not say stays");
        let moved = Identity { email: "ann@b.example".into(), ..ann() };
        let spec = merged(Some(with_more), &moved).unwrap().unwrap();
        assert_eq!(spec["oauthProviders"][0]["email"], "ann@b.example");
        assert_eq!(spec["lastName"], "Kept");
    }

    #[test]
    fn somebody_else_with_the_name_is_refused() {
        let native = json!({"nativeProvider": {"password": "$2a$10$x"}});
        assert!(merged(Some(native), &ann()).unwrap_err().contains("native provider"));
        for (issuer, subject) in [("https://other", "42"), ("https://idp", "43")] {
            let stored = json!({"oauthProviders": [{"issuer": issuer, "email": "ann@a.example", "subject": subject}]});
            let error = merged(Some(stored), &ann()).unwrap_err();
            assert!(error.contains("different oauth provider") && error.contains(issuer), "{error}");
        }
        // A user that was prepared without a way to sign in becomes this one.
        assert!(merged(Some(json!({"firstName": "A", "nativeProvider": {}})), &ann()).unwrap().is_some());
    }
}
