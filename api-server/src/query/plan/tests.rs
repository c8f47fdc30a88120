use std::sync::Arc;

use proptest::prelude::*;

use super::super::policy::Policies;
use super::*;
use crate::config::Query;
use crate::query::promql;

const NOW: i64 = 1_800_000_000_000;
const HOUR: i64 = 3_600_000;

fn plan_of(
    endpoint: Endpoint,
    query_string: &str,
    form: &str,
    headers: &[(&str, &str)],
    now_ms: i64,
) -> Result<Plan, Uncacheable> {
    let params = Params::parse(Some(query_string), Some(form.as_bytes())).ok_or(Uncacheable::Params)?;
    let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let input = Input {
        endpoint,
        source: Source { digest: &blake3::hash(b"prometheus"), reference: &"global/prometheus".into() },
        label: Some("job").filter(|_| endpoint == Endpoint::LabelValues),
        params: &params,
        headers: &headers,
        now_ms,
        policy: &Policies::new(&Query::default()).of(None, "prometheus").clone(),
    };
    plan(&input, |query| Arc::new(promql::analyse(query)))
}

fn range(params: &str) -> Result<Plan, Uncacheable> {
    plan_of(Endpoint::Range, params, "", &[], NOW)
}

fn instant(params: &str) -> Result<Plan, Uncacheable> {
    plan_of(Endpoint::Instant, params, "", &[], NOW)
}

#[test]
fn get_post_and_a_mix_have_one_key() {
    let get = range("query=up&start=1&end=61&step=15").unwrap();
    for (query_string, form) in [
        ("", "query=up&start=1&end=61&step=15"),
        ("", "step=15s&end=61.000&start=1e0&query=+up%20"),
        ("step=15.0&end=1970-01-01T00:01:01Z", "start=1970-01-01T00:00:01%2B00:00&query=up"),
        ("query=up&start=1&end=61&step=15&timeout=10s", ""),
    ] {
        let other = plan_of(Endpoint::Range, query_string, form, &[], NOW).unwrap();
        assert_eq!(get.key, other.key, "{query_string} {form}");
    }
}

#[test]
fn what_may_change_the_answer_changes_the_key() {
    let all = [
        range("query=up&start=1&end=61&step=15"),
        range("query=up1&start=1&end=61&step=15"),
        range("query=up&start=1.001&end=61&step=15"),
        range("query=up&start=1&end=76&step=15"),
        range("query=up&start=1&end=61&step=15.001"),
        range("query=up&start=1&end=61&step=15&limit=1"),
        range("query=up&start=1&end=61&step=15&limit=1&limit=2"),
        range("query=up&start=1&end=61&step=15&limit=2&limit=1"),
        range("query=up&start=1&end=61&step=15&lookback_delta=1m"),
        range("query=up&start=1&end=61&step=15&dedup=true"),
        range("query=up&start=1&end=61&step=15&x=1%0A1+1+y%3D2"),
        range("query=up&start=1&end=61&step=15&x=1&y=2"),
        plan_of(Endpoint::Range, "query=up&start=1&end=61&step=15", "", &[("x-scope-orgid", "a")], NOW),
        plan_of(Endpoint::Range, "query=up&start=1&end=61&step=15", "", &[("x-scope-orgid", "b")], NOW),
        instant("query=up&time=61"),
        instant("query=up&time=61.5"),
        instant("query=up"),
    ];
    let mut keys: Vec<_> = all.into_iter().map(|plan| plan.unwrap().key.text).collect();
    let before = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), before);
}

#[test]
fn the_datasource_is_part_of_the_key() {
    let params = Params::parse(Some("query=up"), None).unwrap();
    let key = |source: &[u8]| {
        let source = blake3::hash(source);
        let input = Input {
            endpoint: Endpoint::Instant,
            source: Source { digest: &source, reference: &"global/prometheus".into() },
            label: None,
            params: &params,
            headers: &[],
            now_ms: NOW,
            policy: &Policies::new(&Query::default()).of(None, "prometheus").clone(),
        };
        plan(&input, |query| Arc::new(promql::analyse(query))).unwrap().key.hash
    };
    assert_ne!(key(b"one"), key(b"other"));
}

#[test]
fn now_is_shared_for_a_bucket() {
    let at = |now| plan_of(Endpoint::Instant, "query=up", "", &[], now).unwrap();
    assert_eq!(at(NOW).key, at(NOW + BUCKET_MS - 1).key);
    assert_ne!(at(NOW).key, at(NOW + BUCKET_MS).key);
    assert_eq!(at(NOW).key.bucket, NOW / 1000);
    assert!(at(NOW).key.redis_name().starts_with("v1:query:result:"));
    assert_eq!(instant("query=up&time=").unwrap().key, at(NOW).key, "Prometheus takes an empty time for now");
}

#[test]
fn life_follows_the_newest_instant_that_is_read() {
    let ttl = |query: &str, end_age: i64| {
        let end = (NOW / 1000) - end_age;
        range(&format!("query={query}&start={}&end={end}&step=60", end - 3600)).unwrap().ttl.as_secs()
    };
    assert_eq!([ttl("up", 0), ttl("up", 600), ttl("up", 7200)], [30, 300, 900]);
    assert_eq!(ttl("up", -600), 30, "an end in the future is as new as now");
    assert_eq!(ttl("up+offset+-2h", 7200), 30, "a negative offset reads newer data");
    assert_eq!(ttl(&format!("up+@+{}", NOW / 1000), 7200), 30, "so does @");
    assert_eq!(ttl("not+promql(", 7200), 30, "what is not understood may read anything");
    assert_eq!(instant("query=up").unwrap().ttl.as_secs(), 30);
    assert_eq!(instant("query=up&time=1").unwrap().ttl.as_secs(), 900);
}

#[test]
fn passes_through_what_it_cannot_judge() {
    assert_eq!(range("query=up&start=1&end=61&step=15&stats=all"), Err(Uncacheable::Stats));
    for (params, name) in [
        ("start=1&end=61&step=15", "query"),
        ("query=&start=1&end=61&step=15", "query"),
        ("query=a&query=b&start=1&end=61&step=15", "query"),
        ("query=up&end=61&step=15", "start"),
        ("query=up&start=x&end=61&step=15", "start"),
        ("query=up&start=NaN&end=61&step=15", "start"),
        ("query=up&start=1&end=Infinity&step=15", "end"),
        ("query=up&start=1&end=1e30&step=15", "end"),
        ("query=up&start=62&end=61&step=15", "end"),
        ("query=up&start=1&end=61&step=0", "step"),
        ("query=up&start=1&end=61&step=-5", "step"),
        ("query=up&start=1&end=61&step=0.0001", "step"),
        ("query=up&start=1&end=61&step=5x", "step"),
        ("query=up&start=1&end=61", "step"),
    ] {
        assert_eq!(range(params), Err(Uncacheable::Parameter(name)), "{params}");
    }
    assert_eq!(range("query=%"), Err(Uncacheable::Params));
}

#[test]
fn times_as_prometheus_reads_them() {
    for (text, millis) in [
        ("0", 0),
        ("1", 1_000),
        ("1.0006", 1_001),
        ("1435781451.781", 1_435_781_451_781),
        ("-1.5", -1_500),
        ("1e3", 1_000_000),
        ("2015-07-01T20:10:51.781Z", 1_435_781_451_781),
        ("2015-07-01T22:10:51.781999999+02:00", 1_435_781_451_781),
    ] {
        assert_eq!(parse_time(text), Some(millis), "{text}");
    }
    for text in
        ["", "inf", "nan", "0x10", "1_000", ".5", "now", "2015-07-01", "2015-07-01 20:10:51Z", "2015-07-01T20:10:51"]
    {
        assert_eq!(parse_time(text), None, "{text}");
    }
    for (text, millis) in [("15", 15_000), ("0.5", 500), ("1m30s", 90_000), ("1e-3", 1), ("100ms", 100)] {
        assert_eq!(parse_step(text), Some(millis), "{text}");
    }
}

fn about_series(endpoint: Endpoint, query_string: &str, form: &str, now: i64) -> Result<Plan, Uncacheable> {
    plan_of(endpoint, query_string, form, &[], now)
}

#[test]
fn questions_about_series_have_one_key_however_they_are_spelled() {
    let key = |query_string: &str, form: &str| about_series(Endpoint::Series, query_string, form, NOW).unwrap().key;
    let one = key("match[]=up%7Ba=%221%22,b=%222%22%7D&match[]=down&start=1&end=61", "");
    for (query_string, form) in [
        ("", "match%5B%5D=down&match[]=up%7Bb=%222%22,a='1'%7D&end=61.000&start=1e0"),
        ("match[]=%20down&end=61", "match[]=%7B__name__=%22up%22,b=%222%22,a=%221%22%7D&start=1"),
    ] {
        assert_eq!(one, key(query_string, form), "{query_string} {form}");
    }
}

#[test]
fn what_may_change_an_answer_about_series_changes_the_key() {
    let all = [
        about_series(Endpoint::Series, "match[]=up&start=1&end=61", "", NOW),
        about_series(Endpoint::Series, "match[]=up&start=1&end=62", "", NOW),
        about_series(Endpoint::Series, "match[]=up&start=2&end=61", "", NOW),
        about_series(Endpoint::Series, "match[]=up&end=61", "", NOW),
        about_series(Endpoint::Series, "match[]=up&start=1", "", NOW),
        about_series(Endpoint::Series, "match[]=up", "", NOW),
        about_series(Endpoint::Series, "match[]=up&match[]=down&start=1&end=61", "", NOW),
        about_series(Endpoint::Series, "match[]=down&start=1&end=61", "", NOW),
        about_series(Endpoint::Series, "match[]=up&start=1&end=61&limit=5", "", NOW),
        about_series(Endpoint::Series, "match[]=up&start=1&end=61&limit=6", "", NOW),
        about_series(Endpoint::Series, "match[]=up&start=1&end=61&dedup=true", "", NOW),
        about_series(Endpoint::Labels, "match[]=up&start=1&end=61", "", NOW),
        about_series(Endpoint::LabelValues, "match[]=up&start=1&end=61", "", NOW),
        about_series(Endpoint::Labels, "start=1&end=61", "", NOW),
        about_series(Endpoint::Metadata, "metric=up", "", NOW),
        about_series(Endpoint::Metadata, "metric=down", "", NOW),
        about_series(Endpoint::Metadata, "", "", NOW),
        about_series(Endpoint::Metadata, "limit=1", "", NOW),
        about_series(Endpoint::Exemplars, "query=up&start=1&end=61", "", NOW),
        plan_of(Endpoint::Series, "match[]=up&start=1&end=61", "", &[("x-scope-orgid", "a")], NOW),
    ];
    let before = all.len();
    let keys: std::collections::BTreeSet<_> = all.into_iter().map(|plan| plan.unwrap().key.text).collect();
    assert_eq!(keys.len(), before);
}

#[test]
fn windows_that_end_now_are_shared_for_a_bucket() {
    let at = |start: i64, end: i64, now: i64| {
        let params = format!("match[]=up&start={}&end={}", start / 1000, end / 1000);
        about_series(Endpoint::LabelValues, &params, "", now).unwrap().key
    };
    let one = at(NOW - HOUR, NOW, NOW);
    assert_eq!(one, at(NOW - HOUR + 14_000, NOW + 14_000, NOW + 14_500), "a moment later");
    assert_ne!(one, at(NOW - HOUR + 15_000, NOW + 15_000, NOW + 15_500), "another bucket");
    assert_ne!(one, at(NOW - HOUR - 1_000, NOW, NOW), "another length");
    assert_ne!(at(NOW - 60_000, NOW, NOW), at(NOW - 59_000, NOW + 1_000, NOW), "a short window is taken at its word");
    assert_ne!(at(0, NOW - HOUR, NOW), at(1_000, NOW - HOUR + 1_000, NOW), "and so is one of the past");
    assert_ne!(one, at(NOW - HOUR, NOW, NOW + HOUR), "what was now is past later");
}

#[test]
fn answers_about_series_live_a_minute_and_longer_of_the_past() {
    let life = |params: &str| {
        let plan = about_series(Endpoint::Series, &format!("match[]=up&{params}"), "", NOW).unwrap();
        (plan.ttl.as_secs(), plan.class)
    };
    let second = NOW / 1000;
    assert_eq!(life(""), (60, Class::WindowBound));
    assert_eq!(life(&format!("start=1&end={second}")), (60, Class::WindowBound));
    assert_eq!(life(&format!("start=1&end={}", second - 3600)), (60, Class::WindowBound));
    assert_eq!(life(&format!("start=1&end={}", second - 3601)), (900, Class::Immutable));
    assert_eq!(life("start=1"), (60, Class::WindowBound));
    let refused = |endpoint, params: &str| about_series(endpoint, params, "", NOW).unwrap_err();
    assert_eq!(refused(Endpoint::Series, "start=1"), Uncacheable::Parameter("match[]"));
    assert_eq!(refused(Endpoint::Labels, "start=2&end=1"), Uncacheable::Parameter("end"));
    assert_eq!(refused(Endpoint::Labels, "start=x"), Uncacheable::Parameter("start"));
    assert_eq!(refused(Endpoint::Exemplars, "start=1"), Uncacheable::Parameter("query"));
}

#[test]
fn classes_say_how_an_answer_may_be_used() {
    let second = NOW / 1000;
    let class =
        |query: &str, end: i64| range(&format!("query={query}&start={}&end={end}&step=15", end - 60)).unwrap().class;
    assert_eq!(class("up", second), Class::Pure);
    assert_eq!(class("up+@+end()", second), Class::WindowBound);
    assert_eq!(class("up", second - 4000), Class::Immutable);
    assert_eq!(class("up+offset+-2h", second - 4000), Class::Pure);
    assert_eq!(instant("query=up").unwrap().class, Class::Pure);
    assert_eq!(instant("query=up&time=1").unwrap().class, Class::Immutable);
}

#[test]
fn endpoints_are_known_by_their_paths() {
    for (path, word, label) in [
        ("/api/v1/query", "query", None),
        ("/api/v1/query_range", "query_range", None),
        ("/api/v1/query_exemplars", "query_exemplars", None),
        ("/api/v1/series", "series", None),
        ("/api/v1/labels", "labels", None),
        ("/api/v1/metadata", "metadata", None),
        ("/api/v1/label/job/values", "label_values", Some("job")),
    ] {
        let endpoint = Endpoint::from_path(path).unwrap();
        assert_eq!((endpoint.as_str(), label_in(path)), (word, label));
        assert_eq!(Endpoint::parse(word), Some(endpoint));
    }
    for path in ["", "/api/v1/rules", "/api/v1/label//values", "/api/v1/label/a/b/values", "/api/v1/label/a%2Fb/values"]
    {
        assert_eq!(Endpoint::from_path(path), None, "{path}");
    }
}

#[test]
fn a_key_says_what_it_is_about() {
    let series =
        about_series(Endpoint::Series, "match[]=up%7Bx=%22%0A1+2%22%7D&match[]=%7Ba=%22b%22%7D&limit=3", "", NOW)
            .unwrap();
    let about = About::read(&series.key.text).unwrap();
    assert_eq!((about.endpoint, about.source), (Endpoint::Series, "global/prometheus"));
    assert_eq!(about.names(|_| Arc::new(promql::analyse(""))), series.names);
    assert!(series.names.others && series.names.may_be("up"));
    let range = range("query=rate(up%5B5m%5D)+/+down&start=1&end=61&step=15").unwrap();
    for text in [&range.key.text, &range.points.as_ref().unwrap().key.text] {
        let names = About::read(text).unwrap().names(|query| Arc::new(promql::analyse(query)));
        assert!(!names.others && names.may_be("up") && names.may_be("down") && !names.may_be("other"));
    }
    let metadata = about_series(Endpoint::Metadata, "metric=up", "", NOW).unwrap();
    assert_eq!(About::read(&metadata.key.text).unwrap().names(|_| Arc::new(promql::analyse(""))), metadata.names);
    for text in ["", "query", "query x", "query x y\n1", "query x y\n1 1 a=", "other x y", "query x y\n9 9 a=b"] {
        assert_eq!(About::read(text), None, "{text}");
    }
}

proptest! {
    /// Different milliseconds never share a key; the same ones always do, however they are written.
    #[test]
    fn times_keep_their_milliseconds(millis in -4_000_000_000_000_i64..4_000_000_000_000) {
        let sign = if millis < 0 { "-" } else { "" };
        let text = format!("{sign}{}.{:03}", millis.abs() / 1000, millis.abs() % 1000);
        prop_assert_eq!(parse_time(&text), Some(millis));
        let stamp = Timestamp::from_millisecond(millis).unwrap().to_string();
        if stamp.len() >= 20 && !stamp.starts_with('-') {
            prop_assert_eq!(parse_time(&stamp), Some(millis));
        }
    }

    /// Parts cannot flow into each other.
    #[test]
    fn keys_are_unambiguous(one in prop::collection::vec(("[ab =\n1]{0,4}", "[ab =\n1]{0,4}"), 0..4),
                            other in prop::collection::vec(("[ab =\n1]{0,4}", "[ab =\n1]{0,4}"), 0..4)) {
        let text = |parts: &[(String, String)]| {
            let mut key = KeyText::new(Endpoint::Range, Source { digest: &blake3::hash(b""), reference: &"global/x".into() });
            for (name, value) in parts {
                key.part(name, value);
            }
            key.finish(0).text
        };
        prop_assert_eq!(one == other, text(&one) == text(&other));
    }
}
