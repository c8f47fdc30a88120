//! Stacks whose servers have a certificate of an authority of their own.

use e2e::services::{ApiServer, Tls};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use persesstack_operator::certificate::{self, Made};
use persesstack_operator::controllers::persesdev::kind::Kind;
use serde_json::{Value, json};

use super::{Fixture, PASSWORD, becomes, dashboard, stored};

fn pair() -> Made {
    certificate::make(&["127.0.0.1".to_owned()], Timestamp::now()).unwrap()
}

fn tls(pair: &Made) -> Tls<'_> {
    Tls { certificate: pair.text("tls.crt"), key: pair.text("tls.key"), authority: pair.text("ca.crt") }
}

/// The Secret of the certificate, with this `ca.crt`.
async fn certify(fixture: &Fixture, authority: &str) {
    let data = json!({"tls.crt": "only the pods read it", "tls.key": "only the pods read it", "ca.crt": authority});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "certificate"}, "stringData": data});
    let secret: Secret = serde_json::from_value(secret).unwrap();
    fixture.secrets().patch("certificate", &PatchParams::apply("test").force(), &Patch::Apply(&secret)).await.unwrap();
}

fn own() -> Value {
    json!({"users": 5, "api": {"tls": {"type": "Secret", "secret": {"name": "certificate"}}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_beside_the_certificate_is_trusted_and_no_other() {
    let Some(fixture) = Fixture::new("authority").await else { return };
    let (first, second) = (pair(), pair());
    let mut server = ApiServer::start_with_tls("admin", PASSWORD, tls(&first)).await.unwrap();
    fixture.stack_with("perses", &server.url(), &own()).await;
    certify(&fixture, second.text("ca.crt")).await;
    fixture.create(Kind::Dashboard, "cpu", &dashboard(), &json!({})).await;
    let running = fixture.run();
    let message = fixture.says(Kind::Dashboard, "cpu", "StackUnreachable").await;
    assert!(message.contains("certificate"), "{message}");
    assert!(running.writes().is_empty());
    certify(&fixture, first.text("ca.crt")).await;
    fixture.says(Kind::Dashboard, "cpu", "Synced").await;
    let path = format!("/api/v1/projects/{}/dashboards/cpu", fixture.space.namespace);
    assert!(stored(&server.client().await.unwrap(), &path).await.is_some());

    // A new authority, while the operator runs.
    server.stop().await.unwrap();
    server.present(tls(&second)).unwrap();
    server.start_again().await.unwrap();
    certify(&fixture, second.text("ca.crt")).await;
    fixture.create(Kind::Dashboard, "memory", &dashboard(), &json!({})).await;
    fixture.says(Kind::Dashboard, "memory", "Synced").await;
    let path = path.replace("cpu", "memory");
    becomes(&server.client().await.unwrap(), &path, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_of_openshifts_services_is_waited_for() {
    let Some(fixture) = Fixture::new("serviceca").await else { return };
    let pair = pair();
    let server = ApiServer::start_with_tls("admin", PASSWORD, tls(&pair)).await.unwrap();
    let spec = json!({"users": 5, "api": {"tls": {"type": "OpenShift"}}});
    fixture.stack_with("perses", &server.url(), &spec).await;
    let maps: Api<ConfigMap> = Api::namespaced(fixture.space.client.clone(), &fixture.space.namespace);
    let map = json!({"metadata": {"name": "perses-service-ca"}});
    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    fixture.create(Kind::Dashboard, "cpu", &dashboard(), &json!({})).await;
    let _running = fixture.run();
    let message = fixture.says(Kind::Dashboard, "cpu", "StackUnreachable").await;
    assert!(message.contains("key service-ca.crt in ConfigMap perses-service-ca"), "{message}");
    let filled = Patch::Merge(json!({"data": {"service-ca.crt": pair.text("ca.crt")}}));
    maps.patch("perses-service-ca", &PatchParams::default(), &filled).await.unwrap();
    fixture.says(Kind::Dashboard, "cpu", "Synced").await;
}
