use super::*;
use crate::sizing::footprint::ContainerLoad;
use crate::sizing::quantity::{GIB, MIB};

fn amount(cpu: i64, gib: i64) -> Amount {
    Amount { cpu: Cpu(cpu), memory: Bytes(gib * GIB) }
}

/// Two to ten pods of 1 core and 2 GiB (limits twice that), one database volume of 10 GiB.
fn footprint() -> Footprint {
    Footprint {
        pods: vec![PodGroup {
            workload: "Deployment perses-api".to_owned(),
            fewest: 2,
            most: 10,
            surge: 1,
            stateless: true,
            task: false,
            containers: vec![ContainerLoad {
                name: "api".to_owned(),
                requests: amount(1000, 2),
                limits: amount(2000, 4),
            }],
        }],
        volumes: vec![Volume {
            name: "perses-db".to_owned(),
            count: 1,
            size: Bytes(10 * GIB),
            class: None,
            backup: false,
        }],
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A cluster in which everything fits.
fn roomy() -> Facts {
    Facts {
        quotas: Fact::Known(Vec::new()),
        limit_ranges: Fact::Known(Vec::new()),
        storage_classes: Fact::Known(vec![ClassFact { name: "fast".to_owned(), default: true, expandable: true }]),
        nodes: Fact::Known(vec![amount(2000, 4)]),
    }
}

fn quota(hard: &[(&str, &str)], used: &[(&str, &str)]) -> Facts {
    let quota = QuotaFact { name: "team".to_owned(), hard: map(hard), used: map(used) };
    Facts { quotas: Fact::Known(vec![quota]), ..roomy() }
}

fn range(type_: &str, min: &[(&str, &str)], max: &[(&str, &str)]) -> Facts {
    let range = RangeFact { name: "rules".to_owned(), type_: type_.to_owned(), min: map(min), max: map(max) };
    Facts { limit_ranges: Fact::Known(vec![range]), ..roomy() }
}

/// The one problem; panics when there are more or none.
#[track_caller]
fn problem(facts: &Facts) -> Problem {
    let verdict = judge(&footprint(), &Present::default(), facts);
    assert_eq!(verdict.problems.len(), 1, "{:?}", verdict.problems);
    verdict.problems[0].clone()
}

#[track_caller]
fn fits(facts: &Facts) {
    assert_eq!(judge(&footprint(), &Present::default(), facts), Feasibility::default());
}

#[test]
fn a_roomy_cluster_holds_it_and_an_unread_one_is_no_obstacle() {
    fits(&roomy());
    let verdict = judge(&footprint(), &Present::default(), &Facts::default());
    assert!(verdict.problems.is_empty() && verdict.unknown.len() == 4, "{verdict:?}");
    let empty = Facts { nodes: Fact::Known(Vec::new()), ..roomy() };
    let verdict = judge(&footprint(), &Present::default(), &empty);
    assert!(!verdict.blocks() && verdict.unknown == ["nodes (none takes pods now)"], "{verdict:?}");
}

#[test]
fn a_quota_must_hold_the_start_and_should_hold_the_full_load() {
    // Start: 3 pods; full: 11.
    fits(&quota(&[("requests.cpu", "11"), ("limits.memory", "44Gi"), ("pods", "11"), ("secrets", "1")], &[]));
    let full = problem(&quota(&[("requests.cpu", "10")], &[]));
    assert!(
        !full.blocks && full.message.contains("11 are needed under full load, 10 of 10 are left, 1 are missing"),
        "{full:?}"
    );
    let start = problem(&quota(&[("requests.memory", "8Gi")], &[("requests.memory", "3Gi")]));
    assert!(
        start.blocks && start.message.contains("6Gi are needed to start, 5Gi of 8Gi are left, 1Gi are missing"),
        "{start:?}"
    );
    let claims = problem(&quota(&[("persistentvolumeclaims", "5")], &[("persistentvolumeclaims", "5")]));
    assert!(claims.blocks && claims.message.contains("1 are missing"), "{claims:?}");
    let storage = problem(&quota(&[("requests.storage", "9Gi")], &[]));
    assert!(storage.blocks && storage.message.contains("1Gi are missing"), "{storage:?}");
}

#[test]
fn what_the_stack_uses_itself_is_not_in_its_way() {
    let facts = quota(
        &[("requests.cpu", "11"), ("persistentvolumeclaims", "1")],
        &[("requests.cpu", "11"), ("persistentvolumeclaims", "1")],
    );
    assert!(judge(&footprint(), &Present::default(), &facts).blocks());
    let usage = Total { claims: 1, requests: amount(11_000, 22), ..Total::default() };
    let present = Present { usage, ..Present::default() };
    assert_eq!(judge(&footprint(), &present, &facts), Feasibility::default());
    let own = Present { quota: "team".to_owned(), ..Present::default() };
    assert_eq!(judge(&footprint(), &own, &facts), Feasibility::default(), "its own quota follows it");
}

#[test]
fn a_quota_wants_every_container_to_say_what_it_asks_for() {
    let mut without = footprint();
    without.pods[0].containers.push(ContainerLoad { name: "sidecar".to_owned(), ..ContainerLoad::default() });
    let verdict = judge(&without, &Present::default(), &quota(&[("limits.cpu", "100")], &[]));
    assert!(
        verdict.blocks() && verdict.problems[0].message.contains("sidecar of Deployment perses-api"),
        "{verdict:?}"
    );
}

#[test]
fn a_limit_range_is_told_with_the_amount() {
    fits(&range("Container", &[("cpu", "1")], &[("cpu", "2"), ("memory", "4Gi")]));
    let above = problem(&range("Container", &[], &[("memory", "3Gi")]));
    assert!(
        above.blocks && above.message.contains("at most memory 3Gi") && above.message.contains("1Gi off"),
        "{above:?}"
    );
    let below = problem(&range("Container", &[("cpu", "1500m")], &[]));
    assert!(below.blocks && below.message.contains("500m off: raise it"), "{below:?}");
    assert!(problem(&range("Pod", &[], &[("cpu", "1")])).message.contains("a pod of Deployment perses-api"));
    let volume = problem(&range("PersistentVolumeClaim", &[], &[("storage", "5Gi")]));
    assert!(volume.message.contains("claim perses-db") && volume.message.contains("5Gi off"), "{volume:?}");
}

#[test]
fn volumes_need_a_class_that_exists_and_grow_only_where_it_allows_that() {
    let none = Facts { storage_classes: Fact::Known(Vec::new()), ..roomy() };
    assert!(problem(&none).message.contains("no default one (there are: none)"));
    let mut named = footprint();
    named.volumes[0].class = Some("slow".to_owned());
    let verdict = judge(&named, &Present::default(), &roomy());
    assert!(verdict.problems[0].message.contains("slow, which does not exist (there are: fast)"), "{verdict:?}");

    let present = |size: i64| Present {
        claims: [("perses-db".to_owned(), (Bytes(size * GIB), Some("old".to_owned())))].into(),
        ..Present::default()
    };
    let old = ClassFact { name: "old".to_owned(), default: false, expandable: false };
    let facts = Facts { storage_classes: Fact::Known(vec![old]), ..roomy() };
    assert_eq!(judge(&footprint(), &present(10), &facts), Feasibility::default(), "it is there and stays");
    let verdict = judge(&footprint(), &present(5), &facts);
    assert_eq!(verdict.problems[0].reason, "VolumeCannotGrow");
    assert!(!verdict.blocks());
}

#[test]
fn the_largest_pod_must_fit_one_node() {
    // Enough CPU on one and enough memory on the other is not enough.
    let facts = Facts { nodes: Fact::Known(vec![amount(500, 8), amount(4000, 1)]), ..roomy() };
    let found = problem(&facts);
    assert!(found.blocks && found.message.contains("missing: cpu 500m."), "{found:?}");
    let tiny = Facts { nodes: Fact::Known(vec![Amount { cpu: Cpu(900), memory: Bytes(512 * MIB) }]), ..roomy() };
    assert!(problem(&tiny).message.contains("missing: cpu 100m, memory 1536Mi."));
}
