//! Where the API pods connect: the pooler or the database itself, for writes and for reads, and what they trust.

use crate::api::v1alpha1::PoolerType;
use crate::controllers::persesstack::provider::READ_ONLY;
use crate::controllers::persesstack::validate::{Endpoint, Validated};
use crate::sizing::Sizing;

/// An address, with the name of the database where it is another than usual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub host: String,
    pub port: u16,
    pub dbname: Option<&'static str>,
}

/// What the API pods connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub primary: Address,
    pub replica: Option<Address>,
    /// libpq's word.
    pub sslmode: &'static str,
    /// Secret and key of the authority's certificates.
    pub ca: Option<(String, String)>,
}

/// Secret with the credentials for the target, and its keys of user and password.
pub(super) fn credentials<'a>(v: &Validated, endpoint: &'a Endpoint) -> (String, &'a str, &'a str) {
    match v.spec.pooler.type_ {
        PoolerType::PgBouncer => (v.names.pgbouncer_client(), "username", "password"),
        // Crunchy's asks the database for the passwords of its users.
        PoolerType::Crunchy | PoolerType::None => {
            let (user, password) = &endpoint.secret_keys;
            (endpoint.secret.clone(), user, password)
        }
    }
}

/// The address for the API pods.
pub(super) fn api(v: &Validated, sizing: &Sizing, endpoint: &Endpoint) -> Target {
    let read = endpoint.read.as_ref().filter(|_| sizing.read_pool);
    let authority = || endpoint.ca.as_ref().map(|ca| (ca.secret.clone(), ca.key.clone()));
    let through = |host: String| {
        let at = |dbname| Address { host: host.clone(), port: 5432, dbname };
        (at(None), read.map(|_| at(Some(READ_ONLY))))
    };
    match v.spec.pooler.type_ {
        PoolerType::PgBouncer => {
            let (primary, replica) = through(v.names.pgbouncer());
            let ca = v.pooler_certificate.as_ref().map(|own| (own.secret.clone(), "ca.crt".to_owned()));
            // Inside one namespace; without a certificate there is no TLS to prefer.
            let sslmode = if ca.is_some() { "verify-full" } else { "prefer" };
            Target { primary, replica, sslmode, ca }
        }
        PoolerType::Crunchy => {
            let (primary, replica) = through(format!("{}-pgbouncer.{}.svc", v.names.database(), v.namespace));
            Target { primary, replica, sslmode: endpoint.sslmode, ca: authority() }
        }
        PoolerType::None => {
            let at = |(host, port): &(String, u16)| Address { host: host.clone(), port: *port, dbname: None };
            Target {
                primary: Address { host: endpoint.host.clone(), port: endpoint.port, dbname: None },
                replica: read.map(at),
                sslmode: endpoint.sslmode,
                ca: authority(),
            }
        }
    }
}
