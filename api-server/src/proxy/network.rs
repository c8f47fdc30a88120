//! Where requests to datasources may not go: `datasource.deny_networks` and `deny_internal`.
//!
//! The resolved address is what counts, at the moment of the connection: a name may mean another address a second after it was
//! looked up. Addresses written in a URL are resolved by nobody, so they are checked before.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::config;

/// What `deny_internal` adds: addresses of this machine, this network and this provider.
const INTERNAL: [&str; 19] = [
    "0.0.0.0/8",        // this host (RFC 791)
    "10.0.0.0/8",       // private (RFC 1918)
    "100.64.0.0/10",    // shared by carriers (RFC 6598); 100.100.100.200 is a metadata service
    "127.0.0.0/8",      // loopback
    "168.63.129.16/32", // metadata service with a public address
    "169.254.0.0/16",   // link-local; 169.254.169.254 is the usual metadata service
    "172.16.0.0/12",    // private
    "192.0.0.0/24",     // protocol assignments (RFC 6890)
    "192.168.0.0/16",   // private
    "198.18.0.0/15",    // benchmarks (RFC 2544)
    "224.0.0.0/4",      // multicast
    "240.0.0.0/4",      // reserved, broadcast
    "::/128",           // unspecified
    "::1/128",          // loopback
    "100::/64",         // discard (RFC 6666)
    "fc00::/7",         // unique local; fd00:ec2::254 is a metadata service
    "fe80::/10",        // link-local
    "fec0::/10",        // site-local, deprecated
    "ff00::/8",         // multicast
];

/// A destination that is not allowed. Names what was asked for, never what it resolved to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is in a network that datasource.deny_networks or deny_internal of the server's configuration excludes")]
pub(super) struct Denied(pub(super) String);

impl Denied {
    /// Finds it among the causes of an error.
    pub(super) fn cause_of(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(denied) = error.downcast_ref::<Self>() {
                return Some(denied.clone());
            }
            next = error.source();
        }
        None
    }
}

/// The networks that are excluded.
#[derive(Debug, Clone, Default)]
pub(super) struct DenyList(Arc<[IpNet]>);

impl DenyList {
    pub(super) fn new(config: &config::Datasource) -> Self {
        let internal = if config.deny_internal { INTERNAL.as_slice() } else { &[] };
        let internal = internal.iter().filter_map(|text| text.parse().ok());
        Self(config.deny_networks.iter().map(|network| network.0).chain(internal).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses a URL whose host is an excluded address. (`127.1` and `0x7f000001` are addresses for a URL, too.)
    pub(super) fn check(&self, url: &Url) -> Result<(), Denied> {
        let ip = match url.host() {
            Some(Host::Ipv4(ip)) => IpAddr::V4(ip),
            Some(Host::Ipv6(ip)) => IpAddr::V6(ip),
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        if self.denies(ip) { Err(Denied(ip.to_string())) } else { Ok(()) }
    }

    /// Whether an address is excluded, also inside an IPv6 address that stands for an IPv4 one.
    fn denies(&self, ip: IpAddr) -> bool {
        let has = |ip: IpAddr| self.0.iter().any(|network| network.contains(&ip));
        match ip {
            IpAddr::V4(_) => has(ip),
            IpAddr::V6(v6) => has(ip) || embedded(v6).is_some_and(|v4| has(IpAddr::V4(v4))),
        }
    }
}

/// The IPv4 address that a host behind an IPv6 address is reached by: mapped, NAT64 (RFC 6052), 6to4 (RFC 3056).
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = ip.segments();
    let at = |index: usize| Ipv4Addr::from_bits(u32::from(segments[index]) << 16 | u32::from(segments[index + 1]));
    match segments {
        [0, 0, 0, 0, 0, 0xffff | 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(at(6)),
        [0x2002, ..] => Some(at(1)),
        _ => None,
    }
}

/// Resolves names with the system's resolver and leaves out what is excluded.
#[derive(Debug, Clone)]
pub(super) struct Resolver {
    /// Resolve this host, whatever is asked for: the URL then names the one that TLS is to verify.
    pub(super) instead: Option<String>,
    pub(super) deny: DenyList,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = self.instead.as_deref().unwrap_or_else(|| name.as_str());
        // An IPv6 literal has brackets in a URL.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let deny = self.deny.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let there = !found.is_empty();
            let allowed: Vec<SocketAddr> = found.into_iter().filter(|address| !deny.denies(address.ip())).collect();
            if there && allowed.is_empty() {
                return Err(Denied(format!("{host:?}")).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deny(networks: &[&str], internal: bool) -> DenyList {
        let networks = serde_json::json!({"deny_networks": networks, "deny_internal": internal});
        DenyList::new(&serde_json::from_value(networks).unwrap())
    }

    fn allows(deny: &DenyList, url: &str) -> bool {
        deny.check(&Url::parse(url).unwrap()).is_ok()
    }

    #[test]
    fn internal_addresses_in_every_spelling() {
        let list = deny(&[], true);
        assert_eq!(list.0.len(), INTERNAL.len(), "each of them is a network");
        for url in [
            "http://127.0.0.1",
            "http://127.1:9090",
            "http://2130706433",
            "http://0x7f.1",
            "http://0177.0.0.1",
            "http://0.0.0.0",
            "http://10.1.2.3",
            "http://169.254.169.254/latest/meta-data",
            "http://[::1]",
            "http://[::]",
            "http://[::ffff:127.0.0.1]",
            "http://[::ffff:a9fe:a9fe]",
            "http://[::127.0.0.1]",
            "http://[64:ff9b::10.0.0.1]",
            "http://[2002:7f00:1::]",
            "http://[fd00:ec2::254]",
            "http://[fe80::1]",
        ] {
            assert!(!allows(&list, url), "{url}");
        }
        for url in
            ["http://8.8.8.8", "http://172.32.0.1", "http://[2606:4700::1]", "http://prometheus", "http://localhost"]
        {
            assert!(allows(&list, url), "{url}");
        }
    }

    #[test]
    fn networks_of_ones_own() {
        let list = deny(&["8.8.8.0/24", "2606:4700::1"], false);
        assert!(!allows(&list, "http://8.8.8.8"));
        assert!(!allows(&list, "http://[::ffff:8.8.8.8]"));
        assert!(!allows(&list, "http://[2606:4700::1]"));
        assert!(allows(&list, "http://127.0.0.1"));
        assert!(deny(&[], false).is_empty());
    }

    #[tokio::test]
    async fn names_are_checked_by_what_they_resolve_to() {
        let resolve = |instead: Option<&str>, internal: bool| {
            let resolver = Resolver { instead: instead.map(str::to_owned), deny: deny(&[], internal) };
            resolver.resolve("localhost".parse().unwrap())
        };
        assert!(resolve(None, false).await.unwrap().next().unwrap().ip().is_loopback());
        for instead in [None, Some("127.0.0.1"), Some("[::1]")] {
            let Err(error) = resolve(instead, true).await else { panic!("{instead:?} was resolved") };
            assert!(Denied::cause_of(&*error).is_some(), "{error}");
        }
        assert!(resolve(Some("8.8.8.8"), true).await.unwrap().next().is_some());
    }
}
