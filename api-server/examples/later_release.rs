//! This server one or two releases later: the same program with migrations that no release has. Tests roll it out and try
//! to go back.
//!
//! The first adds to the schema, and the release before works with it. The second takes away what the first no longer uses
//! ("expand, then contract"): servers that do not know the first cannot work with it.

use std::process::ExitCode;

use perses_api_server::store::postgres::{Migration, rehearse};

static LATER: [Migration; 2] = [
    Migration {
        version: 4,
        name: "0004_expand",
        needs: 1,
        sql: "ALTER TABLE perses.resource ADD COLUMN later text NOT NULL DEFAULT 'x';
              CREATE INDEX resource_later ON perses.resource (later);",
    },
    Migration { version: 5, name: "0005_contract", needs: 4, sql: "ALTER TABLE perses.resource DROP COLUMN later;" },
];

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let releases = std::env::var("RELEASES_LATER").ok().and_then(|number| number.parse().ok()).unwrap_or(1);
    rehearse(LATER.get(..releases).unwrap_or(&LATER));
    perses_api_server::program::main()
}
