//! Requests and responses: a client sends a request at fixed times, a server computes a little and answers. How long each
//! took, from the time that it was due, so that a slow answer is not forgotten by those that wait behind it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{now_ns, sleep_until};

/// What to send, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct RequestSpec {
    /// Time between two requests.
    pub period: Duration,
    /// How long the server computes for each.
    pub work: Duration,
    /// For how long requests are sent before those that count: a scheduler that goes by what a task did before sees a new one
    /// first.
    pub warm_up: Duration,
    /// For how long requests are sent that count.
    pub length: Duration,
}

/// How long the answers took, microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    /// How many there were.
    pub count: usize,
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// Send requests to a server thread and wait for the answers.
///
/// # Errors
/// No socket or no thread can be had.
pub fn run(spec: RequestSpec) -> io::Result<Answers> {
    let (mut client, server) = UnixStream::pair()?;
    let serving = serve(server, spec.work)?;
    let period = spec.period.as_nanos() as u64;
    let begin = now_ns() + period;
    let counted = begin + spec.warm_up.as_nanos() as u64;
    let mut took = Vec::new();
    for due in (begin..counted + spec.length.as_nanos() as u64).step_by(period as usize) {
        sleep_until(due);
        client.write_all(&[0])?;
        client.read_exact(&mut [0])?;
        if due >= counted {
            took.push(now_ns() - due);
        }
    }
    drop(client);
    serving.join().map_err(|_| io::Error::other("the server failed"))??;
    took.sort_unstable();
    let us = |part: f64| took[((took.len() - 1) as f64 * part) as usize] as f64 / 1000.0;
    Ok(Answers { count: took.len(), p50_us: us(0.5), p99_us: us(0.99), max_us: us(1.0) })
}

/// A thread that answers until the other side is closed.
fn serve(mut socket: UnixStream, work: Duration) -> io::Result<JoinHandle<io::Result<()>>> {
    thread::Builder::new().name("server".to_owned()).spawn(move || {
        while socket.read(&mut [0])? != 0 {
            let end = now_ns() + work.as_nanos() as u64;
            while now_ns() < end {
                std::hint::spin_loop();
            }
            socket.write_all(&[0])?;
        }
        Ok(())
    })
}
