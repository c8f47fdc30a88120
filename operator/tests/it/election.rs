//! Two operators: one acts; the other takes over when it is gone; a holder that cannot renew stops in time.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use parking_lot::Mutex;
use persesstack_operator::admin::Readiness;
use persesstack_operator::apply::kind::Kind;
use persesstack_operator::client::{ClientOptions, build};
use persesstack_operator::controllers::persesdev::server::services;
use persesstack_operator::leader::{Elector, Timing};
use persesstack_operator::manager::{LEASE, Manager};
use persesstack_operator::metrics::Metrics;
use persesstack_operator::settings::Settings;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cluster::{DEADLINE, Space, World, control_plane, rights, within};

/// Short, so that a take-over does not take long.
const TIMING: Timing = Timing {
    duration: Duration::from_secs(4),
    renew_deadline: Duration::from_secs(2),
    retry: Duration::from_millis(300),
};

/// Notes when somebody begins and ends to lead.
type Journal = Arc<Mutex<Vec<(&'static str, &'static str, Instant)>>>;

fn candidate(space: &Space, name: &'static str, journal: Journal) -> JoinHandle<()> {
    let elector = Elector::new(space.client.clone(), &space.namespace, LEASE, name, TIMING);
    tokio::spawn(async move {
        loop {
            let term = elector.acquire().await;
            journal.lock().push((name, "begins", Instant::now()));
            elector.hold(term).await;
            journal.lock().push((name, "ends", Instant::now()));
        }
    })
}

fn leases(space: &Space) -> Api<Lease> {
    Api::namespaced(space.client.clone(), &space.namespace)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_leads_and_the_other_follows() {
    let space = Space::new("election").await;
    let journal = Journal::default();
    let first = candidate(&space, "a", journal.clone());
    within("a to lead", DEADLINE, async || (journal.lock().len() == 1).then_some(())).await;
    let second = candidate(&space, "b", journal.clone());
    // Three renewals later it still leads alone.
    let renewed = async || leases(&space).get(LEASE).await.unwrap().spec.unwrap().renew_time;
    for _ in 0..3 {
        let before = renewed().await;
        within("a renewal", DEADLINE, async || (renewed().await != before).then_some(())).await;
    }
    assert_eq!(journal.lock().len(), 1);
    let died = Instant::now();
    first.abort();
    within("b to take over", DEADLINE, async || (journal.lock().len() == 2).then_some(())).await;
    let (name, what, when) = journal.lock()[1];
    assert_eq!((name, what), ("b", "begins"));
    // Its clock began at the last renewal, which may have been some retries before the end.
    let waited = when - died + TIMING.retry * 3;
    assert!(waited >= TIMING.duration, "b waited only {waited:?}, retries included");
    second.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_whose_lease_is_taken_stops() {
    let space = Space::new("taken").await;
    let journal = Journal::default();
    let task = candidate(&space, "a", journal.clone());
    within("a to lead", DEADLINE, async || (journal.lock().len() == 1).then_some(())).await;
    let patch = Patch::Merge(json!({"spec": {"holderIdentity": "thief"}}));
    leases(&space).patch(LEASE, &PatchParams::default(), &patch).await.unwrap();
    within("a to stop", TIMING.duration, async || (journal.lock().len() == 2).then_some(())).await;
    assert_eq!(journal.lock()[1].1, "ends");
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_cannot_renew_stops_before_the_lease_expires() {
    let space = Space::new("cut").await;
    // Through a relay that can be cut.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut config = control_plane().config();
    let server = config.cluster_url.authority().unwrap().to_string();
    config.cluster_url = format!("https://{address}").parse().unwrap();
    let relay = tokio::spawn(async move {
        // Ends with the task, and with it every connection.
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = tokio::net::TcpStream::connect(&server).await.unwrap();
            connections.spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    let client = build(config, &ClientOptions::default()).unwrap();
    let elector = Elector::new(client, &space.namespace, LEASE, "a", TIMING);
    let term = tokio::time::timeout(DEADLINE, elector.acquire()).await.unwrap();
    let held = tokio::spawn(async move { elector.hold(term).await });
    let renewed = async || leases(&space).get(LEASE).await.unwrap().spec.unwrap().renew_time.unwrap().0;
    let before = renewed().await;
    within("a renewal", DEADLINE, async || (renewed().await != before).then_some(())).await;
    relay.abort();
    tokio::time::timeout(DEADLINE, held).await.unwrap().unwrap();
    // Nothing renews it any more: its age now is the time for which the holder went on.
    let age = Duration::try_from(k8s_openapi::jiff::Timestamp::now().duration_since(renewed().await)).unwrap();
    assert!(
        age < TIMING.duration,
        "it stopped {age:?} after its last renewal, another may begin after {:?}",
        TIMING.duration
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_manager_takes_over_the_stacks() {
    let space = Space::new("standby").await;
    let _world = World::start(&space);
    let start = |identity: &str| {
        let options =
            ClientOptions { user_agent: format!("{identity}-of-{}", space.namespace), ..ClientOptions::default() };
        let manager = Manager {
            client: build(control_plane().config(), &options).unwrap(),
            settings: Settings {
                namespace: space.namespace.clone(),
                watch_namespace: Some(space.namespace.clone()),
                ..Settings::default()
            },
            metrics: Metrics::new(),
            readiness: Readiness::default(),
            identity: identity.to_owned(),
            election: Some(TIMING),
            addresses: services(),
        };
        let stop = CancellationToken::new();
        (tokio::spawn(manager.run(stop.clone())), stop)
    };
    let holder = async || leases(&space).get_opt(LEASE).await.unwrap()?.spec?.holder_identity;
    let (first, stop_first) = start("first");
    within("the first to lead", DEADLINE, async || (holder().await? == "first").then_some(())).await;
    let (second, stop_second) = start("second");
    let log = control_plane().audit();
    let mark = log.mark().unwrap();
    space.create(&json!({"users": 10})).await;
    space.settled().await;
    let agent = format!("second-of-{}", space.namespace);
    let idle = log.writes_since(mark, |event| event.user_agent == agent).unwrap();
    assert!(idle.is_empty(), "the second has written: {idle:#?}");

    // A graceful end hands over at once, not after the lease's duration.
    stop_first.cancel();
    first.await.unwrap();
    within("the second to lead", TIMING.duration, async || (holder().await? == "second").then_some(())).await;
    space.change(&json!({"users": 20})).await;
    space.settled().await;
    stop_second.cancel();
    second.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_is_killed_the_other_acts_within_fifteen_seconds_and_never_both() {
    let space = Space::new("killed").await;
    rights::own_namespace(&space.client, &space.namespace).await;
    let _world = World::start(&space);
    let start = |identity: &str| {
        let user_agent = format!("{identity}-of-{}", space.namespace);
        let options = ClientOptions { user_agent, ..ClientOptions::default() };
        let (namespace, watched) = (space.namespace.clone(), Some(space.namespace.clone()));
        let manager = Manager {
            client: build(rights::of_the_operator(control_plane()), &options).unwrap(),
            settings: Settings { namespace, watch_namespace: watched, ..Settings::default() },
            metrics: Metrics::new(),
            readiness: Readiness::default(),
            identity: identity.to_owned(),
            // As it ships.
            election: Some(Timing::default()),
            addresses: services(),
        };
        tokio::spawn(manager.run(CancellationToken::new()))
    };
    let holder = async || leases(&space).get_opt(LEASE).await.unwrap()?.spec?.holder_identity;
    let (log, first) = (control_plane().audit(), start("first"));
    let mark = log.mark().unwrap();
    within("the first to lead", DEADLINE, async || (holder().await? == "first").then_some(())).await;
    let second = start("second");
    space.create(&json!({"users": 10})).await;
    space.settled().await;
    let delete = async || space.api(Kind::Service).delete("perses-api", &DeleteParams::default()).await.unwrap();
    // As SIGKILL: no request leaves any more, the lease is not given up.
    first.abort();
    let died = Instant::now();
    delete().await;
    within("the second to act", DEADLINE, async || space.get(Kind::Service, "perses-api").await).await;
    let took = died.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    // The log is in the order of the answers: no write of the first comes after one of the second.
    let of = |who: &str| format!("{who}-of-{}", space.namespace);
    let writes = log.writes_since(mark, |event| [of("first"), of("second")].contains(&event.user_agent)).unwrap();
    let agents: Vec<_> = writes.iter().map(|event| event.user_agent.as_str()).collect();
    let last_of_first = agents.iter().rposition(|agent| *agent == of("first")).unwrap();
    let first_of_second = agents.iter().position(|agent| *agent == of("second")).unwrap();
    assert!(last_of_first < first_of_second, "both have acted: {agents:?}");
    second.abort();
}
