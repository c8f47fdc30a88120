//! `persesstack-operator`: parse, then hand over to the library.

use clap::Parser as _;
use persesstack_operator::cli::{self, Cli, Command};
use persesstack_operator::run;
use persesstack_operator::settings::Settings;

fn main() -> anyhow::Result<()> {
    let settings = Settings::from_lookup(|name| std::env::var(name).ok());
    match Cli::parse().command {
        Command::Run(args) => run::run(args, settings)?,
        Command::Crd => cli::offline_crd()?,
        Command::Rbac => cli::offline_rbac()?,
        Command::Render(args) => cli::offline_render(&args, &settings)?,
        Command::Explain(args) => cli::offline_explain(&args, &settings)?,
    }
    Ok(())
}
