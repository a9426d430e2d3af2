//! Name resolution, remembered for a moment: a page or a tool that opens many connections to one host at once should not
//! have the system read its files and ask its servers for each of them.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use quick_cache::sync::Cache;

/// How long an answer is used. The system does not tell how long it would be good for, so this is short.
const GOOD_FOR: Duration = Duration::from_secs(2);
/// Names remembered at once.
const REMEMBERED: usize = 256;

/// The system's resolver and its last answers. Failures are not remembered.
pub(super) struct Names {
    answers: Cache<Box<str>, Answer>,
}

#[derive(Clone)]
struct Answer {
    addresses: Arc<[IpAddr]>,
    at: Instant,
}

impl Default for Names {
    fn default() -> Self {
        Self { answers: Cache::new(REMEMBERED) }
    }
}

impl Names {
    /// The addresses of `name` in the system's order, each with `port`.
    pub(super) async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let with_port = |addresses: &[IpAddr]| addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        if let Some(answer) = self.answers.get(name)
            && answer.at.elapsed() < GOOD_FOR
        {
            return Ok(with_port(&answer.addresses));
        }
        let found: Vec<SocketAddr> = tokio::net::lookup_host((name, port)).await?.collect();
        // An address with a zone is more than an address.
        let has_zone = |at: &SocketAddr| matches!(at, SocketAddr::V6(at) if at.scope_id() != 0);
        if !found.iter().any(has_zone) {
            let addresses = found.iter().map(SocketAddr::ip).collect();
            self.answers.insert(name.into(), Answer { addresses, at: Instant::now() });
        }
        Ok(found)
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("remembered", &self.answers.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_are_remembered_for_a_moment_and_carry_the_port_asked_for() {
        let names = Names::default();
        let first = names.resolve("localhost", 1).await.unwrap();
        assert!(first.iter().all(|at| at.ip().is_loopback() && at.port() == 1) && !first.is_empty());
        // What is remembered is used: an answer that the system would never give comes back.
        let planted: IpAddr = "192.0.2.1".parse().unwrap();
        names.answers.insert("localhost".into(), Answer { addresses: Arc::new([planted]), at: Instant::now() });
        assert_eq!(names.resolve("localhost", 2).await.unwrap(), [SocketAddr::new(planted, 2)]);
        // What is old is not.
        let old = Instant::now().checked_sub(GOOD_FOR).unwrap();
        names.answers.insert("localhost".into(), Answer { addresses: Arc::new([planted]), at: old });
        assert!(names.resolve("localhost", 2).await.unwrap().iter().all(|at| at.ip().is_loopback()));
    }
}
