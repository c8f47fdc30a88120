//! Who may ask what.

use serde_json::{Value, json};

use super::server;
use crate::pod::prometheus;
use crate::upstream::Upstream;
use crate::view::{Line, PATH, grid, panel, parsed, query};

#[tokio::test]
async fn a_right_that_is_missing_costs_only_its_lines() {
    let upstream = Upstream::saying(crate::proxy::SUCCESS).await;
    let server = server(None, json!({})).await;
    let admin = server.caller("admin");
    admin.users(&["ada", "bob", "eve"]).await;
    admin.project("p").await.ok();
    admin.bind(Some("p"), "viewers", "viewer", &["ada"]).await;
    admin.role(Some("p"), "dashboards", &["read"], &["Dashboard"]).await;
    admin.bind(Some("p"), "readers", "dashboards", &["bob"]).await;
    let datasource = |kind: &str, name: &str| {
        let spec = prometheus(&upstream.url(), Value::Null);
        json!({"kind": kind, "metadata": {"name": name, "project": "p"}, "spec": spec})
    };
    admin.send("POST", "/api/v1/globaldatasources", &datasource("GlobalDatasource", "all")).await.ok();
    admin.send("POST", "/api/v1/projects/p/datasources", &datasource("Datasource", "own")).await.ok();
    let of = |name: &str| json!({"datasource": {"kind": "PrometheusDatasource", "name": name}});
    let dashboard = json!({"kind": "Dashboard", "metadata": {"name": "d", "project": "p"}, "spec": {
        "duration": "1h",
        "panels": {"one": panel("TimeSeriesChart", &[
            query("a", &of("all")), query("b", &of("own")), query("c", &of("inside")), query("d", &of("all")),
        ])},
        "datasources": {"inside": prometheus(&upstream.url(), Value::Null)},
        "layouts": [grid(&["one"], &json!({}))],
    }});
    admin.send("POST", "/api/v1/projects/p/dashboards", &dashboard).await.ok();

    let statuses = async |name: &str| {
        let reply = server.caller(name).send("POST", PATH, &json!({})).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        let mut lines = parsed(&reply.body);
        lines.sort_by_key(Line::names);
        lines.into_iter().map(|line| (line.status, line.error)).collect::<Vec<_>>()
    };
    let message = |text: &str| Some(json!({"message": format!("forbidden access: missing 'read' {text}' kind")}));
    let (ok, global) = ((200, None), (403, message("global permission for 'GlobalDatasource")));
    let own = (403, message("permission in 'p' project for 'Datasource"));
    assert_eq!(statuses("admin").await, [ok.clone(), ok.clone(), ok.clone(), ok.clone()]);
    assert_eq!(statuses("ada").await, [global.clone(), ok.clone(), ok, global.clone()]);
    let before = upstream.seen().len();
    assert_eq!(statuses("bob").await, [global.clone(), own.clone(), own, global]);
    assert_eq!(upstream.seen().len(), before, "what is refused is not sent");
    let eve = server.caller("eve").send("POST", PATH, &json!({})).await;
    eve.assert_error(403, "forbidden access: missing 'read' permission in 'p' project for 'Dashboard' kind");
}
