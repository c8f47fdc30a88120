//! The table of operations: one entry for each method of each route.

use serde_json::{Value, json};

use crate::domain::kind::Kind;

/// Groups of operations.
pub(super) const TAGS: [(&str, &str); 7] = [
    ("Resources", "The five verbs of every kind."),
    ("Validation", "Documents are checked and not written."),
    ("Sign-in", "Tokens, and questions about oneself."),
    ("Proxy", "Requests to datasources."),
    ("Server", "Health, configuration, plugins, metrics."),
    ("Audit", "Who did what."),
    ("Cache", "Cached answers of datasources."),
];

/// What a request carries.
#[derive(Debug, Clone)]
pub(super) enum Body {
    /// JSON of this schema.
    Schema(&'static str),
    /// Whatever the datasource takes.
    Any,
}

/// A parameter that is not part of the path.
#[derive(Debug, Clone)]
pub(super) struct Parameter {
    pub(super) place: &'static str,
    pub(super) name: &'static str,
    pub(super) text: &'static str,
    pub(super) required: bool,
    pub(super) schema: Value,
}

/// Content type and schema of an answer's body.
type Content = Option<(&'static str, Value)>;

/// One method of one route.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) tag: &'static str,
    pub(super) summary: String,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<Body>,
    /// Status, text, and content type with schema of its body.
    pub(super) answers: Vec<(String, &'static str, Content)>,
    pub(super) errors: Vec<u16>,
    /// Whether it needs no sign-in.
    pub(super) open: bool,
}

const JSON: &str = "application/json";

impl Operation {
    fn new(method: &'static str, path: impl Into<String>, tag: &'static str, summary: impl Into<String>) -> Self {
        let (path, summary) = (path.into(), summary.into());
        let (parameters, answers, errors) = (Vec::new(), Vec::new(), Vec::new());
        Self { method, path, tag, summary, parameters, body: None, answers, errors, open: false }
    }

    /// A name without blanks, unique by construction.
    pub(super) fn id(&self) -> String {
        let mut id = self.method.to_owned();
        for part in self.path.trim_start_matches("/api/v1").split('/').filter(|part| !part.is_empty()) {
            id.push('_');
            id.extend(part.chars().filter(char::is_ascii_alphanumeric));
        }
        id
    }

    fn open(mut self) -> Self {
        self.open = true;
        self
    }

    fn body(mut self, schema: &'static str) -> Self {
        self.body = Some(Body::Schema(schema));
        self
    }

    /// Answers 200 with JSON of this schema.
    fn json(self, schema: &str) -> Self {
        self.answer(200, "As asked.", Some((JSON, json!({"$ref": format!("#/components/schemas/{schema}")}))))
    }

    fn list(self, schema: &str) -> Self {
        let items = json!({"$ref": format!("#/components/schemas/{schema}")});
        self.answer(200, "All that match; `[]` when none does.", Some((JSON, json!({"type": "array", "items": items}))))
    }

    fn answer(mut self, status: u16, text: &'static str, body: Content) -> Self {
        self.answers.push((status.to_string(), text, body));
        self
    }

    fn errors(mut self, errors: &[u16]) -> Self {
        self.errors.extend(errors);
        self
    }

    fn parameter(mut self, place: &'static str, name: &'static str, text: &'static str, schema: Value) -> Self {
        self.parameters.push(Parameter { place, name, text, required: false, schema });
        self
    }

    fn query(self, name: &'static str, text: &'static str) -> Self {
        self.parameter("query", name, text, json!({"type": "string"}))
    }
}

/// Every operation of any configuration.
pub(super) fn all() -> Vec<Operation> {
    let mut all = Vec::new();
    for kind in Kind::ALL {
        resources(kind, &mut all);
    }
    validation(&mut all);
    sign_in(&mut all);
    providers(&mut all);
    proxy(&mut all);
    cache(&mut all);
    server(&mut all);
    all
}

/// The verbs of a kind. A list answers items without specs when `metadata_only` is set, so its schema is open.
fn resources(kind: Kind, all: &mut Vec<Operation>) {
    let (name, plural) = (kind.as_str(), kind.plural());
    let is_datasource = matches!(kind, Kind::Datasource | Kind::GlobalDatasource);
    let list = |path: String, whose: &str| {
        let list = Operation::new("get", path, "Resources", format!("List {plural}{whose}"))
            .query("name", "Only names that start so.")
            .errors(&[400, 503]);
        let list = if kind.is_project_scoped() { list.query("project", "Only this project.") } else { list };
        let items = json!({"type": "array", "items": {"type": "object", "required": ["kind", "metadata"]}});
        let list = list.answer(200, "All that match; `[]` when none does.", Some((JSON, items)));
        if is_datasource {
            let default = json!({"enum": ["true", "false"]});
            list.query("kind", "Only of this kind of plugin.").parameter(
                "query",
                "default",
                "Only `spec.default` so.",
                default,
            )
        } else {
            let values = json!({"enum": ["true", "1", "false"]});
            let list = list.parameter("query", "metadata_only", "Leave the specs out.", values.clone());
            list.parameter("query", "display", "With `metadata_only`: leave `spec.display.name` in.", values)
        }
    };
    let create = |path: String| {
        let create = Operation::new("post", path, "Resources", format!("Create a {name}"));
        create.body(name).json(name).errors(&[400, 409, 415, 503])
    };
    let collection = format!("/api/v1/{plural}");
    let item = if kind.is_project_scoped() {
        let of_project = format!("/api/v1/projects/{{project}}/{plural}");
        all.extend([list(of_project.clone(), " of a project"), create(of_project.clone())]);
        format!("{of_project}/{{name}}")
    } else {
        format!("{collection}/{{name}}")
    };
    let create = create(collection.clone());
    // Signing up needs no sign-in.
    let create = if kind == Kind::User { Operation { open: true, ..create }.errors(&[401, 403]) } else { create };
    all.extend([list(collection, ""), create]);
    let etag = json!({"type": "string"});
    all.extend([
        Operation::new("get", &item, "Resources", format!("Read a {name}"))
            .parameter("header", "If-None-Match", "`ETag` of a former answer.", etag.clone())
            .json(name)
            .answer(304, "Still as the ETag says.", None)
            .errors(&[400, 404, 503]),
        Operation::new("put", &item, "Resources", format!("Replace a {name}"))
            .parameter(
                "header",
                "If-Match",
                "`ETag` of the version that is to be replaced; else the last write wins.",
                etag.clone(),
            )
            .body(name)
            .json(name)
            .errors(&[400, 404, 412, 415, 503]),
        Operation::new("delete", &item, "Resources", format!("Delete a {name}"))
            .parameter("header", "If-Match", "`ETag` of the version that is to be deleted.", etag)
            .answer(204, "It is gone; of a project also everything in it.", None)
            .errors(&[400, 404, 412, 503]),
    ]);
}

fn validation(all: &mut Vec<Operation>) {
    for kind in [Kind::Dashboard, Kind::Datasource, Kind::GlobalDatasource, Kind::Variable, Kind::GlobalVariable] {
        let path = format!("/api/validate/{}", kind.plural());
        let check = Operation::new("post", path, "Validation", format!("Check a {kind}; its project may be empty"));
        all.push(check.open().body(kind.as_str()).answer(200, "It could be written.", None).errors(&[400, 503]));
    }
}

fn sign_in(all: &mut Vec<Operation>) {
    let new = |method, path: &str, summary: &str| Operation::new(method, path, "Sign-in", summary);
    all.extend([
        new("post", "/api/auth/providers/native/login", "Sign in with a password; also sets three cookies")
            .open()
            .body("Login")
            .json("Tokens")
            .errors(&[400, 429, 503]),
        new("post", "/api/auth/refresh", "A new access token for a refresh token")
            .open()
            .body("Refresh")
            .json("Tokens")
            .errors(&[400, 503]),
        new("get", "/api/auth/logout", "Clear the cookies").open().answer(302, "To the start page.", None),
        new("get", "/api/v1/user/whoami", "Oneself").json("User").errors(&[503]),
        new("get", "/api/v1/users/{name}/permissions", "What one may do").json("Permissions").errors(&[400, 404, 503]),
    ]);
}

/// Signing in at a provider of the configuration.
fn providers(all: &mut Vec<Operation>) {
    for (kind, what) in [("oidc", "an OpenID provider"), ("oauth", "an OAuth provider")] {
        let new = |method, end: &str, summary: &str| {
            let path = format!("/api/auth/providers/{kind}/{{slug}}/{end}");
            Operation::new(method, path, "Sign-in", format!("{summary} {what}"))
                .open()
                .answer(400, "`error` and `error_description` (RFC 6749).", Some((JSON, json!({"type": "object"}))))
                .errors(&[403, 429, 502, 503, 504])
        };
        let form = |operation: Operation| Operation { body: Some(Body::Any), ..operation };
        let object = || Some((JSON, json!({"type": "object"})));
        all.extend([
            new("get", "login", "Go to").query("rd", "Where to go afterwards, on this site.").answer(
                302,
                "To the provider.",
                None,
            ),
            new("get", "callback", "Come back from")
                .query("code", "The provider's code.")
                .query("state", "The sign-in that was begun.")
                .answer(302, "Where the sign-in began.", None),
            form(new("post", "device/code", "Begin the device flow of")).answer(200, "Codes (RFC 8628).", object()),
            form(new("post", "token", "Tokens for what is given by")).json("Tokens"),
        ]);
    }
}

fn proxy(all: &mut Vec<Operation>) {
    for (path, what) in [
        ("/proxy/globaldatasources/{name}/{path}", "a global datasource"),
        ("/proxy/projects/{project}/datasources/{name}/{path}", "a datasource of a project"),
        ("/proxy/projects/{project}/dashboards/{dashboard}/datasources/{name}/{path}", "a datasource in a dashboard"),
    ] {
        for method in ["get", "post", "put", "patch", "delete"] {
            let mut operation = Operation::new(method, path, "Proxy", format!("Ask {what}"));
            operation.body = (method != "get" && method != "delete").then_some(Body::Any);
            let answer = ("default".to_owned(), "What the datasource answers.", None);
            operation.answers.push(answer);
            all.push(operation.errors(&[400, 404, 413, 501, 502, 503, 504]));
        }
    }
    for path in [
        "/proxy/unsaved/globaldatasources/{path}",
        "/proxy/unsaved/projects/{project}/datasources/{path}",
        "/proxy/unsaved/projects/{project}/dashboards/{dashboard}/datasources/{path}",
    ] {
        let mut operation =
            Operation::new("post", path, "Proxy", "Ask a datasource that is not saved").body("UnsavedRequest");
        operation.answers.push(("default".to_owned(), "What the datasource answers.", None));
        all.push(operation.errors(&[400, 404, 501, 502, 503, 504]));
    }
}

/// The cache of answers of datasources.
fn cache(all: &mut Vec<Operation>) {
    let new = |path: &str, summary: &str| Operation::new("post", path, "Cache", summary);
    all.extend([
        new("/api/v1/cache/flush", "Forget cached answers of datasources, in all pods; for administrators")
            .body("Flush")
            .json("Flushed")
            .errors(&[400, 404, 503]),
        new("/api/v1/query/explain", "Why the answer to a query would come from where it would")
            .body("Explain")
            .json("Explained")
            .errors(&[400, 404, 501, 502, 503]),
    ]);
}

fn server(all: &mut Vec<Operation>) {
    let new = |method, path: &str, summary: &str| Operation::new(method, path, "Server", summary);
    let text = || Some(("text/plain", json!({"type": "string"})));
    let health = json!({"$ref": "#/components/schemas/Health"});
    for path in ["/api/v1/health", "/api/health"] {
        let operation = new("get", path, "Build, and whether the database answers").open().json("Health");
        all.push(operation.answer(503, "The database does not answer.", Some((JSON, health.clone()))));
    }
    all.extend([
        new("get", "/api/config", "The configuration, without secrets").open().json("Configuration"),
        new("get", "/api/v1/plugins", "Plugin modules that the UI can load").open().list("PluginModule"),
        new("get", "/api/v1/openapi.json", "This document").open().answer(
            200,
            "OpenAPI 3.1.",
            Some((JSON, json!({"type": "object"}))),
        ),
        new("get", "/api/v1/search/dashboards", "Dashboards whose name or title holds a text, best first")
            .query("query", "The text.")
            .query("project", "Only this project.")
            .answer(200, "What was found.", Some((JSON, json!({"type": "array", "items": {"type": "object"}}))))
            .errors(&[400, 503]),
        new("post", "/api/v1/view", "Report that a dashboard was shown")
            .body("View")
            .answer(200, "Counted.", None)
            .errors(&[400, 404, 503]),
        Operation::new(
            "post",
            "/api/v1/projects/{project}/dashboards/{name}/query",
            "Proxy",
            "Ask what the panels of a dashboard ask, each query as the proxy would, and stream the answers as they come",
        )
        .body("DashboardQuery")
        .answer(
            200,
            "A line for each distinct query, as it is answered; with `Accept: text/event-stream` an event.",
            Some(("application/x-ndjson", json!({"$ref": "#/components/schemas/DashboardQueryLine"}))),
        )
        .errors(&[400, 404, 503]),
        new("post", "/api/migrate", "Migrate a Grafana dashboard: not here").open().errors(&[501]),
        new("post", "/api/v1/plugins/dev", "Develop plugins: not here").open().errors(&[501]),
        new("delete", "/api/v1/plugins/dev", "End the development of plugins: not here").open().errors(&[501]),
        new("post", "/api/v1/plugins/dev/refresh", "Load developed plugins again: not here").open().errors(&[501]),
        new("get", "/livez", "Whether the process answers").open().answer(200, "It does.", text()),
        new("get", "/readyz", "Whether requests can be served").open().answer(200, "They can.", text()).answer(
            503,
            "Why not.",
            text(),
        ),
        new("get", "/metrics", "Metrics (OpenMetrics)").open().answer(
            200,
            "All families.",
            Some(("application/openmetrics-text", json!({"type": "string"}))),
        ),
        Operation::new(
            "get",
            "/api/v1/audit",
            "Audit",
            "Records of writes and sign-ins, newest first; for administrators",
        )
        .query("user", "Only of this user.")
        .query("kind", "Only of this kind.")
        .query("project", "Only in this project.")
        .query("name", "Only of this name.")
        .parameter("query", "from", "From this time on.", json!({"type": "string", "format": "date-time"}))
        .parameter("query", "to", "Before this time.", json!({"type": "string", "format": "date-time"}))
        .parameter(
            "query",
            "limit",
            "Records of a page.",
            json!({"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
        )
        .query("cursor", "`next` of the page before.")
        .json("AuditPage")
        .errors(&[400, 503]),
    ]);
}
