//! Documents of upstream's MySQL or MariaDB: a table for each kind, named in lower case, with the whole document as JSON.

use std::time::Duration;

use sqlx::mysql::MySqlConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, MySqlConnection, Row};
use url::Url;

use super::ImportOptions;
use super::http::read_line;
use super::source::{Content, Sent};
use crate::domain::kind::Kind;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The code of a table that does not exist: a kind that this Perses did not have yet.
const NO_TABLE: &str = "42S02";

/// Reads every table. The address names user, host, port and database; `--password-file` has the password.
pub(super) async fn read(url: &Url, options: &ImportOptions) -> Result<Content, String> {
    let mut mysql = MySqlConnectOptions::from_url(url)
        .map_err(|_| "--from: not an address such as mysql://user@host:3306/perses")?;
    if let Some(path) = &options.password_file {
        mysql = mysql.password(&read_line(path)?);
    }
    let place = format!("{}:{}", url.host_str().unwrap_or_default(), url.port().unwrap_or(3306));
    let mut connection = tokio::time::timeout(CONNECT_LIMIT, mysql.connect())
        .await
        .map_err(|_| format!("MySQL at {place} did not answer within {CONNECT_LIMIT:?}"))?
        .map_err(|error| format!("cannot connect to MySQL at {place}: {error}"))?;
    let mut content = Content::default();
    for kind in Kind::ALL {
        read_table(&mut connection, kind, &mut content).await?;
    }
    // What was to be read is read.
    let _ = connection.close().await;
    Ok(content)
}

async fn read_table(connection: &mut MySqlConnection, kind: Kind, content: &mut Content) -> Result<(), String> {
    let table = kind.as_str().to_lowercase();
    // JSON is a type of MySQL and a name for text in MariaDB: the cast gives text in both.
    let query = format!("SELECT id, CAST(doc AS CHAR) FROM `{table}` ORDER BY id");
    let rows = match sqlx::query(AssertSqlSafe(query)).fetch_all(connection).await {
        Ok(rows) => rows,
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(NO_TABLE) => return Ok(()),
        Err(error) => return Err(format!("cannot read the table {table}: {error}")),
    };
    for row in rows {
        let read = || -> Result<(String, String), sqlx::Error> { Ok((row.try_get(0)?, row.try_get(1)?)) };
        let (id, text) = read().map_err(|error| format!("cannot read a row of the table {table}: {error}"))?;
        match serde_json::from_str::<Sent>(&text) {
            Ok(sent) => content.documents.push(sent.document(kind)),
            Err(error) => content.unreadable.push(format!("table {table}, {id}: {error}")),
        }
    }
    Ok(())
}
