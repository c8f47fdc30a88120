//! Lines that tell a person what a long step is doing: `[  12.3s] text`, on standard error.

use std::sync::OnceLock;
use std::time::Instant;

static START: OnceLock<Instant> = OnceLock::new();

/// Prints `text` with the seconds since the first such line of this process.
pub fn step(text: impl AsRef<str>) {
    let elapsed = START.get_or_init(Instant::now).elapsed().as_secs_f32();
    eprintln!("[{elapsed:6.1}s] {}", text.as_ref());
}
