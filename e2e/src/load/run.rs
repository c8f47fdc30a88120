//! The two loops: closed (as fast as it goes) and open (so many a second).

use std::{
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use parking_lot::Mutex;
use rand::{SeedableRng as _, rngs::SmallRng};
use tokio::{sync::watch, task::JoinSet};

use crate::load::{
    Pace, Plan, Report, Sent,
    connection::Connection,
    report::{Outcome, Recorder},
};

/// A load that runs in a thread of its own, so that nothing a test does can delay it. Ends with [`Load::stop`], or
/// without a report when dropped.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    progress: Arc<Mutex<(u64, u64)>>,
    thread: Option<JoinHandle<Result<Report>>>,
}

impl Load {
    /// Starts sending.
    pub fn start(plan: Plan) -> Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let progress = Arc::default();
        let shared = Arc::clone(&progress);
        let thread = std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || runtime()?.block_on(drive(&plan, stopped, &shared)))
            .context("start the thread of the load")?;
        Ok(Self { stop, progress, thread: Some(thread) })
    }

    /// Requests that have ended until now, and how many of them failed.
    pub fn progress(&self) -> (u64, u64) {
        *self.progress.lock()
    }

    /// Sends nothing more, waits for the requests on their way and reports.
    pub async fn stop(mut self) -> Result<Report> {
        self.stop.send_replace(true);
        let thread = self.thread.take().context("the load was stopped before")?;
        let joined = tokio::task::spawn_blocking(move || thread.join()).await.context("wait for the load")?;
        joined.map_err(|_| anyhow!("the thread of the load panicked"))?
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// Runs a plan on this thread for a while. Not for use inside a runtime.
pub fn run(plan: &Plan, duration: Duration) -> Result<Report> {
    let (stop, stopped) = watch::channel(false);
    runtime()?.block_on(async {
        let timer = async {
            tokio::time::sleep(duration).await;
            stop.send_replace(true);
        };
        let progress = Mutex::default();
        let (report, ()) = tokio::join!(drive(plan, stopped, &progress), timer);
        report
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime of the load")
}

async fn drive(plan: &Plan, stopped: watch::Receiver<bool>, progress: &Mutex<(u64, u64)>) -> Result<Report> {
    ensure!(!plan.requests.is_empty(), "the plan of the load has no request");
    ensure!(plan.connections > 0, "the plan of the load has no connection");
    let start = Instant::now();
    let recorder = match plan.pace {
        Pace::Closed => closed(plan, stopped, progress, start).await,
        Pace::PerSecond(rate) => {
            ensure!(rate.is_finite() && rate > 0.0, "the rate of the load is {rate}; it must be above 0");
            open(plan, rate, stopped, progress, start).await
        }
    };
    Ok(recorder.report(start.elapsed()))
}

/// Every connection sends its next request when it has its response.
async fn closed(plan: &Plan, stopped: watch::Receiver<bool>, progress: &Mutex<(u64, u64)>, start: Instant) -> Recorder {
    let workers = (0..plan.connections).map(|worker| {
        let stopped = stopped.clone();
        async move {
            let mut random = SmallRng::seed_from_u64(plan.seed.wrapping_add(worker as u64));
            let mut connection = Connection::new(plan.address, plan.timeout);
            let mut recorder = Recorder::new();
            while !*stopped.borrow() {
                let request = plan.order.next(&mut random, plan.requests.len());
                let outcome = exchange(plan, request, &mut connection, start, Instant::now()).await;
                let good = recorder.record(outcome);
                note(progress, good);
                if !good {
                    // A server that is gone fails at once: without this the worker would spin and never read `stopped`.
                    tokio::task::yield_now().await;
                }
            }
            recorder.connection(connection.counts);
            recorder
        }
    });
    let mut all = Recorder::new();
    for recorder in futures::future::join_all(workers).await {
        all.merge(recorder);
    }
    all
}

/// A request is due at fixed times, whatever happened to the earlier ones.
async fn open(
    plan: &Plan,
    rate: f64,
    mut stopped: watch::Receiver<bool>,
    progress: &Mutex<(u64, u64)>,
    start: Instant,
) -> Recorder {
    let shared = Arc::new(Pool::new(plan));
    let mut random = SmallRng::seed_from_u64(plan.seed);
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
    // After a delay of this thread the missed ticks come at once, so the rate holds on average.
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let mut pending = JoinSet::new();
    loop {
        tokio::select! {
            // `interval` gives the time when the tick was due, not when it was seen.
            due = ticks.tick() => {
                let (plan, shared) = (plan.clone(), Arc::clone(&shared));
                let request = plan.order.next(&mut random, plan.requests.len());
                pending.spawn(async move { shared.send(&plan, request, start, due.into_std()).await });
            }
            Some(ended) = pending.join_next() => note(progress, ended.unwrap_or(false)),
            _ = stopped.wait_for(|stopped| *stopped) => break,
        }
    }
    while let Some(ended) = pending.join_next().await {
        note(progress, ended.unwrap_or(false));
    }
    shared.finish()
}

/// Idle connections of the open loop, and the results.
struct Pool {
    permits: tokio::sync::Semaphore,
    idle: Mutex<Vec<Connection>>,
    recorder: Mutex<Recorder>,
}

impl Pool {
    fn new(plan: &Plan) -> Self {
        let idle = (0..plan.connections).map(|_| Connection::new(plan.address, plan.timeout)).collect();
        Self {
            permits: tokio::sync::Semaphore::new(plan.connections),
            idle: Mutex::new(idle),
            recorder: Mutex::new(Recorder::new()),
        }
    }

    async fn send(&self, plan: &Plan, request: usize, start: Instant, due: Instant) -> bool {
        let Ok(_permit) = self.permits.acquire().await else { return false };
        let Some(mut connection) = self.idle.lock().pop() else { return false };
        let outcome = exchange(plan, request, &mut connection, start, due).await;
        // Last in, first out: as many connections stay busy as the load needs, the others are idle and age.
        self.idle.lock().push(connection);
        self.recorder.lock().record(outcome)
    }

    fn finish(&self) -> Recorder {
        let mut recorder = std::mem::replace(&mut *self.recorder.lock(), Recorder::new());
        for connection in self.idle.lock().drain(..) {
            recorder.connection(connection.counts);
        }
        recorder
    }
}

async fn exchange(plan: &Plan, request: usize, connection: &mut Connection, start: Instant, due: Instant) -> Outcome {
    let sent = Instant::now();
    let mark = (plan.mark)(request);
    let result = connection.exchange(&plan.requests[request].bytes).await;
    let result =
        result.and_then(|response| (plan.check)(Sent { request, mark }, &response).map(|()| response.body.len()));
    Outcome { request, sent_at: sent.saturating_duration_since(start), latency: due.elapsed(), result }
}

fn note(progress: &Mutex<(u64, u64)>, good: bool) {
    let mut progress = progress.lock();
    progress.0 += 1;
    progress.1 += u64::from(!good);
}
