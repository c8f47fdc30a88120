//! Who may do what: roles, bindings, guests; on files and on PostgreSQL, on one pod and on two.

mod batch;
mod bootstrap;
mod matrix;
mod pods;
mod projects;
mod requests;
mod users;

use axum::body::Body;
use axum::http::{Request, header};
use e2e::services::{USER, shared};
use jiff::Timestamp;
use perses_api_server::auth::token::Claims;
use serde_json::{Value, json};

use crate::backends;
use crate::http::{Reply, Server};

/// The key `database` of a configuration for each kind of store; `None` is a folder of the server's own.
async fn databases() -> Vec<(&'static str, Option<Value>)> {
    vec![("files", None), ("PostgreSQL", Some(postgres().await))]
}

/// A new database with the schema.
async fn postgres() -> Value {
    let server = shared::postgres().await.unwrap();
    let config = backends::migrated(server).await;
    on_port(&config.dbname, server.port(), server.password())
}

fn on_port(dbname: &str, port: u16, password: &str) -> Value {
    json!({"postgres": {
        "host": "127.0.0.1", "port": port, "dbname": dbname, "user": USER, "password": password,
    }})
}

/// A server with roles and the first user `admin`; sign-up is closed.
async fn server(database: Option<&Value>, more: Value) -> Server {
    let mut config = json!({"ephemeral_dashboard": {"enable": true}});
    config["security"]["authentication"]["disable_sign_up"] = json!(true);
    if let Some(database) = database {
        config["database"] = database.clone();
    }
    crate::http::merge(&mut config, &more);
    Server::with_auth(config).await
}

/// A signed-in user of a server.
struct Caller<'s> {
    server: &'s Server,
    claims: Claims,
    token: String,
}

impl Server {
    /// Somebody with a token of theirs; whether the user exists is another question.
    fn caller(&self, name: &str) -> Caller<'_> {
        self.caller_in(name, &[])
    }

    /// Somebody whose provider says that they are in these groups.
    fn caller_in(&self, name: &str, groups: &[&str]) -> Caller<'_> {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let claims = Claims { groups, ..Claims::native(name) };
        let token = self.state.tokens.access(&claims, Timestamp::now()).unwrap();
        Caller { server: self, claims, token }
    }
}

impl Caller<'_> {
    async fn request(&self, method: &str, path: &str, body: Body) -> Reply {
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
        let request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        self.server.raw(request.body(body).unwrap()).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.request("GET", path, Body::empty()).await
    }

    async fn delete(&self, path: &str) -> Reply {
        self.request("DELETE", path, Body::empty()).await
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> Reply {
        self.request(method, path, Body::from(body.to_string())).await
    }

    async fn status(&self, path: &str) -> u16 {
        self.get(path).await.status.as_u16()
    }

    async fn project(&self, name: &str) -> Reply {
        let body = json!({"kind": "Project", "metadata": {"name": name}, "spec": {}});
        self.send("POST", "/api/v1/projects", &body).await
    }

    /// Creates users without a password, which would only take time.
    async fn users(&self, names: &[&str]) {
        for name in names {
            let envelope =
                json!({"kind": "User", "metadata": {"name": name}, "spec": {"nativeProvider": {"password": "p"}}});
            self.send("POST", "/api/v1/users", &envelope).await.ok();
        }
    }

    /// Gives users a role of a project, or a global one.
    async fn bind(&self, project: Option<&str>, name: &str, role: &str, users: &[&str]) {
        let (path, body) = binding(project, name, role, users);
        self.send("POST", &path, &body).await.ok();
    }

    /// Creates a role of a project, or a global one.
    async fn role(&self, project: Option<&str>, name: &str, actions: &[&str], scopes: &[&str]) {
        let (path, kind) = place(project, "Role");
        let spec = json!({"permissions": [{"actions": actions, "scopes": scopes}]});
        let body = json!({"kind": kind, "metadata": {"name": name, "project": project.unwrap_or("")}, "spec": spec});
        self.send("POST", &path, &body).await.ok();
    }

    /// Names of what a list holds, with their projects.
    async fn names(&self, path: &str) -> Vec<String> {
        let list = self.get(path).await.ok();
        let name = |one: &Value| {
            let metadata = &one["metadata"];
            match metadata["project"].as_str() {
                Some(project) => format!("{project}/{}", metadata["name"].as_str().unwrap()),
                None => metadata["name"].as_str().unwrap().to_owned(),
            }
        };
        list.as_array().unwrap().iter().map(name).collect()
    }
}

fn place(project: Option<&str>, kind: &str) -> (String, String) {
    match project {
        Some(project) => (format!("/api/v1/projects/{project}/{}s", kind.to_lowercase()), kind.to_owned()),
        None => (format!("/api/v1/global{}s", kind.to_lowercase()), format!("Global{kind}")),
    }
}

fn binding(project: Option<&str>, name: &str, role: &str, users: &[&str]) -> (String, Value) {
    let (path, kind) = place(project, "RoleBinding");
    let subjects: Vec<Value> = users.iter().map(|user| json!({"kind": "User", "name": user})).collect();
    let body = json!({
        "kind": kind, "metadata": {"name": name, "project": project.unwrap_or("")},
        "spec": {"role": role, "subjects": subjects},
    });
    (path, body)
}

/// A dashboard whose variables, panels and layouts are none.
fn dashboard(project: &str, name: &str) -> Value {
    json!({"kind": "Dashboard", "metadata": {"name": name, "project": project}, "spec": {"duration": "1h", "panels": {}, "layouts": []}})
}
