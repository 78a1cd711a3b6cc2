use super::{AGENT_BYTES_MAX, AgentProposal, AgentView};
use actuators::control::http_request;
use std::time::Duration;

/// Asks an agent for a plan. Anything but a timely 200 with a body that parses is *unknown* (`None`).
/// Also gives what was said verbatim, for the record.
pub async fn ask(url: &str, view: &AgentView, timeout: Duration) -> (Option<AgentProposal>, Vec<u8>) {
    let Some(rest) = url.strip_prefix("http://") else { return (None, Vec::new()) };
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = if path.is_empty() { "/propose".to_owned() } else { format!("/{path}/propose") };
    let Ok(body) = serde_json::to_vec(view) else { return (None, Vec::new()) };
    if body.len() > AGENT_BYTES_MAX {
        return (None, Vec::new());
    }
    match http_request(address, hyper::Method::POST, &path, body, timeout).await {
        Ok((200, answer)) if answer.len() <= AGENT_BYTES_MAX => (serde_json::from_slice(&answer).ok(), answer),
        Ok((_, answer)) => (None, answer.into_iter().take(AGENT_BYTES_MAX).collect()),
        Err(error) => (None, error.to_string().into_bytes()),
    }
}

#[cfg(test)]
mod tests;
