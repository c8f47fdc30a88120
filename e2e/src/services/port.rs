//! Loopback ports that stay ours between choosing and listening, also against other test processes.

use std::{
    net::{Ipv4Addr, TcpListener},
    os::{linux::net::SocketAddrExt as _, unix::net},
};

use anyhow::{Result, bail};

/// Below the range from which the kernel takes ports for outgoing connections (32768 and up by default), so no client
/// takes a chosen port before the service listens on it.
const RANGE: std::ops::Range<u16> = 20_000..30_000;

/// A TCP port on 127.0.0.1, reserved until this value is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    // A name that only one process can hold and that the kernel frees with the process. Abstract names belong to the
    // network namespace, exactly as ports do.
    _reservation: net::UnixListener,
}

impl Port {
    /// Reserves a free port.
    pub fn reserve() -> Result<Self> {
        // A random start keeps two processes from trying the same ports in the same order.
        let start = rand::random_range(RANGE);
        for number in (start..RANGE.end).chain(RANGE.start..start) {
            let address = net::SocketAddr::from_abstract_name(format!("perses-stack-port-{number}"))?;
            let Ok(reservation) = net::UnixListener::bind_addr(&address) else { continue };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _reservation: reservation });
            }
        }
        bail!("no free port on 127.0.0.1 between {} and {}; end what holds them", RANGE.start, RANGE.end)
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn reserved_ports_differ_and_are_free() {
        let ports: Vec<_> = (0..50).map(|_| Port::reserve().unwrap()).collect();
        let numbers: HashSet<_> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), ports.len());
        for port in &ports {
            assert!(RANGE.contains(&port.number()));
            TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).unwrap();
        }
    }
}
