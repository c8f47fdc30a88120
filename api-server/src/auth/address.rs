//! Which address a request comes from, behind proxies that the configuration trusts. Pure.

use std::net::IpAddr;

use axum::http::{Extensions, HeaderMap};
use ipnet::IpNet;

use crate::server::Peer;

/// Whose `X-Forwarded-For` is believed (`server.trusted_proxies`).
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Reads addresses and networks in CIDR form.
    pub fn parse(texts: &[String]) -> Result<Self, String> {
        let parse = |text: &String| {
            let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            network.map_err(|_| {
                format!("server.trusted_proxies: {text:?} is no address and no network such as 10.0.0.0/8")
            })
        };
        texts.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// The client of a request: the other end of the connection, or, when that is a trusted proxy, the last address in
    /// `X-Forwarded-For` that is not one. What comes before that address is the client's own claim.
    pub fn client(&self, headers: &HeaderMap, extensions: &Extensions) -> IpAddr {
        let peer = extensions.get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip().to_canonical());
        if !self.trusts(peer) {
            return peer;
        }
        let mut client = peer;
        let lines = headers.get_all("x-forwarded-for").iter().rev();
        let hops = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.rsplit(',')).map(str::trim);
        for hop in hops {
            // Some proxies add the port.
            let address = hop.parse::<IpAddr>().or_else(|_| hop.parse::<std::net::SocketAddr>().map(|hop| hop.ip()));
            let Ok(address) = address else { break };
            client = address.to_canonical();
            if !self.trusts(client) {
                break;
            }
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn client(trusted: &[&str], peer: &str, forwarded: &[&'static str]) -> String {
        let trusted: Vec<String> = trusted.iter().map(|&text| text.to_owned()).collect();
        let mut extensions = Extensions::new();
        extensions.insert(Peer(format!("{peer}:1234").parse().unwrap()));
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_static(line));
        }
        TrustedProxies::parse(&trusted).unwrap().client(&headers, &extensions).to_string()
    }

    #[test]
    fn only_trusted_proxies_speak_for_others() {
        assert_eq!(client(&[], "10.0.0.1", &["192.0.2.1"]), "10.0.0.1");
        assert_eq!(client(&["10.0.0.0/8"], "192.0.2.9", &["192.0.2.1"]), "192.0.2.9");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &["1.1.1.1, 192.0.2.1, 10.0.0.2"]), "192.0.2.1");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &["1.1.1.1", "192.0.2.1:55, 10.0.0.2"]), "192.0.2.1");
        assert_eq!(client(&["10.0.0.1"], "10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client(&["10.0.0.1"], "10.0.0.1", &["1.1.1.1, junk"]), "10.0.0.1");
        assert_eq!(client(&["::1", "10.0.0.0/8"], "[::ffff:10.0.0.1]", &["2001:db8::1"]), "2001:db8::1");
    }

    #[test]
    fn what_is_no_network_is_refused() {
        assert!(TrustedProxies::parse(&["ingress".to_owned()]).unwrap_err().contains("\"ingress\""));
    }
}
