//! The program: command line, configuration, run.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{CacheCommand, Cli, Command, SecretsCommand, UsersCommand, listen_address, normalise};
use crate::store::postgres::MigrateError;
use crate::{commands, config, server, store, telemetry, transfer};

/// Status of a `migrate` that found the schema of a later release: trying again is of no use. The operator knows it.
const TOO_NEW: u8 = 3;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse_from(normalise(std::env::args()));
    match run(&cli) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("perses-api-server: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode, String> {
    let options = &cli.options;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| format!("cannot start: {error}"))?;
    // An error here means that a provider is already set, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Dropped at the end, before the runtime: the last traces are sent.
    let _traces = telemetry::init(&options.log_level, &options.log_format, options.web.method_trace, runtime.handle())?;
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    let mut config = config::load(options.config.as_deref(), &environment).map_err(|error| error.to_string())?;
    options.web.apply(&mut config)?;
    config::check(&config).map_err(|error| error.to_string())?;
    if let Some(Command::Lint(args)) = &cli.command {
        let report = commands::lint::run(&config, options.ui_dir.clone(), args)?;
        print!("{}", report.print(args.form.output));
        return Ok(if report.is_bad(args.form.strict) { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    match &cli.command {
        None | Some(Command::Serve | Command::Lint(_)) => {
            let address = listen_address(&options.listen_address)?;
            runtime.block_on(server::serve(config, address, options.ui_dir.clone()))
        }
        Some(Command::Migrate) => {
            let postgres = config
                .database
                .postgres
                .as_ref()
                .ok_or("migrate needs database.postgres in the configuration; the file store needs no migration")?;
            match runtime.block_on(store::postgres::migrate(postgres)) {
                Ok(report) => println!("{report}"),
                Err(MigrateError::TooNew(message)) => {
                    eprintln!("perses-api-server: {message}");
                    return Ok(ExitCode::from(TOO_NEW));
                }
                Err(error) => return Err(error.to_string()),
            }
            Ok(())
        }
        Some(Command::Import(options)) => {
            let report = runtime.block_on(transfer::import(&config, options))?;
            print!("{report}");
            if report.failed.is_empty() { Ok(()) } else { Err("not everything could be imported".to_owned()) }
        }
        Some(Command::Secrets(SecretsCommand::ReEncrypt(options))) => {
            let report = runtime.block_on(commands::secrets::re_encrypt(&config, options))?;
            print!("{report}");
            if report.failed.is_empty() { Ok(()) } else { Err("not every secret could be encrypted anew".to_owned()) }
        }
        Some(Command::Users(UsersCommand::RenewAdminPassword)) => {
            println!("{}", runtime.block_on(commands::users::renew_admin_password(&config))?);
            Ok(())
        }
        Some(Command::Cache(CacheCommand::Flush(flush))) => {
            println!("{}", runtime.block_on(commands::cache::flush(&config, flush))?);
            Ok(())
        }
        Some(Command::Login(options)) => {
            println!("{}", runtime.block_on(commands::login::run(&config, options))?);
            Ok(())
        }
        Some(Command::Export(options)) => {
            let count = runtime.block_on(transfer::export(&config, options))?;
            println!("{count} documents were written to {}", options.to.display());
            Ok(())
        }
    }?;
    Ok(ExitCode::SUCCESS)
}
