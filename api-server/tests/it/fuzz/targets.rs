//! What is fed: the code between the wire and the store.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use perses_api_server::config::{self, Query};
use perses_api_server::domain::document::Envelope;
use perses_api_server::domain::kind::Kind;
use perses_api_server::domain::lint::{Linter, Mode, RuleSource, Settings, Subject};
use perses_api_server::domain::spec::references::undefined;
use perses_api_server::domain::{promql, secret, spec};
use perses_api_server::query::params::Params;
use perses_api_server::query::plan::{About, Endpoint, Input, Source, plan};
use perses_api_server::query::policy::Policies;
use perses_api_server::query::promql::analyse;
use perses_api_server::service::provisioning::files;

use super::seeds;

/// A way in.
pub(super) struct Target {
    pub(super) name: &'static str,
    pub(super) is_json: bool,
    pub(super) seeds: fn() -> Vec<Vec<u8>>,
    pub(super) feed: fn(&[u8]),
}

/// Envelope, structural check, rules, linter, references, masks.
pub(super) static DOCUMENT: Target =
    Target { name: "document", is_json: true, seeds: seeds::documents, feed: document };
/// The parser, and what is made of its tree.
pub(super) static PROMQL: Target = Target { name: "promql", is_json: false, seeds: seeds::queries, feed: query };
/// Parameters of a query request up to the cache key.
pub(super) static REQUEST: Target = Target { name: "request", is_json: false, seeds: seeds::requests, feed: request };
/// A configuration file.
pub(super) static CONFIG: Target =
    Target { name: "config", is_json: false, seeds: seeds::configurations, feed: configuration };
/// A file of a provisioning folder.
pub(super) static YAML: Target = Target { name: "yaml", is_json: false, seeds: seeds::yaml, feed: yaml };

pub(super) static ALL: [&Target; 5] = [&DOCUMENT, &PROMQL, &REQUEST, &CONFIG, &YAML];

static LINTER: LazyLock<Linter> = LazyLock::new(|| {
    let rule = |name: &str, target: &str, assertion: &str| RuleSource {
        name: name.to_owned(),
        target: target.to_owned(),
        assertion: assertion.to_owned(),
        message: "m".to_owned(),
        disable: false,
    };
    let rules = vec![rule("a", "$.spec.panels.*", "has(value.spec)"), rule("b", "$..query", "size(value) < 1000")];
    Linter::new(Settings { mode: Mode::Enforce, rules, ..Settings::default() }).unwrap()
});

fn document(input: &[u8]) {
    if let Ok(envelope) = serde_json::from_slice(input) {
        check(&envelope);
    }
}

fn check(envelope: &Envelope) {
    let Some(sent) = &envelope.spec else { return };
    // Whatever it says it is, each kind has its own checks; one that it is not costs nothing.
    let own = Kind::parse(&envelope.kind).unwrap_or(Kind::Dashboard);
    for kind in [own, Kind::Dashboard, Kind::GlobalDatasource, Kind::Secret, Kind::Variable] {
        let _ = spec::check_name(kind, &envelope.metadata.name);
        let _ = secret::mask(kind, sent).get().len();
        let _ = (spec::names_secret(kind, sent), spec::display_name(sent.get()), spec::role_of_binding(sent));
        let Ok(checked) = spec::check(kind, sent) else { continue };
        let tags = envelope.metadata.tags.clone().unwrap_or_default();
        let (project, name) = (Some(envelope.metadata.project.as_str()), envelope.metadata.name.as_str());
        let subject = Subject { kind, project, name, tags: &tags, spec: &checked.value };
        let _ = LINTER.custom_rules(&subject);
        let mut findings = LINTER.lint(kind, &checked.value);
        findings.extend(undefined(&checked.value).iter().filter_map(|one| LINTER.undefined_variable(one)));
        // What was normalised is as good as what was sent.
        if let Some(normalised) = &checked.normalised {
            let again = spec::check(kind, normalised).unwrap_or_else(|error| panic!("{kind}: {error:?}: {normalised}"));
            assert!(again.normalised.is_none_or(|again| again.get() == normalised.get()), "{kind}: {normalised}");
        }
    }
}

fn query(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let analysis = analyse(text);
    // The text in the key stands for the query: it means the same.
    let again = analyse(&analysis.text);
    assert_eq!(again.reach, analysis.reach, "{text:?} became {:?}", analysis.text);
    let _ = promql::parse(text, |expression| promql::parts(expression).len());
}

fn request(input: &[u8]) {
    let parts = input.split(|byte| *byte == b'\n').collect::<Vec<_>>();
    let query_string = parts.get(1).and_then(|part| std::str::from_utf8(part).ok());
    let Some(params) = Params::parse(query_string, parts.first().copied()) else { return };
    let (source, reference) = (blake3::hash(b"source"), Arc::from("global/source"));
    let policies = Policies::new(&Query::default());
    let policy = policies.of(None, "prometheus");
    for endpoint in [Endpoint::Instant, Endpoint::Range, Endpoint::Series, Endpoint::LabelValues, Endpoint::Exemplars] {
        for now_ms in [0, 1_700_000_000_000] {
            let source = Source { digest: &source, reference: &reference };
            let input = Input { endpoint, label: Some("job"), source, params: &params, headers: &[], now_ms, policy };
            let Ok(plan) = plan(&input, |text| Box::new(analyse(text))) else { continue };
            // A key says what it is about.
            let about = About::read(&plan.key.text).unwrap();
            assert_eq!((about.endpoint, about.source), (endpoint, "global/source"));
        }
    }
}

fn configuration(input: &[u8]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), input).unwrap();
    let variables = String::from_utf8_lossy(input);
    let variables: BTreeMap<String, String> = variables
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (format!("PERSES_{}", name.trim().to_uppercase()), value.trim().to_owned()))
        .collect();
    let _ = config::load(Some(file.path()), &BTreeMap::new());
    let _ = config::load(None, &variables);
}

fn yaml(input: &[u8]) {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(file.path(), input).unwrap();
    files::read(file.path()).unwrap_or_default().iter().for_each(check);
}
