//! The API pods' autoscaler, drain and template, as far as they are built from spec and cluster alone.

use persesstack_operator::apply::kind::Kind;
use persesstack_operator::apply::order::plan;
use persesstack_operator::controllers::persesstack::build::{self, Resources};
use persesstack_operator::controllers::persesstack::observed::{Availability, Capabilities, Observed};
use persesstack_operator::controllers::persesstack::validate::{Invalid, Validated, validate};
use persesstack_operator::controllers::persesstack::waits::Part;
use persesstack_operator::settings::{Entropy, Settings};
use persesstack_operator::{render, sizing};
use serde_json::{Value, json};

fn resolved(spec: &Value, capabilities: Capabilities) -> Result<Validated, Invalid> {
    let document = json!({
        "apiVersion": "persesstack.io/v1alpha1", "kind": "PersesStack",
        "metadata": { "name": "perses", "namespace": "observability", "uid": "7d1f" }, "spec": spec,
    });
    let stack = render::accept(&document).unwrap_or_else(|problems| panic!("{spec}: {problems:?}"));
    let observed = Observed { capabilities, ..Observed::default() };
    validate(&stack, &observed, &Settings::default(), &Entropy::fixed())
}

fn built(validated: &Validated) -> Resources {
    build::build(validated, &sizing::size(&validated.inputs)).expect("built")
}

fn with_metrics(custom_metrics: Availability) -> (Validated, Resources) {
    let metric = json!({"name": "perses_http_request_per_second", "averageValue": "400"});
    let spec = json!({"users": 10, "api": {"autoscaling": {"podMetrics": [metric]}}});
    let mut capabilities = Capabilities::with(&[]);
    capabilities.custom_metrics = custom_metrics;
    let validated = resolved(&spec, capabilities).expect("valid");
    let resources = built(&validated);
    (validated, resources)
}

#[test]
fn metrics_of_pods_are_followed_where_there_is_an_api_for_them() {
    let metrics = |resources: &Resources| -> Vec<String> {
        let spec = resources.api.hpa.clone().and_then(|hpa| hpa.spec).expect("autoscaler");
        spec.metrics.into_iter().flatten().map(|metric| metric.type_).collect()
    };
    let (validated, resources) = with_metrics(Availability::Present);
    assert_eq!(metrics(&resources), ["Resource", "Resource", "Pods"]);
    assert!(validated.waits.first().is_none());

    let (validated, resources) = with_metrics(Availability::Absent);
    assert_eq!(metrics(&resources), ["Resource", "Resource"]);
    let (reason, message) = validated.waits.of(Part::PodMetrics).expect("told");
    assert!(reason == "ApiAbsent" && message.contains("custom.metrics.k8s.io"), "{message}");
    assert!(validated.waits.of(Part::Api).is_none() && resources.api.deployment.is_some(), "the pods do not wait");
}

#[test]
fn an_autoscaler_whose_metrics_api_is_away_is_left_as_it_is() {
    let (validated, resources) = with_metrics(Availability::Unknown);
    assert!(resources.api.hpa.is_none());
    assert!(plan(&resources).undecided.contains(&Kind::HorizontalPodAutoscaler), "nor is it deleted");
    assert_eq!(validated.waits.all().expect("told").0, "ApiUnavailable");
}

#[test]
fn ways_in_that_are_not_known_are_neither_built_nor_deleted() {
    let mut capabilities = Capabilities::with(&[Kind::HttpRoute]);
    capabilities.set(Kind::Route, Availability::Unknown);
    let gateway = json!({"gateway": {"name": "g"}});
    let spec = json!({"users": 10, "exposure": {"host": "a.example", "httpRoute": gateway}});
    let resources = built(&resolved(&spec, capabilities).expect("valid"));
    assert!(resources.exposure.is_none());
    let plan = plan(&resources);
    assert!([Kind::Route, Kind::HttpRoute, Kind::Ingress].iter().all(|kind| plan.undecided.contains(kind)));
    assert!(plan.complete, "the rest goes on");
    assert!(!plan.children().any(|child| child.kind.is_optional()));
}

#[test]
fn nothing_of_an_api_that_is_not_there_is_built() {
    for kinds in [vec![], Kind::OPTIONAL.to_vec()] {
        let capabilities = Capabilities::with(&kinds);
        let gateway = json!({"gateway": {"name": "g"}});
        let spec = json!({"users": 10, "exposure": {"httpRoute": gateway}});
        let plan = plan(&built(&resolved(&spec, capabilities).expect("valid")));
        let wrong: Vec<_> =
            plan.children().filter(|child| capabilities.of(child.kind) != Availability::Present).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}

#[test]
fn a_pod_accepts_until_every_router_has_heard_and_ends_before_it_is_killed() {
    let validated = resolved(&json!({"users": 10}), Capabilities::with(&[])).expect("valid");
    let api = built(&validated).api;
    let pod = api.deployment.expect("pods").spec.expect("spec").template.spec.expect("pod");
    let grace = pod.termination_grace_period_seconds.expect("grace");
    let config = api.config.expect("config").data.expect("data")["config.yaml"].0.clone();
    let config: Value = serde_saphyr::from_str(std::str::from_utf8(&config).expect("text")).expect("YAML");
    let seconds = |key: &str| {
        let text = config["server"][key].as_str().expect(key);
        text.strip_suffix('s').and_then(|number| number.parse::<i64>().ok()).expect(key)
    };
    // OpenShift's router reloads every five seconds at most.
    assert!(seconds("drain_delay") > 5);
    assert_eq!(config["query"]["timeout"], "1m");
    assert!(seconds("drain_timeout") > 60, "the longest query ends");
    assert!(seconds("drain_delay") + seconds("drain_timeout") < grace);
}

#[test]
fn a_pod_template_that_goes_too_far_stops_the_stack_with_a_word() {
    let template = json!({"spec": {"restartPolicy": "Never"}});
    let validated = resolved(&json!({"users": 10, "api": {"podTemplate": template}}), Capabilities::with(&[]));
    let validated = validated.expect("the references are fine");
    let error = build::build(&validated, &sizing::size(&validated.inputs)).expect_err("refused");
    assert!(error.terminal && error.reason == "PodTemplateInvalid", "{error}");
}

#[test]
fn proxies_are_trusted_as_the_spec_says() {
    let proxies = |exposure: Value| {
        let validated = resolved(&json!({"users": 10, "exposure": exposure}), Capabilities::with(&[]))?;
        let config = built(&validated).api.config.expect("config").data.expect("data")["config.yaml"].0.clone();
        let config: Value = serde_saphyr::from_str(std::str::from_utf8(&config).expect("text")).expect("YAML");
        Ok::<_, Invalid>(config["server"]["trusted_proxies"].clone())
    };
    assert_eq!(proxies(json!({"type": "None"})), Ok(Value::Null));
    assert!(proxies(json!({})).expect("valid").as_array().is_some_and(|list| list.contains(&json!("10.0.0.0/8"))));
    let own = json!(["10.128.0.0/14"]);
    assert_eq!(proxies(json!({"trustedProxies": own})), Ok(own));
    let error = proxies(json!({"trustedProxies": ["router.example"]})).expect_err("refused");
    assert!(error.terminal && error.message.contains("router.example"), "{error}");
}
