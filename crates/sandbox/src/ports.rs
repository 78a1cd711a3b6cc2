//! Ports that are free now and still free a moment later.
//!
//! A port that the kernel gives out for `:0` lies in the range it also takes for connections going out, so while a
//! program is started to listen there, any connection of any process may take it. Below that range only listeners are.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the search begins: above what is registered for well-known servers.
const FIRST: u16 = 18_000;
/// Where the kernel's own range begins when nobody says otherwise (`ip_local_port_range`, Linux).
const EPHEMERAL: u16 = 32_768;

/// A loopback port that nobody listens on, outside the range of connections going out where that range leaves room;
/// no port is answered twice by one process before all were.
///
/// # Errors
/// No port can be bound.
pub fn free_port() -> io::Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let end = ephemeral().filter(|end| *end > FIRST).unwrap_or(EPHEMERAL);
    let count = u32::from(end - FIRST);
    // Processes that look at the same time begin at different places.
    let begin = std::process::id().wrapping_mul(97);
    for _ in 0..count {
        let offset = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % count;
        let port = FIRST + u16::try_from(offset).unwrap_or(0);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The first port of connections going out.
fn ephemeral() -> Option<u16> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    range.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_lie_where_no_connection_takes_them() {
        let ports: Vec<u16> = (0..50).map(|_| free_port().expect("a port")).collect();
        let distinct: std::collections::BTreeSet<u16> = ports.iter().copied().collect();
        assert_eq!(distinct.len(), ports.len());
        let end = ephemeral().filter(|end| *end > FIRST).unwrap_or(EPHEMERAL);
        assert!(ports.iter().all(|port| (FIRST..end).contains(port)), "{ports:?}");
    }

    #[test]
    fn a_port_somebody_listens_on_is_not_answered() {
        let port = free_port().expect("a port");
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("bound");
        // Once around: every other one is answered before it would be this one's turn again.
        assert!((0..EPHEMERAL - FIRST).all(|_| free_port().expect("a port") != port));
    }
}
