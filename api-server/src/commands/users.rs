//! `users renew-admin-password`: the last step of changing the first user's password.

use crate::config::Config;
use crate::service::admin::{self, Renewed};
use crate::state;

/// See [`admin::renew`].
///
/// # Errors
/// The configuration or the store cannot be used, in words.
pub async fn renew_admin_password(config: &Config) -> Result<Renewed, String> {
    let admin = config.security.authentication.initial_admin.as_ref();
    let admin = admin.ok_or("users renew-admin-password needs security.authentication.initial_admin")?;
    let store = state::open_store(config).map_err(|error| error.to_string())?;
    store.ready().await.map_err(|error| error.to_string())?;
    admin::renew(&*store, admin, state::case_sensitive(config)).await
}
