//! Series of several tenants, and of nobody.

use std::fmt::Write as _;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// The beginning of the samples, and how long they go on, in seconds.
pub const FIRST: i64 = 1_700_000_000;
pub const LAST: i64 = FIRST + 2 * 3600;
const SCRAPE: i64 = 30;
const NAMESPACES: [&str; 5] = ["team-a", "b", "c", "team.a", ""];

/// All series, or only those of some namespaces. The numbers of a series are the same either way.
pub fn of(is_wanted: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    let mut add = |name: &str, kind: &str, labels: &[&str], seed: u64| {
        writeln!(text, "# TYPE {name} {kind}").unwrap();
        for (n, namespace) in (0_u64..).zip(NAMESPACES) {
            for (m, more) in (0_u64..).zip(labels) {
                let mut rng = StdRng::seed_from_u64(seed * 1000 + n * 50 + m);
                let mut sum = 0.0;
                let tenant = if namespace.is_empty() { String::new() } else { format!("namespace=\"{namespace}\",") };
                let suffix = if kind == "counter" { "_total" } else { "" };
                for time in (FIRST..LAST).step_by(usize::try_from(SCRAPE).unwrap()) {
                    let value = rng.random_range(0.0..100.0_f64);
                    sum += value;
                    let value = if kind == "counter" { sum } else { value };
                    if rng.random_ratio(15, 16) && is_wanted(namespace) {
                        writeln!(text, "{name}{suffix}{{{tenant}{more}}} {value} {time}").unwrap();
                    }
                }
            }
        }
    };
    let two = ["job=\"x\",instance=\"1\"", "job=\"y\",instance=\"2\",odd=\"é\\\"{}\\\\\""];
    add("c", "counter", &two, 1);
    add("g", "gauge", &two, 2);
    add("other", "gauge", &["instance=\"1\""], 3);
    for (n, namespace) in
        (0_u64..).zip(NAMESPACES).filter(|(_, namespace)| !namespace.is_empty() && is_wanted(namespace))
    {
        if n == 0 {
            writeln!(text, "# TYPE h histogram").unwrap();
        }
        let mut rng = StdRng::seed_from_u64(4000 + n);
        let mut counts = [0_u32; 3];
        for time in (FIRST..LAST).step_by(60) {
            let mut all = 0;
            for (count, le) in counts.iter_mut().zip(["0.1", "1.0", "+Inf"]) {
                *count += rng.random_range(0..20_u32);
                all += *count;
                writeln!(text, "h_bucket{{namespace=\"{namespace}\",le=\"{le}\"}} {all} {time}").unwrap();
            }
        }
    }
    text + "# EOF\n"
}
