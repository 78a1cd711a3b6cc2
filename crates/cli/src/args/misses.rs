//! The arguments of `stanch misses`.

use super::ServerArgs;
use clap::Args;

/// `stanch misses`
#[derive(Debug, Args)]
pub(crate) struct MissesArgs {
    /// Which server, and how its answer is shown
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// It is so: what failed, and what had been restarted; nothing is suspected any more, and they restart together
    #[arg(long, value_name = "CALLER->CALLEE", value_parser = pair, conflicts_with = "dismiss")]
    pub(crate) accept: Option<(String, String)>,
    /// It is not so: take it back
    #[arg(long, value_name = "CALLER->CALLEE", value_parser = pair)]
    pub(crate) dismiss: Option<(String, String)>,
    /// With --accept and --dismiss: why; it is recorded
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
    /// With --accept and --dismiss: who says so; it is recorded
    #[arg(long = "as", value_name = "NAME", env = "USER", hide_env_values = true)]
    pub(crate) by: Option<String>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (caller, callee) = text.split_once("->").ok_or("not CALLER->CALLEE, for example \"inventory->payments\"")?;
    Ok((caller.to_owned(), callee.to_owned()))
}
