//! Whole stacks over the range of workloads: the built objects keep what the model promises.

use persesstack_operator::controllers::persesstack::observed::Capabilities;
use persesstack_operator::render::{self, Rendered};
use persesstack_operator::settings::Settings;
use persesstack_operator::sizing::BudgetState;
use persesstack_operator::sizing::footprint::Footprint;
use persesstack_operator::sizing::price::{PriceTable, cost};
use persesstack_operator::sizing::quota::quota;
use proptest::prelude::*;
use serde_json::{Value, json};

fn stack(spec: &Value) -> Rendered {
    let document = json!({"apiVersion": "persesstack.io/v1alpha1", "kind": "PersesStack",
        "metadata": {"name": "perses", "namespace": "a"}, "spec": spec});
    render::render(&document.to_string(), &Settings::default(), Capabilities::with(&[])).unwrap().remove(0)
}

/// The sums of `footprint` fit into its quota with room for one more of the largest pod.
fn quota_holds(footprint: &Footprint) {
    let (quota, full) = (quota(footprint), footprint.full());
    let largest = footprint.pods.iter().map(|group| group.requests().cpu).max().unwrap();
    assert!(quota.cpu_requests.value.0 >= full.requests.cpu.0 + largest.0, "{quota:?}");
    assert!(quota.memory_requests.value.0 >= full.requests.memory.0);
    assert!(quota.cpu_limits.value.0 >= full.limits.cpu.0 && quota.memory_limits.value.0 >= full.limits.memory.0);
    assert!(quota.claims.value > full.claims && quota.storage.value >= full.storage);
    assert!(quota.cpu_requests.value <= quota.cpu_limits.value);
}

proptest! {
    // The same cases every time.
    #![proptest_config(ProptestConfig {
        cases: 64, rng_seed: proptest::test_runner::RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn any_stack_fits_its_own_quota_and_budget(
        users in 1_i32..=100_000,
        dashboards_per_user in 1_i32..=20,
        panels_per_dashboard in 1_i32..=50,
        refresh in 5_i32..=600,
        pooler in proptest::bool::ANY,
        cache in proptest::bool::ANY,
    ) {
        let rendered = stack(&json!({
            "users": users, "database": {"type": "Standalone"},
            "workload": {"dashboardsPerUser": dashboards_per_user, "panelsPerDashboard": panels_per_dashboard,
                         "refreshInterval": format!("{refresh}s")},
            "pooler": {"type": if pooler { "PgBouncer" } else { "None" }},
            "cache": {"type": if cache { "Standalone" } else { "None" }},
        }));
        quota_holds(&rendered.footprint);
        for group in &rendered.footprint.pods {
            prop_assert!(group.fewest <= group.most, "{}", group.workload);
            for container in &group.containers {
                prop_assert!(container.requests.cpu.0 > 0 && container.requests.cpu <= container.limits.cpu, "{}", group.workload);
                prop_assert!(container.requests.memory.0 > 0 && container.requests.memory <= container.limits.memory, "{}", group.workload);
            }
        }
        // Without a pooler every API pod holds connections of its own: 1000 pods are more than 400 connections.
        let pods = i64::from(rendered.sizing.api.max_replicas.value);
        prop_assert!(rendered.sizing.budget.state == BudgetState::Holds || (!pooler && pods > 90), "{}", rendered.sizing.budget.message);
    }

    #[test]
    fn more_users_never_cost_less(users in 1_i32..=95_000, more in 1_i32..=5_000) {
        let bill = |users: i32| {
            let rendered = stack(&json!({"users": users, "database": {"type": "Standalone"}}));
            let egress = rendered.sizing.demand.egress.value;
            (cost(&rendered.footprint, egress, users.into(), &PriceTable::default()), rendered.footprint.full())
        };
        let ((few, small), (many, large)) = (bill(users), bill(users + more));
        prop_assert!(many.most >= few.most - 1e-6 && many.least >= few.least - 1e-6, "{} -> {}", few.most, many.most);
        prop_assert!(many.most_with_spot <= many.most && many.least <= many.most);
        prop_assert!(large.requests.cpu >= small.requests.cpu && large.storage >= small.storage);
    }
}
