//! The certificate that the operator makes for the pooler, signed by an authority of its own. What is due is decided by a
//! PURE function of what the Secret says and of the time; only making it needs randomness.
//!
//! A certificate lives for a year. With a third of that left the same authority signs another one: pods that trust the
//! authority need not hear of it. An authority lives for ten years. With a third left the next one is put beside it, and a
//! day later, when every pod that mounts the Secret has both, signs the next certificate. The one before stays trusted until
//! the one after that comes.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use serde::{Deserialize, Serialize};

const DAY: i64 = 24 * 60 * 60;
/// Life of a certificate, in seconds.
const CERTIFICATE: i64 = 365 * DAY;
/// Life of an authority.
const AUTHORITY: i64 = 3652 * DAY;
/// For so long an authority is trusted before it signs: the kubelet brings a changed Secret into pods within minutes.
const KNOWN: i64 = DAY;
/// Clocks of nodes differ: what is made is valid from the day before.
const BEFORE: i64 = DAY;

/// Key of the authority's own key. Pods do not mount it.
const AUTHORITY_KEY: &str = "ca.key";
/// Key of that of the authority that does not sign yet.
const NEXT_AUTHORITY_KEY: &str = "next-ca.key";

/// Data of a Secret.
pub type Data = BTreeMap<String, Vec<u8>>;

/// What the annotation of the Secret says of its age; all in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// When the certificate was made.
    pub since: i64,
    /// When the authority was made that signs.
    pub authority: i64,
    /// When the one was made that signs next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}

impl State {
    /// From the annotation's text. Times that no clock shows say nothing.
    pub fn of(text: &str) -> Option<Self> {
        let state: Self = serde_json::from_str(text).ok()?;
        let shown = |second: i64| (0..=Timestamp::MAX.as_second()).contains(&second);
        [Some(state.since), Some(state.authority), state.next].into_iter().flatten().all(shown).then_some(state)
    }

    /// The annotation.
    pub fn text(&self) -> String {
        // Numbers only: this cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What the Secret holds from now on.
#[derive(Clone, Default)]
pub struct Made {
    /// `tls.crt`, `tls.key`, `ca.crt` with all authorities that are trusted, and the authorities' keys.
    pub data: Data,
    /// How old they are.
    pub state: State,
}

impl Made {
    /// A value as text.
    pub fn text(&self, key: &str) -> &str {
        self.data.get(key).and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default()
    }
}

/// What has to be done to a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// The authority signs another one.
    Certificate,
    /// The next authority is put beside the present one.
    Authority,
    /// The next authority signs.
    Succession,
}

/// PURE. Of an unknown age it could end any day: it gets a successor whose age is known.
fn due(state: Option<&State>, now: i64) -> Option<Due> {
    let third_left = |since: i64, life: i64| now >= since.saturating_add(life - life / 3);
    match state {
        None => Some(Due::Authority),
        Some(State { next: Some(next), .. }) => (now >= next.saturating_add(KNOWN)).then_some(Due::Succession),
        Some(State { authority, .. }) if third_left(*authority, AUTHORITY) => Some(Due::Authority),
        Some(State { since, .. }) => third_left(*since, CERTIFICATE).then_some(Due::Certificate),
    }
}

/// A server's certificate for these DNS names, and an authority.
///
/// # Errors
/// A name that is no DNS name, or no randomness.
pub fn make(names: &[String], now: Timestamp) -> Result<Made, rcgen::Error> {
    let now = now.as_second();
    let (authority, key) = authority(names, now)?;
    let data =
        Data::from([("ca.crt".to_owned(), authority.into_bytes()), (AUTHORITY_KEY.to_owned(), key.into_bytes())]);
    signed(names, data, State { since: now, authority: now, next: None }, now)
}

/// What the Secret with this data holds from now on; `None` while nothing is due.
///
/// # Errors
/// A name that is no DNS name, or no randomness.
pub fn renew(
    data: &Data,
    state: Option<&State>,
    names: &[String],
    now: Timestamp,
) -> Result<Option<Made>, rcgen::Error> {
    let now = now.as_second();
    // Whatever was done to the Secret: without its key an authority signs nothing.
    let signs = |key: &str| key_pair(data, key).is_ok();
    let usable = |state: &&State| signs(if state.next.is_some() { NEXT_AUTHORITY_KEY } else { AUTHORITY_KEY });
    let state = state.filter(usable);
    // Of two authorities an unknown one signed.
    let kept = if state.is_some() { 1 } else { 2 };
    let Some(due) = due(state, now) else { return Ok(None) };
    let mut data = data.clone();
    let state = state.cloned().unwrap_or_default();
    match due {
        Due::Certificate => signed(names, data, State { since: now, ..state }, now),
        Due::Authority => {
            let (next, key) = authority(names, now)?;
            let trusted =
                String::from_utf8_lossy(data.get("ca.crt").map(Vec::as_slice).unwrap_or_default()).into_owned();
            let both = format!("{}{next}", last(&trusted, kept));
            data.insert("ca.crt".to_owned(), both.into_bytes());
            data.insert(NEXT_AUTHORITY_KEY.to_owned(), key.into_bytes());
            Ok(Made { data, state: State { next: Some(now), ..state } })
        }
        Due::Succession => {
            let key = data.remove(NEXT_AUTHORITY_KEY).unwrap_or_default();
            data.insert(AUTHORITY_KEY.to_owned(), key);
            let authority = state.next.unwrap_or(now);
            signed(names, data, State { since: now, authority, next: None }, now)
        }
    }
    .map(Some)
}

/// The last of some certificates: with one, the authority that signs.
fn last(certificates: &str, count: usize) -> &str {
    let begins = certificates.rmatch_indices("-----BEGIN CERTIFICATE-----").take(count);
    begins.last().map_or("", |(at, _)| &certificates[at..])
}

/// With a certificate that the authority signs whose key is in `data`.
fn signed(names: &[String], mut data: Data, state: State, now: i64) -> Result<Made, rcgen::Error> {
    let issuer = Issuer::new(authority_params(names, state.authority), key_pair(&data, AUTHORITY_KEY)?);
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name.push(DnType::CommonName, first(names));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    valid(&mut params, now, CERTIFICATE);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.signed_by(&key, &issuer)?;
    data.insert("tls.crt".to_owned(), certificate.pem().into_bytes());
    data.insert("tls.key".to_owned(), key.serialize_pem().into_bytes());
    Ok(Made { data, state })
}

/// An authority's certificate and key.
fn authority(names: &[String], now: i64) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let text = key.serialize_pem();
    Ok((CertifiedIssuer::self_signed(authority_params(names, now), key)?.pem(), text))
}

/// Two of one service are told apart by when they were made.
fn authority_params(names: &[String], made: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("authority of {} {made}", first(names)));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, made, AUTHORITY);
    params
}

fn first(names: &[String]) -> &str {
    names.first().map(String::as_str).unwrap_or_default()
}

/// Whole days.
fn valid(params: &mut CertificateParams, from: i64, life: i64) {
    let day = |second: i64| {
        let time = Timestamp::UNIX_EPOCH.checked_add(SignedDuration::from_secs(second)).unwrap_or(Timestamp::MAX);
        let date = TimeZone::UTC.to_datetime(time).date();
        date_time_ymd(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    params.not_before = day(from - BEFORE);
    params.not_after = day(from.saturating_add(life));
}

fn key_pair(data: &Data, key: &str) -> Result<KeyPair, rcgen::Error> {
    let text = data.get(key).map(|value| String::from_utf8_lossy(value)).unwrap_or_default();
    KeyPair::from_pem(&text)
}

#[cfg(test)]
mod tests;
