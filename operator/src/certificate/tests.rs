use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::*;

const BEGIN: i64 = 1_800_000_000;

fn names() -> Vec<String> {
    vec!["perses-pgbouncer".to_owned(), "perses-pgbouncer.n.svc".to_owned()]
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// Whether somebody with these authorities accepts this certificate at this time, as the server's client for PostgreSQL does.
fn accepts(authorities: &str, certificate: &str, second: i64) -> bool {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        roots.add(authority.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let name = ServerName::try_from("perses-pgbouncer.n.svc").unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(second.unsigned_abs()));
    verifier.verify_server_cert(&certificate, &[], &name, &[], now).is_ok()
}

/// The Secret at a look of the operator, and what it did then.
struct Look {
    second: i64,
    made: Made,
    done: Option<Due>,
}

/// Looks after each of the pauses.
fn life(pauses: impl IntoIterator<Item = i64>) -> Vec<Look> {
    let mut looks = vec![Look { second: BEGIN, made: make(&names(), at(BEGIN)).unwrap(), done: None }];
    for pause in pauses {
        let before = looks.last().unwrap();
        let second = before.second + pause;
        let done = due(Some(&before.made.state), second);
        let renewed = renew(&before.made.data, Some(&before.made.state), &names(), at(second)).unwrap();
        assert_eq!(renewed.is_some(), done.is_some());
        looks.push(Look { second, made: renewed.unwrap_or_else(|| before.made.clone()), done });
    }
    looks
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// However often the operator looks, as long as it is not away for two months: who trusts what was trusted a day ago, or
    /// is now, accepts what is shown now, and what was shown a day ago.
    #[test]
    fn whoever_is_a_day_behind_is_understood(days in proptest::collection::vec(1_i64..60, 240)) {
        let looks = life(days.iter().map(|day| day * DAY));
        for pair in looks.windows(2) {
            let ([before, after], now) = ([&pair[0].made, &pair[1].made], pair[1].second);
            // Where nothing was made, both are the same.
            let all = if pair[1].done.is_some() { vec![before, after] } else { vec![after] };
            for (trusting, shown) in all.iter().flat_map(|trusting| all.iter().map(move |shown| (trusting, shown))) {
                prop_assert!(accepts(trusting.text("ca.crt"), shown.text("tls.crt"), now), "{:?}", pair[1].done);
            }
            prop_assert!(after.text("ca.crt").matches("BEGIN CERTIFICATE").count() <= 2);
        }
        // Nothing is made before it is due: a certificate in eight months, an authority in six years and a half.
        let years = (looks.last().unwrap().second - BEGIN) / CERTIFICATE;
        let count = |due: Due| i64::try_from(looks.iter().filter(|look| look.done == Some(due)).count()).unwrap();
        prop_assert!(count(Due::Authority) <= years / 6 + 1 && count(Due::Authority) >= years / 7 - 1);
        prop_assert!(count(Due::Certificate) + count(Due::Succession) <= years * 3 / 2 + years / 6 + 2);
    }
}

#[test]
fn everything_is_renewed_with_a_third_of_its_life_left() {
    let state = State { since: 0, authority: 0, next: None };
    let (certificate, authority) = (CERTIFICATE - CERTIFICATE / 3, AUTHORITY - AUTHORITY / 3);
    assert_eq!(due(Some(&state), certificate - 1), None);
    assert_eq!(due(Some(&state), certificate), Some(Due::Certificate));
    let young = State { since: authority, ..state.clone() };
    assert_eq!(due(Some(&young), authority - 1), None);
    assert_eq!(due(Some(&young), authority), Some(Due::Authority));
    let next = State { next: Some(authority), ..young };
    assert_eq!(due(Some(&next), authority + KNOWN - 1), None);
    assert_eq!(due(Some(&next), authority + KNOWN), Some(Due::Succession));
    assert_eq!(due(None, 0), Some(Due::Authority), "of an unknown age");
    assert_eq!(due(Some(&state), -1), None, "a clock that went back");
}

#[test]
fn only_what_is_due_changes() {
    let keys = |made: &Made, other: &Made| -> Vec<String> {
        let all = made.data.keys().chain(other.data.keys()).collect::<std::collections::BTreeSet<_>>();
        all.into_iter().filter(|key| made.data.get(*key) != other.data.get(*key)).cloned().collect()
    };
    let made = make(&names(), at(BEGIN)).unwrap();
    assert!(renew(&made.data, Some(&made.state), &names(), at(BEGIN + DAY)).unwrap().is_none());
    let later = BEGIN + CERTIFICATE * 3 / 4;
    let renewed = renew(&made.data, Some(&made.state), &names(), at(later)).unwrap().unwrap();
    assert_eq!(keys(&made, &renewed), ["tls.crt", "tls.key"]);
    let later = BEGIN + AUTHORITY * 3 / 4;
    let beside = renew(&made.data, Some(&made.state), &names(), at(later)).unwrap().unwrap();
    assert_eq!(keys(&made, &beside), ["ca.crt", "next-ca.key"], "no pod starts for that");
    let succeeded = renew(&beside.data, Some(&beside.state), &names(), at(later + KNOWN)).unwrap().unwrap();
    assert_eq!(keys(&beside, &succeeded), ["ca.key", "next-ca.key", "tls.crt", "tls.key"]);
}

/// As the operator made them before authorities kept their keys, or without the annotation.
#[test]
fn one_of_an_unknown_age_gets_a_successor() {
    let old = make(&names(), at(BEGIN)).unwrap();
    let mut without = old.data.clone();
    without.remove(AUTHORITY_KEY);
    for (data, state) in [(&without, Some(&old.state)), (&without, None), (&old.data, None)] {
        let beside = renew(data, state, &names(), at(BEGIN + DAY)).unwrap().unwrap();
        assert!(accepts(beside.text("ca.crt"), old.text("tls.crt"), BEGIN + DAY), "it still counts");
        assert!(renew(&beside.data, Some(&beside.state), &names(), at(BEGIN + DAY)).unwrap().is_none());
        let new = renew(&beside.data, Some(&beside.state), &names(), at(BEGIN + 2 * DAY)).unwrap().unwrap();
        assert!(accepts(beside.text("ca.crt"), new.text("tls.crt"), BEGIN + 2 * DAY));
        assert_eq!(new.state, State { since: BEGIN + 2 * DAY, authority: BEGIN + DAY, next: None });
    }
}

/// Whichever of two authorities signed what is shown, it still counts when nobody knows how far they were.
#[test]
fn an_age_that_is_lost_between_two_authorities_costs_nothing() {
    let made = make(&names(), at(BEGIN)).unwrap();
    let later = BEGIN + AUTHORITY * 3 / 4;
    let young = Made { state: State { since: later, ..made.state.clone() }, ..made };
    let beside = renew(&young.data, Some(&young.state), &names(), at(later)).unwrap().unwrap();
    let succeeded = renew(&beside.data, Some(&beside.state), &names(), at(later + KNOWN)).unwrap().unwrap();
    for (before, second) in [(beside, BEGIN + DAY), (succeeded, later + KNOWN)] {
        let mut found = before.data.clone();
        found.remove(NEXT_AUTHORITY_KEY);
        for state in [None, Some(&before.state)] {
            let Some(after) = renew(&found, state, &names(), at(later + KNOWN)).unwrap() else {
                assert!(state.is_some_and(|state| state.next.is_none()), "it is known, and nothing is due");
                continue;
            };
            // The first one is long past its end; what matters is who vouches for it.
            assert!(accepts(after.text("ca.crt"), before.text("tls.crt"), second));
        }
    }
}

#[test]
fn a_pair_of_its_own_each_time() {
    let (one, other) = (make(&names(), at(BEGIN)).unwrap(), make(&names(), at(BEGIN)).unwrap());
    assert!(one.text("tls.crt").starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(one.text("tls.key").contains("PRIVATE KEY") && one.text("tls.key") != other.text("tls.key"));
    assert_ne!(one.text("ca.crt"), one.text("tls.crt"));
    assert!(!accepts(other.text("ca.crt"), one.text("tls.crt"), BEGIN));
    assert!(!accepts(one.text("ca.crt"), one.text("tls.crt"), BEGIN + CERTIFICATE + DAY), "it ends");
    assert!(make(&["not a name \u{e9}".to_owned()], at(BEGIN)).is_err());
    assert_eq!(State::of(&one.state.text()), Some(one.state.clone()));
    assert_eq!(State::of("{\"step\":\"done\"}"), None);
    assert_eq!(State::of(&State { since: i64::MIN, ..one.state }.text()), None);
}
