//! Opening an incident on a server and following it.

use crate::failure::Failure;
use client::Client;
use serde::Deserialize;
use server::incidents::view::View;
use std::time::Duration;
use tokio::time::Instant;

/// How often the incident is asked about.
const EVERY: Duration = Duration::from_millis(100);
/// LIMIT: answers missed in a row before the server counts as gone.
const MISSED_MAX: u32 = 100;
/// A server that takes connections and says nothing for so long counts as gone, too.
const GONE_AFTER: Duration = Duration::from_secs(30);

/// What is asked of the server.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Ask {
    pub(crate) target: String,
    pub(crate) preview: bool,
    pub(crate) lying_observer: Option<String>,
}

/// An asking that may be repeated.
#[derive(Debug, serde::Serialize)]
struct Keyed<'a> {
    #[serde(flatten)]
    ask: &'a Ask,
    key: String,
}

#[derive(Debug, Deserialize)]
struct Opened {
    incident: String,
}

/// A client of the server.
pub(crate) fn connect(server: &str) -> Result<Client, Failure> {
    Client::new(server).map_err(|error| Failure::usage(error.to_string()))
}

/// Opens an incident; answers its id.
pub(crate) async fn open(server: &str, ask: &Ask) -> Result<String, Failure> {
    let draw = server::engine::Env::real().draw().map_err(|error| Failure::internal(error.to_string()))?;
    let key = draw.iter().map(|byte| format!("{byte:02x}")).collect();
    let body = serde_json::to_vec(&Keyed { ask, key }).map_err(anyhow::Error::from)?;
    let (client, began) = (connect(server)?, Instant::now());
    let answer = loop {
        match client.post_bytes("/incidents", body.clone()).await {
            // The answer was lost or is late: the same key opens no second incident.
            Err(error) if error.may_have_acted() && began.elapsed() < GONE_AFTER => tokio::time::sleep(EVERY).await,
            answer => break answer,
        }
    };
    let (status, bytes) = answer.map_err(|error| {
        Failure::internal(format!("no server at {server}: {error}"))
            .next("stanch sandbox up, or stanch serve, or --server URL")
    })?;
    if status == 201 {
        let opened: Opened = serde_json::from_slice(&bytes).map_err(anyhow::Error::from)?;
        return Ok(opened.incident);
    }
    if status >= 500 {
        // Nothing is wrong with what was typed: the server says what is, and what to do.
        let told = Failure::internal(String::from_utf8_lossy(&bytes).into_owned());
        return Err(told.next("the same command again, once that is mended"));
    }
    Err(Failure::usage(String::from_utf8_lossy(&bytes).into_owned())
        .next("stanch group SERVICE --server URL lists what the graph knows of a service"))
}

/// Follows an incident to its end; hands every new line to `each`.
pub(crate) async fn follow(server: &str, incident: &str, each: impl FnMut(&str)) -> Result<View, Failure> {
    follow_every(EVERY, server, incident, each).await
}

async fn follow_every(
    every: Duration,
    server: &str,
    incident: &str,
    mut each: impl FnMut(&str),
) -> Result<View, Failure> {
    let client = connect(server)?;
    let (mut shown, mut missed, mut heard) = (0, 0, Instant::now());
    loop {
        let answer = client.get_bytes(&format!("/incidents/{incident}")).await;
        match answer.map(|(status, body)| (status, serde_json::from_slice::<View>(&body).ok())) {
            Ok((200, Some(view))) => {
                (missed, heard) = (0, Instant::now());
                if view.lines.len() < shown {
                    shown = 0;
                    each("server         came back; the incident goes on where its stages end");
                }
                for line in view.lines.iter().skip(shown) {
                    each(line);
                }
                shown = shown.max(view.lines.len());
                if view.outcome.is_some() {
                    return Ok(view);
                }
            }
            Ok((404, _)) => {
                let text = format!("no incident `{incident}` on {server}");
                return Err(Failure::usage(text).next(format!("curl {server}/incidents, which lists them")));
            }
            Ok(_) | Err(_) => missed += 1,
        }
        if missed > MISSED_MAX || heard.elapsed() > GONE_AFTER {
            return Err(Failure::internal(format!("{server} does not answer any more")).next(format!(
                "stanch recover --resume {incident} --server {server}, once it is back: the incident goes on by itself"
            )));
        }
        tokio::time::sleep(every).await;
    }
}

/// The sealed bundle.
pub(crate) async fn bundle(server: &str, incident: &str) -> Result<Vec<u8>, Failure> {
    let answer = connect(server)?.get_bytes(&format!("/incidents/{incident}/bundle")).await;
    let (status, bytes) = answer.map_err(|error| Failure::internal(format!("no server at {server}: {error}")))?;
    if status == 200 { Ok(bytes) } else { Err(Failure::usage(String::from_utf8_lossy(&bytes).into_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test(start_paused = true)]
    async fn a_server_that_takes_connections_and_says_nothing_is_gone_after_a_while() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let began = Instant::now();
        let gone = follow(&url, "abc", |_| ()).await.unwrap_err();
        assert!(gone.message.contains("does not answer any more"), "{gone:?}");
        assert!(began.elapsed() <= GONE_AFTER * 2, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn an_asking_whose_answer_is_lost_is_repeated_and_is_the_same() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = tokio::spawn(async move {
            let mut bodies = Vec::new();
            for answer in ["", "HTTP/1.1 201 Created\r\ncontent-length: 16\r\n\r\n{\"incident\":\"a\"}"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"}") {
                    assert!(stream.read_buf(&mut request).await.unwrap() > 0);
                }
                let text = String::from_utf8(request).unwrap();
                bodies.push(text.split_once("\r\n\r\n").unwrap().1.to_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            bodies
        });
        let ask = Ask { target: "checkout".to_owned(), preview: false, lying_observer: None };
        assert_eq!(open(&url, &ask).await.unwrap(), "a");
        let bodies = asked.await.unwrap();
        assert!(bodies[0] == bodies[1] && bodies[0].contains("\"key\":\""), "{bodies:?}");
        assert_eq!(open(&url, &ask).await.unwrap_err().exit, 1, "nobody listens any more: at once");
    }

    #[tokio::test]
    async fn a_server_that_is_gone_is_asked_so_often_and_no_more() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let view = View { lines: vec!["seen".to_owned()], ..View::default() };
        let view = serde_json::to_string(&view).unwrap();
        let asked = tokio::spawn(async move {
            let mut asked = 0_u32;
            // One answer that is none in the middle; one that is counts from the beginning.
            while let Ok((mut stream, _)) = listener.accept().await {
                asked += 1;
                let mut request = [0; 4_096];
                let _ = stream.read(&mut request).await;
                let answer = if asked == 10 { view.as_str() } else { "not JSON" };
                let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", answer.len());
                let _ = stream.write_all(format!("{head}{answer}").as_bytes()).await;
                if asked == 10 + MISSED_MAX + 1 {
                    break;
                }
            }
            asked
        });
        let mut lines = Vec::new();
        let gone = follow_every(Duration::ZERO, &url, "abc", |line| lines.push(line.to_owned())).await.unwrap_err();
        assert!(gone.exit == 1 && gone.message.contains("does not answer any more"), "{gone:?}");
        assert!(gone.next.unwrap().starts_with("stanch recover --resume abc"));
        assert_eq!((asked.await.unwrap(), lines.as_slice()), (10 + MISSED_MAX + 1, ["seen".to_owned()].as_slice()));
    }
}
