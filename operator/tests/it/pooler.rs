//! The pooler's files as they are built, read by a real PgBouncer between a real client and a real PostgreSQL.

use std::time::Duration;

use e2e::services::{PgBouncer, Postgres};
use e2e::wait::wait_until;
use persesstack_operator::controllers::persesstack::observed::Capabilities;
use persesstack_operator::render;
use persesstack_operator::settings::Settings;
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

fn certificate(name: &str) -> (String, String, String) {
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = params.self_signed(&authority).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, authority);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (certificate.pem(), key.serialize_pem(), root)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbouncer_takes_the_files_and_speaks_tls_to_both_sides() {
    let (server_certificate, server_key, server_authority) = certificate("127.0.0.1");
    let server = Postgres::start_with_tls(&server_certificate, &server_key).await.unwrap();
    let database = server.create_database().await.unwrap();
    let (own, key, _) = certificate("perses-pgbouncer");
    let port = server.port();
    let ini = ini("external-ha")
        .replace("host='perses-rw' port=5432", &format!("host='127.0.0.1' port={port}"))
        .replace("host='perses-ro' port=5432", &format!("host='127.0.0.1' port={port}"))
        .replace("dbname='app'", &format!("dbname='{}'", database.name))
        .replace("/etc/perses/pgbouncer/", &format!("{}/", PgBouncer::FOLDER))
        .replace("/etc/perses/database-ca/", &format!("{}/", PgBouncer::FOLDER))
        .replace("/etc/perses/pgbouncer-tls/", &format!("{}/", PgBouncer::FOLDER));
    assert!(ini.contains("server_tls_sslmode = verify-full") && ini.contains("client_tls_sslmode = require"), "{ini}");
    assert!(!ini.contains("/etc/perses"), "{ini}");
    let users = format!("\"perses\" \"{}\"\n\"postgres\" \"{}\"\n", server.password(), server.superuser_password());
    let files = [
        ("pgbouncer.ini", ini.as_str()),
        ("userlist.txt", users.as_str()),
        ("ca.crt", server_authority.as_str()),
        ("tls.crt", own.as_str()),
        ("tls.key", key.as_str()),
    ];
    let pooler = PgBouncer::start_on(&server, &files).await.unwrap();
    for name in [database.name.as_str(), "perses_ro"] {
        let answer = pooler.sql(name, "require", "SELECT current_database()").await.unwrap();
        assert_eq!(answer, database.name, "{name}");
        assert!(pooler.sql(name, "disable", "SELECT 1").await.is_err(), "{name}: without TLS nobody gets in");
    }
    let encrypted = "SELECT count(*) > 0 AND bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE usename = 'perses'";
    wait_until("connections to the server to be encrypted", Duration::from_secs(10), || async {
        Ok(server.sql("postgres", encrypted).await? == "t")
    })
    .await
    .unwrap();

    // The certificate of another authority: nothing goes through.
    let files = files.map(|(name, text)| if name == "ca.crt" { (name, own.as_str()) } else { (name, text) });
    let suspicious = PgBouncer::start_on(&server, &files).await.unwrap();
    assert!(suspicious.sql(&database.name, "require", "SELECT 1").await.is_err());
}
