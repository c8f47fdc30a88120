//! Results: medians and ratios, as Markdown and as JSON. Pure.

use std::fmt::Write as _;

use serde::Serialize;

/// From this part of a core on it counts as full: timers and interrupts take a little.
const FULL: f64 = 0.9;

/// Everything that a run of the benchmark found.
#[derive(Debug, Serialize)]
pub struct Results {
    /// The machine, in words.
    pub machine: String,
    /// How it was measured, in words.
    pub method: String,
    /// One for each kind of request.
    pub cases: Vec<Case>,
    /// One for each server.
    pub memory: Vec<Memory>,
}

/// The rounds of one kind of request, those of all servers interleaved.
#[derive(Debug, Serialize)]
pub struct Case {
    /// What is asked for.
    pub name: String,
    /// Mean bytes of a body as it is sent.
    pub body_bytes: f64,
    /// Whether the server's core is the limit; else a database or a disk is.
    pub bound_by_server: bool,
    /// Who was asked; our server first.
    pub servers: Vec<Measured>,
}

/// What one server did.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// The server.
    pub name: &'static str,
    /// Its rounds.
    pub rounds: Vec<Round>,
}

/// Memory of a server after the benchmark.
#[derive(Debug, Serialize)]
pub struct Memory {
    /// The server.
    pub name: &'static str,
    /// Resident memory in MB before the first of them.
    pub before: f64,
    /// Requests answered and resident memory in MB after each round.
    pub rounds: Vec<(u64, f64)>,
}

/// One measured interval.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Round {
    /// Right responses a second.
    pub rate: f64,
    /// Latency in milliseconds.
    pub p50: f64,
    /// Latency in milliseconds.
    pub p95: f64,
    /// Latency in milliseconds.
    pub p99: f64,
    /// Part of its core that the server used.
    pub server_busy: f64,
    /// Part of its core that the load generator used; near 1 it was the limit, not the server.
    pub client_busy: f64,
}

impl Case {
    /// Our rate by each other server's, round by round.
    fn ratios(&self) -> impl Iterator<Item = (&'static str, Spread)> {
        let (ours, others) = self.servers.split_first().map_or((&[][..], &[][..]), |(ours, rest)| (&ours.rounds, rest));
        others.iter().map(|other| {
            let ratios = ours.iter().zip(&other.rounds).map(|(ours, theirs)| ours.rate / theirs.rate);
            (other.name, Spread::of(ratios))
        })
    }
}

impl Results {
    /// A table for the documentation.
    pub fn markdown(&self) -> String {
        let mut text = format!("{}\n\n{}\n\n", self.machine, self.method);
        text += "| request | who | req/s, median (min to max) | MB/s | p50 ms | p95 ms | p99 ms | CPU us a request | server core | client core |\n";
        text += "|---|---|---|---|---|---|---|---|---|---|\n";
        for case in &self.cases {
            for server in &case.servers {
                let of = |value: fn(&Round) -> f64| Spread::of(server.rounds.iter().map(value));
                let rate = of(|round| round.rate);
                _ = writeln!(
                    text,
                    "| {} | {} | {:.0} ({:.0} to {:.0}) | {:.0} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} % | {:.0} % |",
                    case.name,
                    server.name,
                    rate.median,
                    rate.min,
                    rate.max,
                    rate.median * case.body_bytes / 1e6,
                    of(|round| round.p50).median,
                    of(|round| round.p95).median,
                    of(|round| round.p99).median,
                    of(|round| round.server_busy / round.rate * 1e6).median,
                    of(|round| round.server_busy).median * 100.0,
                    of(|round| round.client_busy).median * 100.0,
                );
            }
        }
        text += "\n| request | peer | perses-api-server / peer, median of the rounds (min to max) |\n|---|---|---|\n";
        for case in &self.cases {
            for (peer, Spread { median, min, max }) in case.ratios() {
                _ = writeln!(text, "| {} | {peer} | {median:.2} ({min:.2} to {max:.2}) |", case.name);
            }
        }
        text += "\n| server | resident MB at first | after each round: MB (requests answered until then) |\n|---|---|---|\n";
        for Memory { name, before, rounds } in &self.memory {
            let rounds: Vec<_> = rounds.iter().map(|(requests, now)| format!("{now:.0} ({requests})")).collect();
            _ = writeln!(text, "| {name} | {before:.0} | {} |", rounds.join(", "));
        }
        if self.disturbed() {
            text += "\nThe server's core was not busy with the server alone, or the client was the limit: something else \
                     worked on this machine, and these numbers say little. Repeat on a quiet one.\n";
        }
        text
    }

    /// Whether some measurement did not fill the server's core.
    fn disturbed(&self) -> bool {
        let servers = self.cases.iter().filter(|case| case.bound_by_server).flat_map(|case| &case.servers);
        servers.into_iter().any(|server| Spread::of(server.rounds.iter().map(|round| round.server_busy)).median < FULL)
    }
}

/// Median and ends of some numbers; zeros when there are none.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => 0.0,
            length if length % 2 == 1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        let end = |value: Option<&f64>| value.copied().unwrap_or(0.0);
        Self { median, min: end(values.first()), max: end(values.last()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_of_odd_even_and_no_numbers() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0].into_iter()), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0].into_iter()), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of(std::iter::empty()), Spread { median: 0.0, min: 0.0, max: 0.0 });
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let round = |rate| Round { rate, p50: 1.0, p95: 1.5, p99: 2.0, server_busy: 0.96, client_busy: 0.5 };
        let measured = |name, rates: [f64; 3]| Measured { name, rounds: rates.map(round).to_vec() };
        let case = Case {
            name: "a".to_owned(),
            body_bytes: 1e6,
            bound_by_server: true,
            servers: vec![measured("perses-api-server", [50.0, 90.0, 60.0]), measured("nginx", [100.0; 3])],
        };
        let memory = vec![Memory { name: "nginx", before: 1.2, rounds: vec![(7, 3.4), (9, 3.6)] }];
        let mut results = Results { machine: "m".to_owned(), method: "n".to_owned(), cases: vec![case], memory };
        let text = results.markdown();
        assert!(text.contains("| a | nginx | 0.60 (0.50 to 0.90) |"), "{text}");
        assert!(
            text.contains("| a | perses-api-server | 60 (50 to 90) | 60 | 1.00 | 1.50 | 2.00 | 16000 | 96 % | 50 % |"),
            "{text}"
        );
        assert!(text.contains("| nginx | 1 | 3 (7), 4 (9) |"), "{text}");
        assert!(!text.contains("quiet"), "{text}");

        results.cases[0].servers[1].rounds.iter_mut().for_each(|round| round.server_busy = 0.5);
        assert!(results.markdown().contains("quiet"));
    }
}
