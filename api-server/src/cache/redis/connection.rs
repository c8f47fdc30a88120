//! One connection for commands, to a server or to all of a cluster.

use bytes::Bytes;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, ResponsePolicy, RoutingInfo, SingleNodeRoutingInfo};
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisFuture, RedisResult, Value};

/// Servers of a cluster that are asked before it counts as away.
const PINGS: usize = 3;
/// Keys that one look at a server asks for.
const SCAN_COUNT: usize = 500;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) enum Connection {
    /// To a server.
    Single(MultiplexedConnection),
    /// To the servers of a cluster. It follows moved slots and fail-overs, and connects again by itself.
    Cluster(ClusterConnection),
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Connection {
    /// Whether a server answers; of a cluster any one: while others are away, a part of the keys can be had.
    pub(super) async fn ping(&mut self) -> RedisResult<()> {
        let ping = redis::cmd("PING");
        match self {
            Self::Single(connection) => ping.query_async(connection).await,
            Self::Cluster(connection) => {
                let any = || RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
                let mut answer = connection.route_command(ping.clone(), any()).await;
                for _ in 1..PINGS {
                    if answer.is_ok() {
                        break;
                    }
                    answer = connection.route_command(ping.clone(), any()).await;
                }
                answer.map(drop)
            }
        }
    }

    /// Whether the connection is of no more use after this; other errors are answers of a working Redis.
    pub(super) fn is_lost(&self, error: &RedisError) -> bool {
        // Only a new connection reads the password again.
        if error.kind() == ErrorKind::AuthenticationFailed || error.code() == Some("NOAUTH") {
            return true;
        }
        let Self::Single(_) = self else { return false };
        error.is_io_error()
            || error.is_connection_dropped()
            || error.is_timeout()
            || error.kind() == ErrorKind::Parse
            || matches!(error.code(), Some("LOADING" | "READONLY" | "MASTERDOWN"))
    }

    /// Where the walk over the keys that match a pattern begins.
    pub(crate) async fn scan(&mut self, pattern: &str) -> RedisResult<Vec<Page>> {
        match self {
            Self::Single(connection) => {
                let (cursor, keys) = scan(0, pattern).query_async(connection).await?;
                Ok(vec![Page { place: None, cursor, keys }])
            }
            Self::Cluster(connection) => {
                // Without a policy: the answer of each primary under its address.
                let everywhere = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, NO_POLICY));
                let answers = connection.route_command(scan(0, pattern), everywhere).await?;
                let answers: Vec<(String, (u64, Vec<Bytes>))> = answers_of(answers)?;
                let page = |(place, (cursor, keys))| Page { place: Some(place), cursor, keys };
                Ok(answers.into_iter().map(page).collect())
            }
        }
    }

    /// The next part of the walk; `None` at its end.
    pub(crate) async fn scan_on(&mut self, page: &Page, pattern: &str) -> RedisResult<Option<Page>> {
        if page.cursor == 0 {
            return Ok(None);
        }
        let command = scan(page.cursor, pattern);
        let (cursor, keys) = match (self, page.place.as_deref()) {
            (Self::Cluster(connection), Some(place)) => {
                let (host, port) = place.rsplit_once(':').unwrap_or((place, ""));
                let by_address =
                    SingleNodeRoutingInfo::ByAddress { host: host.to_owned(), port: port.parse().unwrap_or_default() };
                let answer = connection.route_command(command, RoutingInfo::SingleNode(by_address)).await?;
                FromRedisValue::from_redis_value(answer)?
            }
            (connection, _) => command.query_async(connection).await?,
        };
        Ok(Some(Page { place: page.place.clone(), cursor, keys }))
    }
}

/// No way to make one answer of many.
const NO_POLICY: Option<ResponsePolicy> = None;

/// A part of the keys.
#[derive(Debug)]
pub(crate) struct Page {
    /// Address of the server in a cluster.
    place: Option<String>,
    cursor: u64,
    /// The keys.
    pub(crate) keys: Vec<Bytes>,
}

fn scan(cursor: u64, pattern: &str) -> Cmd {
    let mut command = redis::cmd("SCAN");
    command.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_COUNT);
    command
}

fn answers_of<T: FromRedisValue>(value: Value) -> RedisResult<Vec<(String, T)>> {
    Ok(FromRedisValue::from_redis_value(value)?)
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        0
    }
}
