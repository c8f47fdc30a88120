//! PURE: from the spec to the inputs of the capacity model.

use super::observed::Observed;
use super::validate::Invalid;
use crate::api::v1alpha1::{
    BackupType, CacheType, DatabaseType, Exporter, PersesStackSpec, PoolerType, Quantity, Resources,
};
use crate::sizing::quantity::NotAQuantity;
use crate::sizing::{Bytes, ClusterInputs, ComputeOverrides, Cpu, Inputs, Overrides, OwnCache, Reads};

/// The inputs of the capacity model for `spec`.
pub(super) fn inputs(
    spec: &PersesStackSpec,
    database_type: DatabaseType,
    observed: &Observed,
) -> Result<Inputs, Invalid> {
    let workload = &spec.workload;
    let refresh_interval_ms =
        prometheus_duration_ms(&workload.refresh_interval).filter(|ms| *ms >= 1000).ok_or_else(|| {
            Invalid::terminal(
                "WorkloadInvalid",
                format!(
                    "spec.workload.refreshInterval is `{}`: write a duration of at least 1s, for example 15s or 1m",
                    workload.refresh_interval
                ),
            )
        })?;
    if let (Some(min), Some(max)) = (spec.api.min_replicas, spec.api.max_replicas)
        && min > max
    {
        return Err(Invalid::terminal(
            "ReplicasInvalid",
            format!("spec.api.minReplicas {min} is greater than spec.api.maxReplicas {max}: lower it"),
        ));
    }
    let pgbouncer = spec.pooler.pgbouncer.clone().unwrap_or_default();
    let (redis, redis_field) = if spec.cache.type_ == CacheType::Sentinel {
        (&spec.cache.sentinel, "spec.cache.sentinel.resources")
    } else {
        (&spec.cache.standalone, "spec.cache.standalone.resources")
    };
    let redis = redis.clone().unwrap_or_default();
    let standalone = spec.database.standalone.clone().unwrap_or_default();
    let crunchy = spec.database.crunchy.clone().unwrap_or_default();
    let cluster = database_type == DatabaseType::Crunchy;
    let (size, storage_field, database, database_field) = if cluster {
        let field = "spec.database.crunchy.storage.size";
        (crunchy.storage.size, field, crunchy.resources, "spec.database.crunchy.resources")
    } else {
        let field = "spec.database.standalone.storage.size";
        (standalone.storage.size, field, standalone.resources, "spec.database.standalone.resources")
    };
    let storage = quantity(size.as_ref(), storage_field, Bytes::parse)?;
    if storage.is_some_and(|size| size.0 < 256 << 20) {
        return Err(Invalid::terminal(
            "StorageTooSmall",
            format!("{storage_field} is under 256Mi: PostgreSQL's log alone needs that"),
        ));
    }
    quantity(crunchy.storage.max_size.as_ref(), "spec.database.crunchy.storage.maxSize", Bytes::parse)?;
    let backup_volume = crunchy.backups.volume.as_ref().and_then(|volume| volume.size.as_ref());
    let backup_storage = quantity(backup_volume, "spec.database.crunchy.backups.volume.size", Bytes::parse)?;
    let pooler = matches!(spec.pooler.type_, PoolerType::PgBouncer | PoolerType::Crunchy);
    // The number of another store means nothing here.
    let external = spec.database.external.as_ref().filter(|_| database_type == DatabaseType::External);
    Ok(Inputs {
        model: spec.sizing.model,
        users: spec.users.into(),
        dashboards_per_user: workload.dashboards_per_user.into(),
        panels_per_dashboard: workload.panels_per_dashboard.into(),
        refresh_interval_ms,
        dashboards: workload.dashboards.map(Into::into),
        namespaces_per_user: workload.namespaces_per_user.into(),
        distinct_queries: workload.distinct_queries.map(Into::into),
        standalone_database: database_type == DatabaseType::Standalone,
        cluster: cluster.then(|| ClusterInputs {
            exporter: crunchy.exporter == Exporter::Enabled,
            backup_volume: crunchy.backups.type_ == BackupType::Volume,
            own_pooler: spec.pooler.type_ == PoolerType::Crunchy,
        }),
        external_reads: match external.and_then(|external| external.read.as_ref()) {
            Some(_) => Reads::Replicas,
            None => Reads::Primary,
        },
        // A claim whose size cannot be read is treated as absent: the API server still refuses to shrink it. That of another
        // store, which the stack is about to leave, says nothing.
        existing_storage: observed
            .database_claim_size
            .as_deref()
            .filter(|_| observed.database.is_none_or(|found| found == database_type))
            .and_then(|text| Bytes::parse(text).ok()),
        external_max_connections: external.and_then(|e| e.max_connections).map(Into::into),
        pooler,
        cache: match spec.cache.type_ {
            CacheType::Standalone => OwnCache::Standalone,
            CacheType::Sentinel => OwnCache::Sentinel,
            CacheType::External | CacheType::None => OwnCache::None,
        },
        overrides: Overrides {
            min_replicas: spec.api.min_replicas.map(Into::into),
            max_replicas: spec.api.max_replicas.map(Into::into),
            database_connections: spec.api.database_connections.map(Into::into),
            api: compute(&spec.api.resources, "spec.api.resources")?,
            redis: compute(&redis.resources, redis_field)?,
            pooler_replicas: pgbouncer.replicas.map(Into::into),
            default_pool_size: pgbouncer.default_pool_size.map(Into::into),
            reserve_pool_size: pgbouncer.reserve_pool_size.map(Into::into),
            max_client_conn: pgbouncer.max_client_conn.map(Into::into),
            pooler: compute(&pgbouncer.resources, "spec.pooler.pgbouncer.resources")?,
            database: compute(&database, database_field)?,
            storage,
            database_replicas: crunchy.replicas.filter(|_| cluster).map(Into::into),
            database_max_connections: crunchy.max_connections.filter(|_| cluster).map(Into::into),
            backup_storage,
        },
    })
}

fn compute(resources: &Resources, field: &str) -> Result<ComputeOverrides, Invalid> {
    let cpu = |q: &Option<Quantity>, part: &str| quantity(q.as_ref(), &format!("{field}.{part}.cpu"), Cpu::parse);
    let memory =
        |q: &Option<Quantity>, part: &str| quantity(q.as_ref(), &format!("{field}.{part}.memory"), Bytes::parse);
    let overrides = ComputeOverrides {
        cpu_request: cpu(&resources.requests.cpu, "requests")?,
        cpu_limit: cpu(&resources.limits.cpu, "limits")?,
        memory_request: memory(&resources.requests.memory, "requests")?,
        memory_limit: memory(&resources.limits.memory, "limits")?,
    };
    let above = |request: bool, what: &str| {
        request.then(|| {
            Invalid::terminal(
                "ResourcesInvalid",
                format!("{field}: the {what} request is greater than its limit: lower the request or raise the limit"),
            )
        })
    };
    let cpu_above = overrides.cpu_request.zip(overrides.cpu_limit).is_some_and(|(r, l)| r > l);
    let memory_above = overrides.memory_request.zip(overrides.memory_limit).is_some_and(|(r, l)| r > l);
    above(cpu_above, "cpu").or(above(memory_above, "memory")).map_or(Ok(overrides), Err)
}

fn quantity<T: Positive>(
    quantity: Option<&Quantity>,
    field: &str,
    parse: impl Fn(&str) -> Result<T, NotAQuantity>,
) -> Result<Option<T>, Invalid> {
    let Some(text) = quantity else { return Ok(None) };
    let value = parse(&text.0).map_err(|error| Invalid::terminal("QuantityInvalid", format!("{field}: {error}")))?;
    if value.positive() {
        Ok(Some(value))
    } else {
        Err(Invalid::terminal("QuantityInvalid", format!("{field} is {text}: write an amount above zero")))
    }
}

trait Positive {
    fn positive(&self) -> bool;
}

impl Positive for Cpu {
    fn positive(&self) -> bool {
        self.0 > 0
    }
}

impl Positive for Bytes {
    fn positive(&self) -> bool {
        self.0 > 0
    }
}

/// How long a sign-in counts at most, in seconds: the longer life of the two tokens.
pub(super) fn sign_in_seconds(spec: &PersesStackSpec) -> i64 {
    let life = |token: &str, usual: i64| {
        let config = spec.api.config.as_ref();
        let own = config.and_then(|config| config.get("security")?.get("authentication")?.get(token)?.as_str());
        // One that cannot be read keeps the pods from starting, so nothing was signed with it.
        own.and_then(prometheus_duration_ms).map_or(usual, |ms| ms / 1000)
    };
    life("refresh_token_ttl", 24 * 3600).max(life("access_token_ttl", 15 * 60))
}

/// Milliseconds of a Prometheus duration (`1h30m`, `15s`, `500ms`); `None` when it is not one.
fn prometheus_duration_ms(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0_i64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|n| *n > 0)?;
        let number: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "y" => 365 * 86_400_000,
            _ => return None,
        };
        rest = &rest[end..];
        total = total.checked_add(number.checked_mul(unit)?)?;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::prometheus_duration_ms as ms;

    #[test]
    fn durations() {
        assert_eq!(ms("15s"), Some(15_000));
        assert_eq!(ms("1h30m"), Some(5_400_000));
        assert_eq!(ms("500ms"), Some(500));
        for bad in ["", "s", "15", "15 s", "1x", "-1s"] {
            assert_eq!(ms(bad), None, "{bad}");
        }
    }
}
