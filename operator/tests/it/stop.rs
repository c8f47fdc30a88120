//! An operator that is told to end while the API server does not answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Uri;
use parking_lot::Mutex;
use persesstack_operator::admin::Readiness;
use persesstack_operator::client::{ClientOptions, build};
use persesstack_operator::controllers::persesdev::server::services;
use persesstack_operator::manager::Manager;
use persesstack_operator::metrics::Metrics;
use persesstack_operator::settings::Settings;
use tokio_util::sync::CancellationToken;

use crate::cluster::{DEADLINE, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_waited_for_that_never_began() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let record = asked.clone();
    let router = Router::new().fallback(async move |uri: Uri| {
        record.lock().push(uri.path().to_owned());
        std::future::pending::<()>().await;
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    // A request that ends by itself would end the wait too.
    let options = ClientOptions { request_timeout: DEADLINE * 10, ..ClientOptions::default() };
    let manager = Manager {
        client: build(kube::Config::new(format!("http://{address}").parse().unwrap()), &options).unwrap(),
        settings: Settings::default(),
        metrics: Metrics::new(),
        readiness: Readiness::default(),
        identity: "test".to_owned(),
        election: None,
        addresses: services(),
    };
    let stop = CancellationToken::new();
    let task = tokio::spawn(manager.run(stop.clone()));
    for path in ["/persesstacks", "/perses.dev/v1alpha2"] {
        within(&format!("a request for {path}"), DEADLINE, async || {
            asked.lock().iter().any(|asked| asked.ends_with(path)).then_some(())
        })
        .await;
    }
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(20), task).await.expect("it ends when it is told to").unwrap();
}
