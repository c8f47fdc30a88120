//! The cluster's network: a namespace of its own, tied to the host by a pair of virtual interfaces.
//!
//! The host reaches the node, the pods and the Services through routes over that pair. The namespace has no default
//! route, so nothing leaves the machine.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::command::{ip, run};

/// Addresses of one cluster, all derived from its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Network {
    slot: u8,
}

impl Network {
    /// The slot that `name` hashes to, or the next one whose ranges meet no route of this machine.
    pub(super) fn choose(name: &str) -> Result<Self> {
        Self::choose_among(name, &routes()?)
            .context("every range for a cluster's network meets a route of this machine")
    }

    fn choose_among(name: &str, taken: &[Range]) -> Option<Self> {
        let first = blake3::hash(name.as_bytes()).as_bytes()[0];
        (0..=u8::MAX).map(|step| Self { slot: first.wrapping_add(step) }).find(|network| {
            let ranges = [network.pair(), network.pods(), network.services()];
            !ranges
                .iter()
                .filter_map(|range| Range::parse(range))
                .any(|range| taken.iter().any(|other| range.meets(*other)))
        })
    }

    /// The host's end of the pair.
    pub(super) fn host_address(self) -> String {
        format!("172.30.{}.1", self.slot)
    }

    /// The node's end of the pair: the address of the node and of the API server.
    pub(super) fn node_address(self) -> String {
        format!("172.30.{}.2", self.slot)
    }

    fn pair(self) -> String {
        format!("172.30.{}.0/30", self.slot)
    }

    /// Range of the pods' addresses.
    pub(super) fn pods(self) -> String {
        format!("10.244.{}.0/24", self.slot)
    }

    /// Range of the Services' addresses.
    pub(super) fn services(self) -> String {
        format!("10.100.{}.0/24", self.slot)
    }

    /// The first address of the Services: the API server inside the cluster.
    pub(super) fn api_service(self) -> String {
        format!("10.100.{}.1", self.slot)
    }

    /// The address of the cluster's DNS.
    pub(super) fn dns(self) -> String {
        format!("10.100.{}.10", self.slot)
    }

    fn interface(self) -> String {
        format!("pstack{}", self.slot)
    }

    /// Makes namespace, pair and routes. Must not be there yet.
    pub(super) fn create(self, namespace: &str) -> Result<()> {
        let (host, node, outside) = (self.host_address(), self.node_address(), self.interface());
        ip(&format!("netns add {namespace}"))
            .context("making a network namespace needs root with CAP_SYS_ADMIN, and mounts under /run/netns")?;
        ip(&format!("link add {outside} type veth peer name node0 netns {namespace}"))
            .context("making a pair of virtual interfaces needs CAP_NET_ADMIN and the kernel's `veth` driver")?;
        ip(&format!("addr add {host}/30 dev {outside}"))?;
        ip(&format!("link set {outside} up"))?;
        ip(&format!("-n {namespace} link set lo up"))?;
        ip(&format!("-n {namespace} addr add {node}/30 dev node0"))?;
        ip(&format!("-n {namespace} link set node0 up"))?;
        // A quick "no route" instead of a time-out for whoever asks for the internet.
        ip(&format!("-n {namespace} route add unreachable default"))?;
        // Programs of the node look a route up before kube-proxy turns the Service's address into a pod's.
        ip(&format!("-n {namespace} route add {} dev node0 src {node}", self.services()))?;
        for range in [self.pods(), self.services()] {
            ip(&format!("route add {range} via {node}"))?;
        }
        let namespace = format!("--net={}", path(namespace).display());
        run("nsenter", [namespace.as_str(), "sysctl", "-qw", "net.ipv4.ip_forward=1"])
            .context("switching on forwarding inside the cluster's network namespace")?;
        Ok(())
    }

    /// Removes what [`Network::create`] made, as far as it is there. The routes go with the pair.
    pub(super) fn remove(self, namespace: &str) -> Result<()> {
        let interface = self.interface();
        if std::path::Path::new("/sys/class/net").join(&interface).exists() {
            ip(&format!("link del {interface}"))?;
        }
        if path(namespace).exists() {
            ip(&format!("netns del {namespace}"))?;
        }
        Ok(())
    }
}

/// The file that stands for a network namespace.
pub(super) fn path(namespace: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(namespace)
}

/// The ranges that this machine has routes for. Very wide ones (a VPN's 10.0.0.0/8) would forbid everything; a route of
/// ours is more specific and wins.
fn routes() -> Result<Vec<Range>> {
    #[derive(Deserialize)]
    struct Route {
        dst: String,
    }
    let text = ip("-4 -json route show table all")?;
    let routes: Vec<Route> = serde_json::from_str(&text).context("reading the answer of `ip route`")?;
    Ok(routes.iter().filter_map(|route| Range::parse(&route.dst)).filter(|range| range.bits > 12).collect())
}

#[derive(Debug, Clone, Copy)]
struct Range {
    start: u32,
    bits: u32,
}

impl Range {
    /// `a.b.c.d/bits` or `a.b.c.d`; nothing for `default` and what else `ip` prints.
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
        let bits: u32 = bits.parse().ok().filter(|bits| *bits <= 32)?;
        Some(Self { start: address.parse::<Ipv4Addr>().ok()?.to_bits(), bits })
    }

    fn meets(self, other: Self) -> bool {
        let shift = 32 - self.bits.min(other.bits);
        self.start.checked_shr(shift) == other.start.checked_shr(shift)
    }
}

/// A name that may be part of names of namespaces, control groups and files.
pub(super) fn check_name(name: &str) -> Result<()> {
    let fits = !name.is_empty() && name.len() <= 20;
    if fits && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
        return Ok(());
    }
    bail!("{name:?} cannot name a cluster: use 1 to 20 of a-z, 0-9 and -")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_meet_when_one_holds_the_other() {
        let range = |text| Range::parse(text).unwrap();
        assert!(range("10.244.7.0/24").meets(range("10.244.0.0/16")));
        assert!(range("10.244.0.0/16").meets(range("10.244.7.9")));
        assert!(!range("10.244.7.0/24").meets(range("10.244.8.0/24")));
        assert!(range("0.0.0.0/0").meets(range("1.2.3.4")));
        assert!(Range::parse("default").is_none());
    }

    #[test]
    fn a_taken_slot_is_passed_over() {
        let free = Network::choose_among("pstack", &[]).unwrap();
        for taken in [free.pods(), free.services(), free.node_address()] {
            let next = Network::choose_among("pstack", &[Range::parse(&taken).unwrap()]).unwrap();
            assert_eq!(next.slot, free.slot.wrapping_add(1));
        }
        let all = ["10.240.0.0/13", "10.100.0.0/16"].map(|range| Range::parse(range).unwrap());
        assert!(Network::choose_among("pstack", &all).is_none());
    }

    #[test]
    fn names_are_safe_parts_of_paths() {
        assert!(check_name("pstack-2").is_ok());
        for bad in ["", "../x", "A", "a b", "a-name-that-is-far-too-long"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
