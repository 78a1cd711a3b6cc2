use super::{AGENT_BYTES_MAX, AgentProposal, AgentView};
use actuators::Fut;
use actuators::control::http_request;
use std::time::Duration;

/// A way to agents: the status and the body of an answer, or why there is none.
pub trait Way: Send + Sync + std::fmt::Debug {
    /// Carries one question to `url` and its answer back, in `timeout` at most.
    fn post(&self, url: &str, body: Vec<u8>, timeout: Duration) -> Fut<'_, Result<(u16, Vec<u8>), String>>;
}

/// HTTP/1.1 over TCP.
#[derive(Clone, Copy, Debug)]
pub struct Http;

impl Way for Http {
    fn post(&self, url: &str, body: Vec<u8>, timeout: Duration) -> Fut<'_, Result<(u16, Vec<u8>), String>> {
        let rest = url.strip_prefix("http://").map(str::to_owned);
        Box::pin(async move {
            let rest = rest.ok_or_else(|| "not an http:// address".to_owned())?;
            let (address, path) = rest.split_once('/').unwrap_or((&rest, ""));
            let path = if path.is_empty() { "/propose".to_owned() } else { format!("/{path}/propose") };
            let answer = http_request(address, hyper::Method::POST, &path, body, timeout).await;
            answer.map_err(|error| error.to_string())
        })
    }
}

/// Asks an agent for a plan. Anything but a timely 200 with a body that parses is *unknown* (`None`).
/// Also gives what was said verbatim, for the record.
pub async fn ask(way: &dyn Way, url: &str, view: &AgentView, timeout: Duration) -> (Option<AgentProposal>, Vec<u8>) {
    let Ok(body) = serde_json::to_vec(view) else { return (None, Vec::new()) };
    if body.len() > AGENT_BYTES_MAX {
        return (None, Vec::new());
    }
    match way.post(url, body, timeout).await {
        Ok((200, answer)) if answer.len() <= AGENT_BYTES_MAX => (serde_json::from_slice(&answer).ok(), answer),
        Ok((_, answer)) => (None, answer.into_iter().take(AGENT_BYTES_MAX).collect()),
        Err(error) => (None, error.into_bytes()),
    }
}

#[cfg(test)]
mod tests;
