use super::{Change, Changed, ControlError, Counters, ProxyFile, ProxyState, Seal, SeenFence, SeenVersions, Targets};
use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const WHOM: &str = "the traffic proxy";
const TIMEOUT: Duration = Duration::from_secs(2);

/// A client of the traffic proxy. It reads the address file anew for every call, so it outlives proxies.
#[derive(Clone, Debug)]
pub struct Proxy {
    file: PathBuf,
}

impl Proxy {
    /// A client of the proxy of this data directory, running or not.
    #[must_use]
    pub fn new(dir: &Path) -> Proxy {
        Proxy { file: dir.join(super::PROXY_FILE) }
    }

    /// The proxy's addresses.
    ///
    /// # Errors
    /// [`ControlError::Unavailable`] before the proxy has written them.
    pub fn addresses(&self) -> Result<ProxyFile, ControlError> {
        let text = std::fs::read(&self.file).map_err(|source| ControlError::Unavailable { whom: WHOM, source })?;
        serde_json::from_slice(&text).map_err(|error| ControlError::Garbled(error.to_string()))
    }

    /// Everything the proxy holds.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    pub async fn state(&self) -> Result<ProxyState, ControlError> {
        parse(&self.ask(Method::GET, "/state", &()).await?)
    }

    /// What passed.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    pub async fn counters(&self) -> Result<Counters, ControlError> {
        parse(&self.ask(Method::GET, "/counters", &()).await?)
    }

    /// Changes settings.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    pub async fn put(&self, change: &Change) -> Result<Changed, ControlError> {
        parse(&self.ask(Method::PUT, "/settings", change).await?)
    }

    /// What was answered to the change with this key; `None`: it never took effect.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    pub async fn outcome(&self, key: &str) -> Result<Option<Changed>, ControlError> {
        let (status, body) = self.exchange(Method::GET, &format!("/settings/{}", encode(key)), &()).await?;
        if status == 404 { Ok(None) } else { parse(&judge(status, body)?).map(Some) }
    }

    /// Makes the proxy refuse changes of these fields under any older fence.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    pub async fn seal(&self, seal: &Seal) -> Result<(), ControlError> {
        self.ask(Method::PUT, "/fence", seal).await.map(|_| ())
    }

    /// Tells the proxy where instances listen.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    pub async fn set_targets(&self, targets: &Targets) -> Result<(), ControlError> {
        self.ask(Method::PUT, "/targets", targets).await.map(|_| ())
    }

    async fn ask(&self, method: Method, path: &str, body: &impl Serialize) -> Result<Vec<u8>, ControlError> {
        let (status, body) = self.exchange(method, path, body).await?;
        judge(status, body)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(u16, Vec<u8>), ControlError> {
        let address = self.addresses()?.control;
        let bytes = if method == Method::GET { Ok(Vec::new()) } else { serde_json::to_vec(body) };
        let bytes = bytes.map_err(|error| ControlError::Garbled(error.to_string()))?;
        super::http_request(&address, method, path, bytes, TIMEOUT).await.map_err(named)
    }
}

fn named(error: ControlError) -> ControlError {
    match error {
        ControlError::Unavailable { source, .. } => ControlError::Unavailable { whom: WHOM, source },
        ControlError::TimedOut(_) => ControlError::TimedOut(WHOM),
        other => other,
    }
}

/// The one place where the proxy's status codes get their meaning.
fn judge(status: u16, body: Vec<u8>) -> Result<Vec<u8>, ControlError> {
    match status {
        200..=299 => Ok(body),
        409 => Err(ControlError::Fenced { seen: parse::<SeenFence>(&body)?.seen }),
        412 => Err(ControlError::Drifted { versions: parse::<SeenVersions>(&body)?.versions }),
        400..=499 => Err(ControlError::Refused(format!("{status} {}", String::from_utf8_lossy(&body)))),
        _ => Err(ControlError::Garbled(format!("status {status}"))),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ControlError> {
    serde_json::from_slice(body).map_err(|error| ControlError::Garbled(error.to_string()))
}

/// Percent-encodes everything but unreserved characters, so that a key is one path segment.
fn encode(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_path_segment() {
        assert_eq!(encode("0123456789abcdef/s1~2!undo"), "0123456789abcdef%2Fs1~2%21undo");
    }

    #[test]
    fn status_codes_mean_what_the_table_says() {
        let body = br#"{"seen":{"epoch":3,"version":1}}"#.to_vec();
        assert!(matches!(judge(409, body), Err(ControlError::Fenced { seen }) if seen.epoch == 3));
        assert!(matches!(judge(412, br#"{"versions":{"a":1}}"#.to_vec()), Err(ControlError::Drifted { .. })));
        assert!(matches!(judge(409, b"?".to_vec()), Err(ControlError::Garbled(_))));
        assert!(matches!(judge(422, Vec::new()), Err(ControlError::Refused(_))));
        assert!(matches!(judge(500, Vec::new()), Err(ControlError::Garbled(_))));
    }
}
