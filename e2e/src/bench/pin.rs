//! Which core works for whom, and how busy it was.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// One core for the server under test, another for the clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cores {
    /// The measured server, alone.
    pub(super) server: usize,
    /// The load generator and everything else that the benchmark starts.
    pub(super) clients: usize,
}

impl Cores {
    /// The first and the last core that this process may use.
    pub(super) fn choose() -> Result<Self> {
        let allowed = sched_getaffinity(None).context("ask for the usable cores")?;
        let mut usable = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        match (usable.next(), usable.next_back()) {
            (Some(clients), Some(server)) => Ok(Self { server, clients }),
            _ => bail!("the benchmark needs two cores: one for the server, one for the clients"),
        }
    }

    /// Binds this thread, and the threads and processes that it starts from now on, to the clients' core.
    pub(super) fn enter_clients(self) -> Result<()> {
        let mut set = CpuSet::new();
        set.set(self.clients);
        sched_setaffinity(None, &set).context("bind the clients to their core")
    }

    /// A command for `program` that runs, with all its threads, on the server's core only.
    pub(super) fn on_server(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("taskset");
        command.arg("--cpu-list").arg(self.server.to_string()).arg(program);
        command
    }
}

/// CPU time of a process with its threads, or of the calling thread, since it was looked at.
pub(super) struct Busy {
    file: String,
    before: Duration,
    started: Instant,
}

impl Busy {
    /// Starts to count for a process.
    pub(super) fn of_process(pid: u32) -> Result<Self> {
        Self::of(format!("/proc/{pid}/stat"))
    }

    /// Starts to count for the calling thread.
    pub(super) fn of_this_thread() -> Result<Self> {
        Self::of("/proc/thread-self/stat".to_owned())
    }

    fn of(file: String) -> Result<Self> {
        Ok(Self { before: cpu_time(&file)?, started: Instant::now(), file })
    }

    /// The part of one core that it has used since: 1.0 is a whole core.
    pub(super) fn fraction(&self) -> Result<f64> {
        let used = cpu_time(&self.file)?.saturating_sub(self.before);
        Ok(used.as_secs_f64() / self.started.elapsed().as_secs_f64())
    }
}

fn cpu_time(file: &str) -> Result<Duration> {
    let text = fs::read_to_string(file).with_context(|| format!("read {file}"))?;
    parse_cpu_time(&text).with_context(|| format!("{file} has an unknown format"))
}

/// User and system time of proc_pid_stat(5), fields 14 and 15, in ticks of 10 ms (USER_HZ is 100 for all programs).
fn parse_cpu_time(stat: &str) -> Option<Duration> {
    // The name in parentheses may hold anything, so count from its end.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_of_a_stat_line() {
        let line = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0 9";
        assert_eq!(parse_cpu_time(line), Some(Duration::from_secs(2)));
        assert_eq!(parse_cpu_time("7 (x"), None);
    }

    #[test]
    fn a_busy_thread_is_seen() {
        let busy = Busy::of_this_thread().unwrap();
        let started = Instant::now();
        while cpu_time("/proc/thread-self/stat").unwrap() <= busy.before {
            assert!(started.elapsed() < Duration::from_secs(30));
        }
        assert!(busy.fraction().unwrap() > 0.0);
    }
}
