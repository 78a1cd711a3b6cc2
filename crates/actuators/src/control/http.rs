use super::ControlError;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;

/// LIMIT: bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// One HTTP/1.1 exchange with `address` on a connection of its own: status and body.
///
/// # Errors
/// [`ControlError::Unavailable`] without a connection, [`ControlError::TimedOut`] after `timeout`,
/// [`ControlError::Garbled`] for an answer that breaks off or is too long.
pub async fn request(
    address: &str,
    method: hyper::Method,
    path: &str,
    body: Vec<u8>,
    timeout: Duration,
) -> Result<(u16, Vec<u8>), ControlError> {
    let exchange = exchange(address, method, path, body, ANSWER_BYTES_MAX);
    tokio::time::timeout(timeout, exchange).await.map_err(|_| ControlError::TimedOut("the HTTP peer"))?
}

async fn exchange(
    address: &str,
    method: hyper::Method,
    path: &str,
    body: Vec<u8>,
    bytes_max: usize,
) -> Result<(u16, Vec<u8>), ControlError> {
    let unavailable = |source| ControlError::Unavailable { whom: "the HTTP peer", source };
    let garbled = |error: &dyn std::fmt::Display| ControlError::Garbled(error.to_string());
    let stream = TcpStream::connect(address).await.map_err(unavailable)?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| unavailable(std::io::Error::other(error)))?;
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, address)
        .header(hyper::header::CONTENT_TYPE, "application/json")
        .header(hyper::header::CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| garbled(&error))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| garbled(&error))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), bytes_max).collect().await;
        Ok((status, body.map_err(|error| garbled(&error))?.to_bytes().to_vec()))
    };
    // The connection makes progress only while it is polled; both end with the caller's future.
    tokio::pin!(answer);
    tokio::pin!(connection);
    tokio::select! {
        answered = &mut answer => return answered,
        _ = &mut connection => {}
    }
    answer.await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// The public entrance reads [`ANSWER_BYTES_MAX`]; the same code is tripped here with a smaller limit.
    #[tokio::test]
    async fn an_answer_is_read_up_to_its_limit() {
        for (length, fits) in [(1_000, true), (1_001, false)] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let answering = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = [0; 4_096];
                let _ = stream.read(&mut asked).await;
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
                let _ = stream.write_all(&[head.as_bytes(), &vec![b'x'; length]].concat()).await;
                let _ = stream.read(&mut asked).await;
            });
            let answer = exchange(&address, hyper::Method::GET, "/", Vec::new(), 1_000).await;
            match answer {
                Ok((200, body)) => assert!(fits && body.len() == length, "{length}"),
                Err(ControlError::Garbled(_)) => assert!(!fits, "{length}"),
                other => panic!("{length}: {other:?}"),
            }
            answering.await.unwrap();
        }
    }
}
