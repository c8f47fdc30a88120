//! Whether the connections of all layers fit into each other (design: `ConnectionBudget`).
//!
//! `(HPA max + surge) x API pool <= (PgBouncer replicas - 1) x max_client_conn`, because one pooler may be away, and
//! `(PgBouncer replicas + surge) x (pool + reserve) + migration + exporter + replication + superuser reserve <=
//! max_connections`, because during a roll one pooler more is there.

/// Connections that a migration holds: one with the advisory lock, one that works.
pub const MIGRATION: i64 = 2;
/// PostgreSQL's `superuser_reserved_connections` (seed section 3).
pub const SUPERUSER_RESERVED: i64 = 5;
/// Connections over which one of Crunchy's poolers asks the database for passwords (`auth_query`).
pub const ASKS: i64 = 1;
/// Pods that a rolling update adds (`maxSurge`).
pub const SURGE: i64 = 1;

/// The numbers that must fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers {
    /// Most API pods.
    pub api_replicas: i64,
    /// Connections of one API pod.
    pub api_pool: i64,
    /// Each API pod has a second pool of that size, to replicas. Through the pooler both pools are its clients; at the
    /// servers each counts against its own `max_connections`, which a cluster has alike on every instance.
    pub read_pool: bool,
    /// Pooler, when there is one.
    pub pooler: Option<PoolerLayer>,
    /// Connections of metrics exporters.
    pub exporter: i64,
    /// Connections of standbys.
    pub replication: i64,
    /// `max_connections` of the server; `None` when unknown.
    pub max_connections: Option<i64>,
}

/// PgBouncer's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolerLayer {
    /// Pods.
    pub replicas: i64,
    /// `default_pool_size`.
    pub pool: i64,
    /// `reserve_pool_size`.
    pub reserve: i64,
    /// `max_client_conn`.
    pub max_client_conn: i64,
    /// It asks the database for passwords, over connections of its own.
    pub asks: bool,
}

/// Verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetState {
    /// Every layer fits into the next.
    Holds,
    /// Some layer asks for more than the next has.
    Violated,
    /// `max_connections` of the external server is not declared.
    Unknown,
}

/// Verdict with its arithmetic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionBudget {
    /// Verdict.
    pub state: BudgetState,
    /// The arithmetic, and what to change when it does not hold.
    pub message: String,
}

/// Checks `layers`.
pub fn check(layers: &Layers) -> ConnectionBudget {
    let api_pods = layers.api_replicas + SURGE;
    let own = api_pods * layers.api_pool;
    let mut broken = Vec::new();
    let mut arithmetic = Vec::new();

    let server_pools = match layers.pooler {
        Some(pooler) => {
            let capacity = (pooler.replicas - 1) * pooler.max_client_conn;
            let clients = if layers.read_pool { own * 2 } else { own };
            let pools = if layers.read_pool { " x 2 (primary and replicas)" } else { "" };
            let line = format!(
                "clients: ({} + {SURGE}) API pods x {}{pools} = {clients}, pooler with one pod away: ({} - 1) x {} = {capacity}",
                layers.api_replicas, layers.api_pool, pooler.replicas, pooler.max_client_conn
            );
            if clients > capacity {
                broken.push(format!(
                    "{line}: lower api.databaseConnections or api.maxReplicas, or raise pooler.pgbouncer.replicas or \
                     pooler.pgbouncer.maxClientConn"
                ));
            }
            arithmetic.push(line);
            (pooler.replicas + SURGE) * (pooler.pool + pooler.reserve + if pooler.asks { ASKS } else { 0 })
        }
        None => own,
    };

    let demand = server_pools + MIGRATION + layers.exporter + layers.replication + SUPERUSER_RESERVED;
    let parts = match layers.pooler {
        Some(pooler) => {
            let asks = if pooler.asks { format!(" + {ASKS} for passwords") } else { String::new() };
            format!("({} + {SURGE}) poolers x ({} + {}{asks})", pooler.replicas, pooler.pool, pooler.reserve)
        }
        None => format!("({} + {SURGE}) API pods x {}", layers.api_replicas, layers.api_pool),
    };
    let line = format!(
        "server: {parts} + {MIGRATION} migration + {} exporter + {} replication + {SUPERUSER_RESERVED} superuser = {demand}",
        layers.exporter, layers.replication
    );
    match layers.max_connections {
        Some(max) => {
            let line = format!("{line}, max_connections = {max}");
            if demand > max {
                broken.push(format!(
                    "{line}: lower {} or raise max_connections of the server",
                    if layers.pooler.is_some() {
                        "pooler.pgbouncer.defaultPoolSize, reservePoolSize or replicas"
                    } else {
                        "api.databaseConnections or api.maxReplicas, put a pooler between,"
                    }
                ));
            }
            arithmetic.push(line);
        }
        None => arithmetic.push(format!(
            "{line}, max_connections of the external server is not known: set database.external.maxConnections"
        )),
    }

    let (state, lines) = if !broken.is_empty() {
        (BudgetState::Violated, broken)
    } else if layers.max_connections.is_none() {
        (BudgetState::Unknown, arithmetic)
    } else {
        (BudgetState::Holds, arithmetic)
    };
    ConnectionBudget { state, message: lines.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> Layers {
        Layers {
            api_replicas: 10,
            api_pool: 100,
            read_pool: false,
            pooler: Some(PoolerLayer { replicas: 2, pool: 50, reserve: 10, max_client_conn: 1000, asks: false }),
            exporter: 0,
            replication: 5,
            max_connections: Some(100),
        }
    }

    #[test]
    fn the_seeds_own_numbers_are_violations() {
        let budget = check(&seed());
        assert_eq!(budget.state, BudgetState::Violated);
        assert!(budget.message.contains("= 1100"), "{}", budget.message);
        assert!(budget.message.contains("max_connections = 100"), "{}", budget.message);
    }

    #[test]
    fn each_layer_is_checked_alone() {
        let clients_fit = Layers { api_pool: 10, ..seed() };
        assert_eq!(check(&clients_fit).state, BudgetState::Violated);
        let server_fits = Layers { max_connections: Some(1000), ..seed() };
        assert_eq!(check(&server_fits).state, BudgetState::Violated);
        let both = Layers { api_pool: 10, max_connections: Some(1000), ..seed() };
        assert_eq!(check(&both).state, BudgetState::Holds);
        let unknown = Layers { api_pool: 10, max_connections: None, ..seed() };
        assert_eq!(check(&unknown).state, BudgetState::Unknown);
        // What is known to be wrong is not hidden by what is unknown.
        assert_eq!(check(&Layers { max_connections: None, ..seed() }).state, BudgetState::Violated);
    }

    #[test]
    fn one_pooler_alone_leaves_nothing_when_it_is_away() {
        let pooler = PoolerLayer { replicas: 1, pool: 5, reserve: 1, max_client_conn: 1000, asks: false };
        let layers = Layers { api_pool: 1, pooler: Some(pooler), max_connections: Some(1000), ..seed() };
        assert_eq!(check(&layers).state, BudgetState::Violated);
    }

    #[test]
    fn a_second_pool_counts_at_the_pooler_and_not_at_the_primary() {
        let pooler = PoolerLayer { replicas: 2, pool: 10, reserve: 2, max_client_conn: 110, asks: false };
        let layers = Layers { api_pool: 10, pooler: Some(pooler), ..seed() };
        assert_eq!(check(&layers).state, BudgetState::Holds, "{}", check(&layers).message);
        let both = check(&Layers { read_pool: true, ..layers });
        assert_eq!(both.state, BudgetState::Violated);
        assert!(both.message.contains("x 2 (primary and replicas) = 220"), "{}", both.message);
        let direct = Layers { pooler: None, api_pool: 8, replication: 0, read_pool: true, ..layers };
        assert_eq!(check(&direct).state, BudgetState::Holds, "{}", check(&direct).message);
    }

    #[test]
    fn a_pooler_that_asks_for_passwords_needs_a_connection_more() {
        let pooler = PoolerLayer { replicas: 2, pool: 27, reserve: 2, max_client_conn: 1000, asks: false };
        let layers = Layers { api_pool: 10, pooler: Some(pooler), ..seed() };
        assert_eq!(check(&layers).state, BudgetState::Holds, "{}", check(&layers).message);
        let asking = Layers { pooler: Some(PoolerLayer { pool: 26, asks: true, ..pooler }), ..layers };
        assert_eq!(check(&asking).state, BudgetState::Holds, "{}", check(&asking).message);
        let more = Layers { pooler: Some(PoolerLayer { pool: 27, asks: true, ..pooler }), ..layers };
        assert_eq!(check(&more).state, BudgetState::Violated);
    }

    #[test]
    fn without_a_pooler_the_pods_count_against_the_server() {
        let layers = Layers { api_pool: 8, pooler: None, replication: 0, ..seed() };
        assert_eq!(check(&layers).state, BudgetState::Holds, "{}", check(&layers).message);
        assert_eq!(check(&Layers { api_pool: 9, ..layers }).state, BudgetState::Violated);
    }
}
