//! What the spec's limits become: a quota that holds the stack, policies that cut off strangers only, the server's keys.

use std::collections::BTreeSet;

use persesstack_operator::controllers::persesstack::observed::Capabilities;
use persesstack_operator::render::{self, Rendered};
use persesstack_operator::settings::Settings;
use serde_json::{Value, json};

/// One stack from a spec; a Secret for an external database is there.
fn stack(spec: &Value) -> Rendered {
    let document = json!({"apiVersion": "persesstack.io/v1alpha1", "kind": "PersesStack",
        "metadata": {"name": "perses", "namespace": "observability"}, "spec": spec});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "stringData":
        {"host": "pg.databases.svc", "port": "5433", "dbname": "perses", "user": "app", "password": "word"}});
    let settings = Settings { namespace: "operators".to_owned(), ..Settings::default() };
    let text = [&document, &secret].map(|d| serde_saphyr::to_string(d).unwrap()).join("---\n");
    render::render(&text, &settings, Capabilities::with(&[])).unwrap().remove(0)
}

fn of_kind(rendered: &Rendered, kind: &str) -> Vec<Value> {
    render::objects(rendered).unwrap().into_iter().filter(|object| object["kind"] == kind).collect()
}

fn named<'a>(objects: &'a [Value], name: &str) -> &'a Value {
    let found = objects.iter().find(|object| object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} among {}", objects.len()))
}

/// Parts and namespaces that may open a connection.
fn callers(policy: &Value) -> BTreeSet<String> {
    let rules = policy["spec"]["ingress"].as_array().into_iter().flatten();
    let peers = rules.flat_map(|rule| rule["from"].as_array().into_iter().flatten());
    peers
        .map(|peer| {
            let component = &peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"];
            component.as_str().map_or_else(|| peer.to_string(), str::to_owned)
        })
        .collect()
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn data_stores_take_connections_from_the_parts_that_need_them() {
    let policies = of_kind(&stack(&json!({"users": 10})), "NetworkPolicy");
    assert_eq!(policies.len(), 3);
    let (database, redis, pooler) =
        (named(&policies, "perses-db"), named(&policies, "perses-redis"), named(&policies, "perses-pgbouncer"));
    assert_eq!(callers(database), set(&["api", "pgbouncer", "migration"]));
    assert_eq!(callers(redis), set(&["api"]));
    assert_eq!(callers(pooler), set(&["api"]));
    for (policy, port) in [(database, 5432), (redis, 6379), (pooler, 6432)] {
        assert_eq!(policy["spec"]["ingress"][0]["ports"], json!([{"protocol": "TCP", "port": port}]));
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress"]), "what they call is not restricted");
    }
}

#[test]
fn three_redis_and_their_sentinels_talk_with_each_other_and_with_the_api() {
    let spec = json!({"users": 10, "networkPolicy": "All", "cache": {"type": "Sentinel"}});
    let policies = of_kind(&stack(&spec), "NetworkPolicy");
    let redis = named(&policies, "perses-redis");
    assert_eq!(callers(redis), set(&["api", "redis"]));
    let ports = |direction: &str, policy: &Value, peer: &str| -> BTreeSet<String> {
        let rules = policy["spec"][direction].as_array().unwrap().iter().filter(|rule| rule.to_string().contains(peer));
        rules.map(|rule| rule["ports"][0]["port"].to_string()).collect()
    };
    for (direction, policy) in [("ingress", redis), ("egress", redis), ("egress", named(&policies, "perses-api"))] {
        assert_eq!(ports(direction, policy, "component\":\"redis"), set(&["6379", "26379"]), "{direction}");
    }
}

/// The port of every policy is one that the pods under it really listen on.
#[test]
fn policies_select_pods_and_ports_that_exist() {
    let rendered = stack(&json!({"users": 10, "networkPolicy": "All"}));
    let objects = render::objects(&rendered).unwrap();
    for policy in of_kind(&rendered, "NetworkPolicy") {
        let wanted = policy["spec"]["podSelector"]["matchLabels"].as_object().unwrap();
        let selected = objects
            .iter()
            .map(|object| &object["spec"]["template"])
            .find(|template| wanted.iter().all(|(key, value)| template["metadata"]["labels"].get(key) == Some(value)));
        let selected = selected.unwrap_or_else(|| panic!("{} selects nothing", policy["metadata"]["name"]));
        for port in policy["spec"]["ingress"][0]["ports"].as_array().into_iter().flatten() {
            let listens = selected["spec"]["containers"][0]["ports"].as_array().unwrap();
            assert!(listens.iter().any(|p| p["containerPort"] == port["port"]), "{}", policy["metadata"]["name"]);
        }
    }
}

#[test]
fn all_closes_the_api_but_to_routers_monitoring_the_operator_and_neighbours() {
    let spec = json!({"users": 10, "networkPolicy": "All", "datasources": [
        {"name": "in", "url": "http://prometheus.monitoring.svc:9090"},
        {"name": "out", "url": "https://metrics.example.com"}]});
    let policies = of_kind(&stack(&spec), "NetworkPolicy");
    assert_eq!(policies.len(), 5);
    let api = named(&policies, "perses-api");
    let from = api["spec"]["ingress"][0]["from"].to_string();
    for word in [
        "\"podSelector\":{}",
        "policy-group\":\"ingress",
        "policy-group\":\"monitoring",
        "operators",
        "persesstack.io/access",
    ] {
        assert!(from.contains(word), "{word} is not in {from}");
    }
    let egress = api["spec"]["egress"].as_array().unwrap();
    let dns: BTreeSet<String> = egress[0]["ports"].as_array().unwrap().iter().map(ToString::to_string).collect();
    let port = |protocol: &str, port: i32| json!({"protocol": protocol, "port": port}).to_string();
    assert_eq!(dns, [port("UDP", 53), port("TCP", 53), port("UDP", 5353), port("TCP", 5353)].into());
    let to: Vec<String> = egress[1..].iter().map(ToString::to_string).collect();
    assert!(to.iter().any(|rule| rule.contains("\"kubernetes.io/metadata.name\":\"monitoring\"")), "{to:?}");
    assert!(to.contains(&json!({"ports": [{"protocol": "TCP", "port": 443}]}).to_string()), "{to:?}");
    assert!(!to.iter().any(|rule| rule.contains("6443")), "nobody signs in elsewhere: {to:?}");
    for (name, calls) in [("perses-redis", 0), ("perses-db", 0), ("perses-pgbouncer", 1), ("perses-migrate", 1)] {
        let egress = named(&policies, name)["spec"]["egress"].as_array().unwrap().len();
        assert_eq!(egress, 1 + calls, "{name} may ask DNS and {calls} others");
    }
}

#[test]
fn an_external_database_is_reached_and_not_protected() {
    let spec = json!({"users": 10, "networkPolicy": "All",
        "database": {"type": "External", "external": {"secretRef": {"name": "db"}, "direct": {"host": "10.1.2.3"}}}});
    let policies = of_kind(&stack(&spec), "NetworkPolicy");
    assert!(policies.iter().all(|policy| policy["metadata"]["name"] != "perses-db"));
    let pooler = named(&policies, "perses-pgbouncer")["spec"]["egress"].to_string();
    assert!(pooler.contains("\"kubernetes.io/metadata.name\":\"databases\""), "{pooler}");
    let migration = named(&policies, "perses-migrate")["spec"]["egress"].to_string();
    assert!(migration.contains("10.1.2.3/32"), "migrations go past the pooler: {migration}");
}

#[test]
fn disabled_makes_no_policy_and_no_quota() {
    let rendered = stack(&json!({"users": 10, "networkPolicy": "Disabled"}));
    assert!(of_kind(&rendered, "NetworkPolicy").is_empty() && of_kind(&rendered, "ResourceQuota").is_empty());
}

#[test]
fn the_quota_holds_the_stack_twice() {
    let spec = json!({"users": 500, "quota": "Enabled", "database": {"type": "Standalone"}});
    let quotas = of_kind(&stack(&spec), "ResourceQuota");
    // API 11 x (250m, 512Mi), pooler 3 x (100m, 256Mi), Redis (500m, 2Gi), database (2, 4Gi), migration (50m, 64Mi).
    assert_eq!(
        quotas[0]["spec"]["hard"],
        json!({"requests.cpu": "12", "requests.memory": "25Gi", "limits.cpu": "36", "limits.memory": "38Gi",
               "persistentvolumeclaims": "2", "requests.storage": "200Gi"})
    );
}

fn server_config(rendered: &Rendered) -> Value {
    let secrets = of_kind(rendered, "Secret");
    let is_config = |object: &&Value| object["metadata"]["name"].as_str().unwrap().starts_with("perses-api-config-");
    let text = secrets.iter().find(is_config).unwrap()["stringData"]["config.yaml"].as_str().unwrap();
    serde_saphyr::from_str(text).unwrap()
}

/// What the running server reads again.
fn limits_file(rendered: &Rendered) -> Value {
    let maps = of_kind(rendered, "ConfigMap");
    serde_saphyr::from_str(named(&maps, "perses-limits")["data"]["limits.yaml"].as_str().unwrap()).unwrap()
}

#[test]
fn limits_reach_the_running_server() {
    let none = stack(&json!({"users": 10}));
    assert_eq!(limits_file(&none), json!({}), "what is not set is left to the server");
    let spec = json!({"users": 10, "limits": {
        "query": {"mode": "Enforce", "maxTimeSeriesPerChart": 500, "maxLookbackWindow": "7d", "maxQueryLength": 1000,
                  "requiredLabelFilters": ["namespace"]},
        "rate": {"failedSignInsPerAddress": 30, "failedSignInsPerLogin": 5}}});
    let limited = stack(&spec);
    assert_eq!(
        limits_file(&limited),
        json!({"validation": {"mode": "enforce", "query_limits": {"max_time_series_per_chart": 500,
                   "max_lookback_window": "7d", "max_query_length": 1000, "required_label_filters": ["namespace"]}},
               "security": {"authentication": {"rate_limit": {"per_address": 30, "per_login": 5}}}})
    );
    // Nothing else changes, so no pod is replaced.
    let deployment = |rendered: &Rendered| named(&of_kind(rendered, "Deployment"), "perses-api").clone();
    assert_eq!(deployment(&none), deployment(&limited));
    let config = server_config(&limited);
    assert_eq!(config["limits_file"], "/etc/perses/limits/limits.yaml");
    let mounts = deployment(&limited)["spec"]["template"]["spec"]["containers"][0]["volumeMounts"].to_string();
    assert!(mounts.contains("/etc/perses/limits"), "{mounts}");
    let fewer = stack(&json!({"users": 10, "limits": {"rate": {"maxConnections": 2000}}}));
    assert_eq!(server_config(&fewer)["server"]["max_connections"], 2000);
}
