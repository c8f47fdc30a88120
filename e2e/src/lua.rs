//! Argo CD's health checks, run by Lua 5.1 as Argo CD does: `obj` is the object, the answer is a status and a message.

use anyhow::{Context as _, Result, anyhow};
use mlua::serde::SerializeOptions;
use mlua::{Lua, LuaSerdeExt as _};
use serde_json::Value;

/// Runs a script over an object; status and message of its answer.
pub fn health(script: &str, object: &Value) -> Result<(String, String)> {
    let lua = Lua::new();
    let failed = |what: &'static str| move |error: mlua::Error| anyhow!("{what}: {error}");
    // A null is absent, as for Argo CD.
    let options = SerializeOptions::new().serialize_none_to_null(false).serialize_unit_to_null(false);
    let object = lua.to_value_with(object, options).map_err(failed("hand the object to Lua"))?;
    lua.globals().set("obj", object).map_err(failed("hand the object to Lua"))?;
    let answer = lua.load(script).eval().map_err(failed("run the script"))?;
    let answer: Value = lua.from_value(answer).map_err(failed("read the answer"))?;
    let status = answer["status"].as_str().context("the answer has no status")?;
    Ok((status.to_owned(), answer["message"].as_str().unwrap_or_default().to_owned()))
}
