//! `perses-api-server lint`: checks documents in files with the rules of the server, without a server.
//!
//! What only a store knows is left out: whether projects exist, whether there is another default datasource. Variables count
//! as defined when they are in the dashboard or in one of the files.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::config::{Config, ValidationMode};
use crate::domain::document::Envelope;
use crate::domain::kind::Kind;
use crate::domain::lint::{Finding, Severity, Subject};
use crate::domain::spec;
use crate::domain::spec::references::undefined;
use crate::service::envelope::{check_name, check_tags};
use crate::service::provisioning::files;
use crate::service::validation::Checks;
use crate::ui::{self, Assets};

/// Flags of `lint`.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = true, id = "input")]
pub struct LintArgs {
    /// A file with documents: JSON or YAML, one, a list, or several YAML documents; may be repeated
    #[arg(short = 'f', long = "file", value_name = "FILE", group = "input")]
    pub files: Vec<PathBuf>,
    /// A folder with such files; may be repeated
    #[arg(short = 'd', long = "directory", value_name = "DIR", group = "input")]
    pub folders: Vec<PathBuf>,
    /// How these flags and the answer look
    #[command(flatten)]
    pub form: Form,
}

/// What counts and how it is printed.
#[derive(Debug, Clone, Args)]
pub struct Form {
    /// Warnings fail as well
    #[arg(long)]
    pub strict: bool,
    /// Form of the report
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table for people.
    Table,
    /// `{"documents": n, "findings": [{"file", "document", "severity", "path", "text"}]}`.
    Json,
}

/// One finding and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The file.
    pub file: String,
    /// `Kind project/name`, or empty when the file itself cannot be read.
    pub document: String,
    /// What was found.
    pub finding: Finding,
}

/// What was looked at, and what was found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Documents that were read.
    pub documents: usize,
    /// In the order of the files.
    pub entries: Vec<Entry>,
}

impl Report {
    /// Whether the documents should not be used as they are.
    pub fn is_bad(&self, strict: bool) -> bool {
        self.entries.iter().any(|entry| strict || entry.finding.severity == Severity::Error)
    }

    /// The report as it is printed.
    pub fn print(&self, output: Output) -> String {
        match output {
            Output::Table => self.table(),
            Output::Json => format!("{:#}\n", self.json()),
        }
    }

    fn json(&self) -> Value {
        let findings: Vec<Value> = self
            .entries
            .iter()
            .map(|Entry { file, document, finding: Finding { severity, path, text } }| {
                json!({"file": file, "document": document, "severity": severity.as_str(), "path": path, "text": text})
            })
            .collect();
        json!({"documents": self.documents, "findings": findings})
    }

    fn table(&self) -> String {
        let mut rows = vec![["FILE", "DOCUMENT", "SEVERITY", "PATH", "TEXT"]];
        rows.extend(self.entries.iter().map(|Entry { file, document, finding: Finding { severity, path, text } }| {
            [file.as_str(), document.as_str(), severity.as_str(), path.as_str(), text.as_str()]
        }));
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths = [0, 1, 2, 3].map(width);
        let mut out = String::new();
        for row in rows.iter().filter(|_| !self.entries.is_empty()) {
            for (cell, width) in row.iter().zip(widths) {
                let _ = write!(out, "{cell:width$}  ");
            }
            out.push_str(row[4]);
            out.push('\n');
        }
        let errors = self.entries.iter().filter(|entry| entry.finding.severity == Severity::Error).count();
        let warnings = self.entries.len() - errors;
        let _ = writeln!(out, "{} documents, {errors} errors, {warnings} warnings", self.documents);
        out
    }
}

/// Reads and checks the files.
///
/// # Errors
/// The configuration cannot be used. What is wrong with files is in the report.
pub fn run(config: &Config, ui_dir: Option<PathBuf>, args: &LintArgs) -> Result<Report, String> {
    let mut config = config.clone();
    if config.validation.mode == ValidationMode::Off {
        // Whoever asks for a report wants one.
        config.validation.mode = ValidationMode::Warn;
    }
    let options = ui::Options { ui_dir, plugin_path: config.plugin.path.clone(), api_prefix: String::new() };
    let assets = Assets::new(&options).map_err(|error| error.to_string())?;
    let rules = Checks::new(&config, assets.plugin_kinds())?;
    let mut report = Report::default();
    let documents = read(args, &mut report);
    report.documents = documents.len();
    let known = variables(&documents);
    for (file, envelope) in &documents {
        let document = describe(envelope);
        let findings = check(&rules, &known, envelope);
        report.entries.extend(findings.into_iter().map(|finding| Entry {
            file: file.clone(),
            document: document.clone(),
            finding,
        }));
    }
    Ok(report)
}

fn read(args: &LintArgs, report: &mut Report) -> Vec<(String, Envelope)> {
    let mut failed = |file: String, text: String| {
        let finding = Finding { severity: Severity::Error, path: String::new(), text };
        report.entries.push(Entry { file, document: String::new(), finding });
    };
    let mut paths = args.files.clone();
    for folder in &args.folders {
        let (found, errors) = files::list(folder);
        for error in errors {
            failed(folder.display().to_string(), error);
        }
        paths.extend(found);
    }
    let mut documents = Vec::new();
    for path in paths {
        let file = path.display().to_string();
        match files::read(Path::new(&path)) {
            Ok(envelopes) => documents.extend(envelopes.into_iter().map(|envelope| (file.clone(), envelope))),
            Err(error) => failed(file, error),
        }
    }
    documents
}

/// Names of the variables in the files by project; those of every project are under the empty name.
fn variables(documents: &[(String, Envelope)]) -> HashMap<String, HashSet<String>> {
    let mut known: HashMap<String, HashSet<String>> = HashMap::new();
    for (_, envelope) in documents {
        let project = match Kind::parse(&envelope.kind) {
            Some(Kind::Variable) => envelope.metadata.project.to_lowercase(),
            Some(Kind::GlobalVariable) => String::new(),
            _ => continue,
        };
        known.entry(project).or_default().insert(envelope.metadata.name.to_lowercase());
    }
    known
}

fn check(rules: &Checks, known: &HashMap<String, HashSet<String>>, envelope: &Envelope) -> Vec<Finding> {
    let error = |path: &str, text: String| {
        let text = text.strip_prefix("bad request: ").unwrap_or(&text).to_owned();
        vec![Finding { severity: Severity::Error, path: path.to_owned(), text }]
    };
    let Some(kind) = Kind::parse(&envelope.kind) else {
        return error("kind", format!("{:?} is not a kind of this server", envelope.kind));
    };
    let metadata = &envelope.metadata;
    if let Err(refused) = check_name(kind, &metadata.name) {
        return error("metadata.name", refused.to_string());
    }
    let tags = match check_tags(metadata.tags.clone().unwrap_or_default()) {
        Ok(tags) => tags,
        Err(refused) => return error("metadata.tags", refused.to_string()),
    };
    let Some(text) = &envelope.spec else {
        // A project may come without a spec.
        return if kind == Kind::Project { Vec::new() } else { error("spec", "spec cannot be empty".to_owned()) };
    };
    let value = match spec::check(kind, text) {
        Ok(checked) => checked.value,
        Err(refused) => return error(&refused.path, refused.message),
    };
    let project = (!metadata.project.is_empty()).then_some(metadata.project.as_str());
    let subject = Subject { kind, project, name: &metadata.name, tags: &tags, spec: &value };
    let mut findings = rules.check_rules(&subject).err().map_or_else(Vec::new, |refused| error("", refused));
    findings.extend(rules.linter().lint(kind, &value));
    if matches!(kind, Kind::Dashboard | Kind::EphemeralDashboard) {
        let scopes = [metadata.project.to_lowercase(), String::new()];
        let is_known = |name: &str| {
            let name = name.to_lowercase();
            scopes.iter().any(|scope| known.get(scope).is_some_and(|names| names.contains(&name)))
        };
        findings.extend(undefined(&value).into_iter().filter(|one| !is_known(&one.name)).map(|one| Finding {
            // The server may know it.
            severity: Severity::Warning,
            text: format!("variable {:?} is defined neither in the dashboard nor in these files", one.name),
            path: one.path,
        }));
    }
    findings
}

fn describe(envelope: &Envelope) -> String {
    let (kind, metadata) = (&envelope.kind, &envelope.metadata);
    if metadata.project.is_empty() {
        format!("{kind} {}", metadata.name)
    } else {
        format!("{kind} {}/{}", metadata.project, metadata.name)
    }
}
