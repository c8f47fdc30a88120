//! Specs of plugins against the JSON Schemas in `schemas/`. They are in the binary; nothing is ever fetched.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::Finding;
use super::json_schema::Schema;
use super::plugins::PluginUse;

/// Most findings about one plugin.
const MAX_FINDINGS: usize = 5;

macro_rules! schemas {
    ($($kind:ident)*) => {
        /// Kind of the plugin and its schema.
        const SCHEMAS: &[(&str, &str)] =
            &[$((stringify!($kind), include_str!(concat!("../../../schemas/", stringify!($kind), ".json")))),*];
    };
}

schemas! {
    PrometheusDatasource PrometheusTimeSeriesQuery PrometheusLabelNamesVariable PrometheusLabelValuesVariable
    PrometheusPromQLVariable PrometheusPromQLAnnotation StaticListVariable DatasourceVariable
    TimeSeriesChart StatChart GaugeChart BarChart PieChart Table TimeSeriesTable Markdown HistogramChart HeatMapChart
    ScatterChart StatusHistoryChart
    LokiDatasource LokiLogQuery LokiTimeSeriesQuery LokiLabelNamesVariable LokiLabelValuesVariable
    TempoDatasource TempoTraceQuery PyroscopeDatasource
}

/// What the schemas refer to as `#/$defs/<name>`.
const COMMON: &str = include_str!("../../../schemas/common.json");

/// The compiled schemas, by kind of the plugin.
#[derive(Debug)]
pub(super) struct Schemas(HashMap<&'static str, Schema>);

impl Schemas {
    pub(super) fn compile() -> Result<Self, String> {
        let read = |kind: &str, text: &str| {
            serde_json::from_str::<Value>(text).map_err(|error| format!("schema of plugin {kind}: {error}"))
        };
        let common = read("common", COMMON)?;
        let compiled = SCHEMAS.iter().map(|(kind, text)| {
            let schema = Schema::compile(&read(kind, text)?, &common["$defs"]);
            Ok((*kind, schema.map_err(|reason| format!("schema of plugin {kind}: {reason}"))?))
        });
        compiled.collect::<Result<_, String>>().map(Self)
    }

    /// Checks the spec of a plugin; whether there is a schema for it.
    pub(super) fn check(&self, used: &PluginUse<'_>, findings: &mut Vec<Finding>) -> bool {
        let Some(schema) = self.0.get(used.kind) else { return false };
        let empty = Value::Object(Map::new());
        let mut found = Vec::new();
        schema.check(used.spec.unwrap_or(&empty), &mut format!("{}.spec", used.path), &mut found);
        findings.extend(found.into_iter().take(MAX_FINDINGS).map(|(path, text)| Finding::error(path, text)));
        true
    }
}

/// Whether the plugin has a schema here.
pub(super) fn has_schema_for(kind: &str) -> bool {
    SCHEMAS.iter().any(|(known, _)| *known == kind)
}
