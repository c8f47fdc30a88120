//! The load generator against a server that misbehaves on request: what counts as a failure, and what does not.

#![expect(clippy::unwrap_used, reason = "clippy does not see that helpers of tests are tests")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use e2e::{
    load::{Failure, Load, Pace, Plan, Report, Request},
    wait::wait_until,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const DEADLINE: Duration = Duration::from_secs(30);
const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";

/// What the server does with the n-th request of a connection (from 0); the connection ends when it says so.
type Behaviour = fn(u32, TcpStream) -> std::pin::Pin<Box<dyn Future<Output = Option<TcpStream>> + Send>>;

/// A server of one behaviour; returns its address and the count of its connections.
async fn server(behaviour: Behaviour) -> (SocketAddr, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                for request in 0.. {
                    // The requests are small and come one at a time: a read is a request.
                    match stream.read(&mut buffer).await {
                        Ok(read) if read > 0 => {}
                        _ => return,
                    }
                    match behaviour(request, stream).await {
                        Some(open) => stream = open,
                        None => return,
                    }
                }
            });
        }
    });
    (address, connections)
}

fn plan(address: SocketAddr) -> Plan {
    let mut plan = Plan::new(address, [Request::get("test", "/", &[])]);
    plan.check = Arc::new(|_, response| match (response.status, response.body) {
        (200, b"good") => Ok(()),
        (200, body) => Err(Failure::Check(format!("{} other bytes", body.len()))),
        (status, _) => Err(Failure::Status(status)),
    });
    plan
}

/// Runs until so many requests have ended.
async fn run_for(plan: Plan, requests: u64) -> Report {
    let load = Load::start(plan).unwrap();
    wait_until("the load to have sent its requests", DEADLINE, || async { Ok(load.progress().0 >= requests) })
        .await
        .unwrap();
    load.stop().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_server_keeps_one_connection_for_each_worker() {
    let (address, connections) = server(|_, mut stream| {
        Box::pin(async move { stream.write_all(GOOD.as_bytes()).await.is_ok().then_some(stream) })
    })
    .await;
    let report = run_for(Plan { connections: 3, ..plan(address) }, 500).await;
    assert_eq!((report.failed, report.connections_opened, report.idle_closed), (0, 3, 0), "{report}");
    assert_eq!(connections.load(Ordering::SeqCst), 3);
    assert_eq!(report.body_bytes, 4 * report.requests);
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_between_requests_is_no_failure() {
    // Announced, and not announced: after each second response.
    let announced: Behaviour = |request, mut stream| {
        Box::pin(async move {
            let close = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\ngood";
            let text = if request == 1 { close } else { GOOD };
            stream.write_all(text.as_bytes()).await.ok()?;
            (request == 0).then_some(stream)
        })
    };
    let unannounced: Behaviour = |request, mut stream| {
        Box::pin(async move {
            stream.write_all(GOOD.as_bytes()).await.ok()?;
            (request == 0).then_some(stream)
        })
    };
    let (address, _) = server(announced).await;
    let report = run_for(plan(address), 200).await;
    assert_eq!((report.failed, report.idle_closed, report.stale_retries), (0, 0, 0), "{report}");
    assert!(report.connections_opened >= 100, "{report}");

    let (address, _) = server(unannounced).await;
    let report = run_for(plan(address), 200).await;
    assert_eq!(report.failed, 0, "{report}");
    // The close may come before or after the next request has gone out.
    assert!(report.idle_closed + report.stale_retries >= 99, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn chunked_bodies_are_joined() {
    let (address, _) = server(|_, mut stream| {
        Box::pin(async move {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\ngo\r\n";
            stream.write_all(head.as_bytes()).await.ok()?;
            stream.flush().await.ok()?;
            stream.write_all(b"2\r\nod\r\n0\r\n\r\n").await.ok()?;
            Some(stream)
        })
    })
    .await;
    let report = run_for(plan(address), 100).await;
    assert_eq!((report.failed, report.connections_opened), (0, 1), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_have_their_kind() {
    let cases: [(&str, Behaviour); 7] = [
        ("status", |_, mut stream| {
            Box::pin(async move {
                let text = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(text.as_bytes()).await.is_ok().then_some(stream)
            })
        }),
        ("check", |_, mut stream| {
            Box::pin(async move {
                let text = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad";
                stream.write_all(text.as_bytes()).await.is_ok().then_some(stream)
            })
        }),
        ("truncated", |_, mut stream| {
            Box::pin(async move {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngo").await.ok()?;
                None
            })
        }),
        ("protocol", |_, mut stream| {
            Box::pin(async move { stream.write_all(b"nonsense\r\n\r\n").await.is_ok().then_some(stream) })
        }),
        // On a fresh connection there is no idle close to excuse it.
        ("closed", |_, _| Box::pin(async { None })),
        ("reset", |_, stream| {
            Box::pin(async move {
                stream.set_zero_linger().ok()?;
                None
            })
        }),
        ("timeout", |_, stream| {
            Box::pin(async move {
                let held = stream;
                std::future::pending::<()>().await;
                Some(held)
            })
        }),
    ];
    for (kind, behaviour) in cases {
        let (address, _) = server(behaviour).await;
        let report = run_for(Plan { timeout: Duration::from_millis(100), ..plan(address) }, 3).await;
        assert_eq!(report.failed, report.requests, "{kind}: {report}");
        assert_eq!(report.failures_by_kind.keys().copied().collect::<Vec<_>>(), [kind], "{report}");
        assert_eq!(report.failures.len() as u64, report.failed);
    }

    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let report = run_for(plan(unused), 3).await;
    assert_eq!(report.failures_by_kind.keys().copied().collect::<Vec<_>>(), ["refused"], "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_before_the_answer_of_a_used_connection_is_retried_once_and_counted() {
    // Reads the second request and closes without an answer.
    let (address, _) = server(|request, mut stream| {
        Box::pin(async move {
            if request == 1 {
                return None;
            }
            stream.write_all(GOOD.as_bytes()).await.is_ok().then_some(stream)
        })
    })
    .await;
    let report = run_for(plan(address), 50).await;
    assert_eq!((report.failed, report.idle_closed), (0, 0), "{report}");
    assert!(report.stale_retries >= 49, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_loop_keeps_its_rate_and_counts_waiting_as_latency() {
    let (address, connections) = server(|_, mut stream| {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.write_all(GOOD.as_bytes()).await.is_ok().then_some(stream)
        })
    })
    .await;
    // Two connections can carry at most 40 requests a second; the rest waits, and that must show.
    let crowded = Plan { pace: Pace::PerSecond(100.0), connections: 2, ..plan(address) };
    let report = run_for(crowded, 60).await;
    assert_eq!(report.failed, 0, "{report}");
    assert_eq!(connections.load(Ordering::SeqCst), 2);
    assert!(report.latency.max > 500.0, "{report}");

    let roomy = Plan { pace: Pace::PerSecond(100.0), connections: 50, ..plan(address) };
    let report = run_for(roomy, 100).await;
    assert_eq!(report.failed, 0, "{report}");
    assert!(report.rate() < 110.0, "{report}");
}
