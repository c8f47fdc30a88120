//! The pooler's files as they are built, read by a real PgBouncer between a real client and a real PostgreSQL.

use std::time::Duration;

use e2e::services::{PgBouncer, Postgres};
use e2e::wait::wait_until;
use k8s_openapi::jiff::Timestamp;
use persesstack_operator::controllers::persesstack::observed::Capabilities;
use persesstack_operator::settings::Settings;
use persesstack_operator::{certificate, render};
use serde_json::Value;

/// The built configuration of a golden case.
fn ini(case: &str) -> String {
    let input = crate::files::read(&format!("tests/golden/{case}/input.yaml"));
    let stacks = render::render(&input, &Settings::default(), Capabilities::with(&[])).expect("render");
    let objects = render::objects(&stacks[0]).expect("objects");
    let is_config = |object: &&Value| object["kind"] == "Secret" && object["metadata"]["name"] == "perses-pgbouncer";
    let secret = objects.iter().find(is_config).expect("the pooler's Secret");
    secret["stringData"]["pgbouncer.ini"].as_str().expect("pgbouncer.ini").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbouncer_takes_the_files_and_speaks_tls_to_both_sides() {
    // As the operator makes them; and as Crunchy's operator does: an authority and a certificate.
    let [own, theirs, next] = [(); 3].map(|()| certificate::make(&["127.0.0.1".to_owned()], Timestamp::now()).unwrap());
    let server = Postgres::start_with_tls(theirs.text("tls.crt"), theirs.text("tls.key")).await.unwrap();
    let database = server.create_database().await.unwrap();
    let port = server.port();
    let ini = ini("external-ha")
        .replace("host='perses-rw' port=5432", &format!("host='127.0.0.1' port={port}"))
        .replace("host='perses-ro' port=5432", &format!("host='127.0.0.1' port={port}"))
        .replace("user='app' password='<masked>'", &format!("user='perses' password='{}'", server.password()))
        .replace("dbname='app'", &format!("dbname='{}'", database.name))
        .replace("/etc/perses/pgbouncer/", &format!("{}/", PgBouncer::FOLDER))
        .replace("/etc/perses/database-ca/", &format!("{}/", PgBouncer::FOLDER))
        .replace("/etc/perses/pgbouncer-tls/", &format!("{}/", PgBouncer::FOLDER));
    assert!(ini.contains("server_tls_sslmode = verify-full") && ini.contains("client_tls_sslmode = require"), "{ini}");
    assert!(!ini.contains("/etc/perses"), "{ini}");
    // Its own word for its client: the database has another one.
    let users = format!("\"perses\" \"word\"\n\"postgres\" \"{}\"\n", server.superuser_password());
    let both = format!("{}{}", next.text("ca.crt"), own.text("ca.crt"));
    let files = [
        ("pgbouncer.ini", ini.as_str()),
        ("userlist.txt", users.as_str()),
        ("ca.crt", theirs.text("ca.crt")),
        ("tls.crt", own.text("tls.crt")),
        ("tls.key", own.text("tls.key")),
        // While one authority follows another, clients trust both.
        ("client-ca.crt", both.as_str()),
    ];
    let pooler = PgBouncer::start_on(&server, &files).await.unwrap();
    for name in [database.name.as_str(), "perses_ro"] {
        let answer = pooler.sql(name, "word", "verify-full", "SELECT current_database()").await.unwrap();
        assert_eq!(answer, database.name, "{name}");
        assert!(pooler.sql(name, "word", "disable", "SELECT 1").await.is_err(), "{name}: without TLS nobody gets in");
    }
    // What the exporter asks, as the pooler's one client; and no more.
    let console = async |command: &str| pooler.sql("pgbouncer", "word", "require", command).await;
    let pools = console("\\pset tuples_only off\nSHOW POOLS;").await.unwrap();
    let columns: Vec<_> = pools.lines().next().unwrap_or_default().split('|').collect();
    for column in ["database", "cl_waiting", "maxwait", "sv_active"] {
        assert!(columns.contains(&column), "{column} in {pools}");
    }
    assert!(console("PAUSE;").await.is_err(), "only looking is allowed");
    let encrypted = "SELECT count(*) > 0 AND bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE usename = 'perses'";
    wait_until("connections to the server to be encrypted", Duration::from_secs(10), || async {
        Ok(server.sql("postgres", encrypted).await? == "t")
    })
    .await
    .unwrap();

    // The certificate of another authority: nothing goes through.
    let files = files.map(|(name, text)| (name, if name == "ca.crt" { own.text("ca.crt") } else { text }));
    let suspicious = PgBouncer::start_on(&server, &files).await.unwrap();
    assert!(suspicious.sql(&database.name, "word", "verify-full", "SELECT 1").await.is_err());
}
