//! A stack is sent to sleep and woken while clients ask for their dashboards: in order, and nothing is lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::stack::{READY_DEADLINE, Stack};
use e2e::wait::wait_until;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::availability::patch;
use crate::steady::Steady;
use crate::storage::{sample_paths, write};
use crate::world::World;

/// In the order in which they stop; each needs those after it.
const PARTS: [&str; 4] = ["api", "pgbouncer", "redis", "database"];

#[tokio::test]
async fn a_stack_sleeps_and_wakes_in_order_and_has_its_dashboards() -> Result<()> {
    let world = World::enter().await?;
    write(&world.perses, "before the sleep").await?.ok()?;
    let scratch = "/api/v1/projects/demo/dashboards/scratch";
    let before = world.perses.get(scratch).await?.ok()?.json()?;
    let order = Order::watch(&world);
    let load = Steady::start(&world.perses, sample_paths(), 20);

    let began = Instant::now();
    patch(&world, r#"{"spec":{"suspend":true}}"#).await?;
    wait_until("the stack to sleep", Duration::from_secs(180), || async {
        let condition = Stack::condition(&world.stack.resource().await?, "Suspended");
        Ok(condition.is_some_and(|(status, message)| status == "True" && message.starts_with("Suspended")))
    })
    .await?;
    let fell_asleep = began.elapsed();
    let selector = format!("app.kubernetes.io/instance={},app.kubernetes.io/component!=migration", world.stack.name);
    let args = ["-n", &world.stack.namespace, "get", "pods", "-o", "name", "-l", &selector];
    ensure!(world.stack.kubectl.run(&args).await?.is_empty(), "a pod runs while the stack sleeps");
    // Whoever asks a sleeping stack is turned away at the door: no answer is cut off or wrong.
    let report = load.finish().await?;
    let odd: Vec<_> = report.failures.iter().filter(|failure| !failure.reason.contains("onnect")).collect();
    ensure!(odd.is_empty(), "{odd:#?}");
    eprintln!("      asleep after {fell_asleep:.1?}: {} reads, {} turned away", report.sent, report.failures.len());

    patch(&world, r#"{"spec":{"suspend":false}}"#).await?;
    world.stack.wait_ready(READY_DEADLINE, |_| {}).await?;
    let status = &world.stack.resource().await?["status"];
    eprintln!("      ready {} s after the wish to wake", status["suspension"]["lastWakeSeconds"]);
    // The clients go on without another sign-in.
    let load = Steady::start(&world.perses, sample_paths(), 50);
    ensure!(world.perses.get(scratch).await?.ok()?.json()? == before, "the dashboard is another one");
    write(&world.perses, "after the sleep").await?.ok()?;
    wait_until("reads of the woken stack", Duration::from_secs(60), || async { Ok(load.sent().await > 200) }).await?;
    load.finish().await?.all_good("woken")?;
    order.finish()
}

/// What was seen of the pods: for each part how many there are, and how many of them are ready and stay.
struct Order {
    task: JoinHandle<()>,
    seen: Arc<Mutex<Vec<Line>>>,
}

type Line = BTreeMap<String, (usize, usize)>;

impl Order {
    fn watch(world: &World) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (lines, pods): (_, Api<Pod>) =
            (Arc::clone(&seen), Api::namespaced(world.stack.client.clone(), &world.stack.namespace));
        let selector = format!("app.kubernetes.io/instance={}", world.stack.name);
        let mut events = watcher(pods, watcher::Config::default().labels(&selector)).default_backoff().boxed();
        let task = tokio::spawn(async move {
            let mut alive = BTreeMap::new();
            let mut complete = false;
            while let Some(event) = events.next().await {
                match event {
                    // Its last container has ended: what is left is a name.
                    Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) if has_ended(&pod) => {
                        alive.remove(&pod.name_any());
                    }
                    Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                        let part = pod.labels().get("app.kubernetes.io/component").cloned().unwrap_or_default();
                        alive.insert(pod.name_any(), (part, is_ready(&pod)));
                    }
                    Ok(watcher::Event::Delete(pod)) => _ = alive.remove(&pod.name_any()),
                    Ok(watcher::Event::InitDone) => complete = true,
                    _ => {}
                }
                let mut line = Line::new();
                for (part, ready) in alive.values() {
                    let counts = line.entry(part.clone()).or_default();
                    counts.0 += 1;
                    counts.1 += usize::from(*ready);
                }
                if complete {
                    lines.lock().push(line);
                }
            }
        });
        Self { task, seen }
    }

    /// Fails when a part ran while one that it needs had no pod.
    fn finish(self) -> Result<()> {
        self.task.abort();
        let seen = self.seen.lock();
        let asleep = |line: &Line| PARTS.iter().all(|part| !line.contains_key(*part));
        ensure!(seen.iter().any(asleep), "the stack was never seen without pods: {} looks", seen.len());
        for line in seen.iter() {
            let of = |part: &str| line.get(part).copied().unwrap_or_default();
            for (index, part) in PARTS.iter().enumerate() {
                let needs = PARTS.iter().skip(index + 1);
                let missing: Vec<_> = needs.filter(|needed| of(part).0 > 0 && of(needed).1 == 0).collect();
                ensure!(missing.is_empty(), "{part} has pods while none is ready of {missing:?}: {line:?}");
            }
        }
        Ok(())
    }
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    phase.is_some_and(|phase| ["Succeeded", "Failed"].contains(&phase))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.is_some_and(|list| list.iter().any(|one| one.type_ == "Ready" && one.status == "True"));
    ready && pod.metadata.deletion_timestamp.is_none()
}
