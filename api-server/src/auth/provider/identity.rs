//! Who signed in, from what the provider says about them. Pure; the rules for logins are those of Perses v0.54.

use serde_json::{Map, Value};

/// Members that may be the login at an OAuth provider, unless one is configured.
const LOGIN_MEMBERS: [&str; 2] = ["login", "username"];
/// How many bytes of groups go into a token: with the rest of it, base64 around it and the cookie's attributes it stays
/// below the 4096 bytes that browsers take.
const MAX_GROUP_BYTES: usize = 2000;

/// Somebody that a provider vouches for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// The user's name here, before it is checked.
    pub login: String,
    /// The provider: the issuer of OIDC, the host of the authorization endpoint of OAuth.
    pub issuer: String,
    /// The user's id at the provider.
    pub subject: String,
    /// E-mail address, or empty.
    pub email: String,
    /// First name, or empty.
    pub first_name: String,
    /// Last name, or empty.
    pub last_name: String,
    /// All that the provider said: what role mappings look at.
    pub claims: Map<String, Value>,
}

impl Identity {
    /// From the claims of OpenID Connect: the login is the local part of the e-mail address, else the subject.
    pub fn oidc(claims: Map<String, Value>, issuer: &str) -> Self {
        let mut identity = Self::profile(claims, issuer);
        identity.subject = text(&identity.claims, "sub");
        let local = local_part(&identity.email);
        identity.login = if local.is_empty() { identity.subject.clone() } else { local.to_owned() };
        identity
    }

    /// From the user's information at an OAuth provider: the login is the configured member, else `login` or `username`,
    /// else the local part of the e-mail address. It is the subject too, as there is no member that all providers have.
    pub fn oauth(info: Map<String, Value>, host: &str, login_member: &str) -> Self {
        let mut identity = Self::profile(info, host);
        let members = if login_member.is_empty() { &LOGIN_MEMBERS[..] } else { &[login_member][..] };
        let login = members.iter().map(|member| text(&identity.claims, member)).find(|login| !login.is_empty());
        identity.login = login.unwrap_or_else(|| local_part(&identity.email).to_owned());
        identity.subject.clone_from(&identity.login);
        identity
    }

    /// A program that signed in with credentials of its own: its client id is its name.
    pub fn client(client_id: &str, issuer: &str) -> Self {
        Self {
            login: client_id.to_owned(),
            issuer: issuer.to_owned(),
            subject: client_id.to_owned(),
            ..Self::default()
        }
    }

    fn profile(claims: Map<String, Value>, issuer: &str) -> Self {
        Self {
            issuer: issuer.to_owned(),
            email: text(&claims, "email"),
            first_name: text(&claims, "given_name"),
            last_name: text(&claims, "family_name"),
            claims,
            ..Self::default()
        }
    }
}

/// The entries that fit into a token, and how many do not.
pub fn that_fit(mut entries: Vec<String>) -> (Vec<String>, usize) {
    let (all, mut bytes) = (entries.len(), 0);
    entries.retain(|entry| {
        // As JSON: quotes, a comma, escapes.
        let length = Value::from(entry.as_str()).to_string().len() + 1;
        let fits = bytes + length <= MAX_GROUP_BYTES;
        bytes += if fits { length } else { 0 };
        fits
    });
    let lost = all - entries.len();
    (entries, lost)
}

fn local_part(email: &str) -> &str {
    email.split('@').next().unwrap_or_default()
}

/// A member as text: numbers as they are printed, everything else that is no string as nothing. `a.b` is `b` inside `a`,
/// when there is no member of that very name.
fn text(claims: &Map<String, Value>, name: &str) -> String {
    let inside = || {
        let mut path = name.split('.');
        let first = claims.get(path.next()?)?;
        path.try_fold(first, |value, part| value.get(part))
    };
    match claims.get(name).or_else(inside) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn oidc_takes_the_local_part_else_the_subject() {
        let claims = object(&json!({"sub": "42", "email": "ann@a.example", "given_name": "Ann", "family_name": "Bee"}));
        let identity = Identity::oidc(claims.clone(), "https://idp");
        let expected = Identity {
            login: "ann".into(),
            issuer: "https://idp".into(),
            subject: "42".into(),
            email: "ann@a.example".into(),
            first_name: "Ann".into(),
            last_name: "Bee".into(),
            claims,
        };
        assert_eq!(identity, expected);
        assert_eq!(Identity::oidc(object(&json!({"sub": "42"})), "i").login, "42");
    }

    #[test]
    fn oauth_takes_the_configured_member() {
        let info = object(&json!({"login": "octo", "id": 7, "email": "ann@a.example"}));
        let login = |info: &Map<String, Value>, member: &str| Identity::oauth(info.clone(), "h", member).login;
        assert_eq!(login(&info, ""), "octo");
        assert_eq!(login(&info, "id"), "7");
        assert_eq!(login(&info, "none"), "ann");
        assert_eq!(login(&object(&json!({"username": "u"})), ""), "u");
        assert_eq!(login(&object(&json!({"login": {"a": 1}})), ""), "");
        let nested = object(&json!({"metadata": {"name": "ann"}}));
        assert_eq!(login(&nested, "metadata.name"), "ann", "as OpenShift says it");
        assert_eq!(login(&nested, "metadata.uid"), "");
        assert_eq!(login(&object(&json!({"a.b": "x", "a": {"b": "y"}})), "a.b"), "x");
    }

    #[test]
    fn a_token_takes_as_many_groups_as_fit_into_a_cookie() {
        let groups: Vec<String> = (0..500).map(|number| format!("group-{number:03}")).collect();
        let (kept, lost) = that_fit(groups.clone());
        assert_eq!(kept[..], groups[..kept.len()]);
        assert_eq!(kept.len() + lost, 500);
        let bytes = serde_json::to_string(&kept).unwrap().len();
        assert!((MAX_GROUP_BYTES - 20..=MAX_GROUP_BYTES + 2).contains(&bytes), "{bytes}");
        assert_eq!(that_fit(vec!["a".to_owned()]), (vec!["a".to_owned()], 0));
    }
}
