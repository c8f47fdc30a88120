//! Ways to sign in and datasources with everything around them: what is built, what waits, what is refused.

use std::collections::BTreeMap;

use persesstack_operator::api::v1alpha1::{AuthStatus, PersesStack};
use persesstack_operator::apply::kind::Kind;
use persesstack_operator::controllers::persesstack::build;
use persesstack_operator::controllers::persesstack::observed::{
    Availability, Capabilities, ExposureState, Observed, SecretData,
};
use persesstack_operator::controllers::persesstack::validate::{Invalid, Validated, validate};
use persesstack_operator::controllers::persesstack::waits::Part;
use persesstack_operator::settings::{Entropy, Settings};
use persesstack_operator::{render, sizing};
use serde_json::{Value, json};

fn stack(spec: &Value) -> PersesStack {
    let document = json!({
        "apiVersion": "persesstack.io/v1alpha1", "kind": "PersesStack",
        "metadata": {"name": "perses", "namespace": "observability", "uid": "7d1f"}, "spec": spec,
    });
    render::accept(&document).unwrap_or_else(|problems| panic!("{spec}: {problems:?}"))
}

fn resolved(stack: &PersesStack, observed: &Observed) -> Result<Validated, Invalid> {
    validate(stack, observed, &Settings::default(), &Entropy::fixed())
}

fn secret(pairs: &[(&str, &str)]) -> SecretData {
    let data = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
    SecretData { data, ..SecretData::default() }
}

/// A cluster with Routes in which this Secret is.
fn cluster(name: &str, data: SecretData) -> Observed {
    Observed {
        capabilities: Capabilities::with(&[Kind::Route]),
        secrets: BTreeMap::from([(name.to_owned(), data)]),
        ..Observed::default()
    }
}

fn admitted(observed: &mut Observed, host: &str) {
    let (address, host) = (Some(format!("https://{host}")), Some(host.to_owned()));
    observed.workloads.exposure =
        Some(ExposureState { kind: Kind::Route, host, address, admitted: true, message: None });
}

fn keycloak() -> Value {
    json!({"users": 10, "auth": {"oidc": [{"name": "keycloak", "issuer": "https://keycloak.example/realms/main",
        "client": {"secretRef": {"name": "keycloak-client"}}}]}})
}

/// The server's configuration and the API Deployment; `None` while they are held back.
fn built(validated: &Validated) -> Option<(Value, Value)> {
    let resources = build::build(validated, &sizing::size(&validated.inputs)).unwrap();
    let file = resources.api.config?.data?.remove("config.yaml")?;
    let config = serde_saphyr::from_str(std::str::from_utf8(&file.0).unwrap()).unwrap();
    Some((config, serde_json::to_value(resources.api.deployment?).unwrap()))
}

#[test]
fn a_provider_waits_for_its_secret_and_for_the_address_and_nothing_else_does() {
    let spec = stack(&keycloak());
    let mut observed = cluster("keycloak-client", secret(&[("clientId", "perses"), ("clientSecret", "s3cret")]));
    let waiting = resolved(&spec, &observed).unwrap();
    let (reason, message) = waiting.waits.of(Part::Auth).unwrap();
    assert!(reason == "AddressUnknown" && message.contains("waiting for the address"), "{message}");
    let (config, _) = built(&waiting).expect("the pods do not wait");
    let providers = &config["security"]["authentication"]["providers"];
    assert!(providers["oidc"].is_null() && providers["enable_native"] == true, "{providers}");

    admitted(&mut observed, "perses.apps.example");
    let ready = resolved(&spec, &observed).unwrap();
    assert!(ready.waits.first().is_none(), "{:?}", ready.waits);
    let (config, deployment) = built(&ready).unwrap();
    let provider = &config["security"]["authentication"]["providers"]["oidc"][0];
    assert_eq!(provider["redirect_uri"], "https://perses.apps.example/api/auth/providers/oidc/keycloak/callback");
    assert_eq!(provider["client_id"], "perses");
    let text = config.to_string() + &deployment.to_string();
    assert!(!text.contains("s3cret"), "the client secret is in its own Secret only");
    let volumes = deployment["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
    let auth = volumes.iter().find(|volume| volume["name"] == "auth").unwrap();
    let file =
        format!("/etc/perses/auth/{}", auth["projected"]["sources"][0]["secret"]["items"][0]["path"].as_str().unwrap());
    assert_eq!(provider["client_secret_file"], file.as_str());

    observed.secrets.clear();
    let waiting = resolved(&spec, &observed).unwrap();
    let (reason, message) = waiting.waits.of(Part::Auth).unwrap();
    assert!(
        reason == "SecretNotFound" && message.contains("Secret keycloak-client (sign-in at keycloak)"),
        "{message}"
    );
    assert!(built(&waiting).is_some());
    observed.secrets.insert("keycloak-client".to_owned(), secret(&[("clientId", "perses")]));
    let waiting = resolved(&spec, &observed).unwrap();
    assert!(waiting.waits.of(Part::Auth).unwrap().1.contains("key clientSecret"), "{:?}", waiting.waits);
}

#[test]
fn a_provider_that_runs_is_not_taken_from_the_pods() {
    let mut spec = stack(&keycloak());
    let (address, providers) = (Some("https://perses.apps.example".to_owned()), vec!["oidc/keycloak".to_owned()]);
    spec.status.get_or_insert_default().auth = Some(AuthStatus { address, providers: providers.clone() });
    // Its Secret is away: the pods stay as they are, and that is remembered.
    let held = resolved(&spec, &cluster("other", secret(&[]))).unwrap();
    assert!(held.waits.of(Part::Api).is_some() && built(&held).is_none());
    assert_eq!(held.sign_in.configured, providers);
    // The Route is not admitted for a moment: the address stays.
    let observed = cluster("keycloak-client", secret(&[("clientId", "perses"), ("clientSecret", "s3cret")]));
    let validated = resolved(&spec, &observed).unwrap();
    assert_eq!(validated.sign_in.address.as_deref(), Some("https://perses.apps.example"));
    assert!(built(&validated).unwrap().0["security"]["authentication"]["providers"]["oidc"][0].is_object());
    // An address of the spec wins.
    let mut changed = keycloak();
    changed["auth"]["address"] = json!("https://other.example");
    let validated = resolved(&stack(&changed), &observed).unwrap();
    assert_eq!(validated.sign_in.address.as_deref(), Some("https://other.example"));
}

#[test]
fn a_changed_authority_replaces_the_pods_and_a_changed_client_secret_does_not() {
    let mut document = keycloak();
    document["auth"]["address"] = json!("https://perses.example");
    document["auth"]["oidc"][0]["ca"] = json!({"secret": {"name": "ca"}});
    let pem = |text: &str| secret(&[("ca.crt", &format!("-----BEGIN CERTIFICATE-----\n{text}\n"))]);
    let build = |client: &str, ca: &str| {
        let mut observed = cluster("keycloak-client", secret(&[("clientId", "perses"), ("clientSecret", client)]));
        observed.secrets.insert("ca".to_owned(), pem(ca));
        built(&resolved(&stack(&document), &observed).unwrap()).unwrap().1["spec"]["template"].clone()
    };
    assert_eq!(build("one", "x"), build("two", "x"));
    assert_ne!(build("one", "x"), build("one", "y"));
}

#[test]
fn guests_may_read_what_is_global_unless_the_spec_says_otherwise() {
    let native = |auth: Value| {
        let observed = Observed { capabilities: Capabilities::with(&[]), ..Observed::default() };
        let spec = stack(&json!({"users": 5, "auth": auth}));
        let (config, _) = built(&resolved(&spec, &observed).unwrap()).unwrap();
        config["security"]["authorization"]["provider"]["native"].clone()
    };
    let expected = json!([{"actions": ["read"], "scopes": ["GlobalDatasource", "GlobalVariable"]}]);
    assert_eq!(native(json!({}))["guest_permissions"], expected);
    assert_eq!(native(json!({"guestPermissions": []}))["guest_permissions"], json!([]));
    let mappings =
        json!([{"group": "sre", "role": "admin"}, {"claim": "a.b", "value": "c", "role": "editor", "project": "p"}]);
    assert_eq!(native(json!({"roleMappings": mappings}))["role_mappings"], mappings);
}

#[test]
fn openshift_signs_in_with_the_account_of_the_pods() {
    let spec = stack(&json!({"users": 5, "auth": {"openshift": {}}}));
    let mut observed = cluster("other", secret(&[]));
    observed.capabilities.openshift = Availability::Present;
    admitted(&mut observed, "perses.apps.example");
    let waiting = resolved(&spec, &observed).unwrap();
    assert_eq!(waiting.waits.of(Part::Auth).unwrap().0, "OAuthServerUnknown");
    // The Route may be named before anything is configured: the reference follows its host.
    let account = |validated: &Validated| {
        let resources = build::build(validated, &sizing::size(&validated.inputs)).unwrap();
        resources.api.service_account.metadata.annotations.unwrap_or_default()
    };
    let annotations = account(&waiting);
    let reference: Value =
        serde_json::from_str(&annotations["serviceaccounts.openshift.io/oauth-redirectreference.perses"]).unwrap();
    assert_eq!(reference["reference"], json!({"kind": "Route", "name": "perses"}));
    assert_eq!(
        annotations["serviceaccounts.openshift.io/oauth-redirecturi.perses"],
        "https://perses.apps.example/api/auth/providers/oauth/openshift/callback"
    );
}

#[test]
fn a_datasource_says_what_is_wrong_with_it() {
    let wrong = |datasource: Value, observed: &Observed| {
        let spec = stack(&json!({"users": 5, "datasources": [datasource]}));
        match resolved(&spec, observed) {
            Ok(validated) => validated.waits.of(Part::Datasource).expect("something is wrong").1,
            Err(invalid) => invalid.message,
        }
    };
    let observed = cluster("ca", secret(&[("ca.crt", "not a certificate")]));
    let url = "https://p.example";
    for (datasource, part) in [
        (
            json!({"name": "p", "url": url, "headers": {"Authorization": "Bearer x"}}),
            "the header Authorization cannot be set",
        ),
        (json!({"name": "p", "url": url, "headers": {"X Key": "x"}}), "\"X Key\" is none"),
        (json!({"name": "p", "url": url, "headers": {"X-Key": "a\nb"}}), "\"X-Key\" is none"),
        (json!({"name": "p", "url": "https://a:b@p.example"}), "carries credentials"),
        (json!({"name": "p", "type": "OpenShift"}), "this cluster is none"),
        (json!({"name": "p", "url": url, "tls": {"ca": {"secret": {"name": "ca"}}}}), "holds no PEM"),
        (
            json!({"name": "p", "url": url, "tls": {"ca": {"secret": {"name": "none"}}}}),
            "Secret none (TLS of datasource p)",
        ),
        (json!({"name": "p", "url": url, "tls": {"ca": {"configMap": {"name": "none"}}}}), "ConfigMap none"),
        (
            json!({"name": "p", "url": url, "tls": {"clientCertificate": {"secretRef": {"name": "ca"}}}}),
            "key tls.crt in Secret ca",
        ),
    ] {
        let message = wrong(datasource.clone(), &observed);
        assert!(message.contains(part), "{datasource}: {message}");
        assert!(!message.contains("Bearer x") && !message.contains("a:b"), "{message}");
    }
}

#[test]
fn what_the_server_has_of_a_datasource_stays_while_its_secret_is_away() {
    let spec = stack(&json!({"users": 5, "datasources": [
        {"name": "a", "url": "https://a.example", "auth": {"bearer": {"secretRef": {"name": "token"}}}},
        {"name": "b", "url": "https://b.example"}]}));
    let mut observed = cluster("token", secret(&[("token", "word")]));
    let files = |observed: &Observed| {
        let validated = resolved(&spec, observed).unwrap();
        let resources = build::build(&validated, &sizing::size(&validated.inputs)).unwrap();
        resources.api.provisioning.data.unwrap()
    };
    let names = |file: &[u8]| {
        let documents: Vec<Value> = serde_json::from_slice(file).unwrap();
        let mut names: Vec<_> = documents.iter().map(|d| d["metadata"]["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let whole = files(&observed);
    assert_eq!(names(&whole["globaldatasources.json"].0), ["a", "b"]);
    observed.provisioned.data = whole.iter().map(|(key, value)| (key.clone(), value.0.clone())).collect();
    observed.secrets.clear();
    let kept = files(&observed);
    assert_eq!(names(&kept["globaldatasources.json"].0), ["a", "b"], "else the server would delete it");
    assert_eq!(names(&kept["globalsecrets.json"].0), ["a-secret"]);
    observed.provisioned = SecretData::default();
    assert_eq!(names(&files(&observed)["globaldatasources.json"].0), ["b"], "it was never there");
}

#[test]
fn rules_of_the_schema() {
    let refused = |spec: Value, part: &str| {
        let document = json!({"apiVersion": "persesstack.io/v1alpha1", "kind": "PersesStack",
            "metadata": {"name": "perses"}, "spec": spec});
        let problems = render::accept(&document).expect_err("refused").join("; ");
        assert!(problems.contains(part), "{spec}: {problems}");
    };
    let auth = |auth: Value| json!({"users": 5, "auth": auth});
    let oidc = keycloak()["auth"]["oidc"][0].clone();
    refused(auth(json!({"kubernetes": {}, "openshift": {}})), "kubernetes excludes every other way");
    refused(auth(json!({"native": {"enabled": false}})), "nobody could sign in");
    refused(auth(json!({"oidc": [oidc.clone(), oidc]})), "a name of its own");
    refused(auth(json!({"roleMappings": [{"group": "g", "claim": "c", "role": "r"}]})), "give either group");
    refused(auth(json!({"roleMappings": [{"claim": "c", "role": "r"}]})), "give either group");
    refused(auth(json!({"guestPermissions": [{"actions": ["write"], "scopes": ["*"]}]})), "actions");
    refused(auth(json!({"address": "https://a.example/path"})), "address");
    let datasource = |datasource: Value| json!({"users": 5, "datasources": [datasource]});
    let ca = json!({"ca": {"secret": {"name": "a"}}});
    refused(datasource(json!({"name": "p"})), "url is required");
    refused(datasource(json!({"name": "p", "type": "OpenShift", "tls": ca})), "auth and tls cannot be set");
    refused(datasource(json!({"name": "p", "url": "http://p", "tls": ca})), "does not start with https://");
    let both = json!({"ca": {"secret": {"name": "a"}}, "insecureSkipVerify": true});
    refused(datasource(json!({"name": "p", "url": "https://p", "tls": both})), "takes any certificate");
    let two = json!({"ca": {"secret": {"name": "a"}, "configMap": {"name": "b"}}});
    refused(datasource(json!({"name": "p", "url": "https://p", "tls": two})), "exactly one of secret and configMap");
}
